//! Reads the content of a certificate from its PEM, which is untrusted input.

use aws_lc_rs::digest;
use chrono::{DateTime, Utc};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::iter;
use x509_parser::{
    asn1_rs::{Any, Oid, Tag},
    certificate::X509Certificate,
    extensions::{KeyUsage, ParsedExtension},
    objects::{oid_registry, oid2sn},
    oid_registry::{
        OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_SIG_ED448, OID_SIG_ED25519,
    },
    public_key,
    time::ASN1Time,
    x509::{SubjectPublicKeyInfo, X509Name},
};

use crate::domain::{
    content::{CERT_SIGN, Content, PublicKey},
    day::LAST_DAY,
    text::one_line,
};

/// The maximum size of a PEM, in bytes: the limit of the API.
pub const MAX_PEM: usize = 16 * 1_024;
/// The maximum length of a distinguished name, in characters.
const MAX_NAME: usize = 300;
/// The maximum length of other texts of a certificate, in characters. A key identifier has at most
/// 64 bytes.
const MAX_TEXT: usize = 200;

/// Why a PEM has no readable certificate.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    #[error("the PEM has {0} bytes, expected at most {MAX_PEM}")]
    TooLong(usize),
    #[error("no BEGIN CERTIFICATE block, expected a certificate (PEM)")]
    NoCertificate,
    #[error("the first certificate is not X.509 (DER): {0}")]
    Der(String),
}

/// The content of the first certificate; text between the blocks is ignored.
///
/// # Errors
/// If the PEM is too long, or its first certificate is unreadable.
pub fn read_pem(pem: &[u8]) -> Result<Content, PemError> {
    if pem.len() > MAX_PEM {
        return Err(PemError::TooLong(pem.len()));
    }
    let mut blocks = CertificateDer::pem_slice_iter(pem);
    let first = match blocks.next() {
        Some(Ok(first)) => first,
        Some(Err(error)) => return Err(PemError::Der(one_line(&error.to_string(), MAX_TEXT))),
        None => return Err(PemError::NoCertificate),
    };
    read_der(&first, 1 + blocks.filter(Result::is_ok).count())
}

/// The contents of the certificates of a configured chain: the first one, and the readable others.
///
/// # Errors
/// If the first one is unreadable.
pub fn read_chain(pem: &[u8]) -> Result<Vec<Content>, PemError> {
    let mut blocks = CertificateDer::pem_slice_iter(pem);
    let first = blocks.next().ok_or(PemError::NoCertificate)?;
    let first = first.map_err(|error| PemError::Der(one_line(&error.to_string(), MAX_TEXT)))?;
    let rest = blocks.filter_map(|block| read_der(&block.ok()?, 1).ok());
    Ok(iter::once(read_der(&first, 1)?).chain(rest).collect())
}

fn read_der(der: &[u8], certificates: usize) -> Result<Content, PemError> {
    let refused = |why: &dyn std::fmt::Display| PemError::Der(one_line(&why.to_string(), MAX_TEXT));
    let (rest, certificate) =
        x509_parser::parse_x509_certificate(der).map_err(|error| refused(&error))?;
    if !rest.is_empty() {
        return Err(refused(&"data after its end"));
    }
    let validity = certificate.validity();
    let time = |at: ASN1Time| {
        let at = DateTime::from_timestamp(at.timestamp().min(LAST_DAY), 0);
        at.ok_or_else(|| refused(&"impossible dates"))
    };
    let (not_before, not_after): (DateTime<Utc>, _) =
        (time(validity.not_before)?, time(validity.not_after)?);
    let is_ca = certificate
        .basic_constraints()
        .map_err(|error| refused(&error))?
        .is_some_and(|constraints| constraints.value.ca);
    let key_usage = certificate.key_usage().map_err(|error| refused(&error))?;
    let (subject_key_id, authority_key_id) = key_ids(&certificate);
    Ok(Content {
        subject: distinguished_name(certificate.subject()),
        issuer: distinguished_name(certificate.issuer()),
        serial: one_line(&serial(certificate.raw_serial()), MAX_TEXT),
        fingerprint: sha256(der),
        key: public_key(certificate.public_key()),
        signature: name_of(&certificate.signature_algorithm.algorithm),
        subject_key_id,
        authority_key_id,
        is_ca,
        key_usage: key_usage.map(|usage| usages(usage.value)),
        not_before,
        not_after,
        certificates,
    })
}

fn key_ids(certificate: &X509Certificate<'_>) -> (Option<String>, Option<String>) {
    let (mut subject, mut authority) = (None, None);
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => subject = Some(short_hex(id.0)),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                authority = id.key_identifier.as_ref().map(|id| short_hex(id.0));
            }
            _ => {}
        }
    }
    (subject, authority)
}

fn usages(usage: &KeyUsage) -> Vec<String> {
    [
        (usage.digital_signature(), "digitalSignature"),
        (usage.non_repudiation(), "nonRepudiation"),
        (usage.key_encipherment(), "keyEncipherment"),
        (usage.data_encipherment(), "dataEncipherment"),
        (usage.key_agreement(), "keyAgreement"),
        (usage.key_cert_sign(), CERT_SIGN),
        (usage.crl_sign(), "cRLSign"),
        (usage.encipher_only(), "encipherOnly"),
        (usage.decipher_only(), "decipherOnly"),
    ]
    .into_iter()
    .filter(|(is_set, _)| *is_set)
    .map(|(_, name)| name.to_owned())
    .collect()
}

fn public_key(info: &SubjectPublicKeyInfo<'_>) -> PublicKey {
    let algorithm = &info.algorithm;
    let curve = algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
    let (kind, bits) = match info.parsed() {
        Ok(public_key::PublicKey::RSA(key)) => ("RSA".to_owned(), bits_of(key.modulus)),
        Ok(public_key::PublicKey::EC(point)) => {
            // A point tells its size in whole bytes only.
            let of_curve = |oid| match oid {
                oid if oid == OID_EC_P256 => Some(256),
                oid if oid == OID_NIST_EC_P384 => Some(384),
                oid if oid == OID_NIST_EC_P521 => Some(521),
                _ => None,
            };
            let of_point = u32::try_from(point.key_size()).ok().filter(|bits| *bits > 0);
            ("EC".to_owned(), curve.and_then(of_curve).or(of_point))
        }
        _ if algorithm.algorithm == OID_SIG_ED25519 => ("Ed25519".to_owned(), Some(256)),
        _ if algorithm.algorithm == OID_SIG_ED448 => ("Ed448".to_owned(), Some(456)),
        _ => (name_of(&algorithm.algorithm), None),
    };
    PublicKey { kind, bits, sha256: sha256(info.raw) }
}

/// The number of significant bits of a big-endian number.
fn bits_of(number: &[u8]) -> Option<u32> {
    let at = number.iter().position(|byte| *byte != 0)?;
    let whole = u32::try_from(number.len() - at).ok()?.checked_mul(8)?;
    Some(whole - number.get(at)?.leading_zeros())
}

/// The short name of an algorithm or attribute, or the identifier in dotted form.
fn name_of(oid: &Oid<'_>) -> String {
    let name = oid2sn(oid, oid_registry()).map_or_else(|_| oid.to_id_string(), str::to_owned);
    one_line(&name, MAX_TEXT)
}

/// The form of RFC 4514: the last part comes first.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let shown = parts.iter().rev().map(|part| {
        let attributes = part
            .iter()
            .map(|one| format!("{}={}", attribute(one.attr_type()), value(one.attr_value())));
        attributes.collect::<Vec<_>>().join("+")
    });
    one_line(&shown.collect::<Vec<_>>().join(","), MAX_NAME)
}

/// The name of an attribute (RFC 4514, section 3).
fn attribute(oid: &Oid<'_>) -> String {
    let short = match oid.to_id_string().as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        _ => return name_of(oid),
    };
    short.to_owned()
}

/// The value of an attribute, with the escapes of RFC 4514, section 2.4.
fn value(any: &Any<'_>) -> String {
    let text = match any.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString => {
            String::from_utf8(any.data.to_vec()).ok()
        }
        Tag::BmpString => {
            let units = any.data.chunks_exact(2).map(|two| u16::from_be_bytes([two[0], two[1]]));
            char::decode_utf16(units).collect::<Result<String, _>>().ok()
        }
        // Latin-1, as OpenSSL reads it.
        Tag::T61String => Some(any.data.iter().map(|byte| char::from(*byte)).collect()),
        _ => None,
    };
    let Some(text) = text else {
        return format!("#{}", hex(&any.data[..any.data.len().min(64)], ""));
    };
    let last = text.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.chars().enumerate() {
        let special = match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => true,
            '#' => at == 0,
            ' ' => at == 0 || at == last,
            _ => false,
        };
        if special {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The serial number without leading zeros, as OpenSSL prints a positive one.
fn serial(raw: &[u8]) -> String {
    let significant = raw.iter().position(|byte| *byte != 0).map_or(&[0][..], |at| &raw[at..]);
    hex(significant, "")
}

fn sha256(data: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, data).as_ref(), ":")
}

fn short_hex(data: &[u8]) -> String {
    hex(&data[..data.len().min(64)], ":")
}

fn hex(data: &[u8], separator: &str) -> String {
    data.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(separator)
}
