//! Secrets: their sources, and how they stay hidden.
//!
//! A [`Secret`] is a source. Its value is read when needed, held in a [`SecretString`], and appears
//! in no `Debug` output, error or log.

use secrecy::{ExposeSecret, SecretString};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
};
use std::{
    fmt, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use crate::{files, redact};

/// The longest accepted secret, in bytes: a PEM bundle fits.
const MAX_SECRET: u64 = 64 * 1024;

/// The source of a secret.
#[derive(Clone, Debug)]
pub enum Secret {
    Env(String),
    File(PathBuf),
    Credential(Credential),
    /// Written in the configuration itself, which causes a warning.
    Literal(SecretString),
}

/// A file in `$CREDENTIALS_DIRECTORY`, which systemd (systemd.exec(5), "Credentials") or a
/// container sets; without that variable, in `secrets` next to the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    name: String,
    otherwise: PathBuf,
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "credential {}", self.name)
    }
}

/// The prefix that systemd adds to file names for `LoadCredential=certvigil:FOLDER`.
const PREFIX: &str = "certvigil_";

impl Credential {
    pub fn named(name: &str) -> Credential {
        Credential { name: name.to_owned(), otherwise: PathBuf::from("secrets") }
    }

    fn file(&self) -> PathBuf {
        let given = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|given| !given.is_empty());
        match given {
            None => self.otherwise.join(&self.name),
            Some(folder) => {
                let of_a_folder = Path::new(&folder).join(format!("{PREFIX}{}", self.name));
                if of_a_folder.exists() { of_a_folder } else { Path::new(&folder).join(&self.name) }
            }
        }
    }
}

/// An unreadable secret. Names the source, never the value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("environment variable {} is not set", redact::name(.0))]
    EnvMissing(String),
    #[error("environment variable {} is empty", redact::name(.0))]
    EnvEmpty(String),
    #[error("file {} cannot be read: {source}", redact::path(path))]
    File { path: PathBuf, source: std::io::Error },
    #[error("file {} is empty", redact::path(.0))]
    FileEmpty(PathBuf),
    #[error("file {} is larger than 64 KiB", redact::path(.0))]
    FileTooLarge(PathBuf),
    #[error("cannot read credential {}: {fault}", redact::name(name))]
    Credential { name: String, fault: Box<SecretError> },
    #[error("the secret is empty")]
    LiteralEmpty,
}

impl Secret {
    /// Reads the value without a final line break.
    ///
    /// # Errors
    /// If it is missing, empty, unreadable or over 64 KiB.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        match self {
            Secret::Env(name) => match std::env::var(name) {
                Err(_) => Err(SecretError::EnvMissing(name.clone())),
                Ok(value) if value.trim().is_empty() => Err(SecretError::EnvEmpty(name.clone())),
                Ok(value) => Ok(trimmed(value)),
            },
            Secret::File(path) => read(path.clone()),
            Secret::Credential(credential) => read(credential.file()).map_err(|fault| {
                SecretError::Credential { name: credential.name.clone(), fault: Box::new(fault) }
            }),
            Secret::Literal(value) if value.expose_secret().trim().is_empty() => {
                Err(SecretError::LiteralEmpty)
            }
            Secret::Literal(value) => Ok(value.clone()),
        }
    }

    /// Describes unsafe permissions of its file: everyone can read or write it, or its group can
    /// write it.
    pub fn exposure(&self) -> Option<String> {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(self.file()?).ok()?.permissions().mode() & 0o777;
        let who = match mode {
            _ if mode & 0o002 != 0 => "everyone can write it",
            _ if mode & 0o004 != 0 => "everyone can read it",
            _ if mode & 0o020 != 0 => "its group can write it",
            _ => return None,
        };
        Some(format!("{who} (mode {mode:04o})"))
    }

    /// Its file, if it is read from one.
    pub fn file(&self) -> Option<PathBuf> {
        match self {
            Secret::File(path) => Some(path.clone()),
            Secret::Credential(credential) => Some(credential.file()),
            Secret::Env(_) | Secret::Literal(_) => None,
        }
    }

    /// Resolves a relative file against `base`.
    pub fn relative_to(self, base: &std::path::Path) -> Secret {
        match self {
            Secret::File(path) => Secret::File(base.join(path)),
            Secret::Credential(Credential { name, otherwise }) => {
                Secret::Credential(Credential { name, otherwise: base.join(otherwise) })
            }
            Secret::Env(_) | Secret::Literal(_) => self,
        }
    }
}

fn read(path: PathBuf) -> Result<SecretString, SecretError> {
    match files::read_text(&path, MAX_SECRET) {
        Err(error) if error.kind() == ErrorKind::FileTooLarge => {
            Err(SecretError::FileTooLarge(path))
        }
        Err(source) => Err(SecretError::File { path, source }),
        Ok(text) if text.trim().is_empty() => Err(SecretError::FileEmpty(path)),
        Ok(text) => Ok(trimmed(text)),
    }
}

fn trimmed(mut text: String) -> SecretString {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    SecretString::from(text)
}

impl Serialize for Secret {
    /// Serializes the source; hides a literal.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "lowercase")]
        enum Shown<'a> {
            Env(&'a str),
            File(String),
            Credential(&'a str),
        }
        match self {
            Secret::Env(name) => Shown::Env(redact::name(name)).serialize(serializer),
            Secret::File(path) => Shown::File(redact::path(path)).serialize(serializer),
            Secret::Credential(of) => {
                Shown::Credential(redact::name(&of.name)).serialize(serializer)
            }
            Secret::Literal(_) => "[hidden]".serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

/// The accepted forms of a secret.
pub const SECRET_FORMS: &str =
    "{ env = \"NAME\" }, { file = \"/path\" } or { credential = \"NAME\" }";

/// Whether it is a file name without a path, and not hidden.
fn is_a_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && !name.starts_with('.')
}

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SECRET_FORMS)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Secret, E> {
        Ok(Secret::Literal(SecretString::from(value.to_owned())))
    }

    // serde's default messages would contain the value.
    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
        Err(E::custom(format!("invalid type: a number, expected {SECRET_FORMS}")))
    }
    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Secret, E> {
        self.visit_i64(0)
    }
    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
        self.visit_i64(0)
    }
    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secret, E> {
        Err(E::custom(format!("invalid type: true or false, expected {SECRET_FORMS}")))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        let wrong = |found: &str| {
            Err(de::Error::custom(format!("invalid value: {found}, expected {SECRET_FORMS}")))
        };
        let mut secret = None;
        while let Some(key) = map.next_key::<String>()? {
            let place = match key.as_str() {
                "env" => map.next_value().ok().map(Secret::Env),
                "file" => map.next_value().ok().map(Secret::File),
                "credential" => match map.next_value::<String>() {
                    Ok(name) if is_a_name(&name) => {
                        Some(Secret::Credential(Credential::named(&name)))
                    }
                    Ok(_) => return wrong("a credential whose name is a path"),
                    Err(_) => None,
                },
                _ => return wrong("a table with an unknown key"),
            };
            match (place, &secret) {
                (None, _) => return wrong("a name or path that is not a string"),
                (Some(_), Some(_)) => return wrong("a table with more than one key"),
                (Some(place), None) => secret = Some(place),
            }
        }
        match secret {
            Some(secret) => Ok(secret),
            None => wrong("an empty table"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Holder {
        #[allow(dead_code)]
        key: Secret,
    }

    #[test]
    fn invalid_secrets_are_rejected_without_showing_their_value() {
        for source in [
            "key = 90210",
            "key = 90.21",
            "key = true",
            "key = { value = \"90210\" }",
            "key = { env = \"90210\", file = \"x\" }",
            "key = { env = 90210 }",
            "key = {}",
            "key = [\"90210\"]",
        ] {
            let error = toml::from_str::<Holder>(source).unwrap_err();
            assert!(error.message().contains("expected { env"), "{source}: {}", error.message());
            assert!(!error.message().contains("90"), "{source}: {}", error.message());
        }
    }

    #[test]
    fn debug_hides_a_literal_secret() {
        let holder: Holder = toml::from_str("key = \"hunter2\"").unwrap();
        assert!(!format!("{holder:?}").contains("hunter2"));
    }

    #[test]
    fn unsafe_permissions_of_a_secret_file_are_reported() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "secret").unwrap();
        let cases = [
            (0o600, None),
            (0o640, None),
            (0o400, None),
            (0o644, Some("everyone can read it (mode 0644)")),
            (0o660, Some("its group can write it (mode 0660)")),
            (0o646, Some("everyone can write it (mode 0646)")),
        ];
        for (mode, expected) in cases {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let said = Secret::File(path.clone()).exposure();
            assert_eq!(said.as_deref(), expected, "{mode:o}");
        }
    }

    #[test]
    fn one_final_line_break_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for (content, expected) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a", "a")] {
            fs::write(&path, content).unwrap();
            assert_eq!(Secret::File(path.clone()).read().unwrap().expose_secret(), expected);
        }
        fs::write(&path, "\n").unwrap();
        assert!(matches!(Secret::File(path).read(), Err(SecretError::FileEmpty(_))));
    }
}
