//! Opening the state: as its only worker, or beside one.

use backon::{ExponentialBuilder, Retryable};
use sqlx::{
    Connection, SqlitePool,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{
    fs::{OpenOptions, TryLockError},
    path::Path,
    time::Duration,
};

use super::{Result, Settings, Store, StoreFault};
use crate::domain::text::one_line;

/// How many may read at once.
const READERS: u32 = 2;

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations/sqlite");

impl Store {
    /// Opens the state as its only worker: makes the file and brings it up to date where needed, and
    /// takes back what a worker that died had claimed.
    ///
    /// # Errors
    /// Where another worker has it, it is of a newer version, or it cannot be opened or written.
    pub async fn open_exclusive(settings: &Settings) -> Result<Store> {
        let made = OpenOptions::new().create(true).append(true).open(&settings.file);
        made.map_err(|error| StoreFault::Open {
            path: settings.file.clone(),
            why: error.to_string(),
        })?;
        // By whatever name the file is called, it is the same state.
        let path = &std::fs::canonicalize(&settings.file).unwrap_or(settings.file.clone());
        let open = |why: String| StoreFault::Open { path: path.clone(), why };
        let lock_path = path.with_added_extension("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(|error| open(format!("{}: {error}", lock_path.display())))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreFault::InUse(path.clone())),
            Err(TryLockError::Error(error)) => return Err(open(error.to_string())),
        }
        let pool = connect(path, true).await?;
        // Better known now than in the middle of the work.
        let damaged = |why: String| StoreFault::Damaged { path: path.clone(), why };
        let checked: String = sqlx::query_scalar("PRAGMA quick_check(1)")
            .fetch_one(&pool)
            .await
            .map_err(|error| damaged(error.to_string()))?;
        if checked != "ok" {
            return Err(damaged(one_line(&checked, 200)));
        }
        MIGRATIONS.run(&pool).await.map_err(|error| match error {
            MigrateError::VersionMissing(_) | MigrateError::VersionTooNew(..) => {
                StoreFault::Newer(path.clone())
            }
            other => open(other.to_string()),
        })?;
        sqlx::query("UPDATE deliveries SET lease_until = NULL WHERE lease_until IS NOT NULL")
            .execute(&pool)
            .await?;
        Ok(Store { pool, _lock: Some(std::sync::Arc::new(lock)) })
    }

    /// Closes it for all clones, so that the file stands by itself. Nothing is lost without it.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Other connections to the same state, that read and cannot write: they wait for no writer, and no writer
    /// waits for them.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub async fn reading(settings: &Settings) -> Result<Store> {
        let path = &settings.file;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .busy_timeout(Duration::from_secs(5));
        let pool = lasting().max_connections(READERS).connect_with(options).await;
        let pool = pool.map_err(|error| StoreFault::Open {
            path: path.clone(),
            why: crate::net::error_chain(&error),
        })?;
        Ok(Store { pool, _lock: None })
    }

    /// Opens a state that is there, beside a running service.
    ///
    /// # Errors
    /// Where there is none, or it is of another version.
    pub async fn open_beside(settings: &Settings) -> Result<Store> {
        let path = &settings.file;
        if !path.is_file() {
            return Err(StoreFault::Missing(path.clone()));
        }
        let pool = connect(path, false).await?;
        let newest = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
        let applied: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
            .fetch_one(&pool)
            .await
            .map_err(|error| StoreFault::Open { path: path.clone(), why: error.to_string() })?;
        match applied.unwrap_or(0).cmp(&newest) {
            std::cmp::Ordering::Greater => Err(StoreFault::Newer(path.clone())),
            std::cmp::Ordering::Less => Err(StoreFault::Older(path.clone())),
            std::cmp::Ordering::Equal => Ok(Store { pool, _lock: None }),
        }
    }
}

/// Connections that stay: each has a thread of SQLite's own, with the priority of whoever opened it.
fn lasting() -> SqlitePoolOptions {
    SqlitePoolOptions::new().max_lifetime(None).idle_timeout(None)
}

async fn connect(path: &Path, create: bool) -> Result<SqlitePool> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(create)
        .journal_mode(SqliteJournalMode::Wal)
        // A commit that was answered survives the loss of power.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(10));
    // A process that closes the file or recovers it locks it for a moment, beside the busy timeout.
    let pool = lasting().max_connections(1).before_acquire(|connection, _| {
        // Where the disk is full, SQLite ends a transaction by itself, and sqlx believes for ever that it goes
        // on. Then there is another connection.
        let fine = !connection.is_in_transaction();
        Box::pin(async move { Ok(fine) })
    });
    let connect = || pool.clone().connect_with(options.clone());
    let pool = connect.retry(ExponentialBuilder::default().with_max_times(5)).when(is_busy).await;
    pool.map_err(|error| {
        let (path, why) = (path.to_owned(), crate::net::error_chain(&error));
        match code(&error) {
            Some(SQLITE_CORRUPT | SQLITE_NOTADB) => StoreFault::Damaged { path, why },
            _ => StoreFault::Open { path, why },
        }
    })
}

const SQLITE_BUSY: i64 = 5;
const SQLITE_CORRUPT: i64 = 11;
const SQLITE_NOTADB: i64 = 26;

/// SQLite's primary code of an error, whatever the extended one.
fn code(error: &sqlx::Error) -> Option<i64> {
    let code = error.as_database_error().and_then(|error| error.code())?;
    code.parse::<i64>().ok().map(|code| code & 0xff)
}

/// Whether somebody else has the file locked.
fn is_busy(error: &sqlx::Error) -> bool {
    code(error) == Some(SQLITE_BUSY)
}
