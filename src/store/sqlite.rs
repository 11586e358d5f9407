//! SQLite, for one instance. A lock file excludes others; the system releases it when its holder
//! dies.

use backon::{ExponentialBuilder, Retryable};
use rustix::fs::OFlags;
use sqlx::{
    Connection, SqlitePool,
    migrate::MigrateError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{
    fs::{File, OpenOptions, Permissions, TryLockError},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use super::{Result, StoreError, migrations, sql::Pool};
use crate::{domain::text::one_line, files::flags};

/// The number of read-only connections.
const READERS: u32 = 2;

/// The locks against other instances. The database itself is locked, too, because its lock file may
/// be deleted, and a hard link to the database has another one. SQLite's own locks (`fcntl`, while
/// this is `flock`) end when any descriptor of the database is closed, so this one stays open as
/// long as the connections.
#[derive(Debug)]
pub struct Locks {
    _lock: File,
    _database: File,
}

/// Opens the database as its only instance: creates and upgrades it if needed, and releases the
/// claims of a crashed instance.
pub async fn exclusive(file: &Path) -> Result<(Pool, Locks)> {
    // All links to the file lead to the same lock.
    let path = &std::fs::canonicalize(file).unwrap_or(file.to_owned());
    let database = private(path).map_err(|error| StoreError::open(file.display(), error))?;
    let open = |why: String| StoreError::open(path.display(), why);
    let lock_path = path.with_added_extension("lock");
    let lock = private(&lock_path);
    let lock = lock.map_err(|error| open(format!("{}: {error}", lock_path.display())))?;
    for file in [&lock, &database] {
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse(path.display().to_string()));
            }
            Err(TryLockError::Error(error)) => return Err(open(error.to_string())),
        }
    }
    let pool = connect(path, true).await?;
    // Detect damage before the work starts.
    let damaged = |why: String| StoreError::Damaged { state: path.display().to_string(), why };
    let checked: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(&pool)
        .await
        .map_err(|error| opening(path, &error))?;
    if checked != "ok" {
        return Err(damaged(one_line(&checked, 200)));
    }
    migrations::SQLITE.run(&pool).await.map_err(|error| match error {
        MigrateError::VersionMissing(_) | MigrateError::VersionTooNew(..) => {
            StoreError::Newer(path.display().to_string())
        }
        other => open(other.to_string()),
    })?;
    sqlx::query("UPDATE deliveries SET lease_until = NULL WHERE lease_until IS NOT NULL")
        .execute(&pool)
        .await?;
    Ok((Pool::Sqlite(pool), Locks { _lock: lock, _database: database }))
}

/// Opens or creates a file with mode 0600. Rejects a symbolic link, whose author would choose the
/// file. Removes the access of other users, because whoever can read a file can lock it and keep
/// the service from starting.
fn private(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600).custom_flags(flags(OFlags::NOFOLLOW));
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o007 != 0 && metadata.uid() == rustix::process::geteuid().as_raw() {
        file.set_permissions(Permissions::from_mode(mode & !0o007))?;
    }
    Ok(file)
}

/// Whether an instance uses the database.
pub fn is_worked_on(file: &Path) -> bool {
    let path = std::fs::canonicalize(file).unwrap_or(file.to_owned());
    let lock = OpenOptions::new().write(true).open(path.with_added_extension("lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Opens read-only connections, which do not wait for writers, nor block them.
pub async fn reading(file: &Path) -> Result<Pool> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .read_only(true)
        .busy_timeout(Duration::from_secs(5));
    let pool = lasting().max_connections(READERS).connect_with(options).await;
    let fault = |error| StoreError::open(file.display(), crate::net::error_chain(&error));
    Ok(Pool::Sqlite(pool.map_err(fault)?))
}

/// Opens an existing database next to a running service.
pub async fn beside(file: &Path) -> Result<Pool> {
    let state = || file.display().to_string();
    match std::fs::metadata(file) {
        Ok(metadata) if metadata.is_file() => {}
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(StoreError::Denied(state()));
        }
        Ok(_) | Err(_) => return Err(StoreError::Missing(state())),
    }
    let pool = connect(file, false).await?;
    let newest = migrations::SQLITE.iter().map(|migration| migration.version).max().unwrap_or(0);
    let applied: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
        .fetch_one(&pool)
        .await
        .map_err(|error| StoreError::open(state(), error))?;
    match applied.unwrap_or(0).cmp(&newest) {
        std::cmp::Ordering::Greater => Err(StoreError::Newer(state())),
        std::cmp::Ordering::Less => Err(StoreError::Older(state())),
        std::cmp::Ordering::Equal => Ok(Pool::Sqlite(pool)),
    }
}

/// Connections without expiry: each has its own thread, with the priority of the thread that opened
/// it.
fn lasting() -> SqlitePoolOptions {
    SqlitePoolOptions::new().max_lifetime(None).idle_timeout(None)
}

async fn connect(path: &Path, create: bool) -> Result<SqlitePool> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(create)
        .journal_mode(SqliteJournalMode::Wal)
        // A completed commit survives a power failure.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(10));
    // Another process that closes or recovers the file locks it briefly: retry after the busy
    // timeout.
    let pool = lasting().max_connections(1).before_acquire(|connection, _| {
        // If the disk is full, SQLite rolls back by itself, but sqlx considers the transaction
        // open. Replace such a connection.
        let fine = !connection.is_in_transaction();
        Box::pin(async move { Ok(fine) })
    });
    let connect = || pool.clone().connect_with(options.clone());
    let pool = connect.retry(ExponentialBuilder::default().with_max_times(5)).when(is_busy).await;
    pool.map_err(|error| opening(path, &error))
}

/// The error of opening a database: damaged only if SQLite reports it.
fn opening(path: &Path, error: &sqlx::Error) -> StoreError {
    let (state, why) = (path.display().to_string(), crate::net::error_chain(error));
    match code(error) {
        Some(SQLITE_CORRUPT | SQLITE_NOTADB) => StoreError::Damaged { state, why },
        _ => StoreError::Open { state, why },
    }
}

const SQLITE_BUSY: i64 = 5;
const SQLITE_CORRUPT: i64 = 11;
const SQLITE_NOTADB: i64 = 26;

/// The primary result code of SQLite, without the extended part.
fn code(error: &sqlx::Error) -> Option<i64> {
    let code = error.as_database_error().and_then(|error| error.code())?;
    code.parse::<i64>().ok().map(|code| code & 0xff)
}

/// Whether another process has locked the file.
fn is_busy(error: &sqlx::Error) -> bool {
    code(error) == Some(SQLITE_BUSY)
}
