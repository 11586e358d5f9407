//! The content of a certificate: its fields in documents, and as lines for people.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::Serialize;
use utoipa::ToSchema;

use super::seconds;
use crate::{
    domain::{content::Defect, day},
    message::{CertificateView, wording},
};

/// What the certificate itself says (RFC 5280), read from its PEM.
#[derive(Serialize, ToSchema)]
pub struct Content {
    /// The distinguished name, in the form of RFC 4514.
    subject: String,
    issuer: String,
    /// Hexadecimal, as `openssl x509 -serial` prints it.
    serial: String,
    /// SHA-256 of the certificate: hexadecimal with colons.
    fingerprint: String,
    key: PublicKey,
    signature_algorithm: String,
    /// Hexadecimal with colons.
    subject_key_id: Option<String>,
    /// Hexadecimal with colons.
    authority_key_id: Option<String>,
    /// Whether the basic constraints make it a CA.
    is_ca: bool,
    /// Null without the extension, which allows every usage.
    key_usage: Option<Vec<String>>,
    not_before: DateTime<Utc>,
    not_after: DateTime<Utc>,
    /// Number of certificates in the PEM. Only the first one counts.
    certificates: usize,
    /// Why it may not work as a trust anchor.
    defects: Vec<Defect>,
}

/// The public key of a certificate.
#[derive(Serialize, ToSchema)]
pub struct PublicKey {
    /// `RSA`, `EC`, `Ed25519`, or the name of another algorithm.
    algorithm: String,
    /// Null if unknown.
    bits: Option<u32>,
    /// SHA-256 of the subject public key info: hexadecimal with colons.
    sha256: String,
}

impl Content {
    /// `None` if it is unknown.
    pub fn of(view: &CertificateView) -> Option<Content> {
        let content = view.content.as_deref()?;
        Some(Content {
            subject: content.subject.clone(),
            issuer: content.issuer.clone(),
            serial: content.serial.clone(),
            fingerprint: content.fingerprint.clone(),
            key: PublicKey {
                algorithm: content.key.kind.clone(),
                bits: content.key.bits,
                sha256: content.key.sha256.clone(),
            },
            signature_algorithm: content.signature.clone(),
            subject_key_id: content.subject_key_id.clone(),
            authority_key_id: content.authority_key_id.clone(),
            is_ca: content.is_ca,
            key_usage: content.key_usage.clone(),
            not_before: seconds(content.not_before),
            not_after: seconds(content.not_after),
            certificates: content.certificates,
            defects: view.defects.clone(),
        })
    }
}

/// The content as label and value; empty if it is unknown.
pub fn lines(view: &CertificateView, timezone: Tz) -> Vec<(&'static str, String)> {
    let Some(content) = &view.content else { return Vec::new() };
    let at = |at: DateTime<Utc>| day::local(at, timezone);
    let known = |id: &Option<String>| id.clone().unwrap_or_else(|| "none".to_owned());
    let issuer = match content.is_self_signed() {
        true => "itself".to_owned(),
        false => content.issuer.clone(),
    };
    let ca = if content.is_ca { "a CA" } else { "not a CA" };
    let usage = content.key_usage.as_ref().map_or("any key usage".to_owned(), |usage| {
        if usage.is_empty() { "no key usage".to_owned() } else { usage.join(", ") }
    });
    let dates = format!("{} to {}", at(content.not_before), at(content.not_after));
    let mut lines = vec![
        ("Subject", content.subject.clone()),
        ("Issuer", issuer),
        ("Serial", content.serial.clone()),
        ("Fingerprint", format!("SHA-256 {}", content.fingerprint)),
        ("Key", wording::key(&content.key)),
        ("Key fingerprint", format!("SHA-256 {}", content.key.sha256)),
        ("Signature", content.signature.clone()),
        ("Subject key id", known(&content.subject_key_id)),
        ("Issuer key id", known(&content.authority_key_id)),
        ("Usage", format!("{ca}, {usage}")),
        ("Own dates", dates),
    ];
    if let Some(reported) = wording::reported(view) {
        lines.push(("API", reported));
    }
    if !view.defects.is_empty() {
        let why: Vec<&str> = view.defects.iter().copied().map(wording::defect).collect();
        lines.push(("May not work", why.join("; ")));
    }
    if let Some(twin) = &view.duplicate_of {
        lines.push(("Duplicate of", wording::with_id(twin.name.as_ref(), &twin.id)));
    }
    lines
}
