//! Secrets: where they come from, and that they do not get out.
//!
//! A [`Secret`] is a place to read from. Its value is read when it is needed, held in a
//! [`SecretString`], and is in no `Debug`, error or log.

use secrecy::{ExposeSecret, SecretString};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
};
use std::{fmt, fs, io::Read, path::PathBuf};

/// The longest secret that is read, in bytes: a PEM bundle fits.
const MAX_SECRET: u64 = 64 * 1024;

/// Where a secret is read from.
#[derive(Clone, Debug)]
pub enum Secret {
    Env(String),
    File(PathBuf),
    /// Written into the configuration itself, which works and is warned about.
    Literal(SecretString),
}

/// Why a secret cannot be had. Names the place, never the value.
#[derive(Debug, thiserror::Error)]
pub enum SecretFault {
    #[error("environment variable {0} is not set")]
    EnvMissing(String),
    #[error("environment variable {0} is empty")]
    EnvEmpty(String),
    #[error("file {} cannot be read: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("file {} is empty", .0.display())]
    FileEmpty(PathBuf),
    #[error("file {} is larger than 64 KiB", .0.display())]
    FileTooLarge(PathBuf),
    #[error("an empty text")]
    LiteralEmpty,
}

impl Secret {
    /// Reads the value, less one line break at its end.
    ///
    /// # Errors
    /// Where it is missing, empty, unreadable or over 64 KiB.
    pub fn read(&self) -> Result<SecretString, SecretFault> {
        match self {
            Secret::Env(name) => match std::env::var(name) {
                Err(_) => Err(SecretFault::EnvMissing(name.clone())),
                Ok(value) if value.trim().is_empty() => Err(SecretFault::EnvEmpty(name.clone())),
                Ok(value) => Ok(trimmed(value)),
            },
            Secret::File(path) => {
                let fault = |source| SecretFault::File { path: path.clone(), source };
                let mut text = String::new();
                let file = fs::File::open(path).map_err(fault)?;
                file.take(MAX_SECRET + 1).read_to_string(&mut text).map_err(fault)?;
                if text.len() as u64 > MAX_SECRET {
                    return Err(SecretFault::FileTooLarge(path.clone()));
                }
                if text.trim().is_empty() {
                    return Err(SecretFault::FileEmpty(path.clone()));
                }
                Ok(trimmed(text))
            }
            Secret::Literal(value) if value.expose_secret().trim().is_empty() => {
                Err(SecretFault::LiteralEmpty)
            }
            Secret::Literal(value) => Ok(value.clone()),
        }
    }

    /// What is wrong with who may read it, or write it; nothing where that is nobody but its owner and group.
    ///
    /// A file that everybody may read, or that its group may write, keeps no secret.
    pub fn exposure(&self) -> Option<String> {
        use std::os::unix::fs::PermissionsExt;
        let Secret::File(path) = self else {
            return None;
        };
        let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
        let who = match mode {
            _ if mode & 0o002 != 0 => "everybody may write it",
            _ if mode & 0o004 != 0 => "everybody may read it",
            _ if mode & 0o020 != 0 => "its group may write it",
            _ => return None,
        };
        Some(format!("{who} (mode {mode:04o})"))
    }

    /// The same with a relative file resolved against `base`.
    pub fn relative_to(self, base: &std::path::Path) -> Secret {
        match self {
            Secret::File(path) => Secret::File(base.join(path)),
            Secret::Env(_) | Secret::Literal(_) => self,
        }
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
    /// Shows where it comes from; a literal is left out.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "lowercase")]
        enum Shown<'a> {
            Env(&'a str),
            File(&'a PathBuf),
        }
        match self {
            Secret::Env(name) => Shown::Env(name).serialize(serializer),
            Secret::File(path) => Shown::File(path).serialize(serializer),
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

const EXPECTED: &str = "{ env = \"NAME\" } or { file = \"/path\" }";

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Secret, E> {
        Ok(Secret::Literal(SecretString::from(value.to_owned())))
    }

    // serde's own messages for these would repeat the value.
    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
        Err(E::custom(format!("invalid type: a number, expected {EXPECTED}")))
    }
    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Secret, E> {
        self.visit_i64(0)
    }
    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
        self.visit_i64(0)
    }
    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secret, E> {
        Err(E::custom(format!("invalid type: true or false, expected {EXPECTED}")))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        let wrong = |found: &str| {
            Err(de::Error::custom(format!("invalid value: {found}, expected {EXPECTED}")))
        };
        let mut secret = None;
        while let Some(key) = map.next_key::<String>()? {
            let place = match key.as_str() {
                "env" => map.next_value().ok().map(Secret::Env),
                "file" => map.next_value().ok().map(Secret::File),
                _ => return wrong("a table with another key"),
            };
            match (place, &secret) {
                (None, _) => return wrong("a place that is not a text"),
                (Some(_), Some(_)) => return wrong("a table with both keys"),
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
    fn what_is_not_a_secret_is_refused_without_its_value() {
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
    fn a_literal_is_in_no_debug() {
        let holder: Holder = toml::from_str("key = \"hunter2\"").unwrap();
        assert!(!format!("{holder:?}").contains("hunter2"));
    }

    #[test]
    fn a_file_that_others_may_read_or_write_keeps_no_secret() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "secret").unwrap();
        let cases = [
            (0o600, None),
            (0o640, None),
            (0o400, None),
            (0o644, Some("everybody may read it (mode 0644)")),
            (0o660, Some("its group may write it (mode 0660)")),
            (0o646, Some("everybody may write it (mode 0646)")),
        ];
        for (mode, expected) in cases {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let said = Secret::File(path.clone()).exposure();
            assert_eq!(said.as_deref(), expected, "{mode:o}");
        }
    }

    #[test]
    fn one_line_break_at_the_end_is_not_part_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for (content, expected) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a", "a")] {
            fs::write(&path, content).unwrap();
            assert_eq!(Secret::File(path.clone()).read().unwrap().expose_secret(), expected);
        }
        fs::write(&path, "\n").unwrap();
        assert!(matches!(Secret::File(path).read(), Err(SecretFault::FileEmpty(_))));
    }
}
