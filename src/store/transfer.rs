//! Moves all data from one database to another, as lines of JSON.
//!
//! Guarantees: an export is a consistent snapshot; an import is complete or does nothing, needs an
//! empty database, and accepts only readable data, so that a manipulated file cannot stop the
//! service. Registrations, leases and claims are omitted: attempts in flight are repeated with the
//! same id.

use serde::de::IgnoredAny;
use serde_json::{Map, Value as Json, json};
use std::{
    collections::BTreeSet,
    io::{BufRead, Write},
};
use uuid::Uuid;

use super::{
    DeliveryState, Result, Store, StoreError, inventories,
    sql::{Query, Transaction, Value, either, query},
};
use crate::domain::{
    acknowledgement::Ending, alert::SentAlert, certificate::OrganizationName, subject::Subject,
};

/// The schema in the first line of a file.
const SCHEMA: &str = "certvigil.state/1";
/// The number of rows that are read at once.
const ROWS: i64 = 500;
/// The longest accepted line, in bytes: an inventory was one line in earlier versions.
const MAX_LINE: u64 = 64 * 1024 * 1024;

/// An error of an export or import.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot access the file: {0}")]
    File(#[from] std::io::Error),
    #[error("the file is incomplete: its closing line is missing")]
    Incomplete,
    #[error("line {line}: found {found}, expected {expected}")]
    Line { line: usize, found: String, expected: String },
    #[error("the database already has rows in the table {0}: import needs an empty database")]
    NotEmpty(&'static str),
    #[error("cannot import organization {organization}: {why}")]
    Inventory { organization: String, why: StoreError },
}

/// The content of a column; may be null if the table allows it.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    /// An organization's name; empty in rows that belong to no organization.
    Owner,
    /// The [`Subject`] of an acknowledgement.
    Acknowledged,
    /// A UUID.
    Id,
    /// A [`DeliveryState`].
    State,
    /// The [`Ending`] of an acknowledgement.
    Ended,
    /// JSON that only its readers validate.
    Document,
    /// [`SentAlert`] as JSON.
    Sent,
    /// Error messages of a scan: a JSON list of strings.
    Faults,
    /// Scan ids: a JSON list of UUIDs.
    Scans,
    Number,
    /// Unix milliseconds.
    Instant,
    Flag,
}
use Kind::{
    Acknowledged, Document, Ended, Faults, Flag, Id, Instant, Number, Owner, Scans, Sent, State,
    Text,
};

/// The longest text other than a document, in bytes.
const MAX_TEXT: usize = 64 * 1024;
/// The largest absolute value of a number, which leaves room for sequences to grow.
const MAX_NUMBER: u64 = 1 << 53;
/// The end of the year 9999, in Unix milliseconds.
const LAST_INSTANT: i64 = 253_402_300_799_999;

impl Kind {
    /// Checks a text of this column.
    ///
    /// # Errors
    /// The expected value.
    fn fits(self, text: &str) -> std::result::Result<(), &'static str> {
        let (fits, expected) = match self {
            Text => (text.len() <= MAX_TEXT, "a text of at most 64 KiB"),
            Owner => (
                text.is_empty() || OrganizationName::parse(text).is_ok(),
                "the name of an organization",
            ),
            Acknowledged => (
                matches!(
                    Subject::parse(text),
                    Some(Subject::Certificate(_) | Subject::Protection(_))
                ),
                "certificate:ID or protection:ID",
            ),
            Id => (Uuid::parse_str(text).is_ok(), "a UUID"),
            State => (DeliveryState::parse(text).is_some(), "the state of a delivery"),
            Ended => (Ending::parse(text).is_some(), "the end of an acknowledgement"),
            Document => (serde_json::from_str::<IgnoredAny>(text).is_ok(), "JSON in a text"),
            Sent => (serde_json::from_str::<SentAlert>(text).is_ok(), "a sent alert, as JSON"),
            Faults => {
                (serde_json::from_str::<Vec<String>>(text).is_ok(), "a list of faults, as JSON")
            }
            Scans => {
                (serde_json::from_str::<BTreeSet<Uuid>>(text).is_ok(), "a list of UUIDs, as JSON")
            }
            Number | Instant => (false, "a whole number"),
            Flag => (false, "true or false"),
        };
        if fits { Ok(()) } else { Err(expected) }
    }
}

struct Table {
    name: &'static str,
    columns: &'static [(&'static str, Kind)],
    /// Reads rows in a fixed order from an offset.
    read: &'static str,
    insert: &'static str,
}

/// Defines a table: the order of its rows, and its columns.
macro_rules! table {
    ($name:literal by $order:literal: $first:literal $first_kind:ident $(, $column:literal $kind:ident)* ; $places:literal) => {
        Table {
            name: $name,
            columns: &[($first, $first_kind) $(, ($column, $kind))*],
            read: concat!(
                "SELECT ", $first $(, ", ", $column)*, " FROM ", $name, " ORDER BY ", $order, " LIMIT $1 OFFSET $2"
            ),
            insert: concat!(
                "INSERT INTO ", $name, " (", $first $(, ", ", $column)*, ") VALUES (", $places, ")"
            ),
        }
    };
}

/// All tables, in an order that satisfies foreign keys. Omits `lease_until`.
const TABLES: &[Table] = &[
    table!("organizations" by "name":
        "name" Owner, "inventory" Document, "updated_at" Instant, "scan_id" Id; "$1, $2, $3, $4"),
    table!("inventory_parts" by "organization, kind, part":
        "organization" Owner, "kind" Text, "part" Number, "content" Document; "$1, $2, $3, $4"),
    table!("scans" by "id":
        "id" Id, "organization" Owner, "tick" Instant, "started_at" Instant, "finished_at" Instant, "complete" Flag,
        "projects_read" Number, "projects_unreadable" Number, "certificates" Number, "requests" Number,
        "faults" Faults, "clock_skew" Number; "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12"),
    table!("notifications" by "id":
        "id" Id, "organization" Owner, "notifier" Text, "created_at" Instant, "summary" Text, "model" Document,
        "kind" Text; "$1, $2, $3, $4, $5, $6, $7"),
    table!("notification_subjects" by "notification_id, subject":
        "notification_id" Id, "organization" Owner, "subject" Text; "$1, $2, $3"),
    table!("deliveries" by "seq":
        "seq" Number, "id" Id, "notification_id" Id, "notifier" Text, "receiver" Text, "state" State,
        "created_at" Instant, "give_up_at" Instant, "attempts" Number, "next_attempt_at" Instant, "settled_at" Instant,
        "due_at" Instant; "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12"),
    table!("attempts" by "delivery_id, number":
        "delivery_id" Id, "number" Number, "at" Instant, "outcome" Text, "detail" Text; "$1, $2, $3, $4, $5"),
    table!("ledger" by "seq":
        "seq" Number, "organization" Owner, "notifier" Text, "subject" Text, "told" Sent, "at" Instant,
        "notification_id" Id, "withdrawn" Flag; "$1, $2, $3, $4, $5, $6, $7, $8"),
    table!("receivers" by "organization, notifier, receiver":
        "organization" Owner, "notifier" Text, "receiver" Text, "since" Instant; "$1, $2, $3, $4"),
    table!("acknowledgements" by "seq":
        "seq" Number, "id" Id, "organization" Owner, "subject" Acknowledged, "reason" Text, "by_whom" Text,
        "created_at" Instant, "until" Instant, "expires_at" Instant, "ended_at" Instant, "ending" Ended;
        "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11"),
    table!("drills" by "notifier, receiver":
        "notifier" Text, "receiver" Text, "notification_id" Id, "sent_at" Instant, "waiting_since" Instant,
        "confirm_by" Instant, "confirmed_at" Instant, "closes_at" Instant; "$1, $2, $3, $4, $5, $6, $7, $8"),
    table!("schedules" by "job": "job" Text, "cron" Text, "tick" Instant, "asked_at" Instant, "ran_at" Instant; "$1, $2, $3, $4, $5"),
    table!("failures" by "notifier, receiver":
        "notifier" Text, "receiver" Text, "since" Instant, "last_at" Instant, "outcome" Text, "detail" Text,
        "refused" Flag, "taken_at" Instant; "$1, $2, $3, $4, $5, $6, $7, $8"),
    table!("rates" by "notifier": "notifier" Text, "whole_at" Number; "$1, $2"),
    table!("heartbeats" by "name": "name" Text, "said" Scans; "$1, $2"),
    table!("keys" by "name": "name" Text, "value" Text; "$1, $2"),
    table!("ended_sessions" by "id": "id" Id, "until" Instant; "$1, $2"),
];

impl Store {
    /// Exports all data; returns the number of rows.
    ///
    /// # Errors
    /// If the database fails, or the file cannot be written.
    pub async fn export(&self, to: &mut impl Write) -> std::result::Result<u64, TransferError> {
        let mut tx = self.pool.begin_reading().await.map_err(StoreError::from)?;
        writeln!(to, "{}", json!({ "schema": SCHEMA, "version": env!("CARGO_PKG_VERSION") }))?;
        let mut written = 0;
        for table in TABLES {
            let mut read = 0;
            loop {
                let rows = rows(&mut tx, table, read).await?;
                for row in &rows {
                    writeln!(to, "{}", json!({ "table": table.name, "row": row }))?;
                }
                read += i64::try_from(rows.len()).unwrap_or(i64::MAX);
                if rows.is_empty() {
                    break;
                }
            }
            written += read.unsigned_abs();
        }
        tx.rollback().await.map_err(StoreError::from)?;
        // An import rejects a file without this line as incomplete.
        writeln!(to, "{}", json!({ "rows": written }))?;
        Ok(written)
    }

    /// Imports an export into an empty database; returns the number of rows.
    ///
    /// # Errors
    /// If the database is not empty, the file is invalid, or the database fails; nothing is written
    /// then.
    pub async fn import(&self, from: &mut impl BufRead) -> std::result::Result<u64, TransferError> {
        let mut lines = Lines { from, number: 0 };
        let head = lines.next()?.unwrap_or_default();
        if head["schema"] != SCHEMA {
            let found = format!("the schema {}", head["schema"]);
            return Err(lines.fault(found, format!("“{SCHEMA}”, as state export writes it")));
        }
        // An instance that starts during the import waits, and then finds the imported data.
        const LOCK: &str = "LOCK TABLE instances, configurations, leases, organizations, deliveries IN EXCLUSIVE MODE";
        let mut tx = self.pool.begin_filling(LOCK).await.map_err(StoreError::from)?;
        if self.instances_there(&mut tx).await? > 0 {
            return Err(StoreError::InUse("to import into".to_owned()).into());
        }
        for table in TABLES {
            if !rows(&mut tx, table, 0).await?.is_empty() {
                return Err(TransferError::NotEmpty(table.name));
            }
        }
        let mut written: u64 = 0;
        while let Some(line) = lines.next()? {
            if let Some(rows) = line["rows"].as_u64() {
                if rows != written || lines.next()?.is_some() {
                    let found = format!("{written} rows before this line");
                    let expected = format!("{rows} rows, and nothing after the closing line");
                    return Err(lines.fault(found, expected));
                }
                read_back(&mut tx).await?;
                reset_sequences(&mut tx).await.map_err(StoreError::from)?;
                tx.commit().await.map_err(StoreError::from)?;
                return Ok(written);
            }
            let Some(table) = TABLES.iter().find(|table| line["table"] == table.name) else {
                let found = format!("the table {}", line["table"]);
                return Err(lines.fault(found, "a table that this version knows".to_owned()));
            };
            let insert = insert(table, &line["row"])
                .map_err(|(found, expected)| lines.fault(found, expected))?;
            insert.execute(&mut tx).await.map_err(StoreError::from)?;
            written += 1;
        }
        Err(TransferError::Incomplete)
    }
}

/// The lines of a file.
struct Lines<'a, R> {
    from: &'a mut R,
    number: usize,
}

impl<R: BufRead> Lines<'_, R> {
    fn next(&mut self) -> std::result::Result<Option<Json>, TransferError> {
        let mut line = Vec::new();
        let mut limited = std::io::Read::take(&mut *self.from, MAX_LINE);
        self.number += 1;
        if limited.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        serde_json::from_slice(&line).map(Some).map_err(|error| {
            self.fault(format!("invalid JSON ({error})"), "a line of JSON".to_owned())
        })
    }

    fn fault(&self, found: String, expected: String) -> TransferError {
        let found = crate::domain::text::one_line(&found, 200);
        TransferError::Line { line: self.number, found, expected }
    }
}

/// Reads the next rows of a table, after `read` rows.
async fn rows(tx: &mut Transaction, table: &Table, read: i64) -> Result<Vec<Map<String, Json>>> {
    // Rows of inventories may be large.
    let most = match table.name {
        "organizations" | "inventory_parts" => 1,
        _ => ROWS,
    };
    let found = query(table.read).bind(most).bind(read).fetch_all(tx).await?;
    let mut rows = Vec::new();
    for row in &found {
        let mut values = Map::new();
        for (column, kind) in table.columns {
            let value = match kind {
                Number | Instant => json!(row.try_get::<Option<i64>>(*column)?),
                Flag => json!(row.try_get::<bool>(*column)?),
                _ => json!(row.try_get::<Option<String>>(*column)?),
            };
            values.insert((*column).to_owned(), value);
        }
        rows.push(values);
    }
    Ok(rows)
}

/// The statement that inserts a row, or the found and the expected value.
fn insert(table: &Table, row: &Json) -> std::result::Result<Query, (String, String)> {
    let mut insert = query(table.insert);
    for (column, kind) in table.columns {
        let wrong = |expected: &str| {
            (format!("{}.{column}: {}", table.name, row[*column]), expected.to_owned())
        };
        insert = insert.bind(match (kind, &row[*column]) {
            (Flag, Json::Bool(flag)) => Value::Flag(*flag),
            (Number | Instant, Json::Null) => Value::Number(None),
            (Number, Json::Number(number)) => {
                let number = number.as_i64().filter(|number| number.unsigned_abs() <= MAX_NUMBER);
                Value::Number(Some(number.ok_or_else(|| wrong("a whole number of at most 2^53"))?))
            }
            (Instant, Json::Number(number)) => {
                let at = number.as_i64().filter(|at| (0..=LAST_INSTANT).contains(at));
                Value::Number(Some(
                    at.ok_or_else(|| wrong("Unix milliseconds before the year 10000"))?,
                ))
            }
            (kind, Json::String(text)) => {
                kind.fits(text).map_err(wrong)?;
                Value::Text(Some(text.clone()))
            }
            (Number | Instant, _) => return Err(wrong("a whole number")),
            (Flag, _) => return Err(wrong("true or false")),
            (_, Json::Null) => Value::Text(None),
            _ => return Err(wrong("a text")),
        });
    }
    Ok(insert)
}

/// Checks that the inventory of each organization can be read.
async fn read_back(tx: &mut Transaction) -> std::result::Result<(), TransferError> {
    let names: Vec<String> = query("SELECT name FROM organizations ORDER BY name")
        .scalars(&mut *tx)
        .await
        .map_err(StoreError::from)?;
    for organization in names {
        let Ok(name) = OrganizationName::parse(&organization) else { continue };
        let read = inventories::read(tx, &name).await;
        read.map_err(|why| TransferError::Inventory { organization, why })?;
    }
    Ok(())
}

/// Continues sequences after the imported rows; SQLite does so by itself.
async fn reset_sequences(tx: &mut Transaction) -> std::result::Result<(), sqlx::Error> {
    for (sqlite, postgres) in [
        ("SELECT 0", "SELECT setval(pg_get_serial_sequence('deliveries', 'seq'), coalesce(max(seq), 0) + 1) FROM deliveries"),
        ("SELECT 0", "SELECT setval(pg_get_serial_sequence('ledger', 'seq'), coalesce(max(seq), 0) + 1) FROM ledger"),
        (
            "SELECT 0",
            "SELECT setval(pg_get_serial_sequence('acknowledgements', 'seq'), coalesce(max(seq), 0) + 1)
             FROM acknowledgements",
        ),
    ] {
        either(sqlite, postgres).fetch_all(&mut *tx).await?;
    }
    Ok(())
}
