//! The types of Admin API responses, with the fields that certvigil uses. Other fields are ignored.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, de, de::Error as _};
use std::{borrow::Cow, fmt, marker::PhantomData, sync::Arc};

use crate::domain::{
    certificate::{
        AdminKeyId, AuditEventId, Certificate, CertificateId, Project, ProjectId, Scope,
    },
    change::{Actor, ActorKind, AuditEvent, ChangeKind},
    credential::AdminKey,
    day::LAST_DAY,
    reading::Listed,
    text::Name,
};

/// Later times are a mistake (milliseconds instead of seconds), and treated as unknown.
const LAST_SECOND: i64 = 253_402_300_799;

/// The maximum number of items of a page: the requested number, which is the limit of the API.
pub const MAX_ITEMS: usize = 100;

/// One page of any list.
#[derive(Clone)]
pub struct Page<T> {
    pub data: Arc<Vec<T>>,
    /// The errors of items that are not in `data`, with their positions.
    pub odd: Arc<[String]>,
    /// The cursor of the next page: `last_id`, or the id of the last item.
    pub last_id: Option<String>,
    pub has_more: Option<bool>,
    /// Whether the page has no items, unreadable ones included.
    pub is_empty: bool,
}

/// A received page, with parsed items or raw JSON.
#[derive(Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
pub struct RawPage<T> {
    #[serde(deserialize_with = "limited")]
    pub data: Vec<T>,
    pub last_id: Option<String>,
    pub has_more: Option<bool>,
}

/// Rejects a page with more items than requested, which limits memory.
fn limited<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    struct Visitor<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of items")
        }
        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(MAX_ITEMS));
            while let Some(item) = seq.next_element()? {
                if items.len() == MAX_ITEMS {
                    let why = "the page has more items than the 100 that were requested";
                    return Err(de::Error::custom(why));
                }
                items.push(item);
            }
            Ok(items)
        }
    }
    from.deserialize_seq(Visitor(PhantomData))
}

impl<T: Item> From<RawPage<T>> for Page<T> {
    fn from(raw: RawPage<T>) -> Page<T> {
        let last_id = raw.last_id.or_else(|| raw.data.last().map(|last| last.id().to_owned()));
        let (is_empty, has_more) = (raw.data.is_empty(), raw.has_more);
        Page { data: Arc::new(raw.data), odd: Arc::default(), last_id, has_more, is_empty }
    }
}

/// An item of a list.
pub trait Item: serde::de::DeserializeOwned {
    fn id(&self) -> &str;

    /// The item of an unreadable object with this id, if the id is enough.
    fn with_id_only(id: &str) -> Option<Self>;
}

/// The id of an unreadable item.
#[derive(Deserialize)]
pub struct IdOnly {
    pub id: String,
}

pub struct ListedProject {
    pub project: Project,
    pub archived: bool,
}

/// A name chosen by users. One with invalid text (half a surrogate pair, RFC 8259, section 8.2, or
/// invalid UTF-8) must not make the whole list unreadable.
struct LenientName(Option<Name>);

impl<'de> Deserialize<'de> for LenientName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LenientName, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = LenientName;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<LenientName, E> {
                Ok(LenientName(Name::clean(&String::from_utf8_lossy(bytes))))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

#[derive(Deserialize)]
struct RawProject<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    name: Option<LenientName>,
    #[serde(borrow)]
    status: Option<Cow<'a, str>>,
    archived_at: Option<UnixTime>,
}

impl<'de> Deserialize<'de> for ListedProject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawProject::deserialize(deserializer)?;
        let id = id(ProjectId::parse(&raw.id))?;
        // The status decides; without it, the time of archiving. 0 means none.
        let archived = match raw.status.as_deref() {
            Some(status) => status == "archived",
            None => raw.archived_at.is_some_and(|at| at.instant().is_some()),
        };
        let name = raw.name.and_then(|name| name.0);
        Ok(ListedProject { project: Project { id, name }, archived })
    }
}

/// Adds the field to the error of an id.
fn id<T, E: de::Error>(parsed: Result<T, &str>) -> Result<T, E> {
    parsed.map_err(|why| E::custom(format_args!("id: {why}")))
}

impl Item for ListedProject {
    fn id(&self) -> &str {
        self.project.id.as_str()
    }

    /// The id of a project is enough to read its certificates.
    fn with_id_only(id: &str) -> Option<ListedProject> {
        let id = ProjectId::parse(id).ok()?;
        Some(ListedProject { project: Project { id, name: None }, archived: false })
    }
}

#[derive(Deserialize)]
struct RawCertificate<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    name: Option<LenientName>,
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
            content: None,
            reported: None,
        };
        Ok(Listed { certificate: Arc::new(certificate), active: raw.active })
    }
}

impl Item for Listed {
    fn id(&self) -> &str {
        self.certificate.id.as_str()
    }

    fn with_id_only(_: &str) -> Option<Listed> {
        None
    }
}

/// A certificate that was requested with its content.
#[derive(Deserialize)]
pub struct WithContent {
    pub id: String,
    pub certificate_details: ContentDetails,
}

#[derive(Deserialize)]
pub struct ContentDetails {
    /// PEM.
    pub content: String,
}

/// An admin key. Its redacted value is compared and not kept.
pub struct ListedAdminKey {
    id: AdminKeyId,
    name: Option<Name>,
    created_at: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
    redacted_value: String,
    /// Id and name of its owner.
    pub owner: Option<(Name, Name)>,
}

#[derive(Deserialize)]
struct RawAdminKey<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    name: Option<LenientName>,
    created_at: Option<UnixTime>,
    expires_at: Option<UnixTime>,
    #[serde(default)]
    redacted_value: Option<String>,
    #[serde(default)]
    owner: serde_json::Value,
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
            owner: owner_text(&raw.owner, "id").zip(owner_text(&raw.owner, "name")),
        })
    }
}

impl Item for ListedAdminKey {
    fn id(&self) -> &str {
        self.id.as_str()
    }

    fn with_id_only(_: &str) -> Option<ListedAdminKey> {
        None
    }
}

impl ListedAdminKey {
    /// The key, marked if it matches the key in use.
    pub fn admin_key(&self, in_use: &str) -> AdminKey {
        let own = fits(&self.redacted_value, in_use);
        let (id, name) = (self.id.clone(), self.name.clone());
        AdminKey { id, name, created_at: self.created_at, expires_at: self.expires_at, own }
    }
}

/// A text of an owner. Unusual owners are ignored: only their names are missing then.
fn owner_text(owner: &serde_json::Value, key: &str) -> Option<Name> {
    Name::clean(owner.get(key)?.as_str()?)
}

/// The maximum number of certificates of an event. A request names at most 10.
const MAX_IN_EVENT: usize = 20;

/// An event of the audit log; `None` if it is not about certificates.
#[derive(Clone)]
pub struct ListedEvent {
    id: AuditEventId,
    pub event: Option<AuditEvent>,
}

/// IP addresses are not read.
#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    effective_at: UnixTime,
    project: Option<RawEventProject>,
    actor: Option<RawActor>,
    #[serde(rename = "certificate.created")]
    created: Option<RawChanged>,
    #[serde(rename = "certificate.updated")]
    updated: Option<RawChanged>,
    #[serde(rename = "certificate.deleted")]
    deleted: Option<RawChanged>,
    #[serde(rename = "certificates.activated")]
    activated: Option<RawSwitched>,
    #[serde(rename = "certificates.deactivated")]
    deactivated: Option<RawSwitched>,
}

#[derive(Deserialize)]
struct RawEventProject {
    id: Option<String>,
}

#[derive(Deserialize)]
struct RawChanged {
    id: String,
    name: Option<LenientName>,
}

#[derive(Deserialize)]
struct RawSwitched {
    certificates: Vec<RawChanged>,
}

#[derive(Deserialize)]
struct RawActor {
    session: Option<RawSession>,
    api_key: Option<RawApiKey>,
}

#[derive(Deserialize)]
struct RawSession {
    user: Option<RawUser>,
}

#[derive(Deserialize)]
struct RawApiKey {
    id: Option<String>,
    user: Option<RawUser>,
    service_account: Option<RawUser>,
}

#[derive(Deserialize)]
struct RawUser {
    id: Option<String>,
    email: Option<String>,
}

impl RawUser {
    fn actor(self, kind: ActorKind) -> Option<Actor> {
        let email = self.email.as_deref().and_then(Name::clean);
        Some(Actor { kind, id: Name::clean(&self.id?)?, name: None, email })
    }
}

impl RawActor {
    fn actor(self) -> Option<Actor> {
        if let Some(user) = self.session.and_then(|session| session.user) {
            return user.actor(ActorKind::User);
        }
        let key = self.api_key?;
        let user = key.user.and_then(|user| user.actor(ActorKind::User));
        let account = key.service_account;
        let account = account.and_then(|account| account.actor(ActorKind::ServiceAccount));
        let key = RawUser { id: key.id, email: None };
        user.or(account).or_else(|| key.actor(ActorKind::ApiKey))
    }
}

impl<'de> Deserialize<'de> for ListedEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawEvent::deserialize(deserializer)?;
        let id = id(AuditEventId::parse(&raw.id))?;
        let one = |changed: Option<RawChanged>| changed.map(|changed| vec![changed]);
        let several =
            |switched: Option<RawSwitched>| switched.map(|switched| switched.certificates);
        let (kind, changed) = match &*raw.kind {
            "certificate.created" => (ChangeKind::Uploaded, one(raw.created)),
            "certificate.updated" => (ChangeKind::Renamed, one(raw.updated)),
            "certificate.deleted" => (ChangeKind::Deleted, one(raw.deleted)),
            "certificates.activated" => (ChangeKind::Activated, several(raw.activated)),
            "certificates.deactivated" => (ChangeKind::Deactivated, several(raw.deactivated)),
            _ => return Ok(ListedEvent { id, event: None }),
        };
        let changed = changed
            .ok_or_else(|| D::Error::custom(format_args!("missing field `{}`", raw.kind)))?;
        if changed.len() > MAX_IN_EVENT {
            let why = format!("{} certificates, but a request names at most 10", changed.len());
            return Err(D::Error::custom(why));
        }
        let certificates = changed.into_iter().map(|changed| {
            let id = self::id(CertificateId::parse(&changed.id))?;
            Ok((id, changed.name.and_then(|name| name.0)))
        });
        let at = raw.effective_at.instant();
        // Only what a person does in the dashboard is booked under its own project.
        let by_person = raw
            .actor
            .as_ref()
            .is_some_and(|actor| actor.session.is_some() && actor.api_key.is_none());
        let scope = by_person.then(|| match raw.project {
            None => Some(Scope::Organization),
            Some(project) => ProjectId::parse(&project.id?).ok().map(Scope::Project),
        });
        let event = AuditEvent {
            id: id.clone(),
            at: at.ok_or_else(|| D::Error::custom("effective_at: not a time in Unix seconds"))?,
            kind,
            certificates: certificates.collect::<Result<_, D::Error>>()?,
            scope: scope.flatten(),
            actor: raw.actor.and_then(RawActor::actor),
        };
        Ok(ListedEvent { id, event: Some(event) })
    }
}

impl Item for ListedEvent {
    fn id(&self) -> &str {
        self.id.as_str()
    }

    fn with_id_only(_: &str) -> Option<ListedEvent> {
        None
    }
}

/// Whether a value matches a redacted one such as `sk-admin...def`: prefix, anything, suffix.
fn fits(redacted: &str, value: &str) -> bool {
    let hidden = |c: char| matches!(c, '.' | '*' | '…' | '•');
    let Some((start, rest)) = redacted.split_once(hidden) else {
        return false;
    };
    let end = rest.rsplit(hidden).next().unwrap_or_default();
    // Without a suffix, every key would match.
    !end.is_empty()
        && start.len() + end.len() <= value.len()
        && value.starts_with(start)
        && value.ends_with(end)
}

/// Unix seconds as reported.
#[derive(Clone, Copy)]
struct UnixTime(i64);

impl UnixTime {
    /// `None` for an implausible time; 0 and negative values mean a missing value.
    fn instant(self) -> Option<DateTime<Utc>> {
        (1..=LAST_SECOND)
            .contains(&self.0)
            .then(|| DateTime::from_timestamp(self.0.min(LAST_DAY), 0))
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
            // A value beyond 63 bits is clamped, and stays implausible.
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

/// An error of the API: `{"error": {"message", "code"}}`, or `{"error": "…"}` for missing scopes.
#[derive(Deserialize)]
pub struct ErrorBody {
    pub error: ErrorMessage,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub enum ErrorMessage {
    Text(String),
    Object {
        message: Option<String>,
        /// Values other than strings are ignored.
        #[serde(default)]
        code: serde_json::Value,
    },
}

impl ErrorMessage {
    /// The message, and the code if there is one.
    pub fn parts(self) -> (String, Option<String>) {
        let (message, code) = match self {
            ErrorMessage::Text(message) => (Some(message), None),
            ErrorMessage::Object { message, code } => (message, code.as_str().map(str::to_owned)),
        };
        (message.unwrap_or_default(), code.filter(|code| !code.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_in_use_matches_its_redacted_value() {
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

    #[test]
    fn implausible_times_are_unknown_and_times_print_with_four_digit_years() {
        let cases = [
            (0, None),
            (-5, None),
            (1, Some("1970-01-01T00:00:01+00:00")),
            (253_402_300_799, Some("9999-12-31T00:00:00+00:00")),
            (253_402_300_800, None),
            (1_800_000_000_000, None),
            (i64::MIN, None),
        ];
        for (seconds, expected) in cases {
            let instant = UnixTime(seconds).instant().map(|at| at.to_rfc3339());
            assert_eq!(instant.as_deref(), expected, "{seconds}");
        }
    }
}
