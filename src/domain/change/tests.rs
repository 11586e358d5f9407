//! Awkward audit logs: no wrong actor, no wrong project, no second notice, nothing missed.

use std::sync::Arc;

use super::*;
use crate::domain::inventory::tests::{certificate, start};

const CHAT: &str = "chat";
const SEARCH: &str = "search";

fn id(text: &str) -> CertificateId {
    CertificateId::parse(text).unwrap()
}

/// `""` is the organization.
fn scope(project: &str) -> Scope {
    match project {
        "" => Scope::Organization,
        project => Scope::Project(ProjectId::parse(project).unwrap()),
    }
}

fn minutes(n: i64) -> TimeDelta {
    TimeDelta::minutes(n)
}

/// A user in the dashboard, whose project is known.
fn person(name: &str) -> Option<Actor> {
    let email = Name::clean(&format!("{name}@acme.example"));
    Some(Actor { kind: ActorKind::User, id: Name::clean(name).unwrap(), name: None, email })
}

/// An admin key, whose project is not known.
fn account(name: &str) -> Option<Actor> {
    let id = Name::clean(name).unwrap();
    Some(Actor { kind: ActorKind::ServiceAccount, id, name: None, email: None })
}

/// A scan every hour, with the changes in its notices.
struct Story {
    changes: Changes,
    /// The time of the latest scan.
    now: DateTime<Utc>,
    events: Vec<AuditEvent>,
    differences: Vec<Difference>,
}

impl Story {
    /// After a first scan, which read an empty log.
    fn new() -> Story {
        let (events, differences) = (Vec::new(), Vec::new());
        let mut story = Story { changes: Changes::default(), now: start(), events, differences };
        story.scan();
        story
    }

    /// An event of the next reading, some minutes after the latest scan.
    fn event(
        &mut self,
        kind: ChangeKind,
        after: i64,
        actor: Option<Actor>,
        project: Option<&str>,
    ) -> &mut Self {
        let number = self.events.len();
        self.event_with_id(
            &format!("e{}-{number}", self.now.timestamp()),
            kind,
            after,
            actor,
            project,
        )
    }

    fn event_with_id(
        &mut self,
        event: &str,
        kind: ChangeKind,
        after: i64,
        actor: Option<Actor>,
        project: Option<&str>,
    ) -> &mut Self {
        self.events.push(AuditEvent {
            id: AuditEventId::parse(event).unwrap(),
            at: self.now + minutes(after),
            kind,
            certificates: vec![(id("c"), Name::clean("ca"))],
            scope: project.map(scope),
            actor,
        });
        self
    }

    /// A difference between the latest scan and the next one.
    fn difference(&mut self, kind: ChangeKind, projects: &[&str]) -> &mut Self {
        self.differences.push(Difference {
            kind,
            certificate: id("c"),
            name: Name::clean("ca"),
            scopes: projects.iter().map(|one| scope(one)).collect(),
            since: self.now,
        });
        self
    }

    fn scan(&mut self) -> Vec<String> {
        self.scan_with(|_| ())
    }

    /// A scan; returns the changes in its notices.
    fn scan_with(&mut self, change: impl FnOnce(&mut AuditReading)) -> Vec<String> {
        self.now += minutes(60);
        let mut reading = AuditReading {
            events: std::mem::take(&mut self.events),
            is_usable: true,
            ..AuditReading::default()
        };
        change(&mut reading);
        self.finish(Audit::Read(reading))
    }

    fn finish(&mut self, audit: Audit) -> Vec<String> {
        let certificates = Certificates::from([(id("c"), Arc::new(certificate("c", 90)))]);
        let differences = std::mem::take(&mut self.differences);
        self.changes = self.changes.with(audit, differences, &certificates, self.now);
        self.changes.news(self.now).map(shown).collect()
    }

    /// Everything that is known, latest first.
    fn known(&self) -> Vec<String> {
        self.changes.all.iter().map(shown).collect()
    }
}

fn shown(change: &CertificateChange) -> String {
    let mut text = change.kind.to_string();
    if change.kind.has_scope() {
        let scopes: Vec<&str> = change
            .scopes
            .iter()
            .map(|scope| scope.project().map_or("organization", ProjectId::as_str))
            .collect();
        text.push_str(&format!(" in {}", scopes.join("+")));
    }
    let actors: Vec<&str> = change.actors.iter().map(|actor| actor.id.as_str()).collect();
    if !actors.is_empty() {
        text.push_str(&format!(" by {}", actors.join("+")));
    }
    text
}

use ChangeKind::{Activated, Deactivated, Deleted, Renamed, Uploaded};

#[test]
fn the_first_reading_is_history_and_causes_no_notice() {
    let mut story = Story { changes: Changes::default(), ..Story::new() };
    story.event(Uploaded, -9_000, account("terraform"), None);
    story.event(Activated, -8_000, person("alice"), Some(CHAT));
    assert!(story.scan().is_empty());
    assert_eq!(story.known(), ["activated in chat by alice", "uploaded by terraform"]);
    assert!(story.scan().is_empty());
}

#[test]
fn an_event_and_its_difference_are_one_change() {
    let mut story = Story::new();
    story.event(Activated, 5, person("alice"), Some(CHAT)).difference(Activated, &[CHAT]);
    story.event(Uploaded, 4, person("alice"), None).difference(Uploaded, &[""]);
    assert_eq!(story.scan(), ["activated in chat by alice", "uploaded by alice"]);
    assert!(story.scan().is_empty());
    story.event(Renamed, 5, None, None).difference(Renamed, &[""]);
    story.event(Deleted, 6, account("terraform"), None).difference(Deleted, &[""]);
    assert_eq!(story.scan(), ["deleted by terraform", "renamed"]);
}

#[test]
fn the_difference_shows_where_an_admin_key_activated() {
    let mut story = Story::new();
    story.event(Activated, 5, account("terraform"), None).difference(Activated, &[CHAT]);
    assert_eq!(story.scan(), ["activated in chat by terraform"]);
    // Two requests of one key.
    story.event(Deactivated, 5, account("terraform"), None);
    story.event(Deactivated, 6, account("terraform"), None);
    story.difference(Deactivated, &[CHAT, SEARCH]);
    assert_eq!(story.scan(), ["deactivated in chat+search by terraform"]);
}

#[test]
fn what_is_ambiguous_stays_unknown() {
    let mut story = Story::new();
    // Another event is missing.
    story.event(Activated, 5, account("terraform"), None).difference(Activated, &[CHAT, SEARCH]);
    assert_eq!(story.scan(), ["activated in chat+search"]);
    assert_eq!(story.known(), ["activated in chat+search", "activated in  by terraform"]);
    // Two keys in two projects: who made which is unknown.
    let mut story = Story::new();
    story.event(Activated, 5, account("terraform"), None);
    story.event(Activated, 6, account("deploy"), None).difference(Activated, &[CHAT, SEARCH]);
    assert_eq!(story.scan(), ["activated in chat+search by deploy+terraform"]);
    // A person is known to have changed one of them.
    let mut story = Story::new();
    story.event(Activated, 5, account("terraform"), None);
    story.event(Activated, 6, person("alice"), Some(SEARCH));
    story.difference(Activated, &[CHAT, SEARCH]);
    assert_eq!(story.scan(), ["activated in search by alice", "activated in chat by terraform"]);
    // An event in a project that is not watched.
    let mut story = Story::new();
    story.event(Activated, 5, account("terraform"), None);
    assert_eq!(story.scan(), ["activated in  by terraform"]);
}

#[test]
fn a_late_event_adds_its_actor_and_causes_no_second_notice() {
    for actor in [person("alice"), account("terraform")] {
        let project = (actor == person("alice")).then_some(CHAT);
        let mut story = Story::new();
        story.difference(Activated, &[CHAT]);
        assert_eq!(story.scan(), ["activated in chat"]);
        story.event(Activated, -30, actor.clone(), project);
        assert!(story.scan().is_empty());
        let name = actor.unwrap().id;
        assert_eq!(story.known(), [format!("activated in chat by {name}")]);
    }
    // A later event is another change.
    let mut story = Story::new();
    story.difference(Activated, &[CHAT]);
    story.scan();
    story.event(Activated, 30, person("bob"), Some(CHAT));
    assert_eq!(story.scan(), ["activated in chat by bob"]);
    assert_eq!(story.known(), ["activated in chat by bob", "activated in chat"]);
    // An event from before the reading cannot be behind the difference.
    let mut story = Story::new();
    story.difference(Activated, &[CHAT]).event(Activated, -50, account("terraform"), None);
    assert_eq!(story.scan(), ["activated in chat", "activated in  by terraform"]);
}

#[test]
fn late_events_of_several_scans_cause_no_second_notice() {
    // The log fails in two scans; a day and more passes before it is read.
    let mut story = Story::new();
    let (first, second) = (story.now + minutes(5), story.now + minutes(65));
    for project in [CHAT, SEARCH] {
        story.difference(Activated, &[project]);
        let notice = story.scan_with(|reading| {
            reading.error = Some("HTTP 500".into());
            reading.is_usable = false;
        });
        assert_eq!(notice, [format!("activated in {project}")]);
    }
    story.now += TimeDelta::hours(70);
    for at in [first, second] {
        story.event(Activated, (at - story.now).num_minutes(), account("terraform"), None);
    }
    assert!(story.scan().is_empty());
    let known = ["activated in search by terraform", "activated in chat by terraform"];
    assert_eq!(story.known(), known);
    // One of two events is late: only the difference is in a notice, and neither event is.
    let mut story = Story::new();
    story.event(Activated, 5, account("terraform"), None).difference(Activated, &[CHAT, SEARCH]);
    assert_eq!(story.scan(), ["activated in chat+search"]);
    story.event(Activated, -54, account("terraform"), None);
    assert!(story.scan().is_empty());
    // An earlier notice had the change in chat; only search is news.
    let mut story = Story::new();
    story.difference(Activated, &[CHAT]);
    story.scan();
    story.event(Activated, -30, person("alice"), Some(CHAT));
    story.event(Activated, 15, person("alice"), Some(SEARCH)).difference(Activated, &[SEARCH]);
    assert_eq!(story.scan(), ["activated in search by alice"]);
}

#[test]
fn a_log_with_missing_events_names_no_project_by_elimination() {
    let mut story = Story::new();
    story.event(Activated, 5, account("terraform"), None).difference(Activated, &[CHAT]);
    let notice = story.scan_with(|reading| reading.error = Some("unreadable items".into()));
    assert_eq!(notice, ["activated in chat"]);
}

#[test]
fn a_difference_causes_a_notice_even_if_the_log_is_read_for_the_first_time() {
    for (actor, project) in [(person("alice"), Some(CHAT)), (account("terraform"), None)] {
        let mut story = Story { changes: Changes::default(), ..Story::new() };
        let name = actor.as_ref().unwrap().id.clone();
        story.event(Deactivated, 5, actor, project).difference(Deactivated, &[CHAT]);
        assert_eq!(story.scan(), [format!("deactivated in chat by {name}")]);
    }
}

#[test]
fn events_of_one_person_at_other_times_are_other_changes() {
    let mut story = Story { changes: Changes::default(), ..Story::new() };
    story.event(Activated, -9_000, person("alice"), Some(CHAT));
    story.event(Activated, -200, person("alice"), Some(SEARCH));
    story.scan();
    assert_eq!(story.known(), ["activated in search by alice", "activated in chat by alice"]);
}

#[test]
fn an_event_before_its_difference_causes_one_notice() {
    // The list was read before the change, the log after it.
    let mut story = Story::new();
    story.event(Activated, 59, account("terraform"), None);
    assert_eq!(story.scan(), ["activated in  by terraform"]);
    story.difference(Activated, &[CHAT]);
    assert!(story.scan().is_empty());
    assert_eq!(story.known(), ["activated in chat by terraform"]);
    let mut story = Story::new();
    story.event(Activated, 59, person("alice"), Some(CHAT));
    assert_eq!(story.scan(), ["activated in chat by alice"]);
    story.difference(Activated, &[CHAT, SEARCH]);
    assert_eq!(story.scan(), ["activated in search"]);
    // An earlier event is not behind a difference that came later.
    let mut story = Story::new();
    story.event(Activated, 10, account("terraform"), None);
    story.scan();
    story.difference(Activated, &[CHAT]);
    assert_eq!(story.scan(), ["activated in chat"]);
}

#[test]
fn changes_that_undo_each_other_cause_notices() {
    let mut story = Story::new();
    story.event(Activated, 30, person("carol"), Some(CHAT));
    story.event(Deactivated, 20, person("bob"), Some(CHAT));
    story.event(Activated, 10, person("alice"), Some(CHAT));
    story.difference(Activated, &[CHAT]);
    assert_eq!(
        story.scan(),
        ["activated in chat by carol", "deactivated in chat by bob", "activated in chat by alice"]
    );
    assert!(story.scan().is_empty());
}

#[test]
fn events_are_known_by_their_ids_in_any_order() {
    let mut story = Story::new();
    let add = |story: &mut Story, id, after| {
        story.event_with_id(id, Activated, after, person(id), Some(CHAT));
    };
    add(&mut story, "a", 55);
    add(&mut story, "b", 5);
    add(&mut story, "b", 5);
    assert_eq!(story.scan(), ["activated in chat by a", "activated in chat by b"]);
    add(&mut story, "c", -54);
    add(&mut story, "b", -55);
    add(&mut story, "a", -5);
    assert_eq!(story.scan(), ["activated in chat by c"], "late and out of order");
    // Pages that shift while they are read have an event twice.
    story.event_with_id("d", Activated, 6, account("d"), None);
    story.event_with_id("d", Activated, 6, account("d"), None).difference(Activated, &[SEARCH]);
    assert_eq!(story.scan(), ["activated in search by d"]);
}

#[test]
fn an_unusable_reading_neither_loses_nor_repeats_events() {
    let mut story = Story::new();
    let at = story.now + minutes(5);
    let event = |id: &str| AuditEvent {
        id: AuditEventId::parse(id).unwrap(),
        at,
        kind: Uploaded,
        certificates: vec![(self::id("c"), None)],
        scope: None,
        actor: person(id),
    };
    let notice = story.scan_with(|reading| {
        reading.events = vec![event("b")];
        reading.error = Some("HTTP 500".into());
        reading.is_usable = false;
    });
    assert_eq!(notice, ["uploaded by b"]);
    let log = story.changes.audit_log.clone().unwrap();
    assert_eq!(log.latest, None);
    assert!(log.unreadable.is_some());
    let notice = story.scan_with(|reading| reading.events = vec![event("b"), event("a")]);
    assert_eq!(notice, ["uploaded by a"]);
    assert!(story.scan_with(|reading| reading.events = vec![event("b"), event("a")]).is_empty());
    assert!(story.changes.audit_log.unwrap().unreadable.is_none());
}

#[test]
fn a_time_in_the_future_hides_no_later_event() {
    let mut story = Story::new();
    story.event(Activated, 60 * 24 * 365 * 70, person("mallory"), Some(CHAT));
    story.scan();
    let log = story.changes.audit_log.as_ref().unwrap();
    assert_eq!(log.read_after(false), Some(story.now - OVERLAP));
    story.event(Deactivated, 5, person("alice"), Some(CHAT));
    assert_eq!(story.scan(), ["deactivated in chat by alice"]);
}

#[test]
fn without_the_log_changes_have_no_actor() {
    let mut story = Story::new();
    story.event(Uploaded, 1, person("alice"), None);
    story.scan();
    story.now += minutes(60);
    story.difference(Activated, &[""]);
    assert_eq!(story.finish(Audit::Off), ["activated in organization"]);
    assert_eq!(story.known(), ["activated in organization", "uploaded"], "no actor is kept");
    // Switched on again, the log has the events again.
    story.event(Uploaded, -180, person("alice"), None);
    assert!(story.scan().is_empty());
    assert_eq!(story.known(), ["activated in organization", "uploaded by alice"]);
}

#[test]
fn addresses_are_kept_only_while_they_are_wanted() {
    let emails = |story: &Story| {
        let actors = story.changes.all.iter().flat_map(|one| &one.actors);
        actors.filter(|actor| actor.email.is_some()).count()
    };
    let mut story = Story::new();
    story.event_with_id("e", Uploaded, 1, person("alice"), None);
    story.scan();
    assert_eq!(emails(&story), 0);
    let log = story.changes.audit_log.as_ref().unwrap();
    assert_eq!(log.read_after(true), None, "the whole log has them");
    story.event_with_id("e", Uploaded, -59, person("alice"), None);
    assert!(story.scan_with(|reading| reading.addresses = true).is_empty());
    assert_eq!((story.known().len(), emails(&story)), (1, 1));
    let log = story.changes.audit_log.as_ref().unwrap();
    assert!(log.read_after(true).is_some());
    story.scan();
    assert_eq!((story.known().len(), emails(&story)), (1, 0));
}

#[test]
fn the_number_of_changes_is_limited_and_uploads_stay() {
    let mut story = Story::new();
    story.event(Uploaded, 1, person("alice"), None);
    story.scan();
    for n in 0..200 {
        story.event(
            if n % 2 == 0 { Activated } else { Deactivated },
            n / 4,
            person("bob"),
            Some(CHAT),
        );
        if n % 10 == 9 {
            story.scan();
        }
    }
    let known = story.known();
    assert!(known.len() <= KEPT + 3, "{}", known.len());
    assert_eq!(known.last().unwrap(), "uploaded by alice");
}
