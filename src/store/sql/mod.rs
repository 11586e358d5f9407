//! Runs the same statements on SQLite and PostgreSQL. Statements are written once, in the SQL that
//! both support, and tests run them on both; this module hides the differences between the drivers.
//!
//! Guarantees: a statement waits for an unresponsive server only up to its time limit, and its
//! connection is not used again. A dropped transaction is rolled back.

mod row;
mod value;

use sqlx::{
    PgPool, Postgres, Sqlite, SqlitePool,
    pool::PoolConnection,
    postgres::{PgArguments, PgRow},
    query::Query as Prepared,
    sqlite::{SqliteArguments, SqliteRow},
};
use std::{io, time::Duration};
use tokio::time::error::Elapsed;

pub use row::{Owned, Row, Tuple};
pub use value::Value;

type Result<T> = std::result::Result<T, sqlx::Error>;

/// SQLSTATE of “cached plan must not change result type”.
const OTHER_PLAN: &str = "0A000";

/// Connections to a database.
#[derive(Clone, Debug)]
pub enum Pool {
    Sqlite(SqlitePool),
    Postgres {
        pool: PgPool,
        /// The client's time limit of a statement.
        patience: Duration,
    },
}

impl Pool {
    pub async fn begin(&self) -> Result<Transaction> {
        Ok(Transaction(match self {
            // SQLite has one writer: a transaction that locks at its start cannot fail later for
            // that reason.
            Pool::Sqlite(pool) => Inner::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?),
            Pool::Postgres { pool, patience } => {
                let mut open = Box::new(Open(Some(Held::of(pool, *patience).await?)));
                open.held()?.run("BEGIN").await?;
                Inner::Postgres(open)
            }
        }))
    }

    /// A consistent read-only snapshot, for long reads.
    pub async fn begin_reading(&self) -> Result<Transaction> {
        Ok(Transaction(match self {
            Pool::Sqlite(pool) => Inner::Sqlite(pool.begin().await?),
            Pool::Postgres { pool, patience } => {
                let mut open = Box::new(Open(Some(Held::of(pool, *patience).await?)));
                let held = open.held()?;
                held.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
                held.run("SET LOCAL idle_in_transaction_session_timeout = 0").await?;
                Inner::Postgres(open)
            }
        }))
    }

    /// Starts a long import; `lock` locks the tables for others.
    pub async fn begin_filling(&self, lock: &'static str) -> Result<Transaction> {
        let mut transaction = self.begin().await?;
        if let Inner::Postgres(open) = &mut transaction.0 {
            let held = open.held()?;
            held.run("SET LOCAL idle_in_transaction_session_timeout = 0").await?;
            held.run(lock).await?;
        }
        Ok(transaction)
    }

    pub async fn close(&self) {
        match self {
            Pool::Sqlite(pool) => pool.close().await,
            Pool::Postgres { pool, .. } => pool.close().await,
        }
    }
}

/// A transaction: rolled back if dropped.
pub struct Transaction(Inner);

enum Inner {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(Box<Open>),
}

/// An open transaction: dropping it closes the connection.
struct Open(Option<Held>);

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(held) = &mut self.0 {
            held.connection.close_on_drop();
        }
    }
}

impl Open {
    fn held(&mut self) -> Result<&mut Held> {
        // Only `end` removes it.
        self.0.as_mut().ok_or(sqlx::Error::PoolClosed)
    }

    async fn end(&mut self, command: &'static str) -> Result<()> {
        self.held()?.run(command).await?;
        self.0 = None;
        Ok(())
    }
}

/// An acquired connection.
struct Held {
    connection: PoolConnection<Postgres>,
    patience: Duration,
}

impl Held {
    async fn of(pool: &PgPool, patience: Duration) -> Result<Held> {
        let connection = pool.acquire().await.map_err(|error| match error {
            sqlx::Error::PoolTimedOut => {
                let why = "no connection to the database";
                sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, why))
            }
            other => other,
        })?;
        Ok(Held { connection, patience })
    }

    async fn fetch_all(&mut self, query: Query) -> Result<Vec<PgRow>> {
        let asked = query.for_postgres().fetch_all(&mut *self.connection);
        let answer = tokio::time::timeout(self.patience, asked).await;
        self.answered(answer)
    }

    async fn execute(&mut self, query: Query) -> Result<u64> {
        let asked = query.for_postgres().execute(&mut *self.connection);
        let answer = tokio::time::timeout(self.patience, asked).await;
        Ok(self.answered(answer)?.rows_affected())
    }

    async fn run(&mut self, command: &'static str) -> Result<()> {
        self.execute(query(command)).await.map(drop)
    }

    fn answered<T>(&mut self, answer: std::result::Result<Result<T>, Elapsed>) -> Result<T> {
        match answer {
            Ok(Err(sqlx::Error::Database(error)))
                if error.code().as_deref() == Some(OTHER_PLAN) =>
            {
                // A newer version added a column to a table of a prepared statement: the next
                // connection prepares it again.
                self.connection.close_on_drop();
                Err(sqlx::Error::Database(error))
            }
            Ok(answer) => answer,
            Err(_) => {
                // The late response would be taken for the response to the next statement.
                self.connection.close_on_drop();
                let why = format!("the database did not answer within {:?}", self.patience);
                Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, why)))
            }
        }
    }
}

impl Transaction {
    /// Commits. If the response is lost, the commit may have succeeded.
    pub async fn commit(self) -> Result<()> {
        match self.0 {
            Inner::Sqlite(transaction) => transaction.commit().await,
            Inner::Postgres(mut open) => open.end("COMMIT").await,
        }
    }
}

impl Transaction {
    /// Rolls back and keeps the connection.
    pub async fn rollback(self) -> Result<()> {
        match self.0 {
            Inner::Sqlite(transaction) => transaction.rollback().await,
            Inner::Postgres(mut open) => open.end("ROLLBACK").await,
        }
    }

    /// Whether several instances can use the database.
    pub fn is_shared(&self) -> bool {
        matches!(self.0, Inner::Postgres(_))
    }
}

/// The target of a statement.
pub enum On<'a> {
    Pool(&'a Pool),
    Transaction(&'a mut Transaction),
}

impl<'a> From<&'a Pool> for On<'a> {
    fn from(pool: &'a Pool) -> On<'a> {
        On::Pool(pool)
    }
}

impl<'a> From<&'a mut Transaction> for On<'a> {
    fn from(transaction: &'a mut Transaction) -> On<'a> {
        On::Transaction(transaction)
    }
}

/// A statement with its bound values.
pub struct Query {
    sqlite: &'static str,
    postgres: &'static str,
    values: Vec<Value>,
}

/// A statement for both databases.
pub fn query(statement: &'static str) -> Query {
    either(statement, statement)
}

/// The audience of a stored notification `n`, as its key; NULL for everyone.
macro_rules! audience {
    (sqlite) => {
        "json_extract(n.model, '$.audience')"
    };
    (postgres) => {
        "CAST(n.model AS JSON) ->> 'audience'"
    };
}

/// A statement that differs between the databases.
pub fn either(sqlite: &'static str, postgres: &'static str) -> Query {
    Query { sqlite, postgres, values: Vec::new() }
}

impl Query {
    pub fn bind(mut self, value: impl Into<Value>) -> Query {
        self.values.push(value.into());
        self
    }

    fn for_sqlite(self) -> Prepared<'static, Sqlite, SqliteArguments> {
        self.values.into_iter().fold(sqlx::query(self.sqlite), |query, value| match value {
            Value::Text(text) => query.bind(text),
            Value::Number(number) => query.bind(number),
            Value::Flag(flag) => query.bind(flag),
        })
    }

    fn for_postgres(self) -> Prepared<'static, Postgres, PgArguments> {
        self.values.into_iter().fold(sqlx::query(self.postgres), |query, value| match value {
            // PostgreSQL cannot store this character.
            Value::Text(text) => query.bind(text.map(|text| text.replace('\0', "\u{fffd}"))),
            Value::Number(number) => query.bind(number),
            Value::Flag(flag) => query.bind(flag),
        })
    }

    pub async fn fetch_all(self, on: impl Into<On<'_>>) -> Result<Vec<Row>> {
        let sqlite = |rows: Vec<SqliteRow>| rows.into_iter().map(Row::Sqlite).collect();
        let rows = match on.into() {
            On::Pool(Pool::Sqlite(pool)) => {
                return self.for_sqlite().fetch_all(pool).await.map(sqlite);
            }
            On::Transaction(Transaction(Inner::Sqlite(transaction))) => {
                return self.for_sqlite().fetch_all(&mut **transaction).await.map(sqlite);
            }
            On::Pool(Pool::Postgres { pool, patience }) => {
                Held::of(pool, *patience).await?.fetch_all(self).await?
            }
            On::Transaction(Transaction(Inner::Postgres(open))) => {
                open.held()?.fetch_all(self).await?
            }
        };
        Ok(rows.into_iter().map(Row::Postgres).collect())
    }

    pub async fn fetch_optional(self, on: impl Into<On<'_>>) -> Result<Option<Row>> {
        Ok(self.fetch_all(on).await?.into_iter().next())
    }

    pub async fn fetch_one(self, on: impl Into<On<'_>>) -> Result<Row> {
        self.fetch_optional(on).await?.ok_or(sqlx::Error::RowNotFound)
    }

    /// The first column of each row.
    pub async fn scalars<T: Owned>(self, on: impl Into<On<'_>>) -> Result<Vec<T>> {
        self.fetch_all(on).await?.iter().map(|row| row.try_get(0)).collect()
    }

    /// The first column of the first row, if there is one.
    pub async fn scalar<T: Owned>(self, on: impl Into<On<'_>>) -> Result<Option<T>> {
        self.fetch_optional(on).await?.map(|row| row.try_get(0)).transpose()
    }

    /// The first column of the first row.
    pub async fn scalar_one<T: Owned>(self, on: impl Into<On<'_>>) -> Result<T> {
        self.fetch_one(on).await?.try_get(0)
    }

    /// The rows as tuples of their columns.
    pub async fn tuples<T: Tuple>(self, on: impl Into<On<'_>>) -> Result<Vec<T>> {
        self.fetch_all(on).await?.iter().map(Row::tuple).collect()
    }

    /// The first row as a tuple of its columns.
    pub async fn tuple<T: Tuple>(self, on: impl Into<On<'_>>) -> Result<T> {
        self.fetch_one(on).await?.tuple()
    }

    /// The number of changed rows.
    pub async fn execute(self, on: impl Into<On<'_>>) -> Result<u64> {
        Ok(match on.into() {
            On::Pool(Pool::Sqlite(pool)) => self.for_sqlite().execute(pool).await?.rows_affected(),
            On::Transaction(Transaction(Inner::Sqlite(transaction))) => {
                self.for_sqlite().execute(&mut **transaction).await?.rows_affected()
            }
            On::Pool(Pool::Postgres { pool, patience }) => {
                Held::of(pool, *patience).await?.execute(self).await?
            }
            On::Transaction(Transaction(Inner::Postgres(open))) => {
                open.held()?.execute(self).await?
            }
        })
    }
}
