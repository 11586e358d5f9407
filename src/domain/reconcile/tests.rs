use proptest::prelude::*;

use super::*;
use crate::domain::{
    evaluate::evaluate,
    inventory::{
        Listed, Reading,
        tests::{certificate, everything, reading, start},
    },
    threshold::tests::ladder,
};

fn policy() -> Policy {
    Policy { ladder: ladder(&[90, 30, 7, 1]), include_inactive: false }
}

fn at(days: i64) -> DateTime<Utc> {
    start() + TimeDelta::days(days)
}

/// One notifier that listens to one organization, scan after scan.
#[derive(Default)]
struct Listener {
    inventory: Inventory,
    ledger: Ledger,
}

impl Listener {
    fn scan(&mut self, reading: Reading, now: DateTime<Utc>) -> Vec<Decision> {
        let before = std::mem::take(&mut self.inventory);
        self.inventory = before.clone().merge(reading, &everything(), now);
        self.decide(&before, &policy(), now)
    }

    fn decide(&mut self, before: &Inventory, policy: &Policy, now: DateTime<Utc>) -> Vec<Decision> {
        let assessments = evaluate(&self.inventory, policy, now);
        let world = World::Watched { before, after: &self.inventory, policy };
        let decisions = reconcile(
            &assessments,
            &self.ledger,
            &world,
            Moment { now, tick: now, timezone: Tz::UTC },
        );
        for decision in &decisions {
            match decision {
                Decision::Tell { id, told, .. } | Decision::Note { id, told } => {
                    self.ledger.insert(id.clone(), told.clone());
                }
                Decision::End { id, .. } | Decision::Forget { id } => {
                    self.ledger.remove(id);
                }
            }
        }
        decisions
    }

    /// The same, in words: `id reason stage`.
    fn hears(&mut self, reading: Reading, now: DateTime<Utc>) -> Vec<String> {
        words(&self.scan(reading, now))
    }
}

fn words(decisions: &[Decision]) -> Vec<String> {
    decisions
        .iter()
        .map(|decision| match decision {
            Decision::Tell { id, reason, reached, .. } => {
                format!("{id} {reason} {}", reached.label)
            }
            Decision::End { id, reason, told } => format!("{id} {reason} {}", told.label),
            Decision::Note { id, told } => format!("{id} (noted) {}", told.label),
            Decision::Forget { id } => format!("{id} (forgotten)"),
        })
        .collect()
}

/// One project, `p`, with these certificates `(id, days until the end, active)`.
fn project(listed: &[(&str, i64, bool)]) -> Reading {
    reading(&[("", Ok(&[])), ("p", Ok(listed))])
}

#[test]
fn a_life_is_told_in_its_stages_each_once() {
    let mut listener = Listener::default();
    let mut heard = Vec::new();
    for day in 0..=112 {
        for words in listener.hears(project(&[("c", 100, true)]), at(day)) {
            heard.push(format!("{day}: {words}"));
        }
    }
    assert_eq!(
        heard,
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
        ],
        "daily for a week, then weekly"
    );
}

#[test]
fn after_downtime_only_the_tightest_stage_is_told() {
    let mut listener = Listener::default();
    assert_eq!(listener.hears(project(&[("c", 100, true)]), at(15)), ["c opened 90d"]);
    assert_eq!(listener.hears(project(&[("c", 100, true)]), at(95)), ["c stage 7d"]);
}

#[test]
fn each_end_has_its_reason() {
    let gone = || reading(&[("", Ok(&[])), ("p", Ok(&[]))]);
    let cases: [(&str, Reading, Reading); 7] = [
        ("c renewed 7d", project(&[("c", 5, true)]), project(&[("c", 400, true)])),
        ("c deactivated 7d", project(&[("c", 5, true)]), project(&[("c", 5, false)])),
        ("c deleted 7d", project(&[("c", 5, true)]), gone()),
        (
            "c replaced 7d",
            project(&[("c", 5, true)]),
            project(&[("c", 5, false), ("d", 400, true)]),
        ),
        ("c replaced 7d", project(&[("c", 5, true)]), project(&[("d", 400, true)])),
        ("c archived 7d", project(&[("c", 5, true)]), reading(&[("", Ok(&[("c", 5, false)]))])),
        // What takes over must outlive it by more than the widest threshold.
        (
            "c deactivated 7d",
            project(&[("c", 5, true)]),
            project(&[("c", 5, false), ("d", 95, true)]),
        ),
    ];
    for (expected, first, second) in cases {
        let mut listener = Listener::default();
        listener.scan(first, at(0));
        let heard = listener.hears(second.clone(), at(0));
        assert!(heard.contains(&expected.to_owned()), "{expected}: {heard:?}");
        assert_eq!(listener.hears(second, at(0)), [""; 0], "{expected}: said once");
    }
}

#[test]
fn nothing_is_resolved_on_hearsay() {
    let mut listener = Listener::default();
    let both: &[_] = &[("c", 5, true)];
    listener.scan(reading(&[("", Ok(&[])), ("p", Ok(both)), ("q", Ok(&[("c", 5, false)]))]), at(0));
    let half = || reading(&[("", Ok(&[])), ("p", Ok(&[])), ("q", Err("HTTP 500"))]);
    assert_eq!(listener.hears(half(), at(0)), [""; 0], "q may have it active by now");
    let whole = reading(&[("", Ok(&[])), ("p", Ok(&[])), ("q", Ok(&[]))]);
    assert_eq!(listener.hears(whole, at(0)), ["c deleted 7d"]);
}

#[test]
fn a_threshold_passes_during_an_outage_of_the_api_too() {
    let mut listener = Listener::default();
    assert_eq!(listener.hears(project(&[("c", 31, true)]), at(0)), ["c opened 90d"]);
    let mut outage = reading(&[("", Err("HTTP 503"))]);
    outage.project_list = Err("HTTP 503".into());
    assert_eq!(listener.hears(outage, at(2)), ["c stage 30d"]);
}

#[test]
fn a_later_expiry_that_is_still_in_a_stage_starts_afresh() {
    let mut listener = Listener::default();
    listener.scan(project(&[("c", 5, true)]), at(0));
    assert_eq!(listener.hears(project(&[("c", 20, true)]), at(0)), ["c stage 30d"]);
}

#[test]
fn a_changed_ladder_neither_repeats_nor_calms_down_loudly() {
    let mut listener = Listener::default();
    listener.scan(project(&[("c", 5, true)]), at(0));
    let before = listener.inventory.clone();
    let wider = Policy { ladder: ladder(&[90, 30]), include_inactive: false };
    assert_eq!(words(&listener.decide(&before, &wider, at(0))), [""; 0]);
    let none = Policy { ladder: ladder(&[3]), include_inactive: false };
    assert_eq!(words(&listener.decide(&before, &none, at(0))), ["c policy_changed 7d"]);
}

#[test]
fn a_ledger_from_the_future_is_set_back() {
    let mut listener = Listener::default();
    listener.scan(project(&[("c", 10, true)]), at(9));
    assert_eq!(listener.hears(project(&[("c", 10, true)]), at(0)), ["c (noted) 30d"]);
    assert_eq!(listener.hears(project(&[("c", 10, true)]), at(3)), ["c stage 7d"]);

    let mut listener = Listener::default();
    listener.scan(project(&[("c", 100, true)]), at(99));
    let back = listener.hears(project(&[("c", 100, true)]), at(0));
    assert_eq!(back, ["c (forgotten)"], "it is not over because the clock is wrong");
    assert_eq!(
        listener.hears(project(&[("c", 100, true)]), at(10)),
        ["c opened 90d"],
        "and no threshold is missed"
    );
}

#[test]
fn a_repeat_keeps_step_with_the_schedule_and_never_follows_at_once() {
    let told = |at: &str, tick: &str| Told {
        stage: Stage::Expired,
        label: "expired".into(),
        severity: Severity::Critical,
        expires_at: None,
        name: None,
        at: at.parse().unwrap(),
        tick: tick.parse().unwrap(),
    };
    let day = |time: &str| format!("2027-02-01T{time}:00Z");
    let cases = [
        ("06:00", "06:00", "12:00", "12:00", true, "each scan of the schedule"),
        ("06:03", "06:00", "12:00", "12:00", true, "one of them was late"),
        ("11:50", "06:00", "12:00", "12:00", false, "a start shortly before"),
        ("06:00", "06:00", "09:05", "06:00", false, "a restart in between"),
        ("08:59", "06:00", "09:01", "06:00", false, "two starts in a row"),
        ("15:30", "12:00", "18:00", "18:00", false, "a tick that ran very late"),
        ("11:50", "06:00", "18:00", "18:00", true, "and then it is due"),
    ];
    for (told_at, told_tick, now, tick, expected, reason) in cases {
        let told = told(&day(told_at), &day(told_tick));
        let moment = Moment {
            now: day(now).parse().unwrap(),
            tick: day(tick).parse().unwrap(),
            timezone: Tz::UTC,
        };
        assert_eq!(moment.is_due(&told, TimeDelta::hours(6)), expected, "{reason}");
    }
}

#[test]
fn a_daily_repeat_is_due_at_the_same_hour_when_the_day_has_23_hours() {
    let policy = policy();
    let inventory = Inventory::default().merge(project(&[("c", 70, true)]), &everything(), at(0));
    let assessments = evaluate(&inventory, &policy, at(71));
    let world = World::Watched { before: &inventory, after: &inventory, policy: &policy };
    let hear = |ledger: &Ledger, tick: &str| {
        let tick: DateTime<Utc> = tick.parse().unwrap();
        let moment = Moment { now: tick, tick, timezone: chrono_tz::Europe::Berlin };
        reconcile(&assessments, ledger, &world, moment)
    };
    let Decision::Tell { id, told, .. } = hear(&Ledger::new(), "2027-03-27T08:00:00Z").remove(0)
    else {
        panic!("an expired certificate is told")
    };
    let ledger = Ledger::from([(id, told)]);
    assert_eq!(words(&hear(&ledger, "2027-03-28T06:59:00Z")), [""; 0]);
    assert_eq!(words(&hear(&ledger, "2027-03-28T07:00:00Z")), ["c repeat expired"], "nine to nine");
}

#[test]
fn an_organization_that_is_no_longer_configured_ends_what_was_told() {
    let mut listener = Listener::default();
    listener.scan(project(&[("c", 5, true)]), at(0));
    let moment = Moment { now: at(1), tick: at(1), timezone: Tz::UTC };
    let decisions = reconcile(&[], &listener.ledger, &World::Unwatched, moment);
    assert_eq!(words(&decisions), ["c unwatched 7d"]);
}

fn arbitrary_reading() -> impl Strategy<Value = Reading> {
    let listed = proptest::collection::vec((0..5u8, -3..120i64, any::<bool>()), 0..6);
    let scope = prop_oneof![3 => listed.prop_map(Some), 1 => Just(None)];
    proptest::collection::vec(scope, 3).prop_map(|scopes| {
        let mut all = reading(&[("", Ok(&[])), ("p", Ok(&[])), ("q", Ok(&[]))]);
        for (list, scope) in all.listings.values_mut().zip(scopes) {
            *list = match scope {
                None => Err("HTTP 500".to_owned()),
                Some(listed) => Ok(listed
                    .into_iter()
                    .map(|(id, days, active)| Listed {
                        certificate: certificate(&format!("c{id}"), days),
                        active,
                    })
                    .collect()),
            };
        }
        all
    })
}

proptest! {
    #[test]
    fn a_second_reconcile_with_nothing_new_says_nothing(
        readings in proptest::collection::vec(arbitrary_reading(), 1..6),
    ) {
        let mut listener = Listener::default();
        for (day, reading) in readings.into_iter().enumerate() {
            let now = at(day as i64);
            listener.scan(reading.clone(), now);
            prop_assert_eq!(listener.hears(reading, now), Vec::<String>::new());
        }
    }

    #[test]
    fn for_one_expiry_the_told_stage_only_rises(days in 0..120i64, steps in proptest::collection::vec(0..20i64, 1..12)) {
        let mut listener = Listener::default();
        let (mut day, mut last) = (0, None);
        for step in steps {
            day += step;
            for decision in listener.scan(project(&[("c", days, true)]), at(day)) {
                let Decision::Tell { reached, reason, .. } = decision else { panic!("{decision:?}") };
                let rose = Some(reached.stage) > last;
                prop_assert!(rose || (reason == Reason::Repeat && Some(reached.stage) == last));
                last = Some(reached.stage);
            }
        }
    }
}
