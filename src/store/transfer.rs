//! Moving a state from one database to another: everything that it holds, in lines of JSON.
//!
//! Guarantees: what is read is of one moment; it is written wholly or not at all, and only where there is nothing yet.
//! What instances settle among themselves stays behind, and so does who was at what: what was under way is attempted
//! again under the same id.

use serde_json::{Map, Value as Json, json};
use std::io::{BufRead, Write};

use super::{
    Result, Store, StoreFault,
    sql::{Query, Transaction, Value, either, query},
};

/// What is in the first line of a file.
const SCHEMA: &str = "certvigil.state/1";
/// How many rows are read at once.
const ROWS: i64 = 500;
/// The longest line that is read, in bytes: what is known of an organization was one.
const MAX_LINE: u64 = 256 * 1024 * 1024;

/// Why a state cannot be moved.
#[derive(Debug, thiserror::Error)]
pub enum TransferFault {
    #[error(transparent)]
    Store(#[from] StoreFault),
    #[error("the file cannot be read or written: {0}")]
    File(#[from] std::io::Error),
    #[error("line {line}: {found}; expected {expected}")]
    Line { line: usize, found: String, expected: String },
    #[error("there are {0} in the state already: import fills an empty one")]
    NotEmpty(&'static str),
}

/// What a column holds.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    Flag,
}
use Kind::{Flag, Number, Text};

struct Table {
    name: &'static str,
    columns: &'static [(&'static str, Kind)],
    /// Reads the rows behind those that were read, which are counted by their place in this order.
    read: &'static str,
    insert: &'static str,
}

/// A table of the state: its columns, and by what its rows are in order.
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

/// Everything that a state holds, in an order in which it can be written. `lease_until` is left out.
const TABLES: &[Table] = &[
    table!("organizations" by "name":
        "name" Text, "inventory" Text, "updated_at" Number, "scan_id" Text; "$1, $2, $3, $4"),
    table!("inventory_parts" by "organization, kind, part":
        "organization" Text, "kind" Text, "part" Number, "content" Text; "$1, $2, $3, $4"),
    table!("scans" by "id":
        "id" Text, "organization" Text, "tick" Number, "started_at" Number, "finished_at" Number, "complete" Flag,
        "projects_read" Number, "projects_unreadable" Number, "certificates" Number, "requests" Number,
        "faults" Text, "clock_skew" Number; "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12"),
    table!("notifications" by "id":
        "id" Text, "organization" Text, "notifier" Text, "created_at" Number, "summary" Text, "model" Text,
        "kind" Text; "$1, $2, $3, $4, $5, $6, $7"),
    table!("notification_subjects" by "notification_id, subject":
        "notification_id" Text, "organization" Text, "subject" Text; "$1, $2, $3"),
    table!("deliveries" by "seq":
        "seq" Number, "id" Text, "notification_id" Text, "notifier" Text, "receiver" Text, "state" Text,
        "created_at" Number, "give_up_at" Number, "attempts" Number, "next_attempt_at" Number, "settled_at" Number,
        "due_at" Number; "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12"),
    table!("attempts" by "delivery_id, number":
        "delivery_id" Text, "number" Number, "at" Number, "outcome" Text, "detail" Text; "$1, $2, $3, $4, $5"),
    table!("ledger" by "seq":
        "seq" Number, "organization" Text, "notifier" Text, "subject" Text, "told" Text, "at" Number,
        "notification_id" Text, "withdrawn" Flag; "$1, $2, $3, $4, $5, $6, $7, $8"),
    table!("receivers" by "organization, notifier, receiver":
        "organization" Text, "notifier" Text, "receiver" Text, "since" Number; "$1, $2, $3, $4"),
    table!("acknowledgements" by "seq":
        "seq" Number, "id" Text, "organization" Text, "certificate" Text, "reason" Text, "by_whom" Text,
        "created_at" Number, "until" Number, "expires_at" Number, "ended_at" Number, "ending" Text;
        "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11"),
    table!("failures" by "notifier, receiver":
        "notifier" Text, "receiver" Text, "since" Number, "last_at" Number, "outcome" Text, "detail" Text,
        "refused" Flag, "taken_at" Number; "$1, $2, $3, $4, $5, $6, $7, $8"),
    table!("rates" by "notifier": "notifier" Text, "whole_at" Number; "$1, $2"),
    table!("heartbeats" by "name": "name" Text, "said" Text; "$1, $2"),
    table!("keys" by "name": "name" Text, "value" Text; "$1, $2"),
    table!("ended_sessions" by "id": "id" Text, "until" Number; "$1, $2"),
];

impl Store {
    /// Writes everything that the state holds. Gives the number of rows.
    ///
    /// # Errors
    /// Where the database fails, or the file cannot be written.
    pub async fn export(&self, to: &mut impl Write) -> std::result::Result<u64, TransferFault> {
        let mut tx = self.pool.begin_reading().await.map_err(StoreFault::from)?;
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
        tx.rollback().await.map_err(StoreFault::from)?;
        // Without it, something is missing.
        writeln!(to, "{}", json!({ "rows": written }))?;
        Ok(written)
    }

    /// Fills an empty state with what was exported. Gives the number of rows.
    ///
    /// # Errors
    /// Where the state is not empty, the file is not what was expected, or the database fails; then nothing is
    /// written.
    pub async fn import(&self, from: &mut impl BufRead) -> std::result::Result<u64, TransferFault> {
        let mut lines = Lines { from, number: 0 };
        let head = lines.next()?.unwrap_or_default();
        if head["schema"] != SCHEMA {
            let found = format!("the schema {}", head["schema"]);
            return Err(lines.fault(found, format!("“{SCHEMA}”, as state export writes it")));
        }
        // Who starts meanwhile waits, and finds what was written.
        const LOCK: &str = "LOCK TABLE instances, configurations, leases, organizations, deliveries IN EXCLUSIVE MODE";
        let mut tx = self.pool.begin_filling(LOCK).await.map_err(StoreFault::from)?;
        if self.instances_there(&mut tx).await? > 0 {
            return Err(StoreFault::InUse("that is to be filled".to_owned()).into());
        }
        for table in TABLES {
            if !rows(&mut tx, table, 0).await?.is_empty() {
                return Err(TransferFault::NotEmpty(table.name));
            }
        }
        let mut written: u64 = 0;
        while let Some(line) = lines.next()? {
            if let Some(rows) = line["rows"].as_u64() {
                if rows != written || lines.next()?.is_some() {
                    let found = format!("{written} rows before the end");
                    return Err(lines.fault(found, format!("{rows}, and nothing behind them")));
                }
                reset_sequences(&mut tx).await.map_err(StoreFault::from)?;
                tx.commit().await.map_err(StoreFault::from)?;
                return Ok(written);
            }
            let Some(table) = TABLES.iter().find(|table| line["table"] == table.name) else {
                let found = format!("the table {}", line["table"]);
                return Err(lines.fault(found, "one that this certvigil knows".to_owned()));
            };
            let insert = insert(table, &line["row"])
                .map_err(|(found, expected)| lines.fault(found, expected))?;
            insert.execute(&mut tx).await.map_err(StoreFault::from)?;
            written += 1;
        }
        Err(lines
            .fault("the end of the file".to_owned(), "its last line: it is not whole".to_owned()))
    }
}

/// The lines of a file.
struct Lines<'a, R> {
    from: &'a mut R,
    number: usize,
}

impl<R: BufRead> Lines<'_, R> {
    fn next(&mut self) -> std::result::Result<Option<Json>, TransferFault> {
        let mut line = Vec::new();
        let mut limited = std::io::Read::take(&mut *self.from, MAX_LINE);
        self.number += 1;
        if limited.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        serde_json::from_slice(&line).map(Some).map_err(|error| {
            self.fault(format!("something else ({error})"), "a line of JSON".to_owned())
        })
    }

    fn fault(&self, found: String, expected: String) -> TransferFault {
        let found = crate::domain::text::one_line(&found, 200);
        TransferFault::Line { line: self.number, found, expected }
    }
}

/// Some rows of a table, behind those that were read.
async fn rows(tx: &mut Transaction, table: &Table, read: i64) -> Result<Vec<Map<String, Json>>> {
    // What is known of an organization may be large.
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
                Text => json!(row.try_get::<Option<String>>(*column)?),
                Number => json!(row.try_get::<Option<i64>>(*column)?),
                Flag => json!(row.try_get::<bool>(*column)?),
            };
            values.insert((*column).to_owned(), value);
        }
        rows.push(values);
    }
    Ok(rows)
}

/// What writes a row, or what was found in it and what was expected.
fn insert(table: &Table, row: &Json) -> std::result::Result<Query, (String, String)> {
    let mut insert = query(table.insert);
    for (column, kind) in table.columns {
        let wrong = |expected: &str| {
            (format!("{}.{column}: {}", table.name, row[*column]), expected.to_owned())
        };
        insert = insert.bind(match (kind, &row[*column]) {
            (Text, Json::String(text)) => Value::Text(Some(text.clone())),
            (Text, Json::Null) => Value::Text(None),
            (Text, _) => return Err(wrong("a text")),
            (Number, Json::Number(number)) => {
                Value::Number(Some(number.as_i64().ok_or_else(|| wrong("a whole number"))?))
            }
            (Number, Json::Null) => Value::Number(None),
            (Number, _) => return Err(wrong("a number")),
            (Flag, Json::Bool(flag)) => Value::Flag(*flag),
            (Flag, _) => return Err(wrong("true or false")),
        });
    }
    Ok(insert)
}

/// What is counted goes on behind what was written. SQLite does so by itself.
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
