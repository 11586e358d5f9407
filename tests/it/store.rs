//! The contract of the store: what every database that joins has to keep.

use certvigil::{
    domain::{
        acknowledgement::{Acknowledgement, Acknowledgements, Ending},
        alert::{Decision, Ledger, Reason, SentAlert},
        certificate::{Certificate, CertificateId, OrganizationName},
        delivery::DeliveryState,
        evaluate::evaluate,
        inventory::Inventory,
        notifier::{Grouping, NotifierState, Route},
        owner::Audience,
        policy::Policy,
        punctuality::Punctuality,
        retry::{FailureReason, Outcome, Verdict},
        routing::Routing,
        scan::ScanRecord,
        subject::Subject,
        text::Name,
        threshold::{ExpiredStep, Ladder, Lead, Reached, Severity, Stage, Threshold},
    },
    message::{
        ScanView,
        compose::{Composed, MessageContext},
    },
    store::{
        Attempted, Change, Commit, Lease, LedgerVersion, Membership, MessageKind, Place, Plan,
        Settings, Store, StoreError, Which, id_at,
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::ExposeSecret;
use std::{num::NonZeroU32, path::PathBuf, sync::Arc};
use tempfile::TempDir;
use uuid::Uuid;

use super::{
    postgres,
    support::{days, lease, start},
};

/// A store of its own, in a file or on a server.
pub struct Contract {
    pub settings: Settings,
    _folder: Option<TempDir>,
    pub store: Store,
}

pub fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("state.db")
}

pub fn settings(folder: &TempDir) -> Settings {
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
pub fn everybody() -> Vec<String> {
    let many = (0..60).map(|n| format!("r{n:02}"));
    ["a", "b", "c", "d", "r"].map(str::to_owned).into_iter().chain(many).collect()
}

/// The registration of an instance with this configuration.
pub fn member(digest: &str) -> Membership {
    Membership {
        host: "host".into(),
        process: 1,
        version: "0.0.0",
        started_at: start(),
        settings: [("key".to_owned(), digest.to_owned())].into_iter().collect(),
        digest: digest.into(),
    }
}

/// Opens a state as one of its workers.
pub async fn open(settings: &Settings) -> Store {
    let store = Store::open(settings).await.unwrap();
    store.join(&member("x"), false, &start).await.unwrap();
    store
}

pub fn acme() -> OrganizationName {
    OrganizationName::parse("acme").unwrap()
}

pub fn minutes(n: i64) -> TimeDelta {
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
        content: None,
        reported: None,
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

pub fn send(id: &str, stage: Stage, now: DateTime<Utc>) -> Decision {
    let reached = Reached {
        stage,
        label: "7d".into(),
        severity: Severity::Critical,
        repeat: None,
        last: true,
    };
    let sent = SentAlert {
        stage,
        label: "7d".into(),
        severity: Severity::Critical,
        expires_at: Some(start() + days(5)),
        name: None,
        at: now,
        tick: now,
        again: false,
        due_at: None,
        earlier_severities: Default::default(),
    };
    Decision::Send { subject: of(id), reason: Reason::Opened, reached, sent }
}

fn end(id: &str, now: DateTime<Utc>) -> Decision {
    let Decision::Send { subject, sent, .. } = send(id, Stage::Within(604_800), now) else {
        unreachable!()
    };
    Decision::Resolve { subject, reason: Reason::Deleted, sent }
}

impl Contract {
    pub async fn sqlite() -> Contract {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(&folder);
        let store = Store::open(&settings).await.unwrap();
        Contract { settings, _folder: Some(folder), store }
    }

    pub async fn postgres() -> Option<Contract> {
        Some(Contract::at(postgres::database().await?.settings()).await)
    }

    /// On a server.
    pub async fn at(settings: Settings) -> Contract {
        super::support::crypto();
        let store = open(&settings).await;
        Contract { settings, _folder: None, store }
    }

    /// Another one of the same kind, with nothing in it.
    pub async fn another(&self) -> Contract {
        match self.store.is_shared() {
            true => Contract::postgres().await.unwrap(),
            false => Contract::sqlite().await,
        }
    }

    pub async fn reopen(self) -> Contract {
        let Contract { settings, _folder, store } = self;
        store.leave().await.unwrap();
        store.close().await;
        drop(store);
        let store = open(&settings).await;
        Contract { settings, _folder, store }
    }

    /// Says something to the database that the store never would.
    pub async fn say(&self, statement: &'static str) {
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
    pub async fn commit(
        &self,
        decisions: Vec<Decision>,
        receivers: &[&str],
        now: DateTime<Utc>,
    ) -> Uuid {
        let message = composed(&decisions, now);
        let id = message.notification.id;
        let plan = Plan {
            notifier: "n".into(),
            ledger: "n".into(),
            decisions,
            messages: vec![message],
            kind: MessageKind::News,
            receivers: receivers.iter().map(ToString::to_string).collect(),
            up_to_date: receivers.iter().map(ToString::to_string).collect(),
            withdraws_ledger: false,
            ledger_version: self.ledger(now).await.1,
        };
        let inventory = Arc::default();
        let commit = Commit {
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

    pub async fn claim(&self, now: DateTime<Utc>) -> Vec<certvigil::store::Claim> {
        self.store.claim("n", &everybody(), now, minutes(5), 10, None).await.unwrap().claims
    }

    pub async fn record(
        &self,
        claim: &certvigil::store::Claim,
        verdict: Verdict,
        now: DateTime<Utc>,
    ) {
        let outcome = match verdict {
            Verdict::Delivered => Outcome::Delivered { answer: "250 OK".into() },
            Verdict::WaitUntil(_) | Verdict::GivenUp => {
                Outcome::retry(FailureReason::Connect, "refused")
            }
            Verdict::Rejected => {
                Outcome::Rejected { reason: FailureReason::Recipient, detail: "550".into() }
            }
        };
        let attempted = Attempted { claim: claim.clone(), outcome, verdict, ended: now };
        self.store.record(&[attempted]).await.unwrap();
    }

    async fn ledger(&self, now: DateTime<Utc>) -> (Ledger, LedgerVersion) {
        self.store.ledger(Some(&acme()), "n", now).await.unwrap()
    }

    /// The alerts sent to notifier `n`, as `id stage`.
    pub async fn sent(&self) -> Vec<String> {
        let (ledger, _) = self.ledger(start()).await;
        let bare = |subject: &Subject| subject.to_string().replace("certificate:", "");
        let open = ledger.open.iter();
        open.map(|(subject, sent)| format!("{} {:?}", bare(subject), sent.stage)).collect()
    }

    pub async fn states(&self) -> Vec<(String, DeliveryState)> {
        let rows = self.store.deliveries(&Which::default(), 100).await.unwrap();
        rows.into_iter().rev().map(|row| (row.receiver, row.state)).collect()
    }
}

pub fn record(now: DateTime<Utc>) -> ScanRecord {
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
        if let Decision::Send { subject: Subject::Certificate(id), .. } = decision {
            inventory.certificates.insert(id.clone(), certificate(id.as_str()).into());
        }
    }
    let policy = Policy { include_inactive: true, ..Policy::new(ladder()) };
    let (organization, none) = (acme(), Acknowledgements::default());
    let evaluation = evaluate(&organization, &inventory, &policy, &none, now);
    let context = MessageContext {
        evaluation: &evaluation,
        before: None,
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
        max_delay: None,
    };
    let decisions: Vec<&Decision> = decisions.iter().collect();
    let notifier = NotifierState {
        name: "n".into(),
        routing: Routing::all(),
        grouping: Grouping::Digest,
        ledger: Ledger::default(),
    };
    context.compose(|| id_at(now), &notifier, &decisions).remove(0)
}

pub const SEVEN: Stage = Stage::Within(604_800);

#[tokio::test]
async fn a_second_instance_on_the_same_file_is_refused() {
    let contract = Contract::sqlite().await;
    let second = Store::open(&contract.settings).await;
    assert!(matches!(second, Err(StoreError::InUse(_))));
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
    assert!(missing.contains("no database at"), "{missing}");
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
    let mut opened = Store::open(&settings).await;
    // Until a process that another test has forked runs its program, it holds the lock.
    while matches!(opened, Err(StoreError::InUse(_))) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        opened = Store::open(&settings).await;
    }
    for opened in [opened, Store::open_beside(&settings).await] {
        assert!(matches!(opened, Err(StoreError::Newer(_))), "{opened:?}");
    }
}

async fn a_commit_survives_and_reads_back_as_it_was_written(contract: Contract) {
    let id = contract.commit(vec![send("c", SEVEN, start())], &["a"], start()).await;
    let contract = contract.reopen().await;
    assert_eq!(contract.store.scans(None, None, 5).await.unwrap().len(), 1);
    let kept = &contract.store.scans(None, None, 5).await.unwrap()[0];
    assert_eq!(ScanRecord { id: kept.id, ..record(start()) }, *kept);
    assert_eq!(contract.store.last_tick(&acme()).await.unwrap(), Some(start()));
    assert_eq!(contract.sent().await, ["c Within(604800)"]);
    let claims = contract.claim(start()).await;
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0].notification.id, id);
    assert_eq!((claims[0].receiver.as_str(), claims[0].attempt), ("a", 1));
}

async fn a_claim_belongs_to_one_until_its_lease_ends_or_its_owner_has_died(contract: Contract) {
    contract.commit(vec![send("c", SEVEN, start())], &["a"], start()).await;
    assert_eq!(contract.claim(start()).await.len(), 1);
    assert_eq!(contract.claim(start() + minutes(4)).await.len(), 0);
    let again = contract.claim(start() + minutes(5)).await;
    assert_eq!(again[0].attempt, 2, "an attempt that nobody recorded counts");
    let contract = contract.reopen().await;
    // With several instances, another one may hold it.
    let left = usize::from(!contract.store.is_shared());
    assert_eq!(contract.claim(start() + minutes(5)).await.len(), left, "whoever had it is dead");
}

async fn a_notification_that_no_receiver_accepted_was_not_sent(contract: Contract) {
    for (verdict, state) in
        [(Verdict::GivenUp, DeliveryState::GivenUp), (Verdict::Rejected, DeliveryState::Rejected)]
    {
        let contract = contract.another().await;
        contract
            .commit(vec![send("c", Stage::Within(9_999_999), start())], &["a", "b"], start())
            .await;
        for claim in contract.claim(start()).await {
            contract.record(&claim, Verdict::Delivered, start()).await;
        }
        let later = start() + minutes(10);
        contract.commit(vec![send("c", SEVEN, later)], &["a", "b"], later).await;
        let claims = contract.claim(later).await;
        contract.record(&claims[0], verdict.clone(), later).await;
        assert_eq!(contract.sent().await, ["c Within(604800)"], "the other may still take it");
        contract.record(&claims[1], verdict, later).await;
        assert_eq!(contract.sent().await, ["c Within(9999999)"], "back to the previous alert");
        assert_eq!(contract.states().await[3].1, state);
    }
}

async fn one_accepting_receiver_is_enough_to_have_sent(contract: Contract) {
    contract.commit(vec![send("c", SEVEN, start())], &["a", "b"], start()).await;
    let claims = contract.claim(start()).await;
    contract.record(&claims[0], Verdict::Rejected, start()).await;
    contract.record(&claims[1], Verdict::Delivered, start()).await;
    assert_eq!(contract.sent().await, ["c Within(604800)"]);
}

async fn a_resolution_that_no_receiver_accepted_is_sent_again(contract: Contract) {
    contract.commit(vec![send("c", SEVEN, start())], &["a"], start()).await;
    let claims = contract.claim(start()).await;
    contract.record(&claims[0], Verdict::Delivered, start()).await;
    contract.commit(vec![end("c", start())], &["a"], start()).await;
    assert_eq!(contract.sent().await, [""; 0]);
    let claims = contract.claim(start()).await;
    contract.record(&claims[0], Verdict::GivenUp, start()).await;
    assert_eq!(contract.sent().await, ["c Within(604800)"], "the end was not heard");
}

async fn for_one_receiver_and_subject_nothing_overtakes(contract: Contract) {
    let first = contract
        .commit(vec![send("c", SEVEN, start()), send("d", SEVEN, start())], &["a"], start())
        .await;
    let claims = contract.claim(start()).await;
    let wait = start() + minutes(10);
    contract.record(&claims[0], Verdict::WaitUntil(wait), start()).await;
    // The first was attempted, and so is not superseded; it has d, too.
    let second =
        contract.commit(vec![send("c", Stage::Expired, start())], &["a", "b"], start()).await;
    let other = contract.commit(vec![send("e", SEVEN, start())], &["a"], start()).await;
    let due = contract.claim(start()).await;
    let due: Vec<_> =
        due.iter().map(|claim| (claim.notification.id, claim.receiver.as_str())).collect();
    let expected = [(first, "a"), (second, "b"), (other, "a")];
    assert_eq!(due, expected, "the pause of the first must not hold back the second");
    let due = &claims[0];
    assert_eq!(contract.claim(wait - minutes(6)).await.len(), 0, "in order");
    let again = contract.claim(wait).await;
    assert_eq!(again[0].notification.id, due.notification.id);
    contract.record(&again[0], Verdict::Delivered, wait).await;
    assert_eq!(contract.claim(wait).await[0].notification.id, second);
}

async fn what_was_never_attempted_and_is_out_of_date_is_superseded(contract: Contract) {
    contract.commit(vec![send("c", SEVEN, start())], &["a"], start()).await;
    contract
        .commit(
            vec![send("c", Stage::Expired, start()), send("d", SEVEN, start())],
            &["a"],
            start(),
        )
        .await;
    let states: Vec<DeliveryState> =
        contract.states().await.into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, [DeliveryState::Superseded, DeliveryState::Pending]);
    assert_eq!(contract.sent().await, ["c Expired", "d Within(604800)"]);
    contract.commit(vec![send("c", Stage::Expired, start())], &["a"], start()).await;
    assert_eq!(
        contract.states().await[1].1,
        DeliveryState::Pending,
        "it contains d, which is still new"
    );
}

async fn a_failed_delivery_can_be_retried_and_counts_as_sent_then(contract: Contract) {
    contract.commit(vec![send("c", SEVEN, start())], &["a"], start()).await;
    let claims = contract.claim(start()).await;
    contract.record(&claims[0], Verdict::Rejected, start()).await;
    assert_eq!(contract.sent().await, [""; 0]);
    let failed =
        contract.store.deliveries(&Which { failed: true, ..Which::default() }, 9).await.unwrap();
    assert_eq!(failed[0].last, Some(("recipient".into(), "550".into())));
    let prefix = &failed[0].id.to_string()[..8];
    let later = start() + days(9);
    contract.store.retry(prefix, later, later + days(3)).await.unwrap();
    assert_eq!(contract.sent().await, ["c Within(604800)"]);
    let claims = contract.claim(later).await;
    assert_eq!((claims[0].attempt, claims[0].give_up_at), (2, later + days(3)));
    contract.record(&claims[0], Verdict::Delivered, later).await;
    let done = contract.store.retry(prefix, later, later).await.unwrap_err().to_string();
    assert!(done.contains("is delivered and cannot be retried"), "{done}");
    for nonsense in ["", "x", "%", "ffffffff", "'; DROP TABLE deliveries"] {
        let error = contract.store.retry(nonsense, later, later).await.unwrap_err();
        assert!(matches!(error, StoreError::NoSuchDelivery(_)), "{nonsense}");
    }
}

async fn what_is_owed_to_the_unconfigured_is_cancelled(contract: Contract) {
    contract.commit(vec![send("c", SEVEN, start())], &["a", "b"], start()).await;
    let route = Route { routing: Routing::all(), receivers: vec!["a".to_owned()] };
    let only_a = [("n".to_owned(), route)];
    let lease = lease(&contract.store, None).await;
    let cancel = async |routes: &[(String, Route)]| {
        contract.store.cancel_removed(routes, &lease, start()).await.unwrap()
    };
    assert_eq!(cancel(&only_a).await, [("n".to_owned(), 1)]);
    assert_eq!(contract.sent().await, ["c Within(604800)"]);
    assert_eq!(cancel(&[]).await, [("n".to_owned(), 1)]);
    assert_eq!(contract.sent().await, [""; 0], "a notifier that returns gets the open alerts");
    assert!(
        contract.store.known_receivers(&acme(), "n", &Audience::Everyone).await.unwrap().is_empty()
    );
    assert_eq!(cancel(&[]).await, []);
}

async fn pruning_forgets_what_ended_and_keeps_what_counts(contract: Contract) {
    for day in 0..3 {
        let now = start() + days(day);
        contract.commit(vec![send("c", SEVEN, now)], &["a"], now).await;
        let claims = contract.claim(now).await;
        contract.record(&claims[0], Verdict::Delivered, now).await;
    }
    contract.commit(vec![send("waits", SEVEN, start())], &["a"], start()).await;
    contract.store.prune(start() + days(30)).await.unwrap();
    assert_eq!(contract.sent().await, ["c Within(604800)", "waits Within(604800)"]);
    assert_eq!(contract.store.last_tick(&acme()).await.unwrap(), Some(start() + days(2)));
    // The scan of the newest tick, and the one that the inventory comes from.
    assert_eq!(contract.store.scans(None, None, 9).await.unwrap().len(), 2);
    let left = contract.states().await;
    assert_eq!(left, [("a".to_owned(), DeliveryState::Pending)], "what waits is kept");
}

async fn a_receiver_is_up_to_date_when_it_has_taken_what_was_sent_to_it(contract: Contract) {
    let commit = |now| {
        let decisions = vec![send("c", SEVEN, now)];
        let plan = Plan {
            notifier: "n".into(),
            ledger: "n".into(),
            decisions: vec![],
            messages: vec![composed(&decisions, now)],
            kind: MessageKind::CatchUp,
            receivers: vec!["a".into(), "b".into()],
            up_to_date: vec![],
            withdraws_ledger: false,
            ledger_version: LedgerVersion::default(),
        };
        let change = Change::Scan(Box::new((record(now), Arc::default())));
        Commit {
            lease: None,
            change,
            plans: vec![plan],
            over: vec![],
            now,
            give_up_at: now + days(3),
        }
    };
    contract.store.commit(&commit(start())).await.unwrap();
    let known = contract.store.known_receivers(&acme(), "n", &Audience::Everyone).await.unwrap();
    assert_eq!(known.len(), 2, "a delivery in flight is enough");
    let claims = contract.claim(start()).await;
    contract.record(&claims[0], Verdict::Delivered, start()).await;
    contract.record(&claims[1], Verdict::Rejected, start()).await;
    let known = contract.store.known_receivers(&acme(), "n", &Audience::Everyone).await.unwrap();
    assert_eq!(known.into_iter().collect::<Vec<_>>(), ["a"]);
    let other = OrganizationName::parse("other").unwrap();
    assert!(
        contract.store.known_receivers(&other, "n", &Audience::Everyone).await.unwrap().is_empty()
    );
}

async fn what_a_clock_that_was_ahead_has_written_is_not_waited_for(contract: Contract) {
    let ahead = start() + days(1_000);
    contract.commit(vec![send("c", SEVEN, ahead)], &["a"], ahead).await;
    let claims = contract.claim(ahead).await;
    contract.record(&claims[0], Verdict::WaitUntil(ahead + minutes(1)), ahead).await;
    let claims = contract.claim(start()).await;
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0].give_up_at, start() + days(3));
}

async fn what_waits_without_an_attempt_is_held_back(contract: Contract) {
    contract.commit(vec![send("c", SEVEN, start())], &["a", "b", "d"], start()).await;
    let held = async |now: DateTime<Utc>| {
        let held = contract.store.held_back(now - minutes(60)).await.unwrap();
        held.into_iter().map(|one| (one.notifier, one.count, one.since)).collect::<Vec<_>>()
    };
    let all = |count| vec![("n".to_owned(), count, start())];
    assert_eq!(held(start() + minutes(59)).await, []);
    assert_eq!(held(start() + minutes(60)).await, all(3));
    // Attempts hold nothing back: one waits for its next, one may have arrived.
    let claims = contract.claim(start() + minutes(70)).await;
    let by = |receiver: &str| claims.iter().find(|one| one.receiver == receiver).unwrap();
    let later = Verdict::WaitUntil(start() + minutes(80));
    contract.record(by("a"), later, start() + minutes(70)).await;
    assert_eq!(held(start() + minutes(71)).await, all(2));
    assert_eq!(held(start() + minutes(500)).await, all(2), "its receiver is known to fail");
    let unconfirmed = "INSERT INTO attempts (delivery_id, number, at, outcome, detail)
         SELECT id, 7, 0, 'unconfirmed', '' FROM deliveries WHERE receiver = 'b'";
    contract.say(unconfirmed).await;
    assert_eq!(held(start() + minutes(500)).await, all(1));
    contract.record(by("d"), Verdict::Delivered, start() + minutes(501)).await;
    assert_eq!(held(start() + minutes(600)).await, []);
}

async fn acknowledgements_outlive_a_removed_organization_for_a_week(contract: Contract) {
    let store = &contract.store;
    contract.commit(vec![send("c", SEVEN, start())], &["a"], start()).await;
    let one = acknowledgement("c", start() + days(60));
    store.acknowledge(&acme(), &one).await.unwrap();
    let end = async |now: DateTime<Utc>| {
        store.end_orphaned_acknowledgements(now - days(7), now).await.unwrap()
    };
    assert_eq!(end(start() + days(30)).await, 0, "it is configured");
    let retired = Commit {
        lease: None,
        change: Change::Retired(acme()),
        plans: vec![],
        over: vec![],
        now: start() + days(1),
        give_up_at: start() + days(4),
    };
    store.commit(&retired).await.unwrap();
    let ended =
        async || store.acknowledgements(&acme()).await.unwrap().get(&one.subject).unwrap().ended;
    assert_eq!((end(start() + days(6)).await, ended().await), (0, None));
    assert_eq!(end(start() + days(8)).await, 1);
    assert_eq!(ended().await.map(|(_, ending)| ending), Some(Ending::Over));
}

async fn a_message_that_cannot_be_read_stands_in_nobodys_way(contract: Contract) {
    contract.commit(vec![send("c", SEVEN, start())], &["a"], start()).await;
    contract.commit(vec![send("d", SEVEN, start())], &["a"], start()).await;
    let first = "UPDATE notifications SET model = '{}'
                 WHERE id = (SELECT notification_id FROM deliveries ORDER BY seq LIMIT 1)";
    contract.say(first).await;
    assert_eq!(contract.claim(start()).await.len(), 1);
    assert_eq!(
        contract.sent().await,
        ["d Within(604800)"],
        "an unreadable alert was not delivered"
    );
    assert_eq!(contract.states().await[0].1, DeliveryState::Rejected);
}

async fn the_ledger_has_open_alerts_and_those_of_the_last_day(contract: Contract) {
    let (noon, later) = (start(), start() + TimeDelta::hours(10));
    let scans = [
        (vec![send("cert_a", SEVEN, noon), send("cert_b", SEVEN, noon)], noon),
        (vec![send("cert_a", SEVEN, later)], later),
        (vec![end("cert_a", later), end("cert_b", later)], later + minutes(1)),
    ];
    for (decisions, now) in scans {
        contract.commit(decisions, &["r"], now).await;
        let claims = contract.claim(now).await;
        contract.record(&claims[0], Verdict::Delivered, now).await;
    }
    let past = async |now: DateTime<Utc>| {
        let (ledger, _) = contract.ledger(now).await;
        assert!(ledger.open.is_empty());
        ledger
            .past
            .iter()
            .flat_map(|(subject, sent)| {
                sent.iter().map(move |sent| format!("{subject} {}", (sent.at - noon).num_hours()))
            })
            .collect::<Vec<_>>()
    };
    let (a0, a10, b0) = ("certificate:cert_a 0", "certificate:cert_a 10", "certificate:cert_b 0");
    assert_eq!(past(noon + TimeDelta::hours(23)).await, [a0, a10, b0], "those of a day");
    assert_eq!(past(noon + TimeDelta::hours(25)).await, [a10, b0], "and the latest of each");
}

pub fn acknowledgement(certificate: &str, until: DateTime<Utc>) -> Acknowledgement {
    Acknowledgement {
        id: Uuid::new_v5(&Uuid::NAMESPACE_OID, until.to_string().as_bytes()),
        subject: Subject::Certificate(CertificateId::parse(certificate).unwrap()),
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
    assert_eq!(kept.get(&first.subject), Some(&first), "as it was");

    store.acknowledge(&acme(), &second).await.unwrap();
    let all = store.all_acknowledgements(&acme()).await.unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(all[0].ended, Some((start(), Ending::Superseded)));
    assert_eq!(store.acknowledgements(&acme()).await.unwrap().get(&second.subject), Some(&second));

    let now = start() + minutes(1);
    assert!(store.withdraw(second.id, now).await.unwrap());
    assert!(!store.withdraw(second.id, now).await.unwrap(), "it is, already");
    let kept = store.acknowledgements(&acme()).await.unwrap();
    assert_eq!(kept.get(&second.subject).unwrap().ended, Some((now, Ending::Withdrawn)));

    let third = acknowledgement("cert_b", start() + days(2));
    store.acknowledge(&acme(), &third).await.unwrap();
    let commit = Commit {
        lease: None,
        change: Change::Scan(Box::new((record(now), Arc::default()))),
        plans: vec![],
        over: vec![third.id],
        now,
        give_up_at: now + days(3),
    };
    store.commit(&commit).await.unwrap();
    let kept = store.acknowledgements(&acme()).await.unwrap();
    assert_eq!(kept.get(&third.subject).unwrap().ended, Some((now, Ending::Over)));

    assert_eq!(store.prune(start() + days(1)).await.unwrap(), 0, "links may have used them");
    assert_eq!(store.prune(start() + days(31)).await.unwrap(), 3, "ended ones are deleted");
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
        subject: Subject::Certificate(CertificateId::parse("cert_a").unwrap()),
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
    assert_eq!(reading.version().await.unwrap(), before, "uncommitted changes are invisible");
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    // A reader in the middle of it.
    sqlx::query("BEGIN").execute(&mut other).await.unwrap();
    sqlx::query("SELECT * FROM acknowledgements").fetch_all(&mut other).await.unwrap();
    store.acknowledge(&organization, &one).await.unwrap();
    assert_ne!(reading.version().await.unwrap(), before);
    assert_eq!(reading.acknowledgements(&organization).await.unwrap().iter().count(), 1);
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
}

async fn a_rate_holds_for_all_and_over_a_restart(contract: Contract) {
    for n in 0..12 {
        let subject = format!("c{n}");
        contract.commit(vec![send(&subject, SEVEN, start())], &["a"], start()).await;
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
    contract.commit(vec![send("late", SEVEN, start())], &["a"], start()).await;
    // Nor may one that was years ahead.
    let corrected = claim(&contract, start() + minutes(1), 4).await;
    assert!(!corrected.claims.is_empty(), "{corrected:?}");
}

async fn instants_of_a_clock_that_was_years_ahead_hold_nothing_back(contract: Contract) {
    let ahead = start() + days(1_000);
    contract.commit(vec![send("c", SEVEN, start())], &["a"], start()).await;
    let claims = contract.claim(start()).await;
    contract.record(&claims[0], Verdict::WaitUntil(ahead + minutes(15)), ahead).await;
    contract.commit(vec![send("d", SEVEN, start())], &["b"], start()).await;
    let rate = NonZeroU32::new(60);
    let store = &contract.store;
    let spent = store.claim("n", &["b".to_owned()], ahead, minutes(5), 1, rate).await.unwrap();
    assert_eq!(spent.claims.len(), 1);
    // The clock is right again: the pause, the claim and the rate of then are impossible.
    let now = start() + minutes(2);
    assert!(store.next_due("n", now).await.unwrap().is_some_and(|due| due <= now));
    let due = store.claim("n", &everybody(), now, minutes(5), 9, rate).await.unwrap();
    let receivers: Vec<&str> = due.claims.iter().map(|claim| claim.receiver.as_str()).collect();
    assert_eq!(receivers, ["a", "b"]);
}

async fn what_may_have_arrived_holds_nothing_back_and_keeps_its_pause(contract: Contract) {
    let both = vec![send("c", SEVEN, start()), send("d", SEVEN, start())];
    let first = contract.commit(both, &["a"], start()).await;
    let claim = contract.claim(start()).await.remove(0);
    let pause = start() + TimeDelta::hours(1);
    let attempted = Attempted {
        claim,
        outcome: Outcome::retry(FailureReason::Unconfirmed, "no reply"),
        verdict: Verdict::WaitUntil(pause),
        ended: start(),
    };
    contract.store.record(&[attempted]).await.unwrap();
    let worse = vec![send("c", Stage::Expired, start())];
    let second = contract.commit(worse, &["a"], start() + minutes(1)).await;
    let ids = |claims: Vec<certvigil::store::Claim>| -> Vec<Uuid> {
        claims.iter().map(|claim| claim.notification.id).collect()
    };
    assert_eq!(ids(contract.claim(start() + minutes(1)).await), [second]);
    contract.store.retry_all("n", start() + minutes(2)).await.unwrap();
    assert!(contract.claim(start() + minutes(2)).await.is_empty());
    assert_eq!(ids(contract.claim(pause).await)[0], first);
}

async fn a_first_delivery_is_on_time_or_misses_the_objective(contract: Contract) {
    contract.commit(vec![send("c", SEVEN, start())], &["a", "b", "c", "d", "r"], start()).await;
    contract.say("UPDATE deliveries SET due_at = created_at").await;
    let limit = TimeDelta::hours(6) + minutes(5);
    let late = start() + limit + TimeDelta::milliseconds(1);
    let claims = contract.claim(start()).await;
    for (claim, (verdict, ended)) in claims.iter().zip([
        (Verdict::Delivered, start() + limit),
        (Verdict::Delivered, late),
        (Verdict::Rejected, start()),
        (Verdict::GivenUp, start()),
        (Verdict::WaitUntil(late), start()),
    ]) {
        contract.record(claim, verdict, ended).await;
    }
    let of = |since, now| contract.store.punctuality(since, limit, now);
    let before = start() - days(1);
    let pending = of(before, start() + limit).await.unwrap();
    assert_eq!(pending, Punctuality { on_time: 1, total: 4 });
    assert_eq!(of(before, late).await.unwrap(), Punctuality { on_time: 1, total: 5 });
    assert_eq!(of(start(), late).await.unwrap(), Punctuality::default(), "due before the period");
    // Once the alert of a failed delivery is sent again, only the last delivery counts.
    contract.commit(vec![send("c", SEVEN, start())], &["c"], start() + minutes(1)).await;
    contract.say("UPDATE deliveries SET due_at = (SELECT min(created_at) FROM deliveries)").await;
    let again = contract.claim(start() + minutes(1)).await;
    assert_eq!(again.len(), 1, "{again:?}");
    contract.record(&again[0], Verdict::Delivered, start() + minutes(2)).await;
    assert_eq!(of(before, late).await.unwrap(), Punctuality { on_time: 2, total: 5 });
    contract.say("UPDATE deliveries SET state = 'cancelled' WHERE receiver = 'r'").await;
    assert_eq!(of(before, late).await.unwrap(), Punctuality { on_time: 2, total: 4 });
    contract.say("UPDATE deliveries SET state = 'superseded' WHERE receiver IN ('a', 'b')").await;
    let superseded = of(before, late).await.unwrap();
    assert_eq!(superseded, Punctuality { on_time: 1, total: 3 }, "one of them too late");
    // Neither a reminder counts nor what a clock that was ahead has written.
    let earlier = start() - minutes(1);
    assert_eq!(of(before, earlier).await.unwrap(), Punctuality::default());
    contract.say("UPDATE deliveries SET due_at = NULL").await;
    assert_eq!(of(before, late).await.unwrap(), Punctuality::default());
}

async fn an_attempt_whose_claim_was_taken_over_changes_nothing(contract: Contract) {
    contract.commit(vec![send("c", SEVEN, start())], &["a"], start()).await;
    let first = contract.claim(start()).await.remove(0);
    let second = contract.claim(start() + minutes(10)).await.remove(0);
    assert_eq!((first.id, first.attempt, second.attempt), (second.id, 1, 2));
    contract.record(&first, Verdict::Rejected, start() + minutes(11)).await;
    let row = contract.store.delivery(first.id).await.unwrap().unwrap();
    assert_eq!((row.state, row.last), (DeliveryState::Pending, None));
    assert!(contract.store.failures().await.unwrap().is_empty());
    assert_eq!(contract.sent().await.len(), 1, "the ledger still has it");
    contract.record(&second, Verdict::Delivered, start() + minutes(12)).await;
    assert_eq!(contract.states().await[0].1, DeliveryState::Delivered);
}

async fn a_scan_that_was_decided_by_an_older_ledger_is_not_kept(contract: Contract) {
    contract.commit(vec![send("c", SEVEN, start())], &["a"], start()).await;
    let claim = contract.claim(start()).await.remove(0);
    let (_, ledger_version) = contract.ledger(start()).await;
    // Nobody took it: what the scan is about to resolve was never sent.
    contract.record(&claim, Verdict::Rejected, start()).await;
    let now = start() + minutes(1);
    let decisions = vec![end("c", now)];
    let plan = Plan {
        notifier: "n".into(),
        ledger: "n".into(),
        messages: vec![composed(&decisions, now)],
        decisions,
        kind: MessageKind::News,
        receivers: vec!["a".into()],
        up_to_date: vec![],
        withdraws_ledger: false,
        ledger_version,
    };
    let commit = Commit {
        lease: None,
        change: Change::Scan(Box::new((record(now), Arc::default()))),
        plans: vec![plan],
        over: vec![],
        now,
        give_up_at: now + days(3),
    };
    let refused = contract.store.commit(&commit).await;
    assert!(matches!(refused, Err(StoreError::LedgerChanged)), "{refused:?}");
    assert_eq!(contract.states().await.len(), 1, "nothing of it is kept");
}

async fn what_is_for_the_receivers_of_another_configuration_is_left_to_it(contract: Contract) {
    contract.commit(vec![send("c", SEVEN, start())], &["a", "b"], start()).await;
    let mine = ["b".to_owned()];
    let claims =
        contract.store.claim("n", &mine, start(), minutes(5), 9, None).await.unwrap().claims;
    let receivers: Vec<&str> = claims.iter().map(|claim| claim.receiver.as_str()).collect();
    assert_eq!(receivers, ["b"]);
    assert_eq!(contract.claim(start()).await.len(), 1);
}

async fn of_which_scans_all_was_well_is_kept(contract: Contract) {
    assert_eq!(contract.store.latest_scans().await.unwrap(), []);
    contract.commit(vec![send("c", SEVEN, start())], &["a"], start()).await;
    let latest = contract.store.latest_scans().await.unwrap();
    assert_eq!((latest.len(), latest[0].tick, latest[0].complete), (1, start(), true));
    assert!(contract.store.last_well("").await.unwrap().is_empty());
    let said = [latest[0].scan].into_iter().collect();
    contract.store.record_well("", &said).await.unwrap();
    contract.store.record_well("", &said).await.unwrap();
    let contract = contract.reopen().await;
    assert_eq!(contract.store.last_well("").await.unwrap(), said);
    assert!(contract.store.last_well("acme").await.unwrap().is_empty());
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
        lease: Some(lease.clone()),
        change: Change::Scan(Box::new((record(now), Arc::default()))),
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
    assert!(matches!(late, Err(StoreError::TakenOver)), "{late:?}");
    assert_eq!(contract.store.last_tick(&acme()).await.unwrap(), Some(start() + minutes(1)));
    other.commit(&commit(start() + minutes(3), &taken)).await.unwrap();
}

pub(crate) use contract;

contract! {
    a_commit_survives_and_reads_back_as_it_was_written
    a_claim_belongs_to_one_until_its_lease_ends_or_its_owner_has_died
    one_accepting_receiver_is_enough_to_have_sent
    a_resolution_that_no_receiver_accepted_is_sent_again
    for_one_receiver_and_subject_nothing_overtakes
    what_was_never_attempted_and_is_out_of_date_is_superseded
    a_failed_delivery_can_be_retried_and_counts_as_sent_then
    what_is_owed_to_the_unconfigured_is_cancelled
    pruning_forgets_what_ended_and_keeps_what_counts
    a_receiver_is_up_to_date_when_it_has_taken_what_was_sent_to_it
    what_a_clock_that_was_ahead_has_written_is_not_waited_for
    what_waits_without_an_attempt_is_held_back
    acknowledgements_outlive_a_removed_organization_for_a_week
    a_message_that_cannot_be_read_stands_in_nobodys_way
    the_ledger_has_open_alerts_and_those_of_the_last_day
    an_acknowledgement_is_kept_superseded_withdrawn_and_ended_by_a_scan
    a_notification_that_no_receiver_accepted_was_not_sent
    a_rate_holds_for_all_and_over_a_restart
    instants_of_a_clock_that_was_years_ahead_hold_nothing_back
    what_may_have_arrived_holds_nothing_back_and_keeps_its_pause
    a_first_delivery_is_on_time_or_misses_the_objective
    an_attempt_whose_claim_was_taken_over_changes_nothing
    a_scan_that_was_decided_by_an_older_ledger_is_not_kept
    of_which_scans_all_was_well_is_kept
    no_character_is_too_strange
    a_commit_without_its_lease_changes_nothing
    what_is_for_the_receivers_of_another_configuration_is_left_to_it
}
