//! Refusals of the Admin API: their meaning and their remedy.
//!
//! The codes are those of OpenAI's mutual TLS guide (2026-08-29). Their HTTP status is not
//! documented, so the code decides. A 401 or 403 with an unknown code has no remedy: the API's
//! message gives the reason, such as a disallowed address or region.

use reqwest::Url;
use rustls::AlertDescription;
use std::fmt;

use crate::domain::text::one_line;

/// The host for mutual TLS, with its regional variants.
pub const MUTUAL_TLS: &str =
    "https://mtls.api.openai.com/v1 (in a region, mtls-us or mtls-eu instead of mtls)";
/// The text before the names of missing scopes.
const MISSING_SCOPES: &str = "Missing scopes:";
/// The longest name of a scope.
const MAX_SCOPE: usize = 60;
/// The maximum length of the API's message, in characters.
const LONGEST_MESSAGE: usize = 200;

/// Whether a host of OpenAI requests client certificates.
pub fn is_for_mutual_tls(host: &str) -> bool {
    host.starts_with("mtls") && host.ends_with(".openai.com")
}

/// The API address, and whether certvigil presents a client certificate.
#[derive(Clone, Copy, Debug)]
pub struct RefusalContext<'a> {
    pub base_url: &'a Url,
    /// Whether `client_identity` is set.
    pub certificate: bool,
}

/// A response with an unsuccessful HTTP status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    /// The API's error code, if certvigil knows a remedy for it.
    code: Option<Code>,
    /// The API's error message; may be empty.
    message: String,
    /// The cause and the remedy; may be empty.
    remedy: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    CertificateRequired,
    InvalidCertificate,
    CertificateVerificationFailed,
    CertificateAttributeVerificationFailed,
    AuthenticationTemporarilyUnavailable,
}

impl Code {
    const ALL: [(&'static str, Code); 5] = [
        ("certificate_required", Code::CertificateRequired),
        ("invalid_certificate", Code::InvalidCertificate),
        ("certificate_verification_failed", Code::CertificateVerificationFailed),
        ("certificate_attribute_verification_failed", Code::CertificateAttributeVerificationFailed),
        ("authentication_temporarily_unavailable", Code::AuthenticationTemporarilyUnavailable),
    ];

    fn parse(word: &str) -> Option<Code> {
        Code::ALL.iter().find(|(known, _)| *known == word).map(|(_, code)| *code)
    }

    fn as_str(self) -> &'static str {
        Code::ALL.iter().find(|(_, code)| *code == self).map_or("", |(word, _)| word)
    }

    fn remedy(self, shown: RefusalContext<'_>) -> String {
        let host = shown.base_url.host_str().unwrap_or_default();
        let is_openai = host.ends_with(".openai.com");
        match (self, shown.certificate) {
            (Code::CertificateRequired, false) => format!(
                "the API requires a client certificate: set client_identity of the organization, and base_url to \
                 {MUTUAL_TLS}"
            ),
            (Code::CertificateRequired, true) if is_openai && !is_for_mutual_tls(host) => format!(
                "the host in base_url does not request the certificate of client_identity: set \
                 base_url to {MUTUAL_TLS}"
            ),
            (Code::CertificateRequired, true) => {
                "the certificate of client_identity did not reach the API: a proxy in between \
                 terminates TLS without forwarding it"
                    .to_owned()
            }
            (
                Code::InvalidCertificate
                | Code::CertificateVerificationFailed
                | Code::CertificateAttributeVerificationFailed,
                false,
            ) => "the API received a client certificate, but client_identity is not set: a proxy \
                 in between presents its own"
                .to_owned(),
            (Code::InvalidCertificate, true) => INVALID.to_owned(),
            (Code::CertificateVerificationFailed, true) => UNTRUSTED.to_owned(),
            (Code::CertificateAttributeVerificationFailed, true) => {
                "the filter (CEL) of the trust anchor rejects the subject or the names (SANs) of \
                 the certificate of client_identity: change the filter or the certificate"
                    .to_owned()
            }
            (Code::AuthenticationTemporarilyUnavailable, _) => {
                "the API cannot check client certificates at the moment; certvigil retries"
                    .to_owned()
            }
        }
    }
}

const INVALID: &str = "the API rejects the certificate of client_identity: it must be valid now, \
                       allow client authentication (extendedKeyUsage clientAuth), have an authority key identifier, and come first in its file";
const UNTRUSTED: &str = "no active trust anchor accepts the certificate of client_identity: \
                         activate its CA in the organization, and append its intermediates to client_identity.certificate";

impl Refusal {
    /// `message` and `code` come from the body, without secrets; `list` is the path of the request.
    pub fn new(
        status: u16,
        message: &str,
        code: Option<&str>,
        list: &[&str],
        shown: RefusalContext<'_>,
    ) -> Refusal {
        let known = code.and_then(Code::parse);
        let scopes = missing_scopes(message);
        let remedy = match (known, status) {
            (Some(code), _) => code.remedy(shown),
            (None, _) if !scopes.is_empty() => lacks(&scopes, list),
            // The API's message gives the reason.
            (None, 401 | 403) if code.is_some_and(|code| code != "invalid_api_key") => {
                String::new()
            }
            (None, 401) => {
                "the admin key is wrong, revoked or expired (a project key cannot read this)"
                    .to_owned()
            }
            (None, 403) => {
                format!(
                    "the admin key has no permission to read this: {}",
                    match scope_of(list) {
                        Some(scope) => lacks(&[scope], list),
                        None => "reading the audit log needs a permission of its own; an owner of \
                                 the organization can create a key with it"
                            .to_owned(),
                    }
                )
            }
            (None, 300..=399) => {
                "a redirect, which certvigil does not follow; check base_url".to_owned()
            }
            (None, _) => String::new(),
        };
        Refusal { status, code: known, message: one_line(message, LONGEST_MESSAGE), remedy }
    }

    /// Whether the API refused the key or the client certificate.
    pub fn is_of_credentials(&self) -> bool {
        let is_final =
            self.code.is_some_and(|code| code != Code::AuthenticationTemporarilyUnavailable);
        is_final || matches!(self.status, 401 | 403)
    }

    /// Whether a retry can succeed.
    pub fn is_temporary(&self) -> bool {
        self.code == Some(Code::AuthenticationTemporarilyUnavailable)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        if let Some(code) = self.code {
            write!(f, " {}", code.as_str())?;
        }
        for part in [&self.remedy, &self.message] {
            if !part.is_empty() {
                write!(f, ": {part}")?;
            }
        }
        Ok(())
    }
}

/// The remedy for a TLS alert about the client certificate (RFC 8446, section 6.2); `None` for
/// other alerts.
pub fn of_alert(alert: AlertDescription, shown: RefusalContext<'_>) -> Option<String> {
    use AlertDescription as A;
    let meaning = match alert {
        A::CertificateRequired => Code::CertificateRequired.remedy(shown),
        // Servers also send this alert for a missing certificate.
        A::HandshakeFailure if !shown.certificate => return None,
        A::BadCertificate
        | A::UnsupportedCertificate
        | A::CertificateExpired
        | A::CertificateUnknown => match shown.certificate {
            true => INVALID.to_owned(),
            false => Code::CertificateRequired.remedy(shown),
        },
        A::UnknownCA | A::DecryptError if shown.certificate => UNTRUSTED.to_owned(),
        A::CertificateRevoked if shown.certificate => {
            "the certificate of client_identity is revoked: use another certificate".to_owned()
        }
        A::AccessDenied if shown.certificate => {
            "the certificate of client_identity is valid, but not allowed to read this".to_owned()
        }
        _ => return None,
    };
    Some(meaning)
}

/// The scopes that an error names as missing: `... Missing scopes: api.mtls.read.`
fn missing_scopes(message: &str) -> Vec<&str> {
    let Some((_, names)) = message.split_once(MISSING_SCOPES) else { return Vec::new() };
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
    let words = names.split(|c: char| c == ',' || c.is_whitespace());
    let words = words.map(|word| word.trim_end_matches('.'));
    words
        .take_while(|word| word.is_empty() || (word.contains('.') && word.chars().all(is_part)))
        .filter(|word| !word.is_empty() && word.len() <= MAX_SCOPE)
        .collect()
}

/// The scope that a request needs; `None` if it is not documented.
fn scope_of(list: &[&str]) -> Option<&'static str> {
    match list {
        [.., "audit_logs"] => None,
        list if list.contains(&"certificates") => Some("api.mtls.read"),
        _ => Some("api.management.read"),
    }
}

fn lacks(scopes: &[&str], list: &[&str]) -> String {
    let what = match list {
        [.., "certificates"] if list.contains(&"projects") => "a project’s certificates",
        [.., "certificates"] => "the organization’s certificates",
        [.., "certificates", _] => "the content of a certificate",
        [.., "audit_logs"] => "the audit log",
        [.., "admin_api_keys"] => "the admin keys",
        _ => "the projects",
    };
    match scopes {
        [scope] => format!("reading {what} needs the scope {scope}; create a key with this scope"),
        scopes => {
            format!(
                "reading {what} needs the scopes {}; create a key with these scopes",
                scopes.join(" and ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROJECTS: &[&str] = &["organization", "projects"];
    const LIST: &[&str] = &["organization", "certificates"];
    const OF_PROJECT: &[&str] = &["organization", "projects", "proj_a", "certificates"];
    const KEYS: &[&str] = &["organization", "admin_api_keys"];

    fn said(status: u16, body: &str, list: &[&str], base_url: &str, certificate: bool) -> String {
        let body: Option<super::super::wire::ErrorBody> = serde_json::from_str(body).ok();
        let base_url = base_url.parse().unwrap();
        let shown = RefusalContext { base_url: &base_url, certificate };
        let (message, code) = body.map(|body| body.error.parts()).unwrap_or_default();
        Refusal::new(status, &message, code.as_deref(), list, shown).to_string()
    }

    fn object(code: &str, message: &str) -> String {
        serde_json::json!({ "error": { "message": message, "type": "x", "code": code } })
            .to_string()
    }

    #[test]
    fn each_refusal_names_its_remedy() {
        let (plain, mutual) = ("https://api.openai.com/v1", "https://mtls.api.openai.com/v1");
        let proxy = "https://gateway.acme.example/v1";
        let cases = [
            (
                401,
                object("invalid_api_key", "Incorrect API key provided."),
                PROJECTS,
                plain,
                false,
                "HTTP 401: the admin key is wrong, revoked or expired (a project key cannot read this): Incorrect \
                 API key provided.",
            ),
            (
                401,
                object("ip_not_authorized", "Your request IP is not in the IP allowlist."),
                PROJECTS,
                plain,
                false,
                "HTTP 401: Your request IP is not in the IP allowlist.",
            ),
            (
                403,
                object(
                    "unsupported_country_region_territory",
                    "Country, region, or territory not supported",
                ),
                PROJECTS,
                plain,
                false,
                "HTTP 403: Country, region, or territory not supported",
            ),
            (
                403,
                r#"{"error": "You have insufficient permissions. Missing scopes: api.mtls.read."}"#
                    .to_owned(),
                LIST,
                plain,
                false,
                "HTTP 403: reading the organization’s certificates needs the scope api.mtls.read; create a key with this \
                 scope: You have insufficient permissions. Missing scopes: api.mtls.read.",
            ),
            (
                401,
                object("", "Missing scopes: api.management.read, api.mtls.read. Check your key."),
                KEYS,
                plain,
                false,
                "HTTP 401: reading the admin keys needs the scopes api.management.read and api.mtls.read; create a \
                 key with these scopes: Missing scopes: api.management.read, api.mtls.read. Check your key.",
            ),
            (
                403,
                r#"{"error": {"message": null}}"#.to_owned(),
                OF_PROJECT,
                plain,
                false,
                "HTTP 403: the admin key has no permission to read this: reading a project’s certificates needs the \
                 scope api.mtls.read; create a key with this scope",
            ),
            (
                400,
                object("certificate_required", "A client certificate is required."),
                PROJECTS,
                plain,
                false,
                "HTTP 400 certificate_required: the API requires a client certificate: set client_identity of the \
                 organization, and base_url to https://mtls.api.openai.com/v1 (in a region, mtls-us or mtls-eu instead of mtls): A client certificate is required.",
            ),
            (
                401,
                object("certificate_required", ""),
                PROJECTS,
                plain,
                true,
                "HTTP 401 certificate_required: the host in base_url does not request the \
                 certificate of client_identity: set base_url to https://mtls.api.openai.com/v1 (in a region, mtls-us or mtls-eu instead of mtls)",
            ),
            (
                401,
                object("certificate_required", ""),
                PROJECTS,
                proxy,
                true,
                "HTTP 401 certificate_required: the certificate of client_identity did not reach \
                 the API: a proxy in between terminates TLS without forwarding it",
            ),
            (
                401,
                object("invalid_certificate", ""),
                PROJECTS,
                mutual,
                true,
                "HTTP 401 invalid_certificate: the API rejects the certificate of \
                 client_identity: it must be valid now, allow client authentication (extendedKeyUsage clientAuth), have an authority key identifier, and come first in its file",
            ),
            (
                401,
                object("certificate_verification_failed", "No path."),
                PROJECTS,
                mutual,
                true,
                "HTTP 401 certificate_verification_failed: no active trust anchor accepts the \
                 certificate of client_identity: activate its CA in the organization, and append its intermediates to client_identity.certificate: No path.",
            ),
            (
                401,
                object("certificate_verification_failed", ""),
                PROJECTS,
                proxy,
                false,
                "HTTP 401 certificate_verification_failed: the API received a client \
                 certificate, but client_identity is not set: a proxy in between presents its own",
            ),
            (
                403,
                object("certificate_attribute_verification_failed", ""),
                PROJECTS,
                mutual,
                true,
                "HTTP 403 certificate_attribute_verification_failed: the filter (CEL) of the \
                 trust anchor rejects the subject or the names (SANs) of the certificate of client_identity: change the filter or the certificate",
            ),
            (
                503,
                object("authentication_temporarily_unavailable", "Try again."),
                PROJECTS,
                mutual,
                true,
                "HTTP 503 authentication_temporarily_unavailable: the API cannot check client certificates at the \
                 moment; certvigil retries: Try again.",
            ),
            (
                302,
                "".to_owned(),
                PROJECTS,
                plain,
                false,
                "HTTP 302: a redirect, which certvigil does not follow; check base_url",
            ),
            (
                500,
                object("", "The server had an error."),
                PROJECTS,
                plain,
                false,
                "HTTP 500: The server had an error.",
            ),
        ];
        for (status, body, list, base_url, certificate, expected) in cases {
            assert_eq!(said(status, &body, list, base_url, certificate), expected);
        }
    }
}
