//! Databases of every earlier schema: they open, are migrated, and keep their contents.

use certvigil::{
    domain::{
        acknowledgement::Acknowledgement,
        certificate::{CertificateId, OrganizationName},
        delivery::DeliveryState,
        subject::Subject,
    },
    message::Notification,
    store::{Settings, Store, Which},
};
use sqlx::{Connection, migrate::Migrator};
use std::path::Path;
use uuid::Uuid;

use super::{
    postgres,
    store::{file, settings},
    support::{crypto, days, start},
};

/// The migrations of one kind of database.
async fn migrations(kind: &str) -> Migrator {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/migrations").join(kind);
    Migrator::new(folder).await.unwrap()
}

/// The first of them.
fn first(all: &Migrator, version: i64) -> Migrator {
    let first = all.iter().filter(|one| one.version <= version).cloned().collect();
    Migrator::with_migrations(first)
}

/// A cancelled delivery and an acknowledgement, as a database of this schema has them.
fn contents(kind: &str, version: i64) -> Vec<String> {
    let (now, until) = (start().timestamp_micros(), (start() + days(30)).timestamp_micros());
    let nil = Uuid::nil();
    let model = Notification::test(nil, "ops", start());
    let model = serde_json::to_string(&model).unwrap();
    let (sqlite, of_kind) = (kind == "sqlite", ("kind", "'news'"));
    let (column, value) = if sqlite && version < 3 { ("catch_up", "0") } else { of_kind };
    let (subject, acknowledged) = match (sqlite, version) {
        (true, ..9) | (false, ..4) => ("certificate", "cert_a"),
        _ => ("subject", "certificate:cert_a"),
    };
    let state = match (sqlite, version) {
        (true, ..10) | (false, ..5) => "abandoned",
        _ => "cancelled",
    };
    let mut statements = vec![
        format!(
            "INSERT INTO notifications (id, organization, notifier, created_at, {column}, summary, model) \
             VALUES ('{nil}', 'acme', 'ops', {now}, {value}, 'a summary', '{model}')"
        ),
        format!(
            "INSERT INTO deliveries (id, notification_id, notifier, receiver, state, created_at, give_up_at, \
             next_attempt_at, settled_at) VALUES ('{nil}', '{nil}', 'ops', 'a@x', '{state}', {now}, {until}, {now}, {now})"
        ),
    ];
    if !sqlite || version >= 2 {
        statements.push(format!(
            "INSERT INTO acknowledgements (id, organization, {subject}, reason, created_at, until) \
             VALUES ('{nil}', 'acme', '{acknowledged}', 'known', {now}, {until})"
        ));
    }
    statements
}

/// Opens the database as the service does, and looks for its contents.
async fn is_whole(settings: &Settings, kind: &str, version: i64) {
    let store = Store::open(settings).await.unwrap();
    let deliveries = store.deliveries(&Which::default(), 10).await.unwrap();
    let states: Vec<_> = deliveries.iter().map(|one| one.state).collect();
    assert_eq!(states, [DeliveryState::Cancelled], "{kind} {version}");
    let acme = OrganizationName::parse("acme").unwrap();
    let known = store.acknowledgements(&acme).await.unwrap();
    let subjects: Vec<&Subject> = known.iter().map(|one: &Acknowledgement| &one.subject).collect();
    let expected = Subject::Certificate(CertificateId::parse("cert_a").unwrap());
    match (kind, version) {
        ("sqlite", 1) => assert_eq!(subjects, [&expected; 0]),
        _ => assert_eq!(subjects, [&expected], "{kind} {version}"),
    }
    store.close().await;
}

#[tokio::test]
async fn a_file_of_every_earlier_schema_opens_with_its_contents() {
    crypto();
    let all = migrations("sqlite").await;
    for version in all.iter().map(|one| one.version) {
        let folder = tempfile::tempdir().unwrap();
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file(&folder));
        let mut old =
            sqlx::ConnectOptions::connect(&options.create_if_missing(true)).await.unwrap();
        first(&all, version).run(&mut old).await.unwrap();
        for statement in contents("sqlite", version) {
            let statement: &'static str = statement.leak();
            sqlx::query(statement).execute(&mut old).await.unwrap();
        }
        old.close().await.unwrap();
        is_whole(&settings(&folder), "sqlite", version).await;
    }
}

#[tokio::test]
async fn a_postgresql_database_of_every_earlier_schema_opens_with_its_contents() {
    crypto();
    let all = migrations("postgres").await;
    for version in all.iter().map(|one| one.version) {
        let Some(database) = postgres::database().await else { return };
        let mut old = postgres::connect(&database.url).await;
        first(&all, version).run(&mut old).await.unwrap();
        for statement in contents("postgres", version) {
            let statement: &'static str = statement.leak();
            sqlx::query(statement).execute(&mut old).await.unwrap();
        }
        old.close().await.unwrap();
        is_whole(&database.settings(), "postgres", version).await;
    }
}
