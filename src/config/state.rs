//! `[state]`.

use secrecy::ExposeSecret;
use std::path::{Path, PathBuf};

use super::{check::Checker, problem::KeyPath, raw};
use crate::{
    redact::quoted,
    secret::Secret,
    store::{self, Place, Server},
};

/// The maximum number of connections of an instance.
pub const MOST_CONNECTIONS: u32 = 200;

pub fn check(checker: &mut Checker<'_>, raw: &raw::State) -> Option<store::Settings> {
    let path = KeyPath::of("state");
    let place = match raw.url.as_ref().map(|url| &url.0) {
        None => Some(Place::File(by_default())),
        Some(Secret::Literal(url)) => match file(url.expose_secret(), checker.base) {
            Some(file) => Some(Place::File(file)),
            None => server(checker, &path, raw),
        },
        // The path of a file is not a secret.
        Some(Secret::Env(_) | Secret::File(_) | Secret::Credential(_)) => {
            server(checker, &path, raw)
        }
    };
    let password = KeyPath::of("state").key("password");
    if raw.password.is_some() && matches!(place, Some(Place::File(_))) {
        let expected = "a PostgreSQL server in state.url, because an SQLite file has no password";
        checker.fault(&password, "a password", expected);
    }
    Some(store::Settings { place: place?, history: raw.history.delta() })
}

fn by_default() -> PathBuf {
    match std::env::var_os("STATE_DIRECTORY") {
        // systemd sets a list of folders, separated by colons.
        Some(folders) => {
            std::env::split_paths(&folders).next().unwrap_or_default().join("certvigil.db")
        }
        None => PathBuf::from("certvigil.db"),
    }
}

/// The file of a `sqlite:` URL.
fn file(url: &str, base: &Path) -> Option<PathBuf> {
    let rest = url.strip_prefix("sqlite:")?;
    let file = rest.strip_prefix("//").unwrap_or(rest);
    let fine = !file.is_empty() && !file.contains('?') && !file.starts_with(':');
    fine.then(|| base.join(file))
}

fn server(checker: &mut Checker<'_>, path: &KeyPath, raw: &raw::State) -> Option<Place> {
    let url = &raw.url.as_ref()?.0;
    let url_path = path.key("url");
    if let Secret::Literal(text) = url {
        let text = text.expose_secret();
        if !["postgres:", "postgresql:"].iter().any(|scheme| text.starts_with(scheme)) {
            // The URL of another database may contain a password: show only its scheme.
            let scheme = text.split(':').next().unwrap_or_default();
            let scheme = crate::domain::text::one_line(scheme, 40);
            let expected = "\"sqlite:///path/to/state.db\" or \"postgres://user@host/database\"";
            checker.fault(
                &url_path,
                format!("an address with the scheme {}", quoted(&scheme)),
                expected,
            );
            return None;
        }
        if let Err(expected) = store::fits_url(text) {
            checker.fault(&url_path, "an invalid address (not shown)", expected);
            return None;
        }
    }
    let needed = checker.needs.organizations || checker.needs.notifiers;
    let url = match url {
        // A URL is a secret only with a password.
        Secret::Literal(text) if store::password_in(text) => {
            checker.secret(&url_path, Some(url), false, store::fits_url)
        }
        url => checker.place(&url_path, Some(url), needed, store::fits_url),
    }?;
    if url.read().is_ok_and(|url| !store::is_proven(url.expose_secret())) {
        checker.warnings.push(format!(
            "{url_path}: anyone on the network path can read and change the database; use \
             sslmode=verify-full, the default"
        ));
    }
    let password = checker.secret(&path.key("password"), raw.password.as_ref(), needed, |_| Ok(()));
    // Validated now; read again for each connection.
    let _: Option<_> = checker.pem(&path.key("ca_file"), raw.ca_file.as_ref());
    Some(Place::Server(Server {
        url,
        password,
        ca_file: raw.ca_file.as_ref().map(|file| checker.base.join(file)),
        max_connections: raw.max_connections.0,
        connect_timeout: raw.connect_timeout.duration(),
        timeout: raw.timeout.duration(),
    }))
}
