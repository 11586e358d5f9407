//! The contract of the store: what every database that joins has to keep.

use certvigil::{
    domain::{
        acknowledgement::{Acknowledgement, Acknowledgements, Ending},
        certificate::{Certificate, CertificateId, OrganizationName},
        compose::{Composed, Occasion},
        credential::WatchedKeys,
        evaluate::evaluate,
        inventory::Inventory,
        ledger::{Ledger, Told},
        listener::{Grain, Listener},
        notification::{Reason, ScanView},
        policy::Policy,
        reconcile::Decision,
        retry::{FailureReason, Outcome, Verdict},
        routing::Routing,
        subject::Subject,
        text::Name,
        threshold::{ExpiredStep, Ladder, Lead, Reached, Severity, Stage, Threshold},
    },
    store::{
        Change, Commit, DeliveryState, LEASE, Lease, Membership, MessageKind, Place, Plan,
        ScanRecord, Settings, Store, StoreFault, Taken, Which, id_at,
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::ExposeSecret;
use std::{num::NonZeroU32, path::PathBuf};
use tempfile::TempDir;
use uuid::Uuid;

use super::{
    postgres::{self, Database},
    support::{days, lease, start},
};

/// A store of its own, in a file or on a server.
struct Contract {
    settings: Settings,
    _folder: Option<TempDir>,
    store: Store,
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("state.db")
}

fn settings(folder: &TempDir) -> Settings {
    Settings { place: Place::File(file(folder)), history: days(400) }
}

/// What both databases have to keep.
macro_rules! contract {
    ($($name:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Contract::sqlite().await).await;
            })*
        }
        mod on_postgres {
            $(#[tokio::test]
            async fn $name() {
                if let Some(contract) = super::Contract::postgres().await {
                    super::$name(contract).await;
                }
            })*
        }
    };
}

/// The receivers of these tests.
fn everybody() -> Vec<String> {
    let many = (0..60).map(|n| format!("r{n:02}"));
    ["a", "b", "c", "d", "r"].map(str::to_owned).into_iter().chain(many).collect()
}

/// Opens a state as one of its workers.
async fn open(settings: &Settings) -> Store {
    let store = Store::open(settings).await.unwrap();
    store.join(&member("x"), false, start).await.unwrap();
    store
}

fn acme() -> OrganizationName {
    OrganizationName::parse("acme").unwrap()
}

fn minutes(n: i64) -> TimeDelta {
    TimeDelta::minutes(n)
}

fn certificate(id: &str) -> Certificate {
    Certificate {
        id: CertificateId::parse(id).unwrap(),
        name: Name::clean("prod-ca"),
        created_at: None,
        valid_at: None,
        expires_at: Some(start() + days(5)),
        strange_expiry: None,
    }
}

fn ladder() -> Ladder {
    let step = Threshold {
        lead: Lead::Fixed(days(7)),
        label: "7d".into(),
        severity: Severity::Critical,
        repeat: None,
    };
    Ladder::new(vec![step], ExpiredStep { severity: Severity::Critical, repeat: None }).unwrap()
}

fn of(id: &str) -> Subject {
    Subject::Certificate(CertificateId::parse(id).unwrap())
}

fn tell(id: &str, stage: Stage, now: DateTime<Utc>) -> Decision {
    let reached = Reached {
        stage,
        label: "7d".into(),
        severity: Severity::Critical,
        repeat: None,
        last: true,
    };
    let told = Told {
        stage,
        label: "7d".into(),
        severity: Severity::Critical,
        expires_at: Some(start() + days(5)),
        name: None,
        at: now,
        tick: now,
        again: false,
        due_at: None,
    };
    Decision::Tell { subject: of(id), reason: Reason::Opened, reached, told }
}

fn end(id: &str, now: DateTime<Utc>) -> Decision {
    let Decision::Tell { subject, told, .. } = tell(id, Stage::Within(604_800), now) else {
        unreachable!()
    };
    Decision::End { subject, reason: Reason::Deleted, told }
}

impl Contract {
    async fn sqlite() -> Contract {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(&folder);
        let store = Store::open(&settings).await.unwrap();
        Contract { settings, _folder: Some(folder), store }
    }

    async fn postgres() -> Option<Contract> {
        super::support::crypto();
        let settings = postgres::database().await?.settings();
        let store = open(&settings).await;
        Some(Contract { settings, _folder: None, store })
    }

    /// Another one of the same kind, with nothing in it.
    async fn another(&self) -> Contract {
        match self.store.is_shared() {
            true => Contract::postgres().await.unwrap(),
            false => Contract::sqlite().await,
        }
    }

    async fn reopen(self) -> Contract {
        let Contract { settings, _folder, store } = self;
        store.leave().await.unwrap();
        store.close().await;
        drop(store);
        let store = open(&settings).await;
        Contract { settings, _folder, store }
    }

    /// Says something to the database that the store never would.
    async fn say(&self, statement: &'static str) {
        match &self.settings.place {
            Place::File(file) => {
                let url = format!("sqlite://{}", file.display());
                let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
                sqlx::query(statement).execute(&pool).await.unwrap();
                pool.close().await;
            }
            Place::Server(server) => {
                let url = server.url.read().unwrap();
                let mut connection = postgres::connect(url.expose_secret()).await;
                sqlx::query(statement).execute(&mut connection).await.unwrap();
            }
        }
    }

    /// Commits a scan that tells notifier `n` this, and gives the notification's id.
    async fn commit(
        &self,
        decisions: Vec<Decision>,
        receivers: &[&str],
        now: DateTime<Utc>,
    ) -> Uuid {
        let message = composed(&decisions, now);
        let id = message.notification.id;
        let plan = Plan {
            notifier: "n".into(),
            decisions,
            messages: vec![message],
            kind: MessageKind::News,
            receivers: receivers.iter().map(ToString::to_string).collect(),
            up_to_date: receivers.iter().map(ToString::to_string).collect(),
            afresh: false,
        };
        let inventory = Inventory::default();
        let commit = Commit {
            of: Some(acme()),
            lease: Some(lease(&self.store, Some(&acme())).await),
            change: Change::Scan(Box::new((record(now), inventory))),
            plans: vec![plan],
            over: vec![],
            now,
            give_up_at: now + days(3),
        };
        self.store.commit(&commit).await.unwrap();
        id
    }

    async fn claim(&self, now: DateTime<Utc>) -> Vec<certvigil::store::Claim> {
        self.store.claim("n", &everybody(), now, minutes(5), 10, None).await.unwrap().claims
    }

    async fn record(&self, claim: &certvigil::store::Claim, verdict: Verdict, now: DateTime<Utc>) {
        let outcome = match verdict {
            Verdict::Delivered => Outcome::Delivered { answer: "250 OK".into() },
            Verdict::WaitUntil(_) | Verdict::GivenUp => {
                Outcome::retry(FailureReason::Connect, "refused")
            }
            Verdict::Rejected => {
                Outcome::Rejected { reason: FailureReason::Recipient, detail: "550".into() }
            }
        };
        self.store.record(claim, &outcome, &verdict, now).await.unwrap();
    }

    /// What notifier `n` was told, as `id stage`.
    async fn told(&self) -> Vec<String> {
        let ledger = self.store.ledger(Some(&acme()), "n", start()).await.unwrap();
        let bare = |subject: &Subject| subject.to_string().replace("certificate:", "");
        let open = ledger.open.iter();
        open.map(|(subject, told)| format!("{} {:?}", bare(subject), told.stage)).collect()
    }

    async fn states(&self) -> Vec<(String, DeliveryState)> {
        let rows = self.store.deliveries(&Which::default(), 100).await.unwrap();
        rows.into_iter().rev().map(|row| (row.receiver, row.state)).collect()
    }
}

fn record(now: DateTime<Utc>) -> ScanRecord {
    ScanRecord {
        id: id_at(now),
        organization: acme(),
        tick: now,
        started_at: now,
        finished_at: now,
        complete: true,
        projects_read: 3,
        projects_unreadable: 0,
        certificates: 2,
        requests: 5,
        faults: vec!["x".into()],
        clock_skew: None,
    }
}

fn composed(decisions: &[Decision], now: DateTime<Utc>) -> Composed {
    let mut inventory = Inventory::default();
    for decision in decisions {
        if let Decision::Tell { subject: Subject::Certificate(id), .. } = decision {
            inventory.certificates.insert(id.clone(), certificate(id.as_str()));
        }
    }
    let policy = Policy {
        ladder: ladder(),
        rules: vec![],
        include_inactive: true,
        blind_after: None,
        admin_keys: WatchedKeys::Own,
        client_identity: None,
    };
    let (organization, none) = (acme(), Acknowledgements::new());
    let evaluation = evaluate(&organization, &inventory, &policy, &none, now);
    let occasion = Occasion {
        evaluation: &evaluation,
        scan: Some(ScanView {
            id: id_at(now),
            finished_at: now,
            complete: true,
            projects_read: 3,
            projects_unreadable: 0,
            oldest_reading: None,
            clock_skew: None,
        }),
        stale_at: None,
        allowed: None,
    };
    let decisions: Vec<&Decision> = decisions.iter().collect();
    let listener = Listener {
        name: "n".into(),
        routing: Routing::all(),
        grain: Grain::Digest,
        ledger: Ledger::default(),
    };
    occasion.compose(|| id_at(now), &listener, &decisions).remove(0)
}

const SEVEN: Stage = Stage::Within(604_800);

#[tokio::test]
async fn a_second_instance_on_the_same_file_is_refused() {
    let contract = Contract::sqlite().await;
    let second = Store::open(&contract.settings).await;
    assert!(matches!(second, Err(StoreFault::InUse(_))));
    let beside = Store::open_beside(&contract.settings).await.unwrap();
    assert_eq!(
        beside.deliveries(&Which::default(), 9).await.unwrap().len(),
        0,
        "to look is allowed"
    );
    contract.reopen().await;
}

#[tokio::test]
async fn what_is_not_a_state_of_this_version_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Store::open_beside(&settings(&folder)).await.unwrap_err().to_string();
    assert!(missing.contains("there is no state at"), "{missing}");
    assert!(!file(&folder).exists(), "and none is made");

    std::fs::write(
        file(&folder),
        "this is no database, and long enough to be read as one".repeat(40),
    )
    .unwrap();
    let corrupt = Store::open(&settings(&folder)).await.unwrap_err().to_string();
    assert!(corrupt.contains("not a database"), "{corrupt}");

    let contract = Contract::sqlite().await;
    contract.store.close().await;
    contract.say("UPDATE _sqlx_migrations SET version = 9999 WHERE version = 2").await;
    let Contract { settings, _folder, store } = contract;
    drop(store);
    for opened in [Store::open(&settings).await, Store::open_beside(&settings).await] {
        assert!(matches!(opened, Err(StoreFault::Newer(_))), "{opened:?}");
    }
}

async fn a_commit_survives_and_reads_back_as_it_was_written(contract: Contract) {
    let id = contract.commit(vec![tell("c", SEVEN, start())], &["a"], start()).await;
    let contract = contract.reopen().await;
    assert_eq!(contract.store.scans(None, None, 5).await.unwrap().len(), 1);
    let kept = &contract.store.scans(None, None, 5).await.unwrap()[0];
    assert_eq!(ScanRecord { id: kept.id, ..record(start()) }, *kept);
    assert_eq!(contract.store.last_tick(&acme()).await.unwrap(), Some(start()));
    assert_eq!(contract.told().await, ["c Within(604800)"]);
    let claims = contract.claim(start()).await;
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0].notification.id, id);
    assert_eq!((claims[0].receiver.as_str(), claims[0].attempt), ("a", 1));
}

async fn a_claim_belongs_to_one_until_its_lease_ends_or_its_owner_has_died(contract: Contract) {
    contract.commit(vec![tell("c", SEVEN, start())], &["a"], start()).await;
    assert_eq!(contract.claim(start()).await.len(), 1);
    assert_eq!(contract.claim(start() + minutes(4)).await.len(), 0);
    let again = contract.claim(start() + minutes(5)).await;
    assert_eq!(again[0].attempt, 2, "an attempt that nobody recorded counts");
    let contract = contract.reopen().await;
    // Where there may be others, whoever has it may be one of them.
    let left = usize::from(!contract.store.is_shared());
    assert_eq!(contract.claim(start() + minutes(5)).await.len(), left, "whoever had it is dead");
}

async fn what_nobody_took_was_not_told(contract: Contract) {
    for (verdict, state) in
        [(Verdict::GivenUp, DeliveryState::GivenUp), (Verdict::Rejected, DeliveryState::Rejected)]
    {
        let contract = contract.another().await;
        contract
            .commit(vec![tell("c", Stage::Within(9_999_999), start())], &["a", "b"], start())
            .await;
        for claim in contract.claim(start()).await {
            contract.record(&claim, Verdict::Delivered, start()).await;
        }
        let later = start() + minutes(10);
        contract.commit(vec![tell("c", SEVEN, later)], &["a", "b"], later).await;
        let claims = contract.claim(later).await;
        contract.record(&claims[0], verdict.clone(), later).await;
        assert_eq!(contract.told().await, ["c Within(604800)"], "the other may still take it");
        contract.record(&claims[1], verdict, later).await;
        assert_eq!(contract.told().await, ["c Within(9999999)"], "back to what was told before");
        assert_eq!(contract.states().await[3].1, state);
    }
}

async fn one_who_took_it_is_enough_to_have_told(contract: Contract) {
    contract.commit(vec![tell("c", SEVEN, start())], &["a", "b"], start()).await;
    let claims = contract.claim(start()).await;
    contract.record(&claims[0], Verdict::Rejected, start()).await;
    contract.record(&claims[1], Verdict::Delivered, start()).await;
    assert_eq!(contract.told().await, ["c Within(604800)"]);
}

async fn an_end_that_nobody_took_is_told_again(contract: Contract) {
    contract.commit(vec![tell("c", SEVEN, start())], &["a"], start()).await;
    let claims = contract.claim(start()).await;
    contract.record(&claims[0], Verdict::Delivered, start()).await;
    contract.commit(vec![end("c", start())], &["a"], start()).await;
    assert_eq!(contract.told().await, [""; 0]);
    let claims = contract.claim(start()).await;
    contract.record(&claims[0], Verdict::GivenUp, start()).await;
    assert_eq!(contract.told().await, ["c Within(604800)"], "the end was not heard");
}

async fn for_one_receiver_and_subject_nothing_overtakes(contract: Contract) {
    let first = contract
        .commit(vec![tell("c", SEVEN, start()), tell("d", SEVEN, start())], &["a"], start())
        .await;
    let claims = contract.claim(start()).await;
    let wait = start() + minutes(10);
    contract.record(&claims[0], Verdict::WaitUntil(wait), start()).await;
    // The first was attempted, and so is not superseded; it has d, too.
    let second =
        contract.commit(vec![tell("c", Stage::Expired, start())], &["a", "b"], start()).await;
    let other = contract.commit(vec![tell("e", SEVEN, start())], &["a"], start()).await;
    let due = contract.claim(start()).await;
    let due: Vec<_> =
        due.iter().map(|claim| (claim.notification.id, claim.receiver.as_str())).collect();
    assert_eq!(due, [(second, "b"), (other, "a")], "another receiver, another subject");
    let due = contract.claim(wait).await;
    assert_eq!(due[0].notification.id, first, "in order");
    contract.record(&due[0], Verdict::Delivered, wait).await;
    assert_eq!(contract.claim(wait).await[0].notification.id, second);
}

async fn what_was_never_attempted_and_is_out_of_date_is_superseded(contract: Contract) {
    contract.commit(vec![tell("c", SEVEN, start())], &["a"], start()).await;
    contract
        .commit(
            vec![tell("c", Stage::Expired, start()), tell("d", SEVEN, start())],
            &["a"],
            start(),
        )
        .await;
    let states: Vec<DeliveryState> =
        contract.states().await.into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, [DeliveryState::Superseded, DeliveryState::Pending]);
    assert_eq!(contract.told().await, ["c Expired", "d Within(604800)"]);
    contract.commit(vec![tell("c", Stage::Expired, start())], &["a"], start()).await;
    assert_eq!(
        contract.states().await[1].1,
        DeliveryState::Pending,
        "it tells of d, which is news still"
    );
}

async fn a_failed_delivery_can_be_tried_again_and_counts_as_told_then(contract: Contract) {
    contract.commit(vec![tell("c", SEVEN, start())], &["a"], start()).await;
    let claims = contract.claim(start()).await;
    contract.record(&claims[0], Verdict::Rejected, start()).await;
    assert_eq!(contract.told().await, [""; 0]);
    let failed =
        contract.store.deliveries(&Which { failed: true, ..Which::default() }, 9).await.unwrap();
    assert_eq!(failed[0].last, Some(("recipient".into(), "550".into())));
    let prefix = &failed[0].id.to_string()[..8];
    let later = start() + days(9);
    contract.store.retry(prefix, later, later + days(3)).await.unwrap();
    assert_eq!(contract.told().await, ["c Within(604800)"]);
    let claims = contract.claim(later).await;
    assert_eq!((claims[0].attempt, claims[0].give_up_at), (2, later + days(3)));
    contract.record(&claims[0], Verdict::Delivered, later).await;
    let done = contract.store.retry(prefix, later, later).await.unwrap_err().to_string();
    assert!(done.contains("is delivered, and cannot be tried again"), "{done}");
    for nonsense in ["", "x", "%", "ffffffff", "'; DROP TABLE deliveries"] {
        let error = contract.store.retry(nonsense, later, later).await.unwrap_err();
        assert!(matches!(error, StoreFault::NoSuchDelivery(_)), "{nonsense}");
    }
}

async fn what_is_owed_to_the_unconfigured_is_abandoned(contract: Contract) {
    contract.commit(vec![tell("c", SEVEN, start())], &["a", "b"], start()).await;
    let only_a = [("n".to_owned(), vec!["a".to_owned()])];
    let lease = lease(&contract.store, None).await;
    let abandon = async |configured: &[(String, Vec<String>)]| {
        contract.store.abandon(configured, &lease, start()).await.unwrap()
    };
    assert_eq!(abandon(&only_a).await, [("n".to_owned(), 1)]);
    assert_eq!(contract.told().await, ["c Within(604800)"]);
    assert_eq!(abandon(&[]).await, [("n".to_owned(), 1)]);
    assert_eq!(contract.told().await, [""; 0], "one that comes back is told of what is open");
    assert!(contract.store.known_receivers(&acme(), "n").await.unwrap().is_empty());
    assert_eq!(abandon(&[]).await, []);
}

async fn pruning_forgets_what_ended_and_keeps_what_counts(contract: Contract) {
    for day in 0..3 {
        let now = start() + days(day);
        contract.commit(vec![tell("c", SEVEN, now)], &["a"], now).await;
        let claims = contract.claim(now).await;
        contract.record(&claims[0], Verdict::Delivered, now).await;
    }
    contract.commit(vec![tell("waits", SEVEN, start())], &["a"], start()).await;
    contract.store.prune(start() + days(30)).await.unwrap();
    assert_eq!(contract.told().await, ["c Within(604800)", "waits Within(604800)"]);
    assert_eq!(contract.store.last_tick(&acme()).await.unwrap(), Some(start() + days(2)));
    // The one of the newest tick, and the one that what is known comes from.
    assert_eq!(contract.store.scans(None, None, 9).await.unwrap().len(), 2);
    let left = contract.states().await;
    assert_eq!(left, [("a".to_owned(), DeliveryState::Pending)], "what waits is kept");
}

async fn a_receiver_is_up_to_date_when_it_has_taken_what_was_sent_to_it(contract: Contract) {
    let commit = |now| {
        let decisions = vec![tell("c", SEVEN, now)];
        let plan = Plan {
            notifier: "n".into(),
            decisions: vec![],
            messages: vec![composed(&decisions, now)],
            kind: MessageKind::CatchUp,
            receivers: vec!["a".into(), "b".into()],
            up_to_date: vec![],
            afresh: false,
        };
        let change = Change::Scan(Box::new((record(now), Inventory::default())));
        Commit {
            of: Some(acme()),
            lease: None,
            change,
            plans: vec![plan],
            over: vec![],
            now,
            give_up_at: now + days(3),
        }
    };
    contract.store.commit(&commit(start())).await.unwrap();
    let known = contract.store.known_receivers(&acme(), "n").await.unwrap();
    assert_eq!(known.len(), 2, "what is on its way will do");
    let claims = contract.claim(start()).await;
    contract.record(&claims[0], Verdict::Delivered, start()).await;
    contract.record(&claims[1], Verdict::Rejected, start()).await;
    let known = contract.store.known_receivers(&acme(), "n").await.unwrap();
    assert_eq!(known.into_iter().collect::<Vec<_>>(), ["a"]);
    let other = OrganizationName::parse("other").unwrap();
    assert!(contract.store.known_receivers(&other, "n").await.unwrap().is_empty());
}

async fn what_a_clock_that_was_ahead_has_written_is_not_waited_for(contract: Contract) {
    let ahead = start() + days(1_000);
    contract.commit(vec![tell("c", SEVEN, ahead)], &["a"], ahead).await;
    let claims = contract.claim(ahead).await;
    contract.record(&claims[0], Verdict::WaitUntil(ahead + minutes(1)), ahead).await;
    let claims = contract.claim(start()).await;
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0].give_up_at, start() + days(3));
}

async fn a_message_that_cannot_be_read_stands_in_nobodys_way(contract: Contract) {
    contract.commit(vec![tell("c", SEVEN, start())], &["a"], start()).await;
    contract.commit(vec![tell("d", SEVEN, start())], &["a"], start()).await;
    let first = "UPDATE notifications SET model = '{}'
                 WHERE id = (SELECT notification_id FROM deliveries ORDER BY seq LIMIT 1)";
    contract.say(first).await;
    assert_eq!(contract.claim(start()).await.len(), 1);
    assert_eq!(contract.told().await, ["d Within(604800)"], "what nobody can read was not told");
    assert_eq!(contract.states().await[0].1, DeliveryState::Rejected);
}

async fn the_ledger_knows_what_is_over_and_what_was_told_within_a_day(contract: Contract) {
    let (noon, later) = (start(), start() + TimeDelta::hours(10));
    let scans = [
        (vec![tell("cert_a", SEVEN, noon), tell("cert_b", SEVEN, noon)], noon),
        (vec![tell("cert_a", SEVEN, later)], later),
        (vec![end("cert_a", later), end("cert_b", later)], later + minutes(1)),
    ];
    for (decisions, now) in scans {
        contract.commit(decisions, &["r"], now).await;
        let claims = contract.claim(now).await;
        contract.record(&claims[0], Verdict::Delivered, now).await;
    }
    let past = async |now: DateTime<Utc>| {
        let ledger = contract.store.ledger(Some(&acme()), "n", now).await.unwrap();
        assert!(ledger.open.is_empty());
        ledger
            .past
            .iter()
            .flat_map(|(subject, told)| {
                told.iter().map(move |told| format!("{subject} {}", (told.at - noon).num_hours()))
            })
            .collect::<Vec<_>>()
    };
    let (a0, a10, b0) = ("certificate:cert_a 0", "certificate:cert_a 10", "certificate:cert_b 0");
    assert_eq!(past(noon + TimeDelta::hours(23)).await, [a0, a10, b0], "those of a day");
    assert_eq!(past(noon + TimeDelta::hours(25)).await, [a10, b0], "and the latest of each");
}

fn acknowledgement(certificate: &str, until: DateTime<Utc>) -> Acknowledgement {
    Acknowledgement {
        id: Uuid::new_v5(&Uuid::NAMESPACE_OID, until.to_string().as_bytes()),
        certificate: CertificateId::parse(certificate).unwrap(),
        reason: "on it".into(),
        by: Some("dana".into()),
        created_at: start(),
        until,
        expires_at: Some(start() + days(5)),
        ended: None,
    }
}

async fn an_acknowledgement_is_kept_superseded_withdrawn_and_ended_by_a_scan(contract: Contract) {
    let store = &contract.store;
    let (first, second) = (
        acknowledgement("cert_a", start() + days(3)),
        acknowledgement("cert_a", start() + days(4)),
    );
    store.acknowledge(&acme(), &first).await.unwrap();
    let kept = store.acknowledgements(&acme()).await.unwrap();
    assert_eq!(kept[&first.certificate], first, "as it was");

    store.acknowledge(&acme(), &second).await.unwrap();
    let all = store.all_acknowledgements(&acme()).await.unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(all[0].ended, Some((start(), Ending::Superseded)));
    assert_eq!(store.acknowledgements(&acme()).await.unwrap()[&second.certificate], second);

    let now = start() + minutes(1);
    assert!(store.withdraw(second.id, now).await.unwrap());
    assert!(!store.withdraw(second.id, now).await.unwrap(), "it is, already");
    let kept = store.acknowledgements(&acme()).await.unwrap();
    assert_eq!(kept[&second.certificate].ended, Some((now, Ending::Withdrawn)));

    let third = acknowledgement("cert_b", start() + days(2));
    store.acknowledge(&acme(), &third).await.unwrap();
    let commit = Commit {
        of: Some(acme()),
        lease: None,
        change: Change::Scan(Box::new((record(now), Inventory::default()))),
        plans: vec![],
        over: vec![third.id],
        now,
        give_up_at: now + days(3),
    };
    store.commit(&commit).await.unwrap();
    let kept = store.acknowledgements(&acme()).await.unwrap();
    assert_eq!(kept[&third.certificate].ended, Some((now, Ending::Over)));

    assert_eq!(store.prune(start() + days(1)).await.unwrap(), 3, "what has ended is forgotten");
}

#[tokio::test]
async fn who_reads_cannot_write_waits_for_no_writer_and_no_writer_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder);
    let store = Store::open(&settings).await.unwrap();
    let reading = Store::reading(&settings).await.unwrap();
    let organization = OrganizationName::parse("acme").unwrap();
    let one = Acknowledgement {
        id: id_at(start()),
        certificate: CertificateId::parse("cert_a").unwrap(),
        reason: "it is known".to_owned(),
        by: None,
        created_at: start(),
        until: start() + TimeDelta::days(1),
        expires_at: None,
        ended: None,
    };
    let refused = reading.acknowledge(&organization, &one).await.unwrap_err().to_string();
    assert!(refused.contains("readonly"), "{refused}");
    let before = reading.version().await.unwrap();
    // Another process that writes, in the middle of it.
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file(&folder));
    let mut other = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    sqlx::query("DELETE FROM scans").execute(&mut other).await.unwrap();
    assert_eq!(reading.version().await.unwrap(), before, "what is not committed is not seen");
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    // A reader in the middle of it.
    sqlx::query("BEGIN").execute(&mut other).await.unwrap();
    sqlx::query("SELECT * FROM acknowledgements").fetch_all(&mut other).await.unwrap();
    store.acknowledge(&organization, &one).await.unwrap();
    assert_ne!(reading.version().await.unwrap(), before);
    assert_eq!(reading.acknowledgements(&organization).await.unwrap().len(), 1);
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
}

async fn a_rate_holds_for_all_and_over_a_restart(contract: Contract) {
    for n in 0..12 {
        let subject = format!("c{n}");
        contract.commit(vec![tell(&subject, SEVEN, start())], &["a"], start()).await;
    }
    let claim = async |contract: &Contract, now, limit| {
        let six = NonZeroU32::new(6);
        contract.store.claim("n", &everybody(), now, minutes(5), limit, six).await.unwrap()
    };
    assert_eq!(claim(&contract, start(), 4).await.claims.len(), 4);
    let contract = contract.reopen().await;
    assert_eq!(claim(&contract, start(), 4).await.claims.len(), 2, "six in a minute");
    let none = claim(&contract, start(), 4).await;
    assert_eq!(none.claims.len(), 0);
    // By a server's clock, some milliseconds have passed since the start.
    let wait = none.wait.unwrap();
    assert!(wait <= TimeDelta::seconds(10) && wait > TimeDelta::seconds(5), "{wait}");
    let later = start() + TimeDelta::seconds(10);
    assert_eq!(claim(&contract, later, 4).await.claims.len(), 1, "one has come back");
    let much_later = start() + minutes(60);
    assert_eq!(
        claim(&contract, much_later, 9).await.claims.len(),
        6,
        "and no more than a minute's"
    );
    // A clock that was set back must not keep it for longer than a minute.
    contract.commit(vec![tell("late", SEVEN, start())], &["a"], start()).await;
    let wait = claim(&contract, start() + minutes(1), 4).await;
    assert!(wait.claims.len() == 1 || wait.wait.unwrap() <= minutes(1), "{wait:?}");
}

async fn what_is_for_the_receivers_of_another_configuration_is_left_to_it(contract: Contract) {
    contract.commit(vec![tell("c", SEVEN, start())], &["a", "b"], start()).await;
    let mine = ["b".to_owned()];
    let claims =
        contract.store.claim("n", &mine, start(), minutes(5), 9, None).await.unwrap().claims;
    let receivers: Vec<&str> = claims.iter().map(|claim| claim.receiver.as_str()).collect();
    assert_eq!(receivers, ["b"]);
    assert_eq!(contract.claim(start()).await.len(), 1);
}

async fn of_which_scans_all_was_well_is_kept(contract: Contract) {
    assert_eq!(contract.store.latest_scans().await.unwrap(), []);
    contract.commit(vec![tell("c", SEVEN, start())], &["a"], start()).await;
    let latest = contract.store.latest_scans().await.unwrap();
    assert_eq!((latest.len(), latest[0].tick, latest[0].complete), (1, start(), true));
    assert!(contract.store.said_well("").await.unwrap().is_empty());
    let said = [latest[0].scan].into_iter().collect();
    contract.store.say_well("", &said).await.unwrap();
    contract.store.say_well("", &said).await.unwrap();
    let contract = contract.reopen().await;
    assert_eq!(contract.store.said_well("").await.unwrap(), said);
    assert!(contract.store.said_well("acme").await.unwrap().is_empty());
}

async fn no_character_is_too_strange(contract: Contract) {
    let strange = "\u{0}'; DROP TABLE scans; -- $1 \u{202e}\u{1F525}";
    let one = Acknowledgement {
        reason: strange.to_owned(),
        ..acknowledgement("cert_a", start() + days(3))
    };
    contract.store.acknowledge(&acme(), &one).await.unwrap();
    let kept = contract.store.all_acknowledgements(&acme()).await.unwrap().remove(0).reason;
    assert_eq!(kept.replace('\u{fffd}', "\u{0}"), strange);
}

async fn a_commit_without_its_lease_changes_nothing(contract: Contract) {
    let held = lease(&contract.store, Some(&acme())).await;
    let commit = |now, lease: &Lease| Commit {
        of: Some(acme()),
        lease: Some(lease.clone()),
        change: Change::Scan(Box::new((record(now), Inventory::default()))),
        plans: vec![],
        over: vec![],
        now,
        give_up_at: now + days(3),
    };
    contract.store.commit(&commit(start(), &held)).await.unwrap();
    contract.store.release(&held).await.unwrap();
    if !contract.store.is_shared() {
        return;
    }
    // Released, it may still commit while nobody has taken it: nothing can have changed since.
    contract.store.commit(&commit(start() + minutes(1), &held)).await.unwrap();
    let other = open(&contract.settings).await;
    let taken = lease(&other, Some(&acme())).await;
    let late = contract.store.commit(&commit(start() + minutes(2), &held)).await;
    assert!(matches!(late, Err(StoreFault::TakenOver)), "{late:?}");
    assert_eq!(contract.store.last_tick(&acme()).await.unwrap(), Some(start() + minutes(1)));
    other.commit(&commit(start() + minutes(3), &taken)).await.unwrap();
}

contract! {
    a_commit_survives_and_reads_back_as_it_was_written
    a_claim_belongs_to_one_until_its_lease_ends_or_its_owner_has_died
    one_who_took_it_is_enough_to_have_told
    an_end_that_nobody_took_is_told_again
    for_one_receiver_and_subject_nothing_overtakes
    what_was_never_attempted_and_is_out_of_date_is_superseded
    a_failed_delivery_can_be_tried_again_and_counts_as_told_then
    what_is_owed_to_the_unconfigured_is_abandoned
    pruning_forgets_what_ended_and_keeps_what_counts
    a_receiver_is_up_to_date_when_it_has_taken_what_was_sent_to_it
    what_a_clock_that_was_ahead_has_written_is_not_waited_for
    a_message_that_cannot_be_read_stands_in_nobodys_way
    the_ledger_knows_what_is_over_and_what_was_told_within_a_day
    an_acknowledgement_is_kept_superseded_withdrawn_and_ended_by_a_scan
    what_nobody_took_was_not_told
    a_rate_holds_for_all_and_over_a_restart
    of_which_scans_all_was_well_is_kept
    no_character_is_too_strange
    a_commit_without_its_lease_changes_nothing
    what_is_for_the_receivers_of_another_configuration_is_left_to_it
}

/// An instance that works on a database.
async fn instance(database: &Database) -> Store {
    super::support::crypto();
    Store::open(&database.settings()).await.unwrap()
}

fn member(digest: &str) -> Membership {
    Membership {
        host: "host".into(),
        process: 1,
        version: "0.0.0",
        started_at: start(),
        settings: [("key".to_owned(), digest.to_owned())].into_iter().collect(),
        digest: digest.into(),
    }
}

#[tokio::test]
async fn a_lease_is_held_by_one_until_it_lets_go_or_says_nothing_more() {
    let Some(database) = postgres::database().await else { return };
    let (one, other) = (instance(&database).await, instance(&database).await);
    for store in [&one, &other] {
        store.join(&member("a"), false, start).await.unwrap();
    }
    let take = async |store: &Store, length| {
        let now = start() + days(1);
        store.take(Some(&acme()), Some(start()), length, now).await.unwrap()
    };
    let Taken::Yes(first) = take(&one, LEASE).await else { panic!() };
    assert_eq!(take(&other, LEASE).await, Taken::Held);
    one.release(&first).await.unwrap();
    let short = TimeDelta::milliseconds(200);
    let Taken::Yes(second) = take(&other, short).await else { panic!() };
    assert_ne!(first, second);
    // What it holds is kept by its signs, and taken over when there are none.
    other.beat(&member("a"), LEASE, start).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    assert_eq!(take(&one, LEASE).await, Taken::Held);
    other.beat(&member("a"), short, start).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    assert!(matches!(take(&one, LEASE).await, Taken::Yes(_)));
    // And one that leaves needs not be waited for.
    one.leave().await.unwrap();
    assert!(matches!(take(&other, LEASE).await, Taken::Yes(_)));
    assert_eq!(take(&one, LEASE).await, Taken::Superseded, "it has left");
}

#[tokio::test]
async fn a_scheduled_moment_is_scanned_once() {
    let Some(contract) = Contract::postgres().await else { return };
    contract.commit(vec![tell("c", SEVEN, start())], &["a"], start()).await;
    let take =
        async |tick, now| contract.store.take(Some(&acme()), tick, LEASE, now).await.unwrap();
    let (before, after) = (start() - minutes(1), start() + minutes(1));
    assert_eq!(take(Some(start()), after).await, Taken::Done);
    assert_eq!(take(Some(before), after).await, Taken::Done, "what is older has passed");
    for (tick, now, why) in [
        (None, after, "whoever asks for one gets one"),
        (Some(after), after, "the next one"),
        (Some(before), before, "what a clock that was ahead has written does not count"),
    ] {
        assert!(matches!(take(tick, now).await, Taken::Yes(_)), "{why}");
    }
    // Judged by another configuration, it is judged anew.
    contract.store.join(&member("a"), false, start).await.unwrap();
    assert!(matches!(take(Some(start()), after).await, Taken::Yes(_)));
}

#[tokio::test]
async fn the_newest_configuration_is_in_force_as_long_as_somebody_has_it() {
    let Some(database) = postgres::database().await else { return };
    let (one, other) = (instance(&database).await, instance(&database).await);
    let in_force = async |store: &Store| {
        let taken = store.take(None, None, LEASE, start()).await.unwrap();
        taken != Taken::Superseded
    };
    one.join(&member("a"), false, start).await.unwrap();
    assert!(in_force(&one).await);
    other.join(&member("b"), false, start).await.unwrap();
    assert!(in_force(&other).await, "the other lets go of what it holds");
    assert!(!in_force(&one).await);
    let gathering = one.beat(&member("a"), LEASE, start).await.unwrap();
    let seen: Vec<_> = gathering.instances.iter().map(|one| (one.me, one.in_force)).collect();
    assert_eq!(seen, [(true, false), (false, true)]);
    let differences = gathering.instances[0].differences(&gathering.instances[1]);
    assert_eq!((differences.len(), differences[0].here.as_str()), (1, "a"));

    // What was begun with the old one is not kept any more.
    other.join(&member("a"), true, start).await.unwrap();
    let held = lease(&one, Some(&acme())).await;
    let commit = Commit {
        of: Some(acme()),
        lease: Some(held),
        change: Change::Scan(Box::new((record(start()), Inventory::default()))),
        plans: vec![],
        over: vec![],
        now: start(),
        give_up_at: start() + days(3),
    };
    other.join(&member("b"), true, start).await.unwrap();
    let late = one.commit(&commit).await;
    assert!(matches!(late, Err(StoreFault::TakenOver)), "{late:?}");

    // Started again, the old one is not new.
    one.leave().await.unwrap();
    let again = instance(&database).await;
    again.join(&member("a"), false, start).await.unwrap();
    assert!(!in_force(&again).await && in_force(&other).await);
    // Loaded again by somebody, it is.
    other.join(&member("a"), true, start).await.unwrap();
    assert!(in_force(&again).await && in_force(&other).await);
    other.join(&member("b"), true, start).await.unwrap();
    assert!(!in_force(&again).await);
    // And where nobody has had the newest for some time, the other one is: sooner where that was meant.
    other.leave().await.unwrap();
    assert!(!in_force(&again).await, "it may be started again");
    let ago = |minutes: i64| {
        format!(
            "UPDATE configurations SET seen_at = seen_at - {minutes} * 60000 WHERE digest = 'b'"
        )
    };
    database.say(ago(1).leak()).await;
    assert!(in_force(&again).await);
    let gathering = again.beat(&member("a"), LEASE, start).await.unwrap();
    assert!(gathering.instances[0].in_force);
    // Where it was killed it counts for longer.
    let killed = instance(&database).await;
    killed.join(&member("b"), false, start).await.unwrap();
    killed.join(&member("c"), true, start).await.unwrap();
    database.say(ago(5).leak()).await;
    assert!(!in_force(&again).await);
    database.say("UPDATE configurations SET seen_at = 0 WHERE digest = 'c'").await;
    assert!(!in_force(&again).await, "the one that it had before");
    database.say(ago(6).leak()).await;
    assert!(in_force(&again).await);
    // What nobody has had for long is new again.
    database.say("UPDATE configurations SET seen_at = 0 WHERE digest = 'b'").await;
    instance(&database).await.join(&member("b"), false, start).await.unwrap();
    assert!(!in_force(&again).await);
}

#[tokio::test]
async fn each_delivery_is_claimed_by_one_of_many_and_none_is_left() {
    let Some(contract) = Contract::postgres().await else { return };
    let receivers: Vec<String> = (0..60).map(|n| format!("r{n:02}")).collect();
    let receivers: Vec<&str> = receivers.iter().map(String::as_str).collect();
    contract.commit(vec![tell("c", SEVEN, start())], &receivers, start()).await;
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
async fn refused_by_all_at_the_same_moment_it_was_told_to_nobody() {
    let Some(contract) = Contract::postgres().await else { return };
    for round in 0..10 {
        let now = start() + minutes(round);
        let receivers = ["a", "b", "c", "d"];
        contract.commit(vec![tell("c", SEVEN, now)], &receivers, now).await;
        let claims = contract.claim(now).await;
        assert_eq!(claims.len(), 4, "round {round}");
        let refusals = claims.iter().map(|claim| contract.record(claim, Verdict::Rejected, now));
        futures_util::future::join_all(refusals).await;
        assert!(contract.told().await.is_empty(), "round {round}");
    }
}

#[tokio::test]
async fn what_is_recorded_while_somebody_asks_for_another_attempt_counts() {
    let Some(contract) = Contract::postgres().await else { return };
    for round in 0..10 {
        let now = start() + minutes(round);
        contract.commit(vec![tell(&format!("c{round}"), SEVEN, now)], &["a"], now).await;
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
async fn the_schema_is_made_once_and_an_older_version_goes_on_beside_a_newer_one() {
    let Some(database) = postgres::database().await else { return };
    super::support::crypto();
    let missing = Store::open_beside(&database.settings()).await;
    assert!(matches!(missing, Err(StoreFault::Missing(_))), "{missing:?}");
    let settings = database.settings();
    let opening = (0..6).map(|_| Store::open(&settings));
    for opened in futures_util::future::join_all(opening).await {
        opened.unwrap().ping().await.unwrap();
    }
    // What a later version adds.
    let running = instance(&database).await;
    let look = async || {
        let scans = running.scans(None, None, 9).await.map(|scans| scans.len());
        let failures = running.failures().await.map(|failures| failures.len());
        Ok::<_, StoreFault>((scans?, failures?, running.latest_scan(&acme()).await?.is_some()))
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
        of: Some(acme()),
        lease: None,
        change: Change::Scan(Box::new((record(start()), Inventory::default()))),
        plans: vec![],
        over: vec![],
        now: start(),
        give_up_at: start() + days(3),
    };
    running.commit(&commit).await.unwrap();
    assert_eq!(instance(&database).await.latest_scans().await.unwrap().len(), 1);
    // What was prepared for the old tables fails once at most for each connection.
    let mut failed = 0;
    while look().await.is_err() {
        failed += 1;
        assert!(failed <= 9, "{:?}", look().await);
    }
    assert_eq!(look().await.unwrap(), (1, 0, true));
    Store::open_beside(&database.settings()).await.unwrap();
    // One that it would not get along with.
    database.say("UPDATE compatibility SET version = 9999").await;
    for opened in [Store::open(&settings).await, Store::open_beside(&settings).await] {
        assert!(matches!(opened, Err(StoreFault::Newer(_))), "{opened:?}");
    }
}

#[tokio::test]
async fn over_a_connection_that_reads_nothing_is_written() {
    let Some(contract) = Contract::postgres().await else { return };
    let reading = Store::reading(&contract.settings).await.unwrap();
    let one = acknowledgement("cert_a", start() + days(3));
    let refused = reading.acknowledge(&acme(), &one).await.unwrap_err().to_string();
    assert!(refused.contains("read-only"), "{refused}");
    assert_eq!(reading.acknowledgements(&acme()).await.unwrap().len(), 0);
}
