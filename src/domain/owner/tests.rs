use chrono::{DateTime, TimeDelta, Utc};

use super::*;
use crate::domain::{
    acknowledgement::Acknowledgements,
    alert::{Decision, ScanTime, Transition, decide},
    certificate::{AuditEventId, OrganizationName, Scope},
    change::{ActorKind, Audit, AuditEvent, AuditReading, CertificateChange},
    evaluate::evaluate,
    finding::findings,
    inventory::tests::{Scoped, certificate, everything, reading, start},
    notifier::{Grouping, NotifierState},
    policy::Policy,
    selection::Glob,
    subject::Subject,
    text::Name,
    threshold::tests::ladder,
};

fn globs(patterns: &[&str]) -> Globs {
    Globs(patterns.iter().map(|pattern| Glob::new(pattern)).collect())
}

fn owner(team: &str, certificates: &[&str], projects: &[&str], uploaders: &[&str]) -> Owner {
    let all = |patterns: &[&str]| if patterns.is_empty() { globs(&["*"]) } else { globs(patterns) };
    Owner {
        index: 0,
        team: team.to_owned(),
        certificates: all(certificates),
        projects: all(projects),
        uploaders: all(uploaders).ignoring_case(),
    }
}

fn of_projects(team: &str, projects: &[&str]) -> Owner {
    owner(team, &[], projects, &[])
}

fn inventory(before: &Inventory, scopes: &[Scoped<'_>]) -> Inventory {
    before.merge(reading(scopes), &everything(), start())
}

/// The owners of a certificate in these projects; `-` is the rest.
fn owners_in(all: &[Owner], inventory: &Inventory, id: &str, projects: &[&str]) -> String {
    let owners = Owners::of(all, inventory);
    let projects: Vec<&Project> =
        projects.iter().map(|id| &inventory.projects[&ProjectId::parse(id).unwrap()]).collect();
    let found = owners.of_certificate(&certificate(id, 10), &projects);
    found.into_iter().map(|team| team.unwrap_or("-")).collect::<Vec<_>>().join(" ")
}

const ALL: [&str; 3] = ["pay", "search", "lab"];

fn three_projects() -> Inventory {
    let empty: &[(&str, i64, bool)] = &[];
    let scopes: Vec<Scoped<'_>> = ALL.iter().map(|id| (*id, Ok(empty))).collect();
    inventory(&Inventory::default(), &scopes)
}

#[test]
fn the_first_matching_entry_is_the_owner_in_each_project() {
    let inventory = three_projects();
    let all = [
        owner("security", &["root-*"], &["pay", "search"], &[]),
        of_projects("payments", &["pay"]),
        of_projects("search", &["s*"]),
        owner("security", &["root-*"], &[], &[]),
    ];
    let found = |id: &str| owners_in(&all, &inventory, id, &ALL);
    assert_eq!(found("other"), "payments search -");
    assert_eq!(found("root-1"), "security security security");
    assert_eq!(owners_in(&all, &inventory, "root-1", &[]), "security", "active nowhere");
    assert_eq!(owners_in(&all, &inventory, "other", &[]), "-", "entries for some projects only");
    assert_eq!(owners_in(&[], &inventory, "other", &ALL), "- - -");
}

#[test]
fn an_archived_project_keeps_its_owner() {
    let all = [of_projects("payments", &["gone"])];
    let (id, inventory) = (ProjectId::parse("gone").unwrap(), three_projects());
    let project = Project { id, name: None };
    let owners = Owners::of(&all, &inventory);
    assert_eq!(owners.of_certificate(&certificate("c", 1), &[&project]), [Some("payments")]);
    assert_eq!(owners.of_project(&project), Some("payments"));
}

#[test]
fn only_the_event_of_the_upload_names_the_uploader() {
    let actor = |id: &str, email: Option<&str>| Actor {
        kind: ActorKind::User,
        id: Name::clean(id).unwrap(),
        name: None,
        email: email.and_then(Name::clean),
    };
    let change = |kind, events, actors: Vec<Actor>| CertificateChange {
        kind,
        certificate: CertificateId::parse("c").unwrap(),
        name: None,
        scopes: BTreeSet::new(),
        scopes_total: 0,
        at: start(),
        actors,
        events,
        since: None,
        compared: false,
        seen_at: start(),
        is_news: false,
    };
    let anna = || actor("user_anna", Some("Anna@Pay.example"));
    let ben = || actor("user_ben", None);
    let all = [owner("payments", &[], &[], &["*@pay.example", "svc_*"])];
    let found = |changes: Vec<CertificateChange>| {
        let mut inventory = three_projects();
        inventory.changes.all = changes;
        owners_in(&all, &inventory, "c", &["lab"])
    };
    let uploaded = ChangeKind::Uploaded;
    assert_eq!(found(vec![change(uploaded, 1, vec![anna()])]), "payments");
    assert_eq!(found(vec![change(uploaded, 1, vec![actor("svc_1", None)])]), "payments");
    assert_eq!(found(vec![change(uploaded, 1, vec![ben()])]), "-");
    assert_eq!(found(vec![change(uploaded, 2, vec![anna(), ben()])]), "-", "several actors");
    assert_eq!(found(vec![change(uploaded, 0, vec![anna()])]), "-", "only a difference");
    assert_eq!(found(vec![change(ChangeKind::Renamed, 1, vec![anna()])]), "-");
    assert_eq!(found(Vec::new()), "-", "unknown");
}

/// An event of the audit log about the certificate `c`, some hours before the scan.
fn event(id: &str, kind: ChangeKind, hours: i64, actor: Option<Actor>) -> AuditEvent {
    AuditEvent {
        id: AuditEventId::parse(id).unwrap(),
        at: start() - TimeDelta::hours(hours),
        kind,
        certificates: vec![(CertificateId::parse("c").unwrap(), Name::clean("ca"))],
        scope: None,
        actor,
    }
}

fn actor_of(kind: ActorKind, id: &str, email: Option<&str>) -> Option<Actor> {
    let id = Name::clean(id).unwrap();
    Some(Actor { kind, id, name: None, email: email.and_then(Name::clean) })
}

#[test]
fn an_awkward_audit_log_gives_no_wrong_owner() {
    use ChangeKind::{Activated, Deactivated, Deleted, Renamed, Uploaded};
    let user = |email: &str| actor_of(ActorKind::User, &format!("user_{email}"), Some(email));
    let anna = || user("anna@pay.example");
    let ben = || user("ben@lab.example");
    let of = |certificate: &str, event: AuditEvent| {
        let id = CertificateId::parse(certificate).unwrap();
        AuditEvent { certificates: vec![(id, None)], ..event }
    };
    let both = |event: AuditEvent| {
        let other = (CertificateId::parse("d").unwrap(), None);
        let certificates = event.certificates.iter().cloned().chain([other]).collect();
        AuditEvent { certificates, ..event }
    };
    let booked = |event: AuditEvent| {
        let default = Scope::Project(ProjectId::parse("default").unwrap());
        AuditEvent { scope: Some(default), ..event }
    };
    let up = |id: &str, hours, actor| event(id, Uploaded, hours, actor);
    let key = |id: &str| actor_of(ActorKind::ApiKey, id, None);
    let account = |id: &str| actor_of(ActorKind::ServiceAccount, id, None);
    let without_address = actor_of(ActorKind::User, "user_1", None);
    let logs: [(&str, Vec<AuditEvent>, &str); 22] = [
        ("an upload", vec![up("1", 5, anna())], "payments"),
        ("nothing", vec![], "-"),
        ("an upload without an actor", vec![up("1", 5, None)], "-"),
        ("somebody else", vec![up("1", 5, ben())], "-"),
        ("an upload of another certificate", vec![of("d", up("1", 5, anna()))], "-"),
        ("an upload of several", vec![both(up("1", 5, anna()))], "payments"),
        ("only activated", vec![event("1", Activated, 5, anna())], "-"),
        ("only renamed", vec![event("1", Renamed, 5, anna())], "-"),
        ("only deactivated", vec![event("1", Deactivated, 5, anna())], "-"),
        ("only deleted", vec![event("1", Deleted, 5, anna())], "-"),
        ("activated by her", vec![up("1", 5, ben()), event("2", Activated, 4, anna())], "-"),
        ("renamed by him", vec![up("1", 5, anna()), event("2", Renamed, 4, ben())], "payments"),
        ("the same event twice", vec![up("1", 5, anna()), up("1", 5, anna())], "payments"),
        ("two uploaders", vec![up("1", 5, anna()), up("2", 3, ben())], "-"),
        ("two uploaders at once", vec![up("1", 5, ben()), up("2", 5, anna())], "-"),
        ("an actor is missing in one", vec![up("1", 5, anna()), up("2", 4, None)], "payments"),
        ("out of order", vec![event("2", Activated, 4, ben()), up("1", 5, anna())], "payments"),
        ("booked under the default project", vec![booked(up("1", 5, anna()))], "payments"),
        ("in capitals", vec![up("1", 5, user("ANNA@PAY.EXAMPLE"))], "payments"),
        ("a similar address", vec![up("1", 5, user("anna@pay.example.evil.example"))], "-"),
        ("no address", vec![up("1", 5, without_address)], "-"),
        ("keys and accounts", vec![up("1", 5, key("key_1")), up("2", 4, account("svc"))], "-"),
    ];
    let all = [owner("payments", &[], &[], &["*@pay.example"])];
    for (log, events, expected) in logs {
        for is_usable in [true, false] {
            let mut lists = reading(&[("", Ok(&[])), ("lab", Ok(C))]);
            let error = (!is_usable).then(|| "the log is off".into());
            let audit = AuditReading { events: events.clone(), error, is_usable, ..reading_log() };
            lists.audit = Audit::Read(audit);
            let inventory = Inventory::default().merge(lists, &everything(), start());
            let found = owners_in(&all, &inventory, "c", &["lab"]);
            // Events before an error count, too; those that are missing give no other owner.
            assert!(found == expected || (!is_usable && found == "-"), "{log}: {found}");
        }
    }
}

fn reading_log() -> AuditReading {
    AuditReading { addresses: true, ..AuditReading::default() }
}

#[test]
fn an_audience_is_stored_as_its_key() {
    let of = |teams: &[Option<&str>]| {
        Audience::Owners(teams.iter().map(|team| team.map(ToOwned::to_owned)).collect())
    };
    let cases = [
        (of(&[None]), "", "mail", "mail (no owner)"),
        (of(&[Some("b")]), "b", "mail/b", "mail (b)"),
        (of(&[Some("b"), Some("a"), None]), "+a+b", "mail/+a+b", "mail (a, b, no owner)"),
    ];
    for (audience, key, ledger, title) in cases {
        assert_eq!(audience.key(), key);
        assert_eq!(audience.ledger_of("mail"), ledger);
        assert_eq!(audience.title_of("mail"), title);
        let text = serde_json::to_string(&audience).unwrap();
        assert_eq!(serde_json::from_str::<Audience>(&text).unwrap(), audience);
    }
    assert_eq!(Audience::Everyone.ledger_of("mail"), "mail");
    assert_eq!(Audience::Everyone.title_of("mail"), "mail");
}

/// The alerts of the team payments, over several scans.
struct Payments {
    inventory: Inventory,
    state: NotifierState,
    now: DateTime<Utc>,
}

impl Payments {
    fn new() -> Payments {
        let audience = Audience::Owners(BTreeSet::from([Some("payments".to_owned())]));
        let routing = Routing { audience, ..Routing::all() };
        let state = NotifierState::new("mail", &routing, Grouping::Digest);
        Payments { inventory: Inventory::default(), state, now: start() }
    }

    /// The alerts and resolutions: `c opened`.
    fn scan(&mut self, projects: &[&str], scopes: &[Scoped<'_>]) -> Vec<String> {
        let before = std::mem::take(&mut self.inventory);
        self.inventory = inventory(&before, scopes);
        let mut policy = Policy::new(ladder(&[30, 7, 1]));
        policy.owners = vec![of_projects("payments", projects), of_projects("search", &["s*"])];
        policy.protection.severity = None;
        let (acme, none) = (OrganizationName::parse("acme").unwrap(), Acknowledgements::default());
        let evaluation = evaluate(&acme, &self.inventory, &policy, &none, self.now);
        let transition = Transition::watched(&before, &evaluation);
        let moment = ScanTime::at(self.now, chrono_tz::UTC);
        let decisions = decide(&transition, &self.state, moment);
        decisions.iter().for_each(|decision| self.state.ledger.learn(decision));
        let line = |decision: &Decision| match decision {
            Decision::Send { subject, reason, .. } | Decision::Resolve { subject, reason, .. } => {
                Some(format!("{} {reason}", subject_id(subject)))
            }
            Decision::Redate { .. } | Decision::HoldBack { .. } => None,
        };
        decisions.iter().filter_map(line).collect()
    }
}

fn subject_id(subject: &Subject) -> String {
    let text = subject.to_string();
    text.rsplit_once(':').map_or(text.clone(), |(_, id)| id.to_owned())
}

const C: &[(&str, i64, bool)] = &[("c", 20, true)];
const C_OFF: &[(&str, i64, bool)] = &[("c", 20, false)];

#[test]
fn a_resolution_says_what_happened_to_the_alerts_of_an_owner() {
    let nothing: [&str; 0] = [];
    let everywhere: &[Scoped<'_>] = &[("", Ok(&[])), ("pay", Ok(C)), ("search", Ok(C))];
    let begun = || {
        let mut payments = Payments::new();
        assert_eq!(payments.scan(&["pay"], everywhere), ["c opened"]);
        assert_eq!(payments.scan(&["pay"], everywhere), nothing);
        payments
    };
    // Another entry has the project now.
    assert_eq!(begun().scan(&["other"], everywhere), ["c reassigned"]);
    // Each time, it stays active in the project of the other team.
    let off: &[Scoped<'_>] = &[("", Ok(&[])), ("pay", Ok(C_OFF)), ("search", Ok(C))];
    assert_eq!(begun().scan(&["pay"], off), ["c deactivated"]);
    let successor: &[(&str, i64, bool)] = &[("c", 20, false), ("d", 400, true)];
    let replaced: &[Scoped<'_>] = &[("", Ok(&[])), ("pay", Ok(successor)), ("search", Ok(C))];
    assert_eq!(begun().scan(&["pay"], replaced), ["c replaced"]);
    let archived: &[Scoped<'_>] = &[("", Ok(&[])), ("search", Ok(C))];
    assert_eq!(begun().scan(&["pay"], archived), ["c archived"]);
    // A flapping alert is resolved a day later.
    let mut payments = begun();
    assert_eq!(payments.scan(&["pay"], off), ["c deactivated"]);
    payments.now += TimeDelta::hours(1);
    assert_eq!(payments.scan(&["pay"], everywhere), ["c opened"]);
    assert_eq!(payments.scan(&["pay"], off), nothing, "held back");
    payments.now += TimeDelta::hours(25);
    assert_eq!(payments.scan(&["pay"], off), ["c deactivated"]);
    // A new project of the team brings it back.
    let mut payments = begun();
    payments.scan(&["pay"], archived);
    let again: &[Scoped<'_>] = &[("", Ok(&[])), ("pay2", Ok(C)), ("search", Ok(C))];
    assert_eq!(payments.scan(&["pay2"], again), ["c opened"]);
}

#[test]
fn a_project_without_a_valid_certificate_concerns_the_owners_of_its_certificates() {
    let lists: &[(&str, i64, bool)] = &[("root-1", -3, true), ("c", -2, true)];
    let inventory = inventory(&Inventory::default(), &[("", Ok(&[])), ("pay", Ok(lists))]);
    let mut policy = Policy::new(ladder(&[30]));
    policy.owners =
        vec![owner("security", &["root-*"], &[], &[]), of_projects("payments", &["pay"])];
    let (acme, none) = (OrganizationName::parse("acme").unwrap(), Acknowledgements::default());
    let evaluation = evaluate(&acme, &inventory, &policy, &none, start() + TimeDelta::hours(1));
    let of = |team: Option<&str>| {
        let audience = Audience::Owners(BTreeSet::from([team.map(ToOwned::to_owned)]));
        let routing = Routing { audience, ..Routing::all() };
        let subjects = findings(&evaluation, &routing).into_iter();
        subjects.map(|finding| subject_id(&finding.subject)).collect::<Vec<_>>()
    };
    assert_eq!(of(Some("security")), ["root-1", "pay"]);
    assert_eq!(of(Some("payments")), ["c", "pay"]);
    assert_eq!(of(None), Vec::<String>::new());
}
