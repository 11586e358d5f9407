//! The shapes that the Admin API sends, as far as they are read. New fields may appear at any time.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer};

use crate::domain::{
    certificate::{AdminKeyId, Certificate, CertificateId, Project, ProjectId},
    credential::AdminKey,
    inventory::Listed,
    text::Name,
};

/// Beyond the year 9999 an instant is a mistake (milliseconds for seconds), and so unknown.
const LAST_SECOND: i64 = 253_402_300_799;

/// One page of any list.
#[derive(Deserialize)]
pub struct Page<T> {
    pub data: Vec<T>,
    pub last_id: Option<String>,
    pub has_more: Option<bool>,
}

/// What a list is made of.
pub trait Item: serde::de::DeserializeOwned {
    fn id(&self) -> &str;
}

#[derive(Deserialize)]
#[serde(try_from = "RawProject")]
pub struct ListedProject {
    pub project: Project,
    pub archived: bool,
}

/// A name, which somebody else chose. JSON can hold what is no text (half a surrogate pair, RFC 8259,
/// section 8.2), and so can the bytes that it comes in: one such name must not make a whole list
/// unreadable.
struct Chosen(Option<Name>);

impl<'de> Deserialize<'de> for Chosen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Chosen, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Chosen;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a name")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Chosen, E> {
                Ok(Chosen(Name::clean(&String::from_utf8_lossy(bytes))))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

#[derive(Deserialize)]
struct RawProject {
    id: String,
    name: Option<Chosen>,
    status: Option<String>,
    archived_at: Option<UnixTime>,
}

impl TryFrom<RawProject> for ListedProject {
    type Error = String;

    fn try_from(raw: RawProject) -> Result<Self, String> {
        let id = ProjectId::parse(&raw.id).map_err(|why| format!("id: {why}"))?;
        let archived = raw.status.as_deref() == Some("archived") || raw.archived_at.is_some();
        let name = raw.name.and_then(|name| name.0);
        Ok(ListedProject { project: Project { id, name }, archived })
    }
}

impl Item for ListedProject {
    fn id(&self) -> &str {
        self.project.id.as_str()
    }
}

#[derive(Deserialize)]
#[serde(try_from = "RawCertificate")]
pub struct ListedCertificate(pub Listed);

#[derive(Deserialize)]
struct RawCertificate {
    id: String,
    name: Option<Chosen>,
    created_at: Option<UnixTime>,
    #[serde(default)]
    certificate_details: Option<Details>,
    active: bool,
}

#[derive(Deserialize)]
struct Details {
    valid_at: Option<UnixTime>,
    expires_at: Option<UnixTime>,
}

impl TryFrom<RawCertificate> for ListedCertificate {
    type Error = String;

    fn try_from(raw: RawCertificate) -> Result<Self, String> {
        let id = CertificateId::parse(&raw.id).map_err(|why| format!("id: {why}"))?;
        let details = raw.certificate_details;
        let (valid_at, expires_at) =
            details.map_or((None, None), |details| (details.valid_at, details.expires_at));
        let known = |time: Option<UnixTime>| time.and_then(UnixTime::instant);
        let certificate = Certificate {
            id,
            name: raw.name.and_then(|name| name.0),
            created_at: known(raw.created_at),
            valid_at: known(valid_at),
            expires_at: known(expires_at),
            strange_expiry: expires_at.filter(|at| at.instant().is_none()).map(|at| at.0),
        };
        Ok(ListedCertificate(Listed { certificate, active: raw.active }))
    }
}

impl Item for ListedCertificate {
    fn id(&self) -> &str {
        self.0.certificate.id.as_str()
    }
}

/// An admin key. What the API shows of its value is compared and not kept.
#[derive(Deserialize)]
#[serde(try_from = "RawAdminKey")]
pub struct ListedAdminKey {
    id: AdminKeyId,
    name: Option<Name>,
    created_at: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
    redacted_value: String,
}

#[derive(Deserialize)]
struct RawAdminKey {
    id: String,
    name: Option<Chosen>,
    created_at: Option<UnixTime>,
    expires_at: Option<UnixTime>,
    #[serde(default)]
    redacted_value: Option<String>,
}

impl TryFrom<RawAdminKey> for ListedAdminKey {
    type Error = String;

    fn try_from(raw: RawAdminKey) -> Result<Self, String> {
        Ok(ListedAdminKey {
            id: AdminKeyId::parse(&raw.id).map_err(|why| format!("id: {why}"))?,
            name: raw.name.and_then(|name| name.0),
            created_at: raw.created_at.and_then(UnixTime::instant),
            expires_at: raw.expires_at.and_then(UnixTime::instant),
            redacted_value: raw.redacted_value.unwrap_or_default(),
        })
    }
}

impl Item for ListedAdminKey {
    fn id(&self) -> &str {
        self.id.as_str()
    }
}

impl ListedAdminKey {
    /// The key, with whether it is the one in use.
    pub fn admin_key(self, in_use: &str) -> AdminKey {
        let own = fits(&self.redacted_value, in_use);
        let ListedAdminKey { id, name, created_at, expires_at, .. } = self;
        AdminKey { id, name, created_at, expires_at, own }
    }
}

/// Whether a value may be what is shown as `sk-admin...def`: its beginning, anything, and its end.
fn fits(redacted: &str, value: &str) -> bool {
    let hidden = |c: char| matches!(c, '.' | '*' | '…' | '•');
    let Some((start, rest)) = redacted.split_once(hidden) else {
        return false;
    };
    let end = rest.rsplit(hidden).next().unwrap_or_default();
    // What shows nothing of its end fits every key.
    !end.is_empty()
        && start.len() + end.len() <= value.len()
        && value.starts_with(start)
        && value.ends_with(end)
}

/// Unix seconds, as given.
#[derive(Clone, Copy)]
struct UnixTime(i64);

impl UnixTime {
    /// `None` where they name no instant that could be meant.
    fn instant(self) -> Option<DateTime<Utc>> {
        (-LAST_SECOND..=LAST_SECOND)
            .contains(&self.0)
            .then(|| DateTime::from_timestamp(self.0, 0))
            .flatten()
    }
}

impl<'de> Deserialize<'de> for UnixTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UnixTime, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        // Beyond 64 bits it is cut to their range, which is as strange.
        let seconds = number.as_i64().or_else(|| number.as_f64().map(|seconds| seconds as i64));
        Ok(UnixTime(seconds.unwrap_or(i64::MAX)))
    }
}

/// The API's own error, `{"error": {"message"}}`.
#[derive(Deserialize)]
pub struct ErrorBody {
    pub error: ErrorMessage,
}

#[derive(Deserialize)]
pub struct ErrorMessage {
    pub message: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_in_use_is_known_by_what_is_shown_of_it() {
        let key = "sk-admin-T3BlbkFJabcdef";
        let cases = [
            ("sk-admin...def", true),
            ("sk-admin-****cdef", true),
            ("sk-…def", true),
            ("...def", true),
            ("sk-admin...xyz", false),
            ("sk-proj...def", false),
            ("sk-admin...", false),
            ("", false),
            ("...", false),
            ("sk-admin-T3BlbkFJabcdef", false),
            ("sk-admin-T3BlbkFJab...bcdef", false),
        ];
        for (shown, expected) in cases {
            assert_eq!(fits(shown, key), expected, "{shown}");
        }
    }
}
