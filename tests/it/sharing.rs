//! The contract of a state that several instances share: leases, configurations, claims at the same
//! moment, and a schema that grows under those who work with it.

use certvigil::{
    domain::{delivery::DeliveryState, retry::Verdict},
    store::{Change, Commit, LEASE, LeaseOutcome, Store, StoreError},
};
use chrono::TimeDelta;

use super::{
    postgres::{self, Database},
    store::{Contract, SEVEN, acknowledgement, acme, everybody, member, minutes, record, send},
    support::{days, lease, start},
};

/// An instance that works on a database.
async fn instance(database: &Database) -> Store {
    super::support::crypto();
    Store::open(&database.settings()).await.unwrap()
}

#[tokio::test]
async fn a_lease_has_one_holder_until_it_is_released_or_not_renewed() {
    let Some(database) = postgres::database().await else { return };
    let (one, other) = (instance(&database).await, instance(&database).await);
    for store in [&one, &other] {
        store.join(&member("a"), false, &start).await.unwrap();
    }
    let take = async |store: &Store, length| {
        let now = start() + days(1);
        store.take(Some(&acme()), Some(start()), length, now).await.unwrap()
    };
    let LeaseOutcome::Acquired(first) = take(&one, LEASE).await else { panic!() };
    assert_eq!(take(&other, LEASE).await, LeaseOutcome::Held);
    one.release(&first).await.unwrap();
    let short = TimeDelta::milliseconds(200);
    let LeaseOutcome::Acquired(second) = take(&other, short).await else { panic!() };
    assert_ne!(first, second);
    // Its heartbeats keep its leases; without them another instance takes over.
    other.beat(&member("a"), LEASE, &start).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    assert_eq!(take(&one, LEASE).await, LeaseOutcome::Held);
    other.beat(&member("a"), short, &start).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    assert!(matches!(take(&one, LEASE).await, LeaseOutcome::Acquired(_)));
    // And one that leaves needs not be waited for.
    one.leave().await.unwrap();
    assert!(matches!(take(&other, LEASE).await, LeaseOutcome::Acquired(_)));
    assert_eq!(take(&one, LEASE).await, LeaseOutcome::Superseded, "it has left");
}

#[tokio::test]
async fn a_scheduled_moment_is_scanned_once() {
    let Some(contract) = Contract::postgres().await else { return };
    contract.commit(vec![send("c", SEVEN, start())], &["a"], start()).await;
    let take =
        async |tick, now| contract.store.take(Some(&acme()), tick, LEASE, now).await.unwrap();
    let (before, after) = (start() - minutes(1), start() + minutes(1));
    assert_eq!(take(Some(start()), after).await, LeaseOutcome::Done);
    assert_eq!(take(Some(before), after).await, LeaseOutcome::Done, "the older tick has passed");
    for (tick, now, why) in [
        (None, after, "a requested scan runs"),
        (Some(after), after, "the next one"),
        (Some(before), before, "what a clock that was ahead has written does not count"),
    ] {
        assert!(matches!(take(tick, now).await, LeaseOutcome::Acquired(_)), "{why}");
    }
    // Under another configuration it is evaluated again.
    contract.store.join(&member("a"), false, &start).await.unwrap();
    assert!(matches!(take(Some(start()), after).await, LeaseOutcome::Acquired(_)));
}

#[tokio::test]
async fn the_newest_configuration_is_in_force_as_long_as_somebody_has_it() {
    let Some(database) = postgres::database().await else { return };
    let (one, other) = (instance(&database).await, instance(&database).await);
    let in_force = async |store: &Store| {
        let taken = store.take(None, None, LEASE, start()).await.unwrap();
        taken != LeaseOutcome::Superseded
    };
    one.join(&member("a"), false, &start).await.unwrap();
    assert!(in_force(&one).await);
    other.join(&member("b"), false, &start).await.unwrap();
    assert!(in_force(&other).await, "the other releases its leases");
    assert!(!in_force(&one).await);
    let instances = one.beat(&member("a"), LEASE, &start).await.unwrap();
    let seen: Vec<_> = instances.iter().map(|one| (one.me, one.in_force)).collect();
    assert_eq!(seen, [(true, false), (false, true)]);
    let differences = instances[0].differences(&instances[1]);
    assert_eq!((differences.len(), differences[0].here.as_str()), (1, "a"));

    // A scan started with the old configuration is discarded.
    other.join(&member("a"), true, &start).await.unwrap();
    let held = lease(&one, Some(&acme())).await;
    let commit = Commit {
        lease: Some(held),
        change: Change::Scan(Box::new((record(start()), std::sync::Arc::default()))),
        plans: vec![],
        over: vec![],
        now: start(),
        give_up_at: start() + days(3),
    };
    other.join(&member("b"), true, &start).await.unwrap();
    let late = one.commit(&commit).await;
    assert!(matches!(late, Err(StoreError::TakenOver)), "{late:?}");

    // Started again, the old one is not new.
    one.leave().await.unwrap();
    let again = instance(&database).await;
    again.join(&member("a"), false, &start).await.unwrap();
    assert!(!in_force(&again).await && in_force(&other).await);
    // Loaded again by somebody, it is.
    other.join(&member("a"), true, &start).await.unwrap();
    assert!(in_force(&again).await && in_force(&other).await);
    other.join(&member("b"), true, &start).await.unwrap();
    assert!(!in_force(&again).await);
    // And where nobody has had the newest for some time, the other one is: sooner where that was
    // meant.
    other.leave().await.unwrap();
    assert!(!in_force(&again).await, "it may be started again");
    let ago = |minutes: i64| {
        format!(
            "UPDATE configurations SET seen_at = seen_at - {minutes} * 60000 WHERE digest = 'b'"
        )
    };
    database.say(ago(1).leak()).await;
    assert!(in_force(&again).await);
    let instances = again.beat(&member("a"), LEASE, &start).await.unwrap();
    assert!(instances[0].in_force);
    // Where it was killed it counts for longer.
    let killed = instance(&database).await;
    killed.join(&member("b"), false, &start).await.unwrap();
    killed.join(&member("c"), true, &start).await.unwrap();
    database.say(ago(5).leak()).await;
    assert!(!in_force(&again).await);
    database.say("UPDATE configurations SET seen_at = 0 WHERE digest = 'c'").await;
    assert!(!in_force(&again).await, "the one that it had before");
    database.say(ago(6).leak()).await;
    assert!(in_force(&again).await);
    // A configuration unused for a long time is new again.
    database.say("UPDATE configurations SET seen_at = 0 WHERE digest = 'b'").await;
    instance(&database).await.join(&member("b"), false, &start).await.unwrap();
    assert!(!in_force(&again).await);
}

#[tokio::test]
async fn each_delivery_is_claimed_by_one_of_many_and_none_is_left() {
    let Some(contract) = Contract::postgres().await else { return };
    let receivers: Vec<String> = (0..60).map(|n| format!("r{n:02}")).collect();
    let receivers: Vec<&str> = receivers.iter().map(String::as_str).collect();
    contract.commit(vec![send("c", SEVEN, start())], &receivers, start()).await;
    let mut claiming = Vec::new();
    for _ in 0..4 {
        let store = Store::open(&contract.settings).await.unwrap();
        claiming.push(async move {
            let mut mine = Vec::new();
            loop {
                let claimed =
                    store.claim("n", &everybody(), start(), minutes(5), 3, None).await.unwrap();
                if claimed.claims.is_empty() {
                    return mine;
                }
                mine.extend(claimed.claims);
            }
        });
    }
    let all = futures_util::future::join_all(claiming).await;
    assert!(all.iter().all(|mine| mine.iter().all(|claim| claim.attempt == 1)));
    let mut receivers: Vec<String> =
        all.into_iter().flatten().map(|claim| claim.receiver).collect();
    assert_eq!(receivers.len(), 60);
    receivers.sort();
    receivers.dedup();
    assert_eq!(receivers.len(), 60);
}

#[tokio::test]
async fn a_notification_rejected_by_all_at_once_was_not_sent() {
    let Some(contract) = Contract::postgres().await else { return };
    for round in 0..10 {
        let now = start() + minutes(round);
        let receivers = ["a", "b", "c", "d"];
        contract.commit(vec![send("c", SEVEN, now)], &receivers, now).await;
        let claims = contract.claim(now).await;
        assert_eq!(claims.len(), 4, "round {round}");
        let refusals = claims.iter().map(|claim| contract.record(claim, Verdict::Rejected, now));
        futures_util::future::join_all(refusals).await;
        assert!(contract.sent().await.is_empty(), "round {round}");
    }
}

#[tokio::test]
async fn what_is_recorded_while_somebody_asks_for_another_attempt_counts() {
    let Some(contract) = Contract::postgres().await else { return };
    for round in 0..10 {
        let now = start() + minutes(round);
        contract.commit(vec![send(&format!("c{round}"), SEVEN, now)], &["a"], now).await;
        let claim = contract.claim(now).await.remove(0);
        let id = claim.id.to_string();
        let (_, asked) = tokio::join!(
            contract.record(&claim, Verdict::Delivered, now),
            contract.store.retry(&id, now, now + days(3))
        );
        let (state, again) = (contract.states().await.pop().unwrap().1, contract.claim(now).await);
        assert_eq!((state, again.len()), (DeliveryState::Delivered, 0), "{round}: {asked:?}");
    }
}

#[tokio::test]
async fn a_pooler_that_keeps_sessions_may_stand_between() {
    let Some(database) = postgres::database().await else { return };
    let Some((_running, url)) = postgres::pooler(&database).await else { return };
    let contract = Contract::at(postgres::settings(&url)).await;
    contract.commit(vec![send("c", SEVEN, start())], &["a"], start()).await;
    let claims = contract.claim(start()).await;
    contract.record(&claims[0], Verdict::Delivered, start()).await;
    assert_eq!(contract.states().await[0].1, DeliveryState::Delivered);
    let reading = Store::reading(&contract.settings).await.unwrap();
    assert_eq!(reading.waiting().await.unwrap(), []);
}

#[tokio::test]
async fn the_schema_is_made_once_and_an_older_version_goes_on_beside_a_newer_one() {
    let Some(database) = postgres::database().await else { return };
    super::support::crypto();
    let missing = Store::open_beside(&database.settings()).await;
    assert!(matches!(missing, Err(StoreError::Missing(_))), "{missing:?}");
    let settings = database.settings();
    let opening = (0..6).map(|_| Store::open(&settings));
    for opened in futures_util::future::join_all(opening).await {
        opened.unwrap().waiting().await.unwrap();
    }
    // What a later version adds.
    let running = instance(&database).await;
    let look = async || {
        let scans = running.scans(None, None, 9).await.map(|scans| scans.len());
        let failures = running.failures().await.map(|failures| failures.len());
        Ok::<_, StoreError>((scans?, failures?, running.latest_scan(&acme()).await?.is_some()))
    };
    for _ in 0..3 {
        look().await.unwrap();
    }
    database
        .say(
            "ALTER TABLE scans ADD COLUMN mood TEXT NOT NULL DEFAULT 'fine';
             ALTER TABLE failures ADD COLUMN mood TEXT;
             CREATE TABLE moods (name TEXT);
             INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9999, 'moods', TRUE, '', 0)",
        )
        .await;
    let commit = Commit {
        lease: None,
        change: Change::Scan(Box::new((record(start()), std::sync::Arc::default()))),
        plans: vec![],
        over: vec![],
        now: start(),
        give_up_at: start() + days(3),
    };
    running.commit(&commit).await.unwrap();
    assert_eq!(instance(&database).await.latest_scans().await.unwrap().len(), 1);
    // A statement prepared for the old tables fails at most once per connection.
    let (mut failed, mut fine) = (0, 0);
    while fine < 10 {
        match look().await {
            Ok(seen) => {
                assert_eq!(seen, (1, 0, true));
                fine += 1;
            }
            Err(error) => {
                failed += 1;
                assert!(failed <= 9, "{error}");
            }
        }
    }
    Store::open_beside(&database.settings()).await.unwrap();
    // One that it would not get along with.
    database.say("UPDATE compatibility SET version = 9999").await;
    for opened in [Store::open(&settings).await, Store::open_beside(&settings).await] {
        assert!(matches!(opened, Err(StoreError::Newer(_))), "{opened:?}");
    }
}

#[tokio::test]
async fn over_a_connection_that_reads_nothing_is_written() {
    let Some(contract) = Contract::postgres().await else { return };
    let reading = Store::reading(&contract.settings).await.unwrap();
    let one = acknowledgement("cert_a", start() + days(3));
    let refused = reading.acknowledge(&acme(), &one).await.unwrap_err().to_string();
    assert!(refused.contains("read-only"), "{refused}");
    assert_eq!(reading.acknowledgements(&acme()).await.unwrap().iter().count(), 0);
}
