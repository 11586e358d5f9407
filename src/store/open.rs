//! Opening the state: as a worker, or beside one.

use std::{
    fmt,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicI64},
};
use uuid::Uuid;

use super::{Result, Settings, Store, postgres, sql::Pool, sqlite};

/// Where a state is.
#[derive(Clone, Debug)]
pub enum Place {
    /// In a file, for one worker.
    File(PathBuf),
    /// On a server, for any number of them.
    Server(postgres::Server),
}

impl Place {
    /// Whether it is another database, judged without reading secrets.
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

/// A database file, by its name and by what tells it from another of the same name.
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

    /// Whether the name leads to no file now, or to another one.
    fn is_gone(&self) -> bool {
        match std::fs::metadata(&self.path) {
            Ok(now) => (now.dev(), now.ino()) != (self.device, self.inode),
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        }
    }
}

impl Store {
    /// The database file, if it was removed or replaced since it was opened: writes are lost when the process ends.
    pub fn lost_file(&self) -> Option<&Path> {
        self.file.as_ref().filter(|file| file.is_gone()).map(|file| file.path.as_path())
    }

    /// Opens the database for the service and upgrades it if needed. Creates a missing file, allows
    /// one instance on it, and releases the claims of a crashed one.
    ///
    /// # Errors
    /// Where another worker has the file, the state is of a newer version, or cannot be opened or written.
    pub async fn open(settings: &Settings) -> Result<Store> {
        match &settings.place {
            Place::File(file) => {
                let (pool, lock) = sqlite::exclusive(file).await?;
                let opened = OpenedFile::new(file).map(Arc::new);
                // By its real name, and as SQLite calls it (https://sqlite.org/wal.html).
                let mut log = std::fs::canonicalize(file).unwrap_or(file.clone()).into_os_string();
                log.push("-wal");
                let log = Some(Arc::from(PathBuf::from(log)));
                Ok(Store { log, file: opened, _lock: Some(Arc::new(lock)), ..Store::of(pool) })
            }
            Place::Server(server) => {
                let (pool, beats) = postgres::working(server).await?;
                Ok(Store { beats, ..Store::of(pool) })
            }
        }
    }

    /// Other connections to the same state, that read and cannot write: they wait for no writer, and no writer
    /// waits for them.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub async fn reading(settings: &Settings) -> Result<Store> {
        Ok(Store::of(match &settings.place {
            Place::File(file) => sqlite::reading(file).await?,
            Place::Server(server) => postgres::reading(server)?,
        }))
    }

    /// Opens a state that is there, beside a running service.
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
        let (kept, ahead) = (Arc::default(), Arc::new(AtomicI64::new(0)));
        Store { beats: pool.clone(), pool, me, kept, ahead, log: None, file: None, _lock: None }
    }

    /// Closes it for all clones, so that a file stands by itself. Nothing is lost without it.
    pub async fn close(&self) {
        self.pool.close().await;
        self.beats.close().await;
    }

    /// Whether somebody works on it now.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn is_worked_on(&self, settings: &Settings) -> Result<bool> {
        match &settings.place {
            Place::File(file) => Ok(sqlite::is_worked_on(file)),
            Place::Server(_) => Ok(self.instances_there(&self.pool).await? > 0),
        }
    }

    /// Whether others may work on it, too.
    pub fn is_shared(&self) -> bool {
        matches!(self.pool, Pool::Postgres { .. })
    }
}
