//! Changes of certificates: who uploaded, renamed, activated, deactivated or deleted them, and when.
//!
//! There are two sources. The audit log has the actor and the time, but may be off, late or
//! incomplete, and it does not name the project of what an admin key does. The difference between
//! two scans has the project, and neither actor nor exact time. A change that both show is one
//! change. Nothing here decides about alerts on expiry.

mod compare;
mod join;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    certificate::{AuditEventId, CertificateId, Certificates, ProjectId, Scope},
    text::Name,
    unreadable::{ReadError, Unreadable},
    words::words,
};
pub use compare::Difference;
use join::{NewEvent, join};

/// How far before the last known event the next reading of the audit log starts: events may appear
/// late and out of order.
const OVERLAP: TimeDelta = TimeDelta::hours(1);
/// How late an event may appear after a longer silence.
const LATE: TimeDelta = TimeDelta::hours(24);
/// The maximum number of event ids that are remembered for the overlap.
const MAX_SEEN: usize = 20_000;
/// The maximum number of scopes that a change names.
const MAX_SCOPES: usize = 50;
/// The maximum number of changes that are kept of each certificate, in addition to its upload.
const KEPT: usize = 20;
/// The maximum number of uploads that are kept of each certificate: a second one contradicts the
/// first.
const MAX_UPLOADS: usize = 2;
/// The maximum number of changes that are kept of an organization, in addition to the uploads of
/// its certificates.
const MAX_CHANGES: usize = 2_000;
/// How long the changes of a certificate that no longer exists are kept.
const KEPT_AFTER_DELETION: TimeDelta = TimeDelta::days(30);

words! {
    ChangeKind {
        Uploaded = "uploaded",
        Renamed = "renamed",
        Activated = "activated",
        Deactivated = "deactivated",
        Deleted = "deleted",
    }
}

impl ChangeKind {
    /// Whether it happens in a project or for the organization.
    pub fn has_scope(self) -> bool {
        matches!(self, ChangeKind::Activated | ChangeKind::Deactivated)
    }
}

words! {
    ActorKind {
        User = "user",
        ServiceAccount = "service_account",
        /// An API key whose owner the audit log does not name.
        ApiKey = "api_key",
    }
}

/// Who made a change, according to the audit log. It never contains an IP address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Actor {
    pub kind: ActorKind,
    pub id: Name,
    /// The name of a service account, if the list of admin keys has it.
    pub name: Option<Name>,
    /// Only with `audit_log_addresses`.
    pub email: Option<Name>,
}

/// An event of the audit log about certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    pub id: AuditEventId,
    pub at: DateTime<Utc>,
    pub kind: ChangeKind,
    /// The certificates with their names at that time.
    pub certificates: Vec<(CertificateId, Option<Name>)>,
    /// `None` if it is unknown: events of admin keys are booked under the default project,
    /// wherever they happened.
    pub scope: Option<Scope>,
    pub actor: Option<Actor>,
}

/// A change of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateChange {
    pub kind: ChangeKind,
    pub certificate: CertificateId,
    /// Its name at that time.
    pub name: Option<Name>,
    /// Where it was activated or deactivated, at most 50 of `scopes_total`; empty if it is unknown.
    pub scopes: BTreeSet<Scope>,
    pub scopes_total: usize,
    /// The time of the latest event; without an event, the time of the scan that noticed it.
    pub at: DateTime<Utc>,
    /// Several if it is unknown who of them made which part of it; empty if it is unknown.
    pub actors: Vec<Actor>,
    /// The number of events of the audit log behind it; 0 if only the scans differ.
    pub events: usize,
    /// Without an event, the time after which it happened.
    pub since: Option<DateTime<Utc>>,
    /// Whether a difference between two scans showed it.
    pub compared: bool,
    /// The time of the scan that noticed it.
    pub seen_at: DateTime<Utc>,
    /// Whether that scan sent notices of it. The first reading of the audit log causes none.
    pub is_news: bool,
}

impl CertificateChange {
    fn set_scopes(&mut self, scopes: BTreeSet<Scope>) {
        self.scopes_total = scopes.len();
        self.scopes = scopes;
    }

    /// The projects in which it happened.
    pub fn projects(&self) -> impl Iterator<Item = &ProjectId> {
        self.scopes.iter().filter_map(Scope::project)
    }
}

/// What a scan read of the audit log.
#[derive(Clone, Debug, Default)]
pub struct AuditReading {
    pub events: Vec<AuditEvent>,
    /// Why events are missing, if some are.
    pub error: Option<ReadError>,
    /// Whether `error` allows to continue after the latest event.
    pub is_usable: bool,
    /// The names of the owners of admin keys, by id.
    pub key_owners: BTreeMap<Name, Name>,
    /// Whether e-mail addresses are kept.
    pub addresses: bool,
}

/// The audit log in a scan.
#[derive(Clone, Debug, Default)]
pub enum Audit {
    /// It is not wanted: known actors are dropped.
    Off,
    /// It was not read in this scan.
    #[default]
    Skipped,
    Read(AuditReading),
}

/// How far the audit log is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLog {
    /// The time of the first reading; earlier events are no news.
    pub begun_at: Option<DateTime<Utc>>,
    /// The time of the latest event, or later if all events up to then are known.
    pub latest: Option<DateTime<Utc>>,
    /// Whether e-mail addresses were kept.
    pub addresses: bool,
    /// Why the latest reading failed.
    pub unreadable: Option<Unreadable>,
    /// The events from the overlap, with their times.
    pub seen: BTreeMap<AuditEventId, DateTime<Utc>>,
}

/// The changes of an organization, and how far its audit log is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Latest first.
    pub all: Vec<CertificateChange>,
    /// `None` if the audit log is not read.
    pub audit_log: Option<AuditLog>,
}

impl Changes {
    /// The changes in the notices of the scan at `now`.
    pub fn news(&self, now: DateTime<Utc>) -> impl Iterator<Item = &CertificateChange> {
        self.all.iter().filter(move |one| one.is_news && one.seen_at == now)
    }

    /// The changes of a certificate, latest first.
    pub fn of<'a>(&'a self, id: &'a CertificateId) -> impl Iterator<Item = &'a CertificateChange> {
        self.all.iter().filter(move |one| one.certificate == *id)
    }

    /// Adds what a scan found.
    pub fn with(
        &self,
        audit: Audit,
        differences: Vec<Difference>,
        certificates: &Certificates,
        now: DateTime<Utc>,
    ) -> Changes {
        let mut earlier = self.all.clone();
        // Whether the log may be complete.
        let mut is_whole = false;
        let (new, audit_log) = match audit {
            Audit::Off => {
                earlier.iter_mut().for_each(|one| one.actors.clear());
                (Vec::new(), None)
            }
            Audit::Skipped => (Vec::new(), self.audit_log.clone()),
            Audit::Read(reading) => {
                if self.audit_log.is_none() {
                    // The log has them again.
                    earlier.retain(|one| one.events == 0);
                }
                let before = self.audit_log.clone().unwrap_or_default();
                let after = before.clone().after(&reading, now);
                is_whole = reading.error.is_none();
                (before.new_events(reading, &mut earlier), Some(after))
            }
        };
        let found = join(new, is_whole, differences, &mut earlier, now);
        earlier.extend(found);
        Changes { all: kept(earlier, certificates, now), audit_log }
    }
}

impl AuditLog {
    /// The events that were not known. Adds and removes the addresses of known actors as the
    /// configuration wants them.
    fn new_events(
        &self,
        reading: AuditReading,
        earlier: &mut [CertificateChange],
    ) -> Vec<NewEvent> {
        let mut events = reading.events;
        for actor in events.iter_mut().filter_map(|event| event.actor.as_mut()) {
            let is_account = actor.kind == ActorKind::ServiceAccount;
            let name = reading.key_owners.get(&actor.id).filter(|_| is_account);
            actor.name = name.cloned();
            actor.email.take_if(|_| !reading.addresses);
        }
        if !reading.addresses || !self.addresses {
            set_addresses(earlier, &events);
        }
        // For addresses that were not kept before, the whole log was read again.
        let known_until = self.known_until();
        let news_from = self.begun_at.map(|begun_at| begun_at - OVERLAP);
        let mut ids = BTreeSet::new();
        let is_new = |event: &AuditEvent| {
            // Pages that shift while they are read have an event twice.
            ids.insert(event.id.clone())
                && !self.seen.contains_key(&event.id)
                && known_until.is_none_or(|known| event.at > known)
        };
        let new = events.into_iter().filter(is_new).map(|event| NewEvent {
            is_news: news_from.is_some_and(|from| event.at >= from),
            event,
        });
        new.collect()
    }

    /// The time after which the next reading starts; `None` for the whole log, which is read again
    /// for addresses that were not kept.
    pub fn read_after(&self, addresses: bool) -> Option<DateTime<Utc>> {
        self.known_until().filter(|_| self.addresses || !addresses)
    }

    /// The time up to which all events are known.
    fn known_until(&self) -> Option<DateTime<Utc>> {
        self.latest.map(|latest| latest - OVERLAP)
    }

    fn after(mut self, reading: &AuditReading, now: DateTime<Utc>) -> AuditLog {
        let AuditReading { events, error, .. } = reading;
        if reading.is_usable {
            self.begun_at = self.begun_at.or(Some(now));
            self.addresses = reading.addresses;
            // An event from the future must not hide later ones.
            let latest = events.iter().map(|event| event.at.min(now)).max();
            self.latest = self.latest.max(latest);
            if error.is_none() {
                // A busy hour is not read again in every scan.
                self.latest = self.latest.map(|latest| latest.max(now - LATE));
            }
        }
        self.seen.extend(events.iter().map(|event| (event.id.clone(), event.at)));
        if let Some(known_until) = self.known_until() {
            self.seen.retain(|_, at| *at > known_until);
        }
        if self.seen.len() > MAX_SEEN {
            let mut seen: Vec<_> = std::mem::take(&mut self.seen).into_iter().collect();
            seen.sort_by_key(|(_, at)| Reverse(*at));
            self.seen = seen.into_iter().take(MAX_SEEN).collect();
        }
        let before = self.unreadable.take();
        let error = error.clone();
        self.unreadable = error.map(|error| Unreadable::after(before.as_ref(), error, now));
        self
    }
}

/// Sets the addresses of known actors to those in the events.
fn set_addresses(changes: &mut [CertificateChange], events: &[AuditEvent]) {
    let actors = events.iter().filter_map(|event| event.actor.as_ref());
    let addresses: BTreeMap<(ActorKind, &Name), &Name> =
        actors.filter_map(|one| Some(((one.kind, &one.id), one.email.as_ref()?))).collect();
    for actor in changes.iter_mut().flat_map(|change| &mut change.actors) {
        actor.email = addresses.get(&(actor.kind, &actor.id)).map(|email| Name::clone(email));
    }
}

/// The changes to keep, latest first: the news, and of each existing certificate its upload and the
/// latest ones.
fn kept(
    mut changes: Vec<CertificateChange>,
    certificates: &Certificates,
    now: DateTime<Utc>,
) -> Vec<CertificateChange> {
    changes.sort_by_key(|one| Reverse((one.at, one.seen_at)));
    let mut counts: BTreeMap<CertificateId, (usize, usize)> = BTreeMap::new();
    let mut others = 0;
    changes.retain(|one| {
        let exists = certificates.contains_key(&one.certificate);
        let (count, uploads) = counts.entry(one.certificate.clone()).or_default();
        *count += 1;
        *uploads += usize::from(one.kind == ChangeKind::Uploaded);
        let is_upload = one.kind == ChangeKind::Uploaded && exists && *uploads <= MAX_UPLOADS;
        let is_news = one.is_news && one.seen_at == now;
        let is_recent = exists || now - one.at <= KEPT_AFTER_DELETION;
        let is_kept = is_news || is_upload || (*count <= KEPT && is_recent);
        others += usize::from(is_kept && !is_upload);
        is_kept && (is_upload || others <= MAX_CHANGES)
    });
    for one in &mut changes {
        while one.scopes.len() > MAX_SCOPES {
            one.scopes.pop_last();
        }
    }
    changes
}

#[cfg(test)]
mod tests;
