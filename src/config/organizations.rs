//! `[organizations.NAME]` and `[api]`.

use chrono::DateTime;
use std::time::Duration;
use url::Url;

use super::{check::Checker, fault::KeyPath, raw};
use crate::{
    admin_api::{self, MUTUAL_TLS},
    domain::{
        certificate::OrganizationName,
        credential::ClientIdentity,
        policy::ProtectionPolicy,
        selection::{Globs, Selection},
        threshold::Severity,
    },
    heartbeat,
    net::{Pem, fits_url, is_loopback},
    redact::quoted,
    secret::PLACES,
};

const BASE_URL: &str = "https://api.openai.com/v1";

/// One watched organization.
#[derive(Clone, Debug)]
pub struct Organization {
    pub api: admin_api::Settings,
    pub selection: Selection,
    pub include_inactive: bool,
    /// The validity of its client certificate, if configured.
    pub client_identity: Option<ClientIdentity>,
    pub protection: ProtectionPolicy,
    /// Sent after its scans.
    pub heartbeat: Option<heartbeat::Settings>,
}

pub fn check(checker: &mut Checker<'_>, whole: &raw::Raw) -> Vec<Organization> {
    let parent = KeyPath::of("organizations");
    // The defaults are checked once, at their own keys.
    let api = limits(checker, &KeyPath::of("api"), &whole.api);
    let start_fail = whole.monitoring.heartbeat_start_fail.unwrap_or(false);
    whole
        .organizations
        .iter()
        .filter_map(|(name, raw)| {
            let path = parent.key(name);
            checker.name(&path, name);
            let own = raw::Api {
                concurrency: raw.concurrency,
                requests_per_second: raw.requests_per_second,
                request_timeout: raw.request_timeout.clone(),
                max_attempts: raw.max_attempts,
            };
            let own = limits(checker, &path, &own);
            let organization = organization(checker, &path, name, raw, own.over(&api))?;
            let heartbeat = checker.place(
                &path.key("heartbeat_url"),
                raw.heartbeat_url.as_ref(),
                checker.needs.heartbeats(),
                fits_url,
            );
            checker.in_the_open(&path.key("heartbeat_url"), heartbeat.as_ref());
            let heartbeat = heartbeat.map(|url| heartbeat::Settings { url, start_fail });
            Some(Organization { heartbeat, ..organization })
        })
        .collect()
}

/// The valid keys of `[api]`.
struct Limits {
    concurrency: Option<usize>,
    requests_per_second: Option<u32>,
    request_timeout: Option<Duration>,
    max_attempts: Option<u32>,
}

impl Limits {
    fn over(self, other: &Limits) -> Limits {
        Limits {
            concurrency: self.concurrency.or(other.concurrency),
            requests_per_second: self.requests_per_second.or(other.requests_per_second),
            request_timeout: self.request_timeout.or(other.request_timeout),
            max_attempts: self.max_attempts.or(other.max_attempts),
        }
    }
}

fn limits(checker: &mut Checker<'_>, path: &KeyPath, raw: &raw::Api) -> Limits {
    Limits {
        concurrency: checker.within(&path.key("concurrency"), raw.concurrency, 1, 256),
        requests_per_second: checker.within(
            &path.key("requests_per_second"),
            raw.requests_per_second,
            0,
            10_000,
        ),
        request_timeout: checker
            .positive(&path.key("request_timeout"), raw.request_timeout.as_ref()),
        max_attempts: checker.within(&path.key("max_attempts"), raw.max_attempts, 1, 20),
    }
}

fn organization(
    checker: &mut Checker<'_>,
    path: &KeyPath,
    name: &str,
    raw: &raw::Organization,
    limits: Limits,
) -> Option<Organization> {
    let needed = checker.needs.organizations;
    let written = raw.admin_key.as_ref();
    let admin_key =
        checker.secret(&path.key("admin_key"), written, needed, admin_api::fits_admin_key);
    if admin_key.is_none() {
        checker.missing(&path.key("admin_key"), PLACES);
    }
    let url = raw.base_url.as_deref().unwrap_or(BASE_URL);
    let base_url = base_url(checker, &path.key("base_url"), url);
    if let Some(host) = base_url.as_ref().and_then(|url| url.host_str()) {
        warn_of_host(checker, path, host, raw.client_identity.is_some());
    }
    let selection = Selection {
        include: checker.globs(
            &path.key("include_projects"),
            raw.include_projects.as_ref(),
            Globs::all(),
        ),
        exclude: checker.globs(
            &path.key("exclude_projects"),
            raw.exclude_projects.as_ref(),
            Globs(Vec::new()),
        ),
        archived: raw.include_archived.unwrap_or(false),
    };
    let ca = checker.pem(&path.key("ca_file"), raw.ca_file.as_ref());
    let identity = raw.client_identity.as_ref().and_then(|identity| {
        let path = path.key("client_identity");
        let certificate = checker.pem(&path.key("certificate"), identity.certificate.as_ref());
        let fits = |key: &str| match &certificate {
            Some(certificate) => admin_api::fits_certificate(certificate, key),
            None => Ok(()),
        };
        let key = checker.secret(&path.key("key"), identity.key.as_ref(), needed, fits);
        if identity.certificate.is_none() {
            checker.missing(&path.key("certificate"), "a file with certificates (PEM)");
        }
        if key.is_none() {
            checker.missing(&path.key("key"), PLACES);
        }
        Some(admin_api::ClientIdentity { certificate: certificate?, key: key? })
    });
    let client_identity = identity.as_ref().and_then(|identity| {
        let path = path.key("client_identity").key("certificate");
        let read = validity(&identity.certificate);
        if read.is_none() {
            checker.fault(&path, "an unreadable certificate", "an X.509 certificate (PEM)");
        }
        read
    });
    let protection = protection(checker, path, raw);
    Some(Organization {
        api: admin_api::Settings {
            organization: OrganizationName::parse(name).ok()?,
            base_url: base_url?,
            admin_key: admin_key?,
            concurrency: limits.concurrency?,
            requests_per_second: limits.requests_per_second?,
            request_timeout: limits.request_timeout?,
            max_attempts: limits.max_attempts?,
            ca,
            identity,
        },
        selection,
        include_inactive: raw.include_inactive.unwrap_or(false),
        client_identity,
        protection: protection?,
        heartbeat: None,
    })
}

/// Warns if `base_url` does not match `client_identity`.
fn warn_of_host(checker: &mut Checker<'_>, path: &KeyPath, host: &str, shows_certificate: bool) {
    if !host.ends_with(".openai.com") || shows_certificate == admin_api::is_for_mutual_tls(host) {
        return;
    }
    let (path, what) = match shows_certificate {
        true => (
            path.key("client_identity"),
            format!("{host} does not request a client certificate: set base_url to {MUTUAL_TLS}"),
        ),
        false => (
            path.key("base_url"),
            format!("{host} requires a client certificate: set client_identity"),
        ),
    };
    checker.warnings.push(format!("{}: {path}: {what}", checker.origins.of(&path)));
}

fn protection(
    checker: &mut Checker<'_>,
    path: &KeyPath,
    raw: &raw::Organization,
) -> Option<ProtectionPolicy> {
    let none = || Globs(Vec::new());
    let severity = match raw.unprotected.as_deref() {
        None => ProtectionPolicy::default().severity,
        Some("off") => None,
        Some(word) => {
            let severity = Severity::parse(word);
            if severity.is_none() {
                let expected = "\"critical\", \"warning\", \"info\" or \"off\"";
                checker.fault(&path.key("unprotected"), quoted(word), expected);
                return None;
            }
            severity
        }
    };
    let expected = checker.globs(&path.key("expect_mtls"), raw.expect_mtls.as_ref(), none());
    if severity.is_none() && raw.expect_mtls.is_some() {
        checker.warnings.push(format!(
            "{}: has no effect, because unprotected = \"off\"",
            path.key("expect_mtls")
        ));
    }
    let ignored = raw.unprotected_ignore.as_ref();
    let ignored = checker.globs(&path.key("unprotected_ignore"), ignored, none());
    Some(ProtectionPolicy { expected, ignored, severity })
}

/// The validity of the first certificate of a chain, which is the client certificate (RFC 5280,
/// section 4.1.2.5).
fn validity(pem: &Pem) -> Option<ClientIdentity> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let first = CertificateDer::pem_slice_iter(&pem.0).next()?.ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&first).ok()?;
    let at = |time: x509_parser::time::ASN1Time| DateTime::from_timestamp(time.timestamp(), 0);
    let validity = certificate.validity();
    Some(ClientIdentity { valid_at: at(validity.not_before)?, expires_at: at(validity.not_after)? })
}

fn base_url(checker: &mut Checker<'_>, path: &KeyPath, text: &str) -> Option<Url> {
    let expected = "an https URL (http only on loopback) without user, query and fragment";
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => {
            checker.fault(path, format!("an invalid URL ({error})"), expected);
            return None;
        }
    };
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !plain {
        checker.fault(path, "a URL with a user, query or fragment", expected);
        return None;
    }
    if url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url)) {
        let host = url.host_str()?;
        let is_openai = host == "openai.com" || host.ends_with(".openai.com");
        if !is_openai && !is_loopback(&url) {
            checker.warnings.push(format!(
                "{}: {path}: the admin key is sent to {host}, which is outside openai.com",
                checker.origins.of(path)
            ));
        }
        if !url.path().trim_end_matches('/').ends_with("/v1") {
            checker.warnings.push(format!(
                "{}: {path}: the path of this URL does not end in /v1 (the API is at {BASE_URL})",
                checker.origins.of(path)
            ));
        }
        return Some(url);
    }
    checker.fault(path, quoted(url.as_str()), expected);
    None
}
