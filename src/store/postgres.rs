//! PostgreSQL, for several instances.
//!
//! Guarantees: migrations run once, however many instances start; an instance of an older version
//! works with a newer schema that only adds to it. The server ends sessions that are idle in a
//! transaction, so that a paused instance does not block others.

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    ConnectOptions, Connection,
    postgres::{PgConnectOptions, PgConnection, PgPoolOptions, PgSslMode},
};
use std::{path::PathBuf, sync::Arc, time::Duration};
use url::Url;

use super::{Result, StoreError, migrations, sql::Pool};
use crate::{
    net::{self, error_chain},
    redact,
    secret::Secret,
};

/// The number of read-only connections, for pages and API.
const READERS: u32 = 2;
/// The number of connections for renewing the registration, which must not wait for other work.
const BEATS: u32 = 2;
/// The minimum number of connections of an instance.
pub const LEAST_CONNECTIONS: u32 = READERS + BEATS + 2;

/// The connection settings of a server.
#[derive(Clone, Debug)]
pub struct Server {
    pub url: Secret,
    /// Replaces a password in the URL.
    pub password: Option<Secret>,
    /// The authorities that verify the server, instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// The maximum number of connections of an instance.
    pub max_connections: u32,
    /// The time limit for opening a connection.
    pub connect_timeout: Duration,
    /// The time limit of a statement.
    pub timeout: Duration,
}

/// Checks that a text is a URL of a server, with supported parameters only.
///
/// # Errors
/// The problem, without the URL, which may contain a password.
pub fn fits_url(text: &str) -> std::result::Result<(), String> {
    parse(text).map(drop)
}

fn parse(text: &str) -> std::result::Result<(Url, PgConnectOptions), String> {
    const EXPECTED: &str = "\"postgres://user@host/database\"";
    let url = Url::parse(text.trim()).map_err(|_| EXPECTED.to_owned())?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(EXPECTED.to_owned());
    }
    // sqlx ignores unknown parameters, with a warning that contains their values.
    const KNOWN: [&str; 9] = [
        "sslmode",
        "sslrootcert",
        "sslcert",
        "sslkey",
        "host",
        "port",
        "options",
        "dbname",
        "application_name",
    ];
    let mut keys = url.query_pairs();
    if let Some((key, _)) = keys.find(|(key, _)| !KNOWN.contains(&key.as_ref())) {
        let key = crate::domain::text::one_line(&key, 40);
        return Err(format!(
            "an address without the parameter “{key}”: supported parameters are {}",
            KNOWN.join(", ")
        ));
    }
    let options = PgConnectOptions::from_url(&url);
    let options = options
        .map_err(|_| format!("{EXPECTED}, with valid parameters such as sslmode=verify-full"))?;
    Ok((url, options))
}

/// Whether the connection verifies the server's certificate, or is local.
pub fn is_proven(text: &str) -> bool {
    parse(text).is_ok_and(|(url, options)| {
        is_here(&options)
            || !url.query_pairs().any(|(key, _)| key == "sslmode")
            || matches!(options.get_ssl_mode(), PgSslMode::VerifyCa | PgSslMode::VerifyFull)
    })
}

fn is_here(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    options.get_socket().is_some()
        || host.starts_with('/')
        || Url::parse(&format!("http://{host}/")).is_ok_and(|url| net::is_loopback(&url))
}

impl Server {
    /// The server, database and user; for a secret URL, its source.
    pub fn shown(&self) -> String {
        match &self.url {
            Secret::Env(name) => format!("a PostgreSQL server (${})", redact::name(name)),
            Secret::File(file) => format!("a PostgreSQL server ({})", redact::path(file)),
            Secret::Credential(credential) => format!("a PostgreSQL server ({credential})"),
            Secret::Literal(url) => shown_url(url.expose_secret()),
        }
    }

    fn options(&self) -> Result<PgConnectOptions> {
        let open = |why: String| StoreError::open(self.shown(), why);
        let read = |secret: &Secret| secret.read().map_err(|error| open(error.to_string()));
        let (url, mut options) = parse(read(&self.url)?.expose_secret())
            .map_err(|expected| open(format!("invalid address, expected {expected}")))?;
        if !url.query_pairs().any(|(key, _)| key == "sslmode") {
            // With a configured authority, even a local server is verified.
            let is_trusted = is_here(&options) && self.ca_file.is_none();
            let mode = if is_trusted { PgSslMode::Prefer } else { PgSslMode::VerifyFull };
            options = options.ssl_mode(mode);
        }
        if let Some(password) = &self.password {
            options = options.password(read(password)?.expose_secret());
        }
        if let Some(file) = &self.ca_file {
            options = options.ssl_root_cert(file);
        }
        if !url.query_pairs().any(|(key, _)| key == "application_name") {
            options = options.application_name("certvigil");
        }
        // PgBouncer before 1.20 rejects this parameter, which only affects numbers in text form.
        Ok(options.extra_float_digits(None).disable_statement_logging())
    }

    /// The limits of each session: no statement waits forever, and no session blocks others
    /// forever.
    fn limits(&self) -> Vec<(&'static str, String)> {
        vec![
            ("statement_timeout", self.timeout.as_millis().to_string()),
            ("lock_timeout", (self.timeout / 2).as_millis().to_string()),
            ("idle_in_transaction_session_timeout", IDLE.as_millis().to_string()),
            // The server releases the locks of an unreachable client.
            ("tcp_keepalives_idle", "5".to_owned()),
            ("tcp_keepalives_interval", "5".to_owned()),
            ("tcp_keepalives_count", "2".to_owned()),
            ("tcp_user_timeout", IDLE.as_millis().to_string()),
        ]
    }

    /// Opens one connection, which reports a connection error at once.
    async fn connect(&self, options: &PgConnectOptions) -> Result<PgConnection> {
        match tokio::time::timeout(self.connect_timeout, options.connect()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.fault(&error)),
            Err(_) => Err(StoreError::Away {
                state: self.shown(),
                why: format!("no connection within {:?}", self.connect_timeout),
            }),
        }
    }

    /// Limits the time of a statement.
    async fn wait<T>(&self, asked: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
        match tokio::time::timeout(self.timeout, asked).await {
            Ok(answer) => answer.map_err(|error| self.fault(&error)),
            Err(_) => Err(StoreError::Away {
                state: self.shown(),
                why: format!("no answer within {:?}", self.timeout),
            }),
        }
    }

    fn connections(
        &self,
        options: PgConnectOptions,
        most: u32,
        limits: &[(&str, String)],
    ) -> sqlx::PgPool {
        let limits = set_all(limits);
        PgPoolOptions::new()
            .max_connections(most)
            .acquire_timeout(self.connect_timeout)
            .after_connect(move |connection, _| {
                let limits = Arc::clone(&limits);
                Box::pin(async move {
                    let limits = sqlx::raw_sql(sqlx::AssertSqlSafe(limits));
                    limits.execute(connection).await.map(drop)
                })
            })
            .connect_lazy_with(options)
    }

    fn fault(&self, error: &sqlx::Error) -> StoreError {
        let (state, why) = (self.shown(), error_chain(error));
        match is_away(error) {
            true => StoreError::Away { state, why },
            false => StoreError::Open { state, why },
        }
    }

    fn pool(&self, options: PgConnectOptions, most: u32, limits: &[(&str, String)]) -> Pool {
        let pool = self.connections(options, most, limits);
        // The server's own limit applies first, if it responds.
        Pool::Postgres { pool, patience: self.timeout + Duration::from_secs(1) }
    }
}

/// `SET` statements instead of startup parameters: poolers reject parameters that they do not know.
fn set_all(limits: &[(&str, String)]) -> Arc<str> {
    let set = |(name, value): &(&str, String)| format!("SET {name} = '{value}';");
    limits.iter().map(set).collect::<String>().into()
}

/// The time limit of the migrations, which another instance may be running.
const MIGRATING: Duration = Duration::from_secs(180);
/// The time limit of sessions that are idle in a transaction.
const IDLE: Duration = Duration::from_secs(10);

/// A URL without password and parameters.
pub fn shown_url(text: &str) -> String {
    let Ok((mut url, _)) = parse(text) else {
        return "a PostgreSQL server".to_owned();
    };
    // This fails only without a host, and then there is no password.
    url.set_password(None).unwrap_or_default();
    url.set_query(None);
    url.to_string()
}

/// Whether the server is temporarily unavailable.
pub fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Protocol(_) => true,
        // Class 08: the connection; 53: too many connections, or a full disk; 57P: the server
        // starts, stops, or was shut down.
        sqlx::Error::Database(error) => error
            .code()
            .is_some_and(|code| ["08", "53", "57P"].iter().any(|class| code.starts_with(class))),
        _ => false,
    }
}

/// Opens the database for an instance and upgrades it if needed. Returns the connections for the
/// work, and those for the registration.
pub async fn working(server: &Server) -> Result<(Pool, Pool)> {
    let options = server.options()?;
    let mut one = server.connect(&options).await?;
    // End an idle session that holds the schema lock.
    let limits = ["idle_session_timeout", "idle_in_transaction_session_timeout"];
    let limits = limits.map(|name| (name, "60s".to_owned()));
    let migrating = server.connections(options.clone(), 1, &limits);
    let migrated = tokio::time::timeout(MIGRATING, migrations::POSTGRES.run(&migrating)).await;
    let migrated = migrated.map_err(|_| StoreError::Away {
        state: server.shown(),
        why: format!("its tables were not upgraded within {MIGRATING:?}"),
    })?;
    migrated.map_err(|error| match error {
        sqlx::migrate::MigrateError::Execute(error) => server.fault(&error),
        other => StoreError::open(server.shown(), other),
    })?;
    drop(tokio::time::timeout(server.connect_timeout, migrating.close()).await);
    compatible(server, &mut one).await?;
    drop(one.close().await);
    let (limits, most) = (server.limits(), server.max_connections);
    let most = most.saturating_sub(READERS + BEATS).max(1);
    Ok((server.pool(options.clone(), most, &limits), server.pool(options, BEATS, &limits)))
}

/// Opens read-only connections.
pub fn reading(server: &Server) -> Result<Pool> {
    let mut limits = server.limits();
    limits.push(("default_transaction_read_only", "on".to_owned()));
    Ok(server.pool(server.options()?, READERS, &limits))
}

/// Opens an existing database next to running instances.
pub async fn beside(server: &Server) -> Result<Pool> {
    let options = server.options()?;
    let mut one = server.connect(&options).await?;
    let asked = sqlx::query_scalar("SELECT to_regclass('compatibility') IS NOT NULL");
    let is_there: bool = server.wait(asked.fetch_one(&mut one)).await?;
    if !is_there {
        return Err(StoreError::Missing(server.shown()));
    }
    compatible(server, &mut one).await?;
    drop(one.close().await);
    Ok(server.pool(options, 2, &server.limits()))
}

/// Checks that this version supports the schema.
async fn compatible(server: &Server, one: &mut PgConnection) -> Result<()> {
    let newest = migrations::POSTGRES.iter().map(|migration| migration.version).max().unwrap_or(0);
    let asked = sqlx::query_as(
        "SELECT (SELECT max(version) FROM compatibility), (SELECT max(version) FROM _sqlx_migrations)",
    );
    let (needed, applied): (Option<i64>, Option<i64>) = server.wait(asked.fetch_one(one)).await?;
    if needed.is_some_and(|needed| needed > newest) {
        return Err(StoreError::Newer(server.shown()));
    }
    if applied.is_none_or(|applied| applied < newest) {
        return Err(StoreError::Older(server.shown()));
    }
    Ok(())
}

/// Whether the URL contains a password.
pub fn password_in(url: &SecretString) -> bool {
    Url::parse(url.expose_secret().trim()).is_ok_and(|url| url.password().is_some())
}
