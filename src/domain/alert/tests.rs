use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use proptest::prelude::*;

use super::Reason;
use super::*;
use crate::domain::{
    acknowledgement::{Acknowledgement, Acknowledgements, Ending},
    certificate::{CertificateId, OrganizationName, Scope},
    evaluate::evaluate,
    inventory::{
        Inventory,
        tests::{Scoped, certificate, each, everything, reading, start},
    },
    notifier::{self, Grouping},
    policy::{Effect, Ignore, Policy, ProtectionPolicy, Rule},
    reading::{Listed, Reading},
    routing::Routing,
    selection::{Glob, Globs},
    subject::Subject,
    text::Name,
    threshold::{Severity, Stage, tests::ladder},
};

fn policy_of(days: &[i64]) -> Policy {
    let protection = ProtectionPolicy { severity: None, ..ProtectionPolicy::default() };
    Policy { protection, ..Policy::new(ladder(days)) }
}

fn at(days: i64) -> DateTime<Utc> {
    start() + TimeDelta::days(days)
}

fn hour(hours: i64) -> DateTime<Utc> {
    start() + TimeDelta::hours(hours)
}

fn acme() -> OrganizationName {
    OrganizationName::parse("acme").unwrap()
}

/// One notifier for one organization, over several scans.
struct NotifierState {
    inventory: Inventory,
    ledger: Ledger,
    policy: Policy,
    routing: Routing,
    acknowledgements: Acknowledgements,
    timezone: Tz,
    clock_is_uncertain: bool,
}

impl Default for NotifierState {
    fn default() -> NotifierState {
        NotifierState {
            inventory: Inventory::default(),
            ledger: Ledger::default(),
            policy: policy_of(&[90, 30, 7, 1]),
            routing: Routing::all(),
            acknowledgements: Acknowledgements::default(),
            timezone: Tz::UTC,
            clock_is_uncertain: false,
        }
    }
}

impl NotifierState {
    fn scan(&mut self, reading: Reading, now: DateTime<Utc>) -> Vec<Decision> {
        let before = std::mem::take(&mut self.inventory);
        self.inventory = before.clone().merge(reading, &everything(), now);
        self.decide(&before, now)
    }

    fn decide(&mut self, before: &Inventory, now: DateTime<Utc>) -> Vec<Decision> {
        let acme = acme();
        let silences = &self.acknowledgements;
        let evaluation = evaluate(&acme, &self.inventory, &self.policy, silences, now);
        let transition = Transition::watched(before, &evaluation);
        let clock_is_certain = !self.clock_is_uncertain;
        let moment = ScanTime { clock_is_certain, ..ScanTime::at(now, self.timezone) };
        let decisions = reconcile(&transition, &self.routing, &self.ledger, moment);
        decisions.iter().for_each(|decision| self.ledger.learn(decision));
        decisions
    }

    /// The decisions if only the time or the configuration changes.
    fn again(&mut self, now: DateTime<Utc>) -> Vec<String> {
        let before = self.inventory.clone();
        words(&self.decide(&before, now))
    }

    /// The decisions of a scan as text: `id reason stage`.
    fn hears(&mut self, reading: Reading, now: DateTime<Utc>) -> Vec<String> {
        words(&self.scan(reading, now))
    }
}

fn words(decisions: &[Decision]) -> Vec<String> {
    let named = |decision: &Decision| match decision.subject() {
        Subject::Certificate(id) => id.to_string(),
        subject => subject.to_string(),
    };
    decisions
        .iter()
        .map(|decision| {
            let id = named(decision);
            match decision {
                Decision::Send { reason, reached, .. } => {
                    format!("{id} {reason} {}", reached.label)
                }
                Decision::Resolve { reason, sent, .. } => format!("{id} {reason} {}", sent.label),
                Decision::Redate { sent, .. } => format!("{id} (noted) {}", sent.label),
                Decision::HoldBack { reached, .. } => format!("{id} (damped) {}", reached.label),
            }
        })
        .collect()
}

/// One project, `p`, with these certificates `(id, days until the expiry, active)`.
fn project(listed: &[(&str, i64, bool)]) -> Reading {
    reading(&[("", Ok(&[])), ("p", Ok(listed))])
}

#[test]
fn a_certificate_is_reported_in_each_stage() {
    let mut notifier = NotifierState::default();
    let mut heard = Vec::new();
    for day in 0..=115 {
        for words in notifier.hears(project(&[("c", 100, true)]), at(day)) {
            heard.push(format!("{day}: {words}"));
        }
    }
    let (of_project, of_certificate): (Vec<String>, Vec<String>) =
        heard.into_iter().partition(|words| words.contains("project:p"));
    assert_eq!(
        of_certificate,
        [
            "10: c opened 90d",
            "70: c stage 30d",
            "93: c stage 7d",
            "99: c stage 1d",
            "100: c stage expired",
            "101: c repeat expired",
            "102: c repeat expired",
            "103: c repeat expired",
            "104: c repeat expired",
            "105: c repeat expired",
            "106: c repeat expired",
            "107: c repeat expired",
            "114: c repeat expired",
        ],
        "daily for a week, then weekly"
    );
    assert_eq!(
        of_project[..2],
        ["100: project:p opened uncovered", "101: project:p repeat uncovered"]
    );
    assert_eq!(of_project.len(), 16, "daily");
}

#[test]
fn after_downtime_only_the_tightest_stage_is_reported() {
    let mut notifier = NotifierState::default();
    assert_eq!(notifier.hears(project(&[("c", 100, true)]), at(15)), ["c opened 90d"]);
    assert_eq!(notifier.hears(project(&[("c", 100, true)]), at(95)), ["c stage 7d"]);
}

#[test]
fn each_resolution_has_its_reason() {
    // `x` stays, because a list that loses all items needs confirmation.
    let gone = || project(&[("x", 4_000, false)]);
    let cases: [(&str, Reading, Reading); 7] = [
        ("c renewed 7d", project(&[("c", 5, true)]), project(&[("c", 400, true)])),
        ("c deactivated 7d", project(&[("c", 5, true)]), project(&[("c", 5, false)])),
        ("c deleted 7d", project(&[("c", 5, true), ("x", 4_000, false)]), gone()),
        (
            "c replaced 7d",
            project(&[("c", 5, true)]),
            project(&[("c", 5, false), ("d", 400, true)]),
        ),
        ("c replaced 7d", project(&[("c", 5, true)]), project(&[("d", 400, true)])),
        ("c archived 7d", project(&[("c", 5, true)]), reading(&[("", Ok(&[("c", 5, false)]))])),
        // A successor must expire later by more than the widest threshold.
        (
            "c deactivated 7d",
            project(&[("c", 5, true)]),
            project(&[("c", 5, false), ("d", 95, true)]),
        ),
    ];
    for (expected, first, second) in cases {
        let mut notifier = NotifierState::default();
        notifier.scan(first, at(0));
        let heard = notifier.hears(second.clone(), at(0));
        assert!(heard.contains(&expected.to_owned()), "{expected}: {heard:?}");
        assert_eq!(notifier.hears(second, at(0)), [""; 0], "{expected}: sent once");
    }
}

#[test]
fn stale_data_resolves_nothing() {
    let mut notifier = NotifierState::default();
    let (x, both): (_, &[_]) = (("x", 4_000, false), &[("c", 5, true), ("x", 4_000, false)]);
    let half = || reading(&[("", Ok(&[])), ("p", Ok(&[x])), ("q", Err("HTTP 500"))]);
    let first = [("", Ok(&[] as &[_])), ("p", Ok(both)), ("q", Ok(&[("c", 5, false), x]))];
    notifier.scan(reading(&first), at(0));
    assert_eq!(notifier.hears(half(), at(0)), [""; 0], "it may be active in q");
    let whole = reading(&[("", Ok(&[])), ("p", Ok(&[x])), ("q", Ok(&[x]))]);
    assert_eq!(notifier.hears(whole, at(0)), ["c deleted 7d"]);
}

#[test]
fn a_threshold_is_reported_during_an_outage_of_the_api() {
    let mut notifier = NotifierState::default();
    assert_eq!(notifier.hears(project(&[("c", 31, true)]), at(0)), ["c opened 90d"]);
    let mut outage = reading(&[("", Err("HTTP 503"))]);
    outage.project_list = Err("HTTP 503".into());
    assert_eq!(notifier.hears(outage, at(2)), ["c stage 30d"]);
}

#[test]
fn a_later_expiry_that_is_still_in_a_stage_is_reported() {
    let mut notifier = NotifierState::default();
    notifier.scan(project(&[("c", 5, true)]), at(0));
    assert_eq!(notifier.hears(project(&[("c", 20, true)]), at(0)), ["c stage 30d"]);
}

#[test]
fn a_changed_ladder_sends_neither_a_repeat_nor_a_calmer_stage() {
    let heard_after = |days: &[i64]| {
        let mut notifier = NotifierState::default();
        assert_eq!(notifier.hears(project(&[("c", 5, true)]), at(0)), ["c opened 7d"]);
        notifier.policy = policy_of(days);
        notifier.again(at(0))
    };
    assert_eq!(heard_after(&[90, 30]), [""; 0], "fewer thresholds: the stage is calmer");
    assert_eq!(heard_after(&[90, 60, 7]), [""; 0], "a looser ladder");
    assert_eq!(heard_after(&[90, 6]), ["c stage 6d"], "a tighter threshold, reached");
    assert_eq!(heard_after(&[3]), ["c policy_changed 7d"], "a tighter threshold, not reached");
}

#[test]
fn an_alert_from_a_clock_that_was_ahead_is_resolved_as_corrected() {
    let mut notifier = NotifierState::default();
    notifier.scan(project(&[("c", 10, true)]), at(9));
    assert_eq!(
        notifier.hears(project(&[("c", 10, true)]), at(0)),
        ["c corrected 1d", "c opened 30d"],
        "the wrong stage is resolved, and the right one is sent"
    );
    assert_eq!(notifier.hears(project(&[("c", 10, true)]), at(3)), ["c stage 7d"]);

    let mut notifier = NotifierState::default();
    notifier.scan(project(&[("c", 100, true)]), at(80));
    assert_eq!(notifier.hears(project(&[("c", 100, true)]), at(75)), ["c (noted) 30d"]);

    let mut notifier = NotifierState::default();
    notifier.scan(project(&[("c", 100, true)]), at(99));
    let back = notifier.hears(project(&[("c", 100, true)]), at(0));
    assert_eq!(back, ["c corrected 1d"]);
    assert_eq!(
        notifier.hears(project(&[("c", 100, true)]), at(10)),
        ["c opened 90d"],
        "no threshold is missed"
    );
}

#[test]
fn an_uncertain_clock_resolves_nothing() {
    let mut notifier = NotifierState::default();
    notifier.scan(project(&[("c", 10, true)]), at(9));
    notifier.clock_is_uncertain = true;
    for day in [0, 5] {
        assert_eq!(notifier.hears(project(&[("c", 10, true)]), at(day)), [""; 0]);
    }
}

#[test]
fn an_expiry_that_changes_by_seconds_is_not_reported() {
    let mut notifier = NotifierState::default();
    let moved = |seconds: i64| {
        let mut reading = project(&[("c", 5, true)]);
        each(&mut reading, |one| {
            one.expires_at = one.expires_at.map(|at| at + TimeDelta::seconds(seconds));
        });
        reading
    };
    assert_eq!(notifier.hears(moved(0), at(0)), ["c opened 7d"]);
    for seconds in 1..15 {
        assert_eq!(notifier.hears(moved(seconds), at(0)), [""; 0]);
    }
    assert_eq!(notifier.hears(moved(86_400), at(0)), ["c stage 7d"], "a day is another expiry");
}

#[test]
fn a_replaced_certificate_is_a_warning_until_a_project_has_no_successor() {
    let mut notifier = NotifierState::default();
    let with = || project(&[("c", 5, true), ("d", 400, true)]);
    let severity = |notifier: &NotifierState| {
        let sent = &notifier.ledger.open[&Subject::Certificate(CertificateId::parse("c").unwrap())];
        sent.severity
    };
    assert_eq!(notifier.hears(with(), at(0)), ["c opened 7d"]);
    assert_eq!(severity(&notifier), Severity::Warning);
    assert_eq!(notifier.hears(with(), at(4)), ["c stage 1d"]);
    assert_eq!(notifier.hears(with(), at(4) + TimeDelta::hours(12)), [""; 0], "it does not repeat");
    let without = || project(&[("c", 5, true), ("d", 400, false)]);
    assert_eq!(notifier.hears(without(), at(4) + TimeDelta::hours(13)), ["c stage 1d"]);
    assert_eq!(severity(&notifier), Severity::Critical);
    assert_eq!(notifier.hears(with(), at(4) + TimeDelta::hours(14)), [""; 0]);
    assert_eq!(
        notifier.hears(without(), at(4) + TimeDelta::hours(15)),
        [""; 0],
        "no repeated escalation"
    );
}

#[test]
fn a_list_that_loses_all_items_counts_after_five_minutes() {
    let mut notifier = NotifierState::default();
    let gone = || reading(&[("", Ok(&[])), ("p", Ok(&[]))]);
    notifier.scan(project(&[("c", 5, true)]), at(0));
    let minutes = |n| at(0) + TimeDelta::minutes(n);
    assert_eq!(notifier.hears(gone(), minutes(1)), [""; 0]);
    assert!(!notifier.inventory.is_complete() && notifier.inventory.needs_confirmation());
    assert_eq!(notifier.hears(gone(), minutes(3)), [""; 0]);
    assert_eq!(notifier.hears(gone(), minutes(6)), ["c deleted 7d"]);
    assert!(notifier.inventory.is_complete());
}

#[test]
fn a_repeat_follows_the_schedule_and_is_never_immediate() {
    let sent = |at: &str, tick: &str| SentAlert {
        stage: Stage::Expired,
        label: "expired".into(),
        severity: Severity::Critical,
        expires_at: None,
        name: None,
        at: at.parse().unwrap(),
        tick: tick.parse().unwrap(),
        again: false,
        due_at: None,
        earlier_severities: Default::default(),
    };
    let day = |time: &str| format!("2027-02-01T{time}:00Z");
    let cases = [
        ("06:00", "06:00", "12:00", "12:00", true, "each scan of the schedule"),
        ("06:03", "06:00", "12:00", "12:00", true, "the scan of the alert was late"),
        ("11:50", "06:00", "12:00", "12:00", false, "a start shortly before the scheduled time"),
        ("06:00", "06:00", "09:05", "06:00", false, "a restart in between"),
        ("08:59", "06:00", "09:01", "06:00", false, "two starts in a row"),
        ("15:30", "12:00", "18:00", "18:00", false, "the scan of the alert was very late"),
        ("11:50", "06:00", "18:00", "18:00", true, "at the next scan after that"),
    ];
    for (sent_at, sent_tick, now, tick, expected, reason) in cases {
        let sent = sent(&day(sent_at), &day(sent_tick));
        let tick = day(tick).parse().unwrap();
        let moment = ScanTime { tick, ..ScanTime::at(day(now).parse().unwrap(), Tz::UTC) };
        assert_eq!(moment.is_due(&sent, TimeDelta::hours(6)), expected, "{reason}");
    }
}

#[test]
fn a_daily_repeat_is_due_at_the_same_local_time_on_a_day_of_23_hours() {
    let mut notifier = NotifierState { timezone: chrono_tz::Europe::Berlin, ..Default::default() };
    let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    let ended = (at("2027-03-20T00:00:00Z") - start()).num_days();
    let listed: &[_] = &[("c", ended, true), ("d", 5_000, true)];
    assert_eq!(notifier.hears(project(listed), at("2027-03-27T08:00:00Z")).len(), 1);
    // A replaced certificate does not repeat; without a successor it does.
    let listed: &[_] = &[("c", ended, true)];
    let now = at("2027-03-27T08:00:00Z");
    let heard = notifier.hears(project(listed), now);
    assert_eq!(heard, ["c stage expired", "project:p opened uncovered"], "critical again");
    assert_eq!(notifier.again(at("2027-03-28T06:59:00Z")), [""; 0]);
    let heard = notifier.again(at("2027-03-28T07:00:00Z"));
    assert!(
        heard.contains(&"project:p repeat uncovered".to_owned()),
        "09:00 to 09:00 local time: {heard:?}"
    );
}

#[test]
fn the_alerts_of_a_removed_organization_are_resolved() {
    let mut notifier = NotifierState::default();
    notifier.scan(project(&[("c", 5, true)]), at(0));
    let moment = ScanTime::at(at(1), Tz::UTC);
    let decisions = reconcile(&Transition::Unwatched, &notifier.routing, &notifier.ledger, moment);
    assert_eq!(words(&decisions), ["c unwatched 7d"]);
}

#[test]
fn an_uncovered_project_is_reported_and_resolved() {
    let both = |p: &[(&str, i64, bool)], q: &[(&str, i64, bool)]| {
        reading(&[("", Ok(&[])), ("p", Ok(p)), ("q", Ok(q))])
    };
    let expired: &[_] = &[("c", -9, true)];
    let mut notifier = NotifierState::default();
    let heard = notifier.hears(both(expired, &[("d", 400, true)]), at(0));
    assert_eq!(heard, ["c opened expired", "project:p opened uncovered"]);
    let heard = notifier.hears(both(expired, expired), hour(6));
    assert_eq!(
        heard,
        ["project:q opened uncovered", "project:p repeat uncovered"],
        "a new project is reported with the whole list"
    );
    assert_eq!(notifier.hears(both(expired, expired), hour(24)), [""; 0], "the repeats coincide");
    let heard = notifier.hears(both(expired, expired), hour(30));
    assert_eq!(heard, ["project:p repeat uncovered", "project:q repeat uncovered"]);

    let cases: [(&str, Reading); 5] = [
        ("replaced", both(&[("c", -9, true), ("e", 400, true)], expired)),
        ("renewed", both(&[("c", 400, true)], &[("d", -9, true)])),
        ("deactivated", both(&[("c", -9, false)], expired)),
        ("archived", reading(&[("", Ok(&[])), ("q", Ok(expired))])),
        ("unreadable", reading(&[("", Ok(&[])), ("p", Err("HTTP 500")), ("q", Ok(expired))])),
    ];
    for (reason, then) in cases {
        let mut notifier = NotifierState::default();
        notifier.scan(both(expired, &[]), at(0));
        let heard = notifier.hears(then, hour(1));
        let of_p: Vec<&String> = heard.iter().filter(|one| one.contains("project:p")).collect();
        if reason == "unreadable" {
            // Repeated because of q. An unreadable project is not resolved.
            assert_eq!(of_p, ["project:p repeat uncovered"]);
        } else {
            assert!(
                of_p.iter().any(|one| **one == format!("project:p {reason} uncovered")),
                "{heard:?}"
            );
        }
    }
}

#[test]
fn an_inherited_certificate_covers_a_project_and_an_unread_project_is_not_uncovered() {
    let mut notifier = NotifierState::default();
    let inherited: &[_] = &[("root", 900, true)];
    let own: &[_] = &[("c", -9, true)];
    let heard = notifier.hears(reading(&[("", Ok(inherited)), ("p", Ok(own))]), at(0));
    assert_eq!(heard, ["c opened expired"]);

    let mut notifier = NotifierState::default();
    let ended: &[_] = &[("root", -9, true)];
    let heard = notifier.hears(reading(&[("", Ok(ended)), ("p", Err("HTTP 403"))]), at(0));
    assert_eq!(heard, ["root opened expired"], "p may have another certificate");

    let own: &[_] = &[("c", -9, true)];
    let mut notifier = NotifierState::default();
    let heard = notifier.hears(reading(&[("", Err("HTTP 500")), ("p", Ok(own))]), at(0));
    assert_eq!(heard, ["c opened expired"], "p may inherit a certificate");
}

#[test]
fn a_replaced_certificate_expires_with_a_single_warning() {
    let mut notifier = NotifierState::default();
    let listed: &[_] = &[("c", 5, true), ("d", 400, true)];
    let decisions = notifier.scan(project(listed), at(6));
    let Decision::Send { reached, .. } = &decisions[0] else { panic!("{decisions:?}") };
    assert_eq!((reached.severity, reached.repeat), (Severity::Warning, None));
    let mut heard = Vec::new();
    (7..60).for_each(|day| heard.extend(notifier.again(at(day))));
    assert_eq!(heard, [""; 0], "only once");

    let not_by_enough: &[_] = &[("c", 5, true), ("d", 94, true)];
    let decisions = NotifierState::default().scan(project(not_by_enough), at(6));
    let Decision::Send { reached, .. } = &decisions[0] else { panic!("{decisions:?}") };
    assert_eq!(reached.severity, Severity::Critical);
}

#[test]
fn a_removed_certificate_is_replaced_only_if_every_project_has_a_successor() {
    for (in_q, expected) in [(400, "c replaced 7d"), (5, "c deactivated 7d")] {
        let mut notifier = NotifierState::default();
        let p: &[_] = &[("c", 5, true), ("d", 400, true)];
        let q: &[_] = &[("c", 5, true), ("e", in_q, true)];
        notifier.hears(reading(&[("", Ok(&[])), ("p", Ok(p)), ("q", Ok(q))]), at(0));
        let p: &[_] = &[("c", 5, false), ("d", 400, true)];
        let q: &[_] = &[("c", 5, false), ("e", in_q, true)];
        let scopes: [Scoped<'_>; 3] = [("", Ok(&[])), ("p", Ok(p)), ("q", Ok(q))];
        let heard = notifier.hears(reading(&scopes), at(0) + TimeDelta::hours(1));
        assert!(heard.contains(&expected.to_owned()), "{expected}: {heard:?}");
    }
}

#[test]
fn an_expired_certificate_is_no_successor_and_one_that_started_late_is() {
    let mut notifier = NotifierState::default();
    let both_ended: &[_] = &[("c", -200, true), ("d", -5, true)];
    for decision in notifier.scan(project(both_ended), at(0)) {
        let Decision::Send { reached, .. } = decision else { panic!("{decision:?}") };
        assert_eq!(reached.severity, Severity::Critical);
    }

    let mut late = project(&[("c", -3, true), ("d", 400, true)]);
    each(&mut late, |certificate| certificate.valid_at = Some(at(-2)));
    let decisions = NotifierState::default().scan(late, at(0));
    let Decision::Send { reached, .. } = &decisions[0] else { panic!("{decisions:?}") };
    assert_eq!(
        reached.severity,
        Severity::Warning,
        "d started after the expiry of c, and is valid now"
    );
}

#[test]
fn repeats_continue_after_a_change_to_a_calmer_ladder() {
    let repeating = |days: i64| {
        let step = crate::domain::threshold::Threshold {
            lead: crate::domain::threshold::Lead::Fixed(TimeDelta::days(days)),
            label: format!("{days}d"),
            severity: Severity::Critical,
            repeat: Some(TimeDelta::hours(6)),
        };
        let expired =
            crate::domain::threshold::ExpiredStep { severity: Severity::Critical, repeat: None };
        let ladder = crate::domain::threshold::Ladder::new(vec![step], expired).unwrap();
        Policy { ladder, ..policy_of(&[1]) }
    };
    let mut notifier = NotifierState { policy: repeating(1), ..Default::default() };
    assert_eq!(notifier.hears(project(&[("c", 1, true)]), at(0)), ["c opened 1d"]);
    notifier.policy = repeating(3);
    assert_eq!(notifier.again(hour(6)), ["c repeat 3d"]);
    assert_eq!(notifier.again(hour(12)), ["c repeat 3d"]);
}

#[test]
fn not_yet_valid_is_reported_before_an_expiry_of_lower_severity() {
    let mut notifier = NotifierState::default();
    let mut policy = policy_of(&[90, 30]);
    policy.ladder = {
        use crate::domain::threshold::{ExpiredStep, Ladder, Lead, Threshold};
        let info = Threshold {
            lead: Lead::Fixed(TimeDelta::days(90)),
            label: "90d".into(),
            severity: Severity::Info,
            repeat: None,
        };
        let expired = ExpiredStep { severity: Severity::Critical, repeat: None };
        Ladder::new(vec![info], expired).unwrap()
    };
    notifier.policy = policy;
    let young = || {
        let mut young = project(&[("c", 60, true)]);
        each(&mut young, |certificate| certificate.valid_at = Some(at(20)));
        young
    };
    let heard = notifier.hears(young(), at(0));
    assert_eq!(heard, ["c opened not_yet_valid", "project:p opened uncovered"]);
    let mut of_warnings = NotifierState { policy: notifier.policy.clone(), ..Default::default() };
    of_warnings.routing.min_severity = Severity::Warning;
    assert_eq!(notifier.again(at(20)), ["c stage 90d", "project:p corrected uncovered"]);
    of_warnings.hears(young(), at(0));
    let heard = of_warnings.again(at(20));
    assert_eq!(heard, ["c corrected not_yet_valid", "project:p corrected uncovered"]);
}

#[test]
fn the_end_of_a_silence_is_the_reason_only_for_a_notifier_that_it_silenced() {
    let critical = Routing { min_severity: Severity::Critical, ..Routing::all() };
    let mut notifier = NotifierState { routing: critical, ..Default::default() };
    notifier.policy.rules = vec![ignoring(80)];
    let ending: &[_] = &[("c", 100, true)];
    assert_eq!(notifier.hears(project(ending), at(0)), [""; 0]);
    assert_eq!(notifier.again(at(85)), [""; 0]);
    assert_eq!(notifier.again(at(93)), ["c opened 7d"]);

    let mut added_later = NotifierState::default();
    added_later.policy.rules = vec![ignoring(71)];
    assert_eq!(added_later.hears(project(ending), at(80)), ["c opened 30d"]);
}

/// Alternates between two lists, with a scan every six hours.
fn flips(
    notifier: &mut NotifierState,
    one: &[(&str, i64, bool)],
    other: &[(&str, i64, bool)],
    scans: i64,
) -> Vec<String> {
    let mut heard = Vec::new();
    for scan in 0..scans {
        let answer = if scan % 2 == 0 { one } else { other };
        for words in notifier.hears(project(answer), hour(6 * scan)) {
            if !words.contains("(damped)") {
                heard.push(format!("{}: {words}", 6 * scan));
            }
        }
    }
    heard
}

#[test]
fn a_flapping_alert_is_held_back_and_is_sent_if_it_stays_open() {
    let (on, off): (&[_], &[_]) = (&[("c", 20, true)], &[("c", 20, false)]);
    let mut notifier = NotifierState::default();
    let heard = flips(&mut notifier, on, off, 9);
    assert_eq!(
        heard,
        [
            "0: c opened 30d",
            "6: c deactivated 30d",
            "12: c opened 30d",
            "18: c deactivated 30d",
            "36: c opened 30d",
            "42: c deactivated 30d",
        ]
    );
    assert_eq!(notifier.hears(project(on), hour(54)), ["c (damped) 30d"]);
    assert_eq!(notifier.hears(project(on), hour(59)), ["c (damped) 30d"]);
    assert_eq!(notifier.hears(project(on), hour(60)), ["c opened 30d"], "24 hours later");
    let tighter: &[_] = &[("c", 20, true)];
    assert_eq!(notifier.hears(project(tighter), at(14)), ["c stage 7d"], "a new stage is sent");
}

#[test]
fn a_flapping_alert_is_not_resolved_within_a_day() {
    let (on, off): (&[_], &[_]) = (&[("c", 20, true)], &[("c", 20, false)]);
    let mut notifier = NotifierState::default();
    assert_eq!(flips(&mut notifier, on, off, 3).last().unwrap(), "12: c opened 30d");
    let ended = |grouping, hours| {
        let sent = notifier.ledger.open.values().next().unwrap().clone();
        let subject = notifier.ledger.open.keys().next().unwrap().clone();
        let end = Decision::Resolve { subject, reason: Reason::Archived, sent };
        let who = notifier::NotifierState {
            name: "n".to_owned(),
            routing: Routing::all(),
            grouping,
            ledger: notifier.ledger.clone(),
        };
        !apply_grouping(vec![end], &who, hour(hours)).is_empty()
    };
    for grouping in [Grouping::Digest, Grouping::EachAlert, Grouping::EachAlertRefreshed] {
        assert!(
            !ended(grouping, 18) && !ended(grouping, 35),
            "{grouping:?}: a suppressed alert would stay resolved"
        );
        assert!(ended(grouping, 37), "{grouping:?}");
    }
}

#[test]
fn an_alternating_expiry_is_sent_at_most_daily() {
    let (near, far): (&[_], &[_]) = (&[("c", 25, true)], &[("c", 85, true)]);
    let heard = flips(&mut NotifierState::default(), near, far, 40);
    // Ten days: the first alert of each list, then at most one a day for each.
    assert!(heard.len() <= 2 + 2 * 10, "{heard:#?}");
    assert!(heard.len() >= 10, "alerts continue: {heard:#?}");
}

fn ignoring(days: i64) -> Rule {
    Rule {
        index: 0,
        certificates: Globs(vec![Glob::new("c")]),
        projects: Globs::all(),
        effect: Effect::Ignore(Ignore { reason: "being retired".into(), until: at(days) }),
    }
}

#[test]
fn an_ignored_certificate_is_reported_when_the_rule_ends() {
    let mut notifier = NotifierState::default();
    notifier.policy.rules = vec![ignoring(80)];
    let mut heard = Vec::new();
    for day in 0..=90 {
        let words = notifier.hears(project(&[("c", 100, true)]), at(day));
        heard.extend(words.iter().map(|words| format!("{day}: {words}")));
    }
    assert_eq!(heard, ["80: c ignore_ended 30d"]);

    let mut notifier = NotifierState::default();
    notifier.policy.rules = vec![ignoring(3)];
    let heard =
        [0, 5, 10].map(|day| notifier.hears(project(&[("c", 100, true)]), at(day)).join(""));
    assert_eq!(heard, ["", "", "c opened 90d"], "it was in no stage when the rule ended");
}

#[test]
fn ignoring_a_certificate_resolves_its_alert_and_that_of_its_project() {
    let mut notifier = NotifierState::default();
    let expired: &[_] = &[("c", -5, true)];
    assert_eq!(notifier.hears(project(expired), at(0)).len(), 2);
    notifier.policy.rules = vec![ignoring(30)];
    assert_eq!(notifier.again(hour(1)), ["c ignored expired", "project:p ignored uncovered"]);
    assert_eq!(notifier.again(at(5)), [""; 0]);
    notifier.policy.rules = vec![];
    assert_eq!(notifier.again(at(6)), ["c opened expired", "project:p opened uncovered"]);
}

fn acknowledged(until: DateTime<Utc>, days: i64) -> Acknowledgement {
    Acknowledgement {
        id: uuid::Uuid::nil(),
        subject: Subject::Certificate(CertificateId::parse("c").unwrap()),
        reason: "on it".into(),
        by: None,
        created_at: at(0),
        until,
        expires_at: Some(at(days)),
        ended: None,
    }
}

impl NotifierState {
    fn acknowledge(&mut self, one: Acknowledgement) {
        let others = self.acknowledgements.iter().cloned();
        self.acknowledgements = others.chain([one]).collect();
    }
}

#[test]
fn an_acknowledgement_silences_all_but_the_last_threshold_until_its_end() {
    let walk = |until: i64| {
        let mut notifier = NotifierState::default();
        notifier.acknowledge(acknowledged(at(until), 100));
        let mut heard = Vec::new();
        for day in 0..=100 {
            let words = notifier.hears(project(&[("c", 100, true)]), at(day));
            heard.extend(words.iter().map(|words| format!("{day}: {words}")));
        }
        heard.retain(|words| !words.contains("project"));
        heard
    };
    assert_eq!(
        walk(75),
        ["75: c ack_ended 30d", "93: c stage 7d", "99: c stage 1d", "100: c stage expired"]
    );
    assert_eq!(
        walk(5),
        [
            "10: c opened 90d",
            "70: c stage 30d",
            "93: c stage 7d",
            "99: c stage 1d",
            "100: c stage expired"
        ]
    );
    assert_eq!(walk(200), ["99: c opened 1d", "100: c stage expired"]);
}

#[test]
fn a_withdrawn_acknowledgement_or_one_for_another_expiry_silences_nothing() {
    let sent = || {
        let mut notifier = NotifierState::default();
        assert_eq!(notifier.hears(project(&[("c", 20, true)]), at(0)), ["c opened 30d"]);
        notifier.acknowledge(acknowledged(at(18), 20));
        assert_eq!(notifier.again(at(14)), [""; 0], "7d is silenced");
        notifier
    };
    let mut notifier = sent();
    let ended = Some((at(14), Ending::Withdrawn));
    notifier.acknowledge(Acknowledgement { ended, ..acknowledged(at(18), 20) });
    assert_eq!(notifier.again(hour(14 * 24 + 1)), ["c ack_ended 7d"]);
    assert_eq!(notifier.again(hour(14 * 24 + 2)), [""; 0], "sent once");

    let mut notifier = NotifierState::default();
    notifier.hears(project(&[("c", 60, true)]), at(0));
    notifier.acknowledge(acknowledged(at(2), 60));
    assert_eq!(notifier.again(at(1)), [""; 0]);
    assert_eq!(notifier.again(at(12)), ["c ack_ended 90d"], "even if the next scan is late");

    let mut notifier = sent();
    assert_eq!(
        notifier.hears(project(&[("c", 25, true)]), at(14)),
        ["c stage 30d"],
        "another expiry"
    );

    let mut notifier = sent();
    let heard = notifier.hears(project(&[("c", 20, false)]), at(14));
    assert_eq!(heard, ["c deactivated 30d"], "the sent alert is still resolved");
}

#[test]
fn an_alert_that_the_filters_no_longer_select_is_resolved_with_the_reason() {
    let critical = || Routing { min_severity: Severity::Critical, ..Routing::all() };
    let five: &[_] = &[("c", 5, true)];
    let sent = |routing: Routing| {
        let mut notifier = NotifierState { routing, ..Default::default() };
        assert_eq!(notifier.hears(project(five), at(0)), ["c opened 7d"]);
        notifier
    };
    let mut notifier = sent(critical());
    assert_eq!(notifier.hears(project(&[("c", 20, true)]), at(0)), ["c renewed 7d"]);

    let mut notifier = sent(critical());
    notifier.policy = policy_of(&[90, 30]);
    assert_eq!(notifier.again(at(0)), ["c policy_changed 7d"]);

    let mut notifier = sent(Routing::all());
    notifier.routing.projects = Globs(vec![Glob::new("q*")]);
    assert_eq!(notifier.again(at(0)), ["c unwatched 7d"]);
    notifier.routing = Routing::all();
    assert_eq!(notifier.again(at(0)), ["c opened 7d"], "it is sent when the filter matches again");

    let mut notifier = sent(Routing::all());
    notifier.routing.organizations = Globs(vec![Glob::new("other")]);
    assert_eq!(notifier.again(at(0)), ["c unwatched 7d"]);

    // The filter no longer matches the project, where it is still active.
    let named = |name: &str| {
        let mut reading = project(five);
        reading.projects.values_mut().for_each(|one| one.name = Name::clean(name));
        reading
    };
    let routing = Routing { projects: Globs(vec![Glob::new("prod-*")]), ..Routing::all() };
    let mut notifier = NotifierState { routing, ..Default::default() };
    assert_eq!(notifier.hears(named("prod-x"), at(0)), ["c opened 7d"]);
    assert_eq!(notifier.hears(named("legacy-x"), at(0)), ["c unwatched 7d"]);

    let mut notifier = sent(critical());
    let replaced = project(&[("c", 5, true), ("d", 400, true)]);
    assert_eq!(notifier.hears(replaced, at(4)), ["c replaced 7d"], "a normal rotation");

    let mut notifier = sent(critical());
    assert_eq!(notifier.again(at(5)), ["c stage expired", "project:p opened uncovered"]);
    let heard = notifier.hears(project(&[("c", 5, true), ("d", 400, true)]), at(5));
    assert_eq!(
        heard,
        ["c replaced expired", "project:p replaced uncovered"],
        "below the minimum severity"
    );
}

#[test]
fn a_renamed_or_moved_certificate_is_not_reported() {
    let mut notifier = NotifierState::default();
    let ending: &[_] = &[("c", 20, true)];
    notifier.scan(reading(&[("", Ok(&[])), ("p", Ok(ending)), ("q", Ok(&[]))]), at(0));
    let mut renamed = reading(&[("", Ok(&[])), ("p", Ok(&[])), ("q", Ok(ending))]);
    each(&mut renamed, |certificate| certificate.name = Name::clean("another"));
    assert_eq!(notifier.hears(renamed, at(0)), [""; 0]);
    let inherited = reading(&[("", Ok(ending)), ("p", Ok(&[])), ("q", Ok(&[]))]);
    assert_eq!(notifier.hears(inherited, at(0)), [""; 0]);
}

fn arbitrary_reading() -> impl Strategy<Value = Reading> {
    let listed = proptest::collection::vec((0..5u8, -3..120i64, any::<bool>()), 0..6);
    let scope = prop_oneof![3 => listed.prop_map(Some), 1 => Just(None)];
    proptest::collection::vec(scope, 3).prop_map(|scopes| {
        let mut all = reading(&[("", Ok(&[])), ("p", Ok(&[])), ("q", Ok(&[]))]);
        let of: Vec<Scope> = all.listings.keys().cloned().collect();
        for (of, scope) in of.into_iter().zip(scopes) {
            match scope {
                None => drop(all.listings.insert(of, Err("HTTP 500".into()))),
                Some(listed) => {
                    let listed = listed.into_iter().map(|(id, days, active)| Listed {
                        certificate: certificate(&format!("c{id}"), days).into(),
                        active,
                    });
                    all.take(of, vec![listed.collect::<Vec<_>>().into()]);
                }
            }
        }
        all
    })
}

proptest! {
    #[test]
    fn a_second_reconcile_without_a_change_decides_nothing(
        readings in proptest::collection::vec(arbitrary_reading(), 1..6),
    ) {
        let mut notifier = NotifierState::default();
        for (day, reading) in readings.into_iter().enumerate() {
            let now = at(day as i64);
            notifier.scan(reading.clone(), now);
            let mut again = notifier.hears(reading, now);
            again.retain(|words| !words.contains("(damped)"));
            prop_assert_eq!(again, Vec::<String>::new());
        }
    }

    #[test]
    fn the_reported_stage_of_one_expiry_only_rises(days in 0..120i64, steps in proptest::collection::vec(0..20i64, 1..12)) {
        let mut notifier = NotifierState::default();
        let (mut day, mut last) = (0, None);
        for step in steps {
            day += step;
            let decisions = notifier.scan(project(&[("c", days, true)]), at(day));
            let of_certificate =
                decisions.into_iter().filter(|one| matches!(one.subject(), Subject::Certificate(_)));
            for decision in of_certificate {
                let Decision::Send { reached, reason, .. } = decision else { panic!("{decision:?}") };
                let rose = Some(reached.stage) > last;
                prop_assert!(rose || (reason == Reason::Repeat && Some(reached.stage) == last));
                last = Some(reached.stage);
            }
        }
    }
}
