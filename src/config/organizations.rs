//! `[organizations.NAME]` and `[api]`.

use url::Url;

use super::{
    check::Checker,
    http::url_schema,
    problem::{KeyPath, mismatch},
    raw,
    value::{Text, listed, selected, unexpected},
};
use crate::{
    admin_api::{self, AuditSettings, MUTUAL_TLS},
    domain::{
        certificate::OrganizationName,
        credential::{ClientIdentity, IssuerId},
        policy::ProtectionPolicy,
        selection::Selection,
    },
    heartbeat,
    net::{Pem, fits_url, is_loopback},
    secret::SECRET_FORMS,
    x509::{self, PemError},
};

const BASE_URL: &str = "https://api.openai.com/v1";

/// A monitored organization.
#[derive(Clone, Debug)]
pub struct Organization {
    pub api: admin_api::Settings,
    pub selection: Selection,
    pub include_inactive: bool,
    /// Whether to request the content of each certificate.
    pub certificate_content: bool,
    /// How to read the audit log; `None` to leave it alone.
    pub audit_log: Option<AuditSettings>,
    /// The validity of its client certificate, if configured.
    pub client_identity: Option<ClientIdentity>,
    pub protection: ProtectionPolicy,
    /// Requested after its scans.
    pub heartbeat: Option<heartbeat::Settings>,
}

pub fn check(checker: &mut Checker<'_>, whole: &raw::Raw) -> Vec<Organization> {
    let parent = KeyPath::of("organizations");
    let start_fail = whole.monitoring.heartbeat_start_fail;
    whole
        .organizations
        .iter()
        .filter_map(|(name, raw)| {
            let path = parent.key(name);
            checker.name(&path, name);
            let organization = organization(checker, &path, name, raw, &whole.api)?;
            let heartbeat = checker.place(
                &path.key("heartbeat_url"),
                raw.heartbeat_url.as_ref(),
                checker.needs.heartbeats(),
                fits_url,
            );
            checker.warn_about_plain_http(&path.key("heartbeat_url"), heartbeat.as_ref());
            let heartbeat = heartbeat.map(|url| heartbeat::Settings { url, start_fail });
            Some(Organization { heartbeat, ..organization })
        })
        .collect()
}

fn organization(
    checker: &mut Checker<'_>,
    path: &KeyPath,
    name: &str,
    raw: &raw::Organization,
    api: &raw::Api,
) -> Option<Organization> {
    let needed = checker.needs.organizations;
    let written = raw.admin_key.as_ref();
    let admin_key =
        checker.secret(&path.key("admin_key"), written, needed, admin_api::fits_admin_key);
    if admin_key.is_none() {
        checker.missing(&path.key("admin_key"), SECRET_FORMS);
    }
    let base_url = match &raw.base_url {
        Some(written) => Some(written.0.clone()),
        None => Url::parse(BASE_URL).ok(),
    };
    if let Some(url) = &base_url {
        warn_of_url(checker, path, url, raw.client_identity.is_some());
    }
    let selection = Selection {
        include: selected(&raw.include_projects),
        exclude: listed(&raw.exclude_projects),
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
            checker.missing(&path.key("key"), SECRET_FORMS);
        }
        Some(admin_api::ClientIdentity { certificate: certificate?, key: key? })
    });
    let client_identity = identity.as_ref().and_then(|identity| {
        let path = path.key("client_identity").key("certificate");
        match identity_of(&identity.certificate) {
            Ok(identity) => Some(identity),
            Err(why) => {
                let found = format!("an unreadable certificate ({why})");
                checker.fault(&path, &found, "X.509 certificates (PEM)");
                None
            }
        }
    });
    Some(Organization {
        api: admin_api::Settings {
            organization: OrganizationName::parse(name).ok()?,
            base_url: base_url?,
            admin_key: admin_key?,
            concurrency: raw.concurrency.unwrap_or(api.concurrency).0 as usize,
            requests_per_second: raw.requests_per_second.unwrap_or(api.requests_per_second).0,
            request_timeout: raw
                .request_timeout
                .as_ref()
                .unwrap_or(&api.request_timeout)
                .duration(),
            max_attempts: raw.max_attempts.unwrap_or(api.max_attempts).0,
            ca,
            identity,
        },
        selection,
        include_inactive: raw.include_inactive.unwrap_or(false),
        certificate_content: raw.certificate_content.unwrap_or(api.certificate_content),
        audit_log: audit_log(checker, path, raw),
        client_identity,
        protection: protection(checker, path, raw),
        heartbeat: None,
    })
}

/// Warns about an unusual URL, and if `base_url` does not match `client_identity`.
fn warn_of_url(checker: &mut Checker<'_>, path: &KeyPath, url: &Url, shows_certificate: bool) {
    let host = url.host_str().unwrap_or_default();
    let mut warn = |key: &str, what: String| {
        let path = path.key(key);
        checker.warnings.push(format!("{}: {path}: {what}", checker.origins.of(&path)));
    };
    let is_openai = host == "openai.com" || host.ends_with(".openai.com");
    if !is_openai && !is_loopback(url) {
        warn("base_url", format!("the admin key is sent to {host}, which is outside openai.com"));
    }
    if !url.path().trim_end_matches('/').ends_with("/v1") {
        let usual = format!("the path of this URL does not end in /v1 (the API is at {BASE_URL})");
        warn("base_url", usual);
    }
    match (shows_certificate, admin_api::is_for_mutual_tls(host)) {
        (true, false) if is_openai => warn(
            "client_identity",
            format!("{host} does not request a client certificate: set base_url to {MUTUAL_TLS}"),
        ),
        (false, true) if is_openai => {
            warn("base_url", format!("{host} requires a client certificate: set client_identity"))
        }
        (true | false, true | false) => {}
    }
}

fn audit_log(
    checker: &mut Checker<'_>,
    path: &KeyPath,
    raw: &raw::Organization,
) -> Option<AuditSettings> {
    let addresses = raw.audit_log_addresses.unwrap_or(false);
    let is_read = raw.audit_log.unwrap_or(false);
    if addresses && !is_read {
        let path = path.key("audit_log_addresses");
        checker.warnings.push(format!("{path}: has no effect without audit_log = true"));
    }
    is_read.then_some(AuditSettings { addresses })
}

fn protection(
    checker: &mut Checker<'_>,
    path: &KeyPath,
    raw: &raw::Organization,
) -> ProtectionPolicy {
    let severity = match &raw.unprotected {
        None => ProtectionPolicy::default().severity,
        Some(severity) => **severity,
    };
    if severity.is_none() && raw.expect_mtls.is_some() {
        checker.warnings.push(format!(
            "{}: has no effect, because unprotected = \"off\"",
            path.key("expect_mtls")
        ));
    }
    let expected = listed(&raw.expect_mtls);
    ProtectionPolicy { expected, ignored: listed(&raw.unprotected_ignore), severity }
}

/// The first certificate of a chain, which is the client certificate, and the issuers of all.
fn identity_of(pem: &Pem) -> Result<ClientIdentity, PemError> {
    let chain = x509::read_chain(&pem.0)?;
    let first = chain.first().ok_or(PemError::NoCertificate)?;
    Ok(ClientIdentity {
        valid_at: first.not_before,
        expires_at: first.not_after,
        issuers: chain
            .iter()
            .map(|one| IssuerId { name: one.issuer.clone(), key_id: one.authority_key_id.clone() })
            .collect(),
    })
}

/// The URL of an Admin API: https, or http on loopback.
#[derive(Clone, Debug)]
pub struct ApiUrl(Url);

impl Text for ApiUrl {
    fn parse(text: &str) -> Result<Self, String> {
        let expected = "an https URL (http only on loopback) without user, query and fragment";
        let url = Url::parse(text)
            .map_err(|error| mismatch(format!("an invalid URL ({error})"), expected))?;
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        if !plain {
            return Err(mismatch("a URL with a user, query or fragment", expected));
        }
        match url.scheme() {
            "https" => Ok(ApiUrl(url)),
            "http" if is_loopback(&url) => Ok(ApiUrl(url)),
            _ => unexpected(url.as_str(), expected),
        }
    }
    fn schema() -> serde_json::Value {
        url_schema()
    }
}
