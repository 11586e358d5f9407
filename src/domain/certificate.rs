//! Ids, certificates, projects, and the scopes in which a certificate is active.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{content::Content, text::Name};

/// The maximum length of an id, in bytes. Ids of the API have about 30 characters.
const MAX_ID: usize = 200;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        /// Clones share the text.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses an id of the API.
            ///
            /// # Errors
            /// If the id cannot appear in a URL path or on a log line: empty, a dot segment, over
            /// 200 bytes, or with white space or invisible characters.
            pub fn parse(raw: &str) -> Result<Self, &'static str> {
                check_id(raw).map(|()| $name(raw.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Equality, with a fast path for clones.
            pub fn is(&self, other: &Self) -> bool {
                Arc::ptr_eq(&self.0, &other.0) || self == other
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// A certificate's id, `cert_…`.
    CertificateId
);
id!(
    /// A project's id, `proj_…`.
    ProjectId
);
id!(
    /// An admin key's id, `key_…`. Not the key.
    AdminKeyId
);
id!(
    /// The id of an event of the audit log, `audit_log-…`.
    AuditEventId
);
id!(
    /// The name under which an organization is configured.
    OrganizationName
);

fn check_id(raw: &str) -> Result<(), &'static str> {
    if raw.is_empty() {
        return Err("an id must not be empty");
    }
    if raw.len() > MAX_ID {
        return Err("an id has at most 200 bytes");
    }
    if raw == "." || raw == ".." {
        return Err("an id must not be \".\" or \"..\"");
    }
    let plain = raw.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain && (raw.contains(' ') || super::text::one_line(raw, MAX_ID) != raw) {
        return Err("an id has only visible characters and no spaces");
    }
    Ok(())
}

/// A CA certificate as the API reports it, independent of scope.
///
/// `None` means not reported: unknown, which is neither healthy nor expired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    pub id: CertificateId,
    pub name: Option<Name>,
    pub created_at: Option<DateTime<Utc>>,
    pub valid_at: Option<DateTime<Utc>>,
    pub expires_at: Option<DateTime<Utc>>,
    /// The reported expiry if it is implausible, such as milliseconds instead of seconds;
    /// `expires_at` is `None` then.
    #[serde(default)]
    pub strange_expiry: Option<i64>,
    /// Its own content, if known. The dates above then follow [`Certificate::with_content`].
    #[serde(skip)]
    pub content: Option<Arc<Content>>,
    /// The dates that the API reports, if the content replaces one of them.
    #[serde(skip)]
    pub reported: Option<Dates>,
}

/// The validity of a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dates {
    pub valid_at: Option<DateTime<Utc>>,
    pub expires_at: Option<DateTime<Utc>>,
}

/// Certificates by id. Unchanged certificates are shared with the previous inventory.
pub type Certificates = BTreeMap<CertificateId, Arc<Certificate>>;

/// The basis of a certificate's lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LifeFrom {
    ValidAt,
    /// The API does not report `valid_at`.
    CreatedAt,
    /// The start or the expiry is unknown: ten years are assumed, so that thresholds in percent are
    /// early rather than late.
    Unknown,
}

/// The assumed lifetime of a certificate with an unknown start or expiry.
pub(super) const UNKNOWN_LIFE: TimeDelta = TimeDelta::days(3_650);

impl Certificate {
    /// Combines two entries for the same certificate in one scan.
    ///
    /// They differ only if it was changed between two requests. The result does not depend on the
    /// order of pages and is the more cautious one: the earlier expiry, the later start.
    pub fn combine(self, other: Certificate) -> Certificate {
        Certificate {
            name: self.name.max(other.name),
            created_at: least(self.created_at, other.created_at),
            valid_at: self.valid_at.max(other.valid_at),
            expires_at: least(self.expires_at, other.expires_at),
            strange_expiry: self.strange_expiry.max(other.strange_expiry),
            id: self.id,
            content: None,
            reported: None,
        }
    }

    /// The dates that the API reports.
    pub fn reported(&self) -> Dates {
        let dates = Dates { valid_at: self.valid_at, expires_at: self.expires_at };
        self.reported.unwrap_or(dates)
    }

    /// The certificate as listed, without its content.
    pub fn as_listed(&self) -> Certificate {
        let Dates { valid_at, expires_at } = self.reported();
        Certificate { valid_at, expires_at, content: None, reported: None, ..self.clone() }
    }

    /// Whether a list has this entry for it.
    pub fn is_listed_as(&self, listed: &Certificate) -> bool {
        self.id == listed.id
            && self.name == listed.name
            && self.created_at == listed.created_at
            && self.strange_expiry == listed.strange_expiry
            && self.reported() == listed.reported()
    }

    /// Whether clients of this certificate chain to `other`, too; `None` if a content is unknown.
    pub fn signs_as(&self, other: &Certificate) -> Option<bool> {
        self.content.as_ref().zip(other.content.as_ref()).map(|(own, other)| own.signs_as(other))
    }

    /// Whether its content shows that it cannot issue client certificates.
    pub fn cannot_issue(&self) -> bool {
        self.content.as_ref().is_some_and(|content| !content.can_issue())
    }

    /// The expiry that the API reports and the certificate's own one, if they differ by more than a
    /// day.
    pub fn mismatch(&self) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        let reported = self.reported().expires_at?;
        let own = self.content.as_ref()?.not_after;
        ((reported - own).abs() > RENEWAL).then_some((reported, own))
    }

    /// Adds the content to a certificate as listed. A date that the API does not report is taken
    /// from the content. Of two dates that differ by more than a day, the stricter one counts: the
    /// earlier expiry, the later start. A smaller difference is rounding and changes nothing.
    #[must_use]
    pub fn with_content(self, content: Arc<Content>) -> Certificate {
        let reported = self.reported();
        let stricter =
            |reported: Option<DateTime<Utc>>, own: DateTime<Utc>, later: bool| match reported {
                Some(reported) if (reported - own).abs() <= RENEWAL => reported,
                Some(reported) if later => reported.max(own),
                Some(reported) => reported.min(own),
                None => own,
            };
        let dates = Dates {
            valid_at: Some(stricter(reported.valid_at, content.not_before, true)),
            expires_at: Some(stricter(reported.expires_at, content.not_after, false)),
        };
        Certificate {
            valid_at: dates.valid_at,
            expires_at: dates.expires_at,
            reported: (dates != reported).then_some(reported),
            content: Some(content),
            ..self
        }
    }

    /// The name, or the id of a certificate without one.
    pub fn title(&self) -> &str {
        self.name.as_ref().map_or(self.id.as_str(), Name::as_str)
    }

    /// The lifetime, and its basis.
    pub fn life(&self) -> (TimeDelta, LifeFrom) {
        let (from, basis) = match (self.valid_at, self.created_at) {
            (Some(valid_at), _) => (valid_at, LifeFrom::ValidAt),
            (None, Some(created_at)) => (created_at, LifeFrom::CreatedAt),
            (None, None) => return (UNKNOWN_LIFE, LifeFrom::Unknown),
        };
        match self.expires_at {
            Some(expires_at) => ((expires_at - from).max(TimeDelta::zero()), basis),
            None => (UNKNOWN_LIFE, LifeFrom::Unknown),
        }
    }

    /// Whether it is valid now; `false` if its expiry is unknown.
    pub fn is_valid(&self, now: DateTime<Utc>) -> bool {
        self.has_started(now) && self.expires_at.is_some_and(|expires_at| expires_at > now)
    }

    /// Whether its validity has started; `true` if the start is unknown.
    pub fn has_started(&self, now: DateTime<Utc>) -> bool {
        self.valid_at.is_none_or(|valid_at| valid_at <= now)
    }
}

/// A smaller change of an expiry is rounding or a correction, not a renewal.
const RENEWAL: TimeDelta = TimeDelta::days(1);

/// Whether two expiries are the same, apart from rounding and corrections.
pub fn same_expiry(a: Option<DateTime<Utc>>, b: Option<DateTime<Utc>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() < RENEWAL,
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    pub id: ProjectId,
    pub name: Option<Name>,
}

impl Project {
    /// The name, or the id of a project without one.
    pub fn title(&self) -> &str {
        self.name.as_ref().map_or(self.id.as_str(), Name::as_str)
    }
}

/// Where a certificate is active. Projects inherit the certificates of the organization.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    Organization,
    Project(ProjectId),
}

impl Scope {
    pub fn project(&self) -> Option<&ProjectId> {
        match self {
            Scope::Organization => None,
            Scope::Project(id) => Some(id),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Organization => f.write_str("the organization"),
            Scope::Project(id) => write!(f, "project {id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_could_break_a_path_or_a_log_line_is_rejected() {
        for bad in ["", ".", "..", "a b", "a\nb", "a\u{202e}b", &"x".repeat(201)] {
            assert!(CertificateId::parse(bad).is_err(), "{bad:?}");
        }
        for good in ["cert_abc", "proj-1", "0", "a/b?c", "…"] {
            assert!(CertificateId::parse(good).is_ok(), "{good:?}");
        }
    }
}
