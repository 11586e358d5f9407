//! The shapes that the Admin API sends, as far as they are read. New fields may appear at any time.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, de};
use std::{borrow::Cow, fmt, sync::Arc};

use crate::domain::{
    certificate::{AdminKeyId, Certificate, CertificateId, Project, ProjectId},
    credential::AdminKey,
    reading::Listed,
    text::Name,
};

/// Beyond the year 9999 an instant is a mistake (milliseconds for seconds), and so unknown.
const LAST_SECOND: i64 = 253_402_300_799;

/// One page of any list.
#[derive(Clone, Deserialize)]
pub struct Page<T> {
    pub data: Arc<Vec<T>>,
    pub last_id: Option<String>,
    pub has_more: Option<bool>,
}

/// What a list is made of.
pub trait Item: serde::de::DeserializeOwned {
    fn id(&self) -> &str;
}

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
        impl de::Visitor<'_> for Visitor {
            type Value = Chosen;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
struct RawProject<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    name: Option<Chosen>,
    #[serde(borrow)]
    status: Option<Cow<'a, str>>,
    archived_at: Option<UnixTime>,
}

impl<'de> Deserialize<'de> for ListedProject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawProject::deserialize(deserializer)?;
        let id = id(ProjectId::parse(&raw.id))?;
        let archived = raw.status.as_deref() == Some("archived") || raw.archived_at.is_some();
        let name = raw.name.and_then(|name| name.0);
        Ok(ListedProject { project: Project { id, name }, archived })
    }
}

/// An id, or what is wrong with it.
fn id<T, E: de::Error>(parsed: Result<T, &str>) -> Result<T, E> {
    parsed.map_err(|why| E::custom(format_args!("id: {why}")))
}

impl Item for ListedProject {
    fn id(&self) -> &str {
        self.project.id.as_str()
    }
}

#[derive(Deserialize)]
struct RawCertificate<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
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

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawCertificate::deserialize(deserializer)?;
        let id = id(CertificateId::parse(&raw.id))?;
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
        Ok(Listed { certificate: Arc::new(certificate), active: raw.active })
    }
}

impl Item for Listed {
    fn id(&self) -> &str {
        self.certificate.id.as_str()
    }
}

/// An admin key. What the API shows of its value is compared and not kept.
pub struct ListedAdminKey {
    id: AdminKeyId,
    name: Option<Name>,
    created_at: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
    redacted_value: String,
}

#[derive(Deserialize)]
struct RawAdminKey<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    name: Option<Chosen>,
    created_at: Option<UnixTime>,
    expires_at: Option<UnixTime>,
    #[serde(default)]
    redacted_value: Option<String>,
}

impl<'de> Deserialize<'de> for ListedAdminKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawAdminKey::deserialize(deserializer)?;
        Ok(ListedAdminKey {
            id: id(AdminKeyId::parse(&raw.id))?,
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
    pub fn admin_key(&self, in_use: &str) -> AdminKey {
        let own = fits(&self.redacted_value, in_use);
        let (id, name) = (self.id.clone(), self.name.clone());
        AdminKey { id, name, created_at: self.created_at, expires_at: self.expires_at, own }
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
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = UnixTime;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of seconds")
            }
            fn visit_i64<E>(self, seconds: i64) -> Result<UnixTime, E> {
                Ok(UnixTime(seconds))
            }
            // Beyond 64 bits it is cut to their range, which is as strange.
            fn visit_u64<E>(self, seconds: u64) -> Result<UnixTime, E> {
                Ok(UnixTime(i64::try_from(seconds).unwrap_or(i64::MAX)))
            }
            fn visit_f64<E>(self, seconds: f64) -> Result<UnixTime, E> {
                Ok(UnixTime(seconds as i64))
            }
        }
        deserializer.deserialize_any(Visitor)
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
