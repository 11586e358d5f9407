//! Joins the events of the audit log and the differences between scans to changes.
//!
//! A change that both show is one change and causes one notice, in whichever order they arrive. An
//! event without a scope gets one only if nothing else can explain the difference. An ambiguous scope
//! stays unknown.

use chrono::{DateTime, TimeDelta, Utc};
use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{
        certificate::{CertificateId, Scope},
        text::Name,
    },
    Actor, AuditEvent, CertificateChange, ChangeKind, Difference,
};

/// How long a change that only the scans show waits for its event.
const WAIT: TimeDelta = TimeDelta::hours(24);
/// How far the time of an event may be outside the time between two scans: a list is read before
/// the end of its scan, and clocks differ.
const TOLERANCE: TimeDelta = TimeDelta::minutes(10);

/// An event of the audit log that was not known.
pub(super) struct NewEvent {
    pub event: AuditEvent,
    pub is_news: bool,
}

/// An event about one certificate.
struct Item {
    name: Option<Name>,
    at: DateTime<Utc>,
    scope: Option<Scope>,
    actor: Option<Actor>,
    is_news: bool,
}

type Key = (CertificateId, ChangeKind);

/// The new changes. Earlier changes are completed by their other half.
pub(super) fn join(
    events: Vec<NewEvent>,
    differences: Vec<Difference>,
    earlier: &mut Vec<CertificateChange>,
    now: DateTime<Utc>,
) -> Vec<CertificateChange> {
    let mut found: BTreeMap<Key, (Vec<Item>, Option<Difference>)> = BTreeMap::new();
    for NewEvent { event, is_news } in events {
        let scope = if event.kind.has_scope() { event.scope } else { Some(Scope::Organization) };
        for (certificate, name) in event.certificates {
            let (scope, actor) = (scope.clone(), event.actor.clone());
            let item = Item { name, at: event.at, scope, actor, is_news };
            found.entry((certificate, event.kind)).or_default().0.push(item);
        }
    }
    for one in differences {
        let key = (one.certificate.clone(), one.kind);
        found.entry(key).or_default().1 = Some(one);
    }
    let mut new = Vec::new();
    for (key, (items, difference)) in found {
        let (scoped, unscoped): (Vec<Item>, Vec<Item>) =
            items.into_iter().partition(|item| item.scope.is_some());
        let mut group = Group { key, difference, explained: BTreeSet::new(), earlier, now };
        for (_, items) in by_actor(scoped) {
            new.push(group.of_scoped(&items));
        }
        group.forget_explained();
        new.extend(group.of_unscoped(unscoped));
        new.extend(group.of_difference());
    }
    earlier.retain(|one| one.events > 0 || one.scopes_total > 0);
    new
}

fn by_actor(items: Vec<Item>) -> BTreeMap<Option<Actor>, Vec<Item>> {
    let mut groups: BTreeMap<Option<Actor>, Vec<Item>> = BTreeMap::new();
    for item in items {
        groups.entry(item.actor.clone()).or_default().push(item);
    }
    groups
}

/// Everything about one certificate and one kind of change.
struct Group<'a> {
    key: Key,
    /// What no event explains yet.
    difference: Option<Difference>,
    /// The scopes of the difference that events explain.
    explained: BTreeSet<Scope>,
    earlier: &'a mut Vec<CertificateChange>,
    now: DateTime<Utc>,
}

impl Group<'_> {
    /// The change behind events of one actor whose scopes are known.
    fn of_scoped(&mut self, items: &[Item]) -> CertificateChange {
        let scopes = items.iter().filter_map(|item| item.scope.clone()).collect();
        let mut change = self.change(items, scopes);
        let (mut noticed, mut is_shown) = (0, false);
        for item in items {
            let Some(scope) = &item.scope else { continue };
            if self.shows(item, scope) {
                self.explained.insert(scope.clone());
                change.compared = true;
                is_shown = true;
            } else if self.was_noticed(item, scope) {
                change.compared = true;
                noticed += 1;
            }
        }
        // A difference is news even if its event is from before the first reading of the log.
        change.is_news = is_shown || (change.is_news && noticed < items.len());
        change
    }

    /// Whether the difference shows an event.
    fn shows(&self, item: &Item, scope: &Scope) -> bool {
        let difference = self.difference.as_ref();
        difference.is_some_and(|one| is_after(item, one.since) && one.scopes.contains(scope))
    }

    /// Whether an earlier scan noticed this change without its event. The event completes it.
    fn was_noticed(&mut self, item: &Item, scope: &Scope) -> bool {
        let mut waiting = self.waiting();
        let known = waiting.find(|one| one.scopes.contains(scope) && fits(item, one));
        let Some(known) = known else { return false };
        known.scopes.remove(scope);
        known.scopes_total -= 1;
        true
    }

    fn forget_explained(&mut self) {
        if let Some(difference) = &mut self.difference {
            difference.scopes.retain(|scope| !self.explained.contains(scope));
        }
    }

    /// The changes behind events whose scopes are unknown. They are those of the difference, or of
    /// an earlier one, if there is one for each event.
    fn of_unscoped(&mut self, items: Vec<Item>) -> Vec<CertificateChange> {
        if items.is_empty() {
            return Vec::new();
        }
        if let Some(one) = &mut self.difference
            && one.scopes.len() == items.len()
            && items.iter().all(|item| is_after(item, one.since))
        {
            let scopes = std::mem::take(&mut one.scopes);
            let change = self.change(&items, scopes);
            return vec![CertificateChange { compared: true, is_news: true, ..change }];
        }
        let mut waiting = self.waiting();
        let known = waiting.find(|one| {
            one.scopes_total == items.len() && items.iter().all(|item| fits(item, one))
        });
        if let Some(known) = known {
            let scopes_total = std::mem::take(&mut known.scopes_total);
            let scopes = std::mem::take(&mut known.scopes);
            drop(waiting);
            let change = self.change(&items, scopes);
            return vec![CertificateChange {
                scopes_total,
                compared: true,
                is_news: false,
                ..change
            }];
        }
        drop(waiting);
        let groups = by_actor(items);
        groups.into_values().map(|items| self.change(&items, BTreeSet::new())).collect()
    }

    /// The change that no event explains, unless an earlier scan read its event.
    fn of_difference(&mut self) -> Option<CertificateChange> {
        let Difference { name, mut scopes, since, .. } = self.difference.take()?;
        for known in self
            .earlier()
            .filter(|one| one.events > 0 && !one.compared && one.at >= since - TOLERANCE)
        {
            if known.scopes.is_empty() && known.events == scopes.len() {
                known.set_scopes(std::mem::take(&mut scopes));
                known.compared = true;
            } else if known.scopes.iter().any(|scope| scopes.contains(scope)) {
                scopes.retain(|scope| !known.scopes.contains(scope));
                known.compared = true;
            }
        }
        if scopes.is_empty() {
            return None;
        }
        let change = self.change(&[], scopes);
        Some(CertificateChange {
            name,
            since: Some(since),
            compared: true,
            is_news: true,
            ..change
        })
    }

    /// The earlier changes of this certificate and kind.
    fn earlier(&mut self) -> impl Iterator<Item = &mut CertificateChange> {
        let (id, kind) = &self.key;
        self.earlier.iter_mut().filter(move |one| one.kind == *kind && one.certificate == *id)
    }

    /// The earlier changes that wait for their events.
    fn waiting(&mut self) -> impl Iterator<Item = &mut CertificateChange> {
        let from = self.now - WAIT;
        self.earlier().filter(move |one| one.events == 0 && one.seen_at >= from)
    }

    fn change(&self, items: &[Item], scopes: BTreeSet<Scope>) -> CertificateChange {
        let actors: BTreeSet<&Actor> = items.iter().filter_map(|one| one.actor.as_ref()).collect();
        let latest = items.iter().max_by_key(|item| item.at);
        let (certificate, kind) = self.key.clone();
        let mut change = CertificateChange {
            kind,
            certificate,
            name: latest.and_then(|item| item.name.clone()),
            scopes: BTreeSet::new(),
            scopes_total: 0,
            at: latest.map_or(self.now, |item| item.at),
            actors: actors.into_iter().cloned().collect(),
            events: items.len(),
            since: None,
            compared: false,
            seen_at: self.now,
            is_news: items.iter().any(|item| item.is_news),
        };
        change.set_scopes(scopes);
        change
    }
}

/// Whether an event can be later than this reading.
fn is_after(item: &Item, since: DateTime<Utc>) -> bool {
    item.at >= since - TOLERANCE
}

/// Whether an event can be behind a change that only the scans showed.
fn fits(item: &Item, change: &CertificateChange) -> bool {
    change.since.is_none_or(|since| is_after(item, since)) && item.at <= change.seen_at + TOLERANCE
}
