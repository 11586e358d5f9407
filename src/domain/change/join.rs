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

/// How long a change that only the scans show waits for its event. The times of both must fit, so a
/// long wait joins nothing by mistake.
const WAIT: TimeDelta = TimeDelta::days(7);
/// Events of one actor within this time are one change.
const TOGETHER: TimeDelta = TimeDelta::hours(1);
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
    state: State,
}

/// Whether an event is news, and whether the scans show its change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// From before the first reading of the log.
    Old,
    New,
    /// The difference between the scans shows it.
    Shown,
    /// Another change without its event causes the notice, or an earlier one did.
    Noticed,
}

impl State {
    fn of(is_news: bool) -> State {
        if is_news { State::New } else { State::Old }
    }
}

type Key = (CertificateId, ChangeKind);

/// The new changes. Earlier changes are completed by their other half. `is_whole` is false if events
/// are known to be missing.
pub(super) fn join(
    events: Vec<NewEvent>,
    is_whole: bool,
    differences: Vec<Difference>,
    earlier: &mut Vec<CertificateChange>,
    now: DateTime<Utc>,
) -> Vec<CertificateChange> {
    let mut found: BTreeMap<Key, (Vec<Item>, Option<Difference>)> = BTreeMap::new();
    for NewEvent { event, is_news } in events {
        let scope = if event.kind.has_scope() { event.scope } else { Some(Scope::Organization) };
        for (certificate, name) in event.certificates {
            let (scope, actor) = (scope.clone(), event.actor.clone());
            let (at, state) = (event.at, State::of(is_news));
            let item = Item { name, at, scope, actor, state };
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
        let mut group = Group { key, is_whole, difference, earlier, now };
        new.extend(group.of_scoped(scoped));
        new.extend(group.of_unscoped(unscoped));
        new.extend(group.of_difference());
    }
    earlier.retain(|one| one.events > 0 || one.scopes_total > 0);
    new
}

/// Everything about one certificate and one kind of change.
struct Group<'a> {
    key: Key,
    is_whole: bool,
    /// What no event explains yet.
    difference: Option<Difference>,
    earlier: &'a mut Vec<CertificateChange>,
    now: DateTime<Utc>,
}

impl Group<'_> {
    /// The changes behind events whose scopes are known.
    fn of_scoped(&mut self, mut items: Vec<Item>) -> Vec<CertificateChange> {
        let mut explained = BTreeSet::new();
        for item in &mut items {
            let Some(scope) = &item.scope else { continue };
            if self.was_noticed(item, scope) {
                item.state = State::Noticed;
            } else if self.shows(item, scope) {
                explained.insert(scope.clone());
                item.state = State::Shown;
            }
        }
        if let Some(difference) = &mut self.difference {
            difference.scopes.retain(|scope| !explained.contains(scope));
        }
        self.together(items)
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

    /// The changes behind events whose scopes are unknown. If an earlier change or the difference has
    /// one scope for each event, the events get these scopes. Otherwise the scopes stay unknown, and
    /// an event is no news for each scope that a change without an event has.
    fn of_unscoped(&mut self, mut items: Vec<Item>) -> Vec<CertificateChange> {
        let (mut new, mut spare) = (Vec::new(), 0);
        let is_whole = self.is_whole;
        let mut taken = Vec::new();
        for known in self.waiting() {
            let fitting = items.iter().filter(|item| fits(item, known)).count();
            if is_whole && fitting > 0 && fitting == known.scopes_total {
                let its = items.extract_if(.., |item| fits(item, known)).collect::<Vec<_>>();
                let total = std::mem::take(&mut known.scopes_total);
                taken.push((its, std::mem::take(&mut known.scopes), total));
            } else if fitting > 0 {
                spare += known.scopes_total;
            }
        }
        for (its, scopes, scopes_total) in taken {
            let change = self.change(&its, State::Noticed, scopes);
            new.push(CertificateChange { scopes_total, ..change });
        }
        if let Some(one) = &mut self.difference {
            let fitting = items.iter().filter(|item| is_after(item, one.since)).count();
            if is_whole && fitting > 0 && fitting == one.scopes.len() {
                let scopes = std::mem::take(&mut one.scopes);
                let since = one.since;
                let its = items.extract_if(.., |item| is_after(item, since)).collect::<Vec<_>>();
                new.push(self.change(&its, State::Shown, scopes));
            } else if fitting > 0 {
                spare += one.scopes.len();
            }
        }
        for item in items.iter_mut().take(spare) {
            item.state = State::Noticed;
        }
        new.extend(self.together(items));
        new
    }

    /// The change that no event explains, unless an earlier scan read its event.
    fn of_difference(&mut self) -> Option<CertificateChange> {
        let Difference { name, mut scopes, since, .. } = self.difference.take()?;
        let is_early = |one: &&mut CertificateChange| {
            one.events > 0 && !one.compared && one.at >= since - TOLERANCE
        };
        for known in self.earlier().filter(is_early) {
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
        let change = self.change(&[], State::Shown, scopes);
        Some(CertificateChange { name, since: Some(since), ..change })
    }

    /// One change for the events of an actor that happened together.
    fn together(&self, mut items: Vec<Item>) -> Vec<CertificateChange> {
        items.sort_by(|a, b| (&a.actor, a.state, a.at).cmp(&(&b.actor, b.state, b.at)));
        let are_one = |a: &Item, b: &Item| {
            (&a.actor, a.state) == (&b.actor, b.state) && b.at - a.at <= TOGETHER
        };
        let change = |items: &[Item]| {
            let scopes = items.iter().filter_map(|item| item.scope.clone()).collect();
            items.first().map(|first| self.change(items, first.state, scopes))
        };
        items.chunk_by(are_one).filter_map(change).collect()
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

    fn change(&self, items: &[Item], state: State, scopes: BTreeSet<Scope>) -> CertificateChange {
        let actors: BTreeSet<&Actor> = items.iter().filter_map(|one| one.actor.as_ref()).collect();
        let latest = items.iter().max_by_key(|item| item.at);
        let (certificate, kind) = self.key.clone();
        CertificateChange {
            kind,
            certificate,
            name: latest.and_then(|item| item.name.clone()),
            scopes_total: scopes.len(),
            scopes,
            at: latest.map_or(self.now, |item| item.at),
            actors: actors.into_iter().cloned().collect(),
            events: items.len(),
            since: None,
            compared: matches!(state, State::Shown | State::Noticed),
            seen_at: self.now,
            // A difference is news even if its event is from before the first reading of the log.
            is_news: matches!(state, State::Shown | State::New),
        }
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
