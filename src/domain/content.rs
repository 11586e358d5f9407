//! The content of a certificate: what its PEM says, next to what the API reports.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::words::words;

/// The fields of a certificate's PEM that certvigil uses (RFC 5280, section 4).
///
/// Hexadecimal fields are in upper case, as `openssl x509` prints them. Texts are cleaned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// The distinguished name, in the form of RFC 4514.
    pub subject: String,
    pub issuer: String,
    pub serial: String,
    /// The SHA-256 fingerprint, with colons.
    pub fingerprint: String,
    pub key: PublicKey,
    /// The name of the signature algorithm, such as `sha256WithRSAEncryption`.
    pub signature: String,
    /// Subject key identifier, with colons.
    pub subject_key_id: Option<String>,
    /// Authority key identifier, with colons.
    pub authority_key_id: Option<String>,
    /// The basic constraints allow it to issue certificates.
    pub is_ca: bool,
    /// The names of the allowed usages (RFC 5280, section 4.2.1.3); `None` without the extension,
    /// which allows all.
    pub key_usage: Option<Vec<String>>,
    pub not_before: DateTime<Utc>,
    pub not_after: DateTime<Utc>,
    /// Number of certificates in the PEM. Only the first one counts.
    pub certificates: usize,
}

/// The public key of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey {
    /// `RSA`, `EC`, `Ed25519`, or the identifier of another algorithm.
    pub kind: String,
    /// The size in bits, if known.
    pub bits: Option<u32>,
    /// The SHA-256 of the subject public key info, with colons.
    pub sha256: String,
}

/// The usage that a trust anchor needs to issue client certificates.
pub const CERT_SIGN: &str = "keyCertSign";

/// The minimum size of an RSA key, in bits (NIST SP 800-131A).
const MIN_RSA: u32 = 2_048;

words! {
    /// Why a certificate may not work as a trust anchor.
    Defect {
        /// The PEM has several certificates.
        Bundle = "bundle",
        /// The basic constraints do not make it a CA.
        NotCa = "not_a_ca",
        /// Its key usage does not include `keyCertSign`.
        NoCertSign = "no_cert_sign",
        /// It is signed with SHA-1 or MD5, and not by itself.
        WeakSignature = "weak_signature",
        /// An RSA key under 2048 bits.
        ShortKey = "short_key",
        /// An older active object of the organization has the same content.
        Duplicate = "duplicate",
    }
}

impl Content {
    /// Whether its own key signed it, by its names and key identifiers.
    pub fn is_self_signed(&self) -> bool {
        let (own, issuer) = (&self.subject_key_id, &self.authority_key_id);
        self.subject == self.issuer && (own == issuer || own.is_none() || issuer.is_none())
    }

    /// Whether it may issue client certificates (RFC 5280, sections 4.2.1.3 and 4.2.1.9).
    pub fn can_issue(&self) -> bool {
        let usage = self.key_usage.as_ref();
        self.is_ca && usage.is_none_or(|usages| usages.iter().any(|one| one == CERT_SIGN))
    }

    /// Why it may not work as a trust anchor, by itself; the worst reason first.
    pub fn defects(&self) -> Vec<Defect> {
        let cannot_sign = self
            .key_usage
            .as_ref()
            .is_some_and(|usages| !usages.iter().any(|one| one == CERT_SIGN));
        let signature = self.signature.to_ascii_lowercase();
        let weak = signature.contains("sha1") || signature.contains("md5");
        let short = self.key.kind == "RSA" && self.key.bits.is_some_and(|bits| bits < MIN_RSA);
        [
            (!self.is_ca, Defect::NotCa),
            (cannot_sign, Defect::NoCertSign),
            (weak && !self.is_self_signed(), Defect::WeakSignature),
            (short, Defect::ShortKey),
            (self.certificates > 1, Defect::Bundle),
        ]
        .into_iter()
        .filter_map(|(applies, defect)| applies.then_some(defect))
        .collect()
    }

    /// Whether clients whose certificates this one signed chain to `other`, too: the same name, key
    /// and key identifier (RFC 5280, section 6.1: an issuer is found by its name). A filter of
    /// `other` may still reject them.
    pub fn signs_as(&self, other: &Content) -> bool {
        let (own, others) = (&self.subject_key_id, &other.subject_key_id);
        other.can_issue()
            && self.key.sha256 == other.key.sha256
            && self.subject == other.subject
            && (own == others || own.is_none() || others.is_none())
    }
}

/// The content of a certificate as last requested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Knowledge {
    Read(Arc<Content>),
    /// The request failed, or the PEM is unreadable.
    Unreadable(Failure),
}

/// A failed request of a content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub at: DateTime<Utc>,
    pub why: String,
    /// Whether the API rejected the key (401 or 403).
    pub refused: bool,
    /// Whether it may succeed at once: no response, a 429 or a 5xx.
    #[serde(default)]
    pub transient: bool,
}

impl From<Failure> for Knowledge {
    fn from(failure: Failure) -> Knowledge {
        Knowledge::Unreadable(failure)
    }
}

impl Knowledge {
    pub fn content(&self) -> Option<&Arc<Content>> {
        match self {
            Knowledge::Read(content) => Some(content),
            Knowledge::Unreadable(_) => None,
        }
    }

    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Knowledge::Read(_) => None,
            Knowledge::Unreadable(failure) => Some(failure),
        }
    }
}
