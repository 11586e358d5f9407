//! Opens the database, for the service or next to a running one.

use std::{
    fmt,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicI64},
};
use uuid::Uuid;

use super::{Result, Settings, Store, postgres, sql::Pool, sqlite};

/// The location of a database.
#[derive(Clone, Debug)]
pub enum Place {
    /// SQLite, for one instance.
    File(PathBuf),
    /// PostgreSQL, for several instances.
    Server(postgres::Server),
}

impl Place {
    /// Whether the locations differ as displayed; does not read secrets.
    pub fn differs(&self, other: &Place) -> bool {
        self.to_string() != other.to_string()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(file) => write!(f, "{}", file.display()),
            Place::Server(server) => f.write_str(&server.shown()),
        }
    }
}

/// A database file with its device and inode, to detect a replacement.
#[derive(Debug)]
pub(super) struct OpenedFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl OpenedFile {
    fn new(path: &Path) -> Option<OpenedFile> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(OpenedFile { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }

    /// Whether the path has no file now, or another one.
    fn is_gone(&self) -> bool {
        match std::fs::metadata(&self.path) {
            Ok(now) => (now.dev(), now.ino()) != (self.device, self.inode),
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        }
    }
}

impl Store {
    /// The database file, if it was removed or replaced since it was opened: writes are lost when
    /// the process ends.
    pub fn lost_file(&self) -> Option<&Path> {
        self.file.as_ref().filter(|file| file.is_gone()).map(|file| file.path.as_path())
    }

    /// Opens the database for the service and upgrades it if needed. Creates a missing file, allows
    /// one instance on it, and releases the claims of a crashed one.
    ///
    /// # Errors
    /// If another instance uses the file, a newer version wrote the database, or it cannot be
    /// opened or written.
    pub async fn open(settings: &Settings) -> Result<Store> {
        match &settings.place {
            Place::File(file) => {
                let (pool, lock) = sqlite::exclusive(file).await?;
                let opened = OpenedFile::new(file).map(Arc::new);
                // SQLite adds the suffix to the resolved path (https://sqlite.org/wal.html).
                let mut log = std::fs::canonicalize(file).unwrap_or(file.clone()).into_os_string();
                log.push("-wal");
                let log = Some(Arc::from(PathBuf::from(log)));
                Ok(Store { log, file: opened, _lock: Some(Arc::new(lock)), ..Store::of(pool) })
            }
            Place::Server(server) => {
                let (pool, registration_pool) = postgres::working(server).await?;
                Ok(Store { registration_pool, ..Store::of(pool) })
            }
        }
    }

    /// Opens read-only connections to the same database: they do not wait for writers, nor block
    /// them.
    ///
    /// # Errors
    /// If the database cannot be opened.
    pub async fn reading(settings: &Settings) -> Result<Store> {
        Ok(Store::of(match &settings.place {
            Place::File(file) => sqlite::reading(file).await?,
            Place::Server(server) => postgres::reading(server)?,
        }))
    }

    /// Opens an existing database next to a running service.
    ///
    /// # Errors
    /// If it does not exist or has another version.
    pub async fn open_beside(settings: &Settings) -> Result<Store> {
        Ok(Store::of(match &settings.place {
            Place::File(file) => sqlite::beside(file).await?,
            Place::Server(server) => postgres::beside(server).await?,
        }))
    }

    fn of(pool: Pool) -> Store {
        let me = Uuid::new_v4();
        let (renewed_leases, ahead) = (Arc::default(), Arc::new(AtomicI64::new(0)));
        Store {
            registration_pool: pool.clone(),
            pool,
            me,
            renewed_leases,
            ahead,
            log: None,
            file: None,
            _lock: None,
        }
    }

    /// Closes the connections of all clones, so that SQLite merges its write-ahead log. No data is
    /// lost without it.
    pub async fn close(&self) {
        self.pool.close().await;
        self.registration_pool.close().await;
    }

    /// Whether an instance currently uses the database.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn is_worked_on(&self, settings: &Settings) -> Result<bool> {
        match &settings.place {
            Place::File(file) => Ok(sqlite::is_worked_on(file)),
            Place::Server(_) => Ok(self.instances_there(&self.pool).await? > 0),
        }
    }

    /// Whether several instances can use the database.
    pub fn is_shared(&self) -> bool {
        matches!(self.pool, Pool::Postgres { .. })
    }
}
