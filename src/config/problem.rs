//! The problems of a configuration, with their locations.

use std::{fmt, path::PathBuf};

use crate::redact;

/// The source of a key's value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A file, with the line if known.
    File(PathBuf, Option<usize>),
    Environment(String),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path, Some(line)) => write!(f, "{}:{line}", path.display()),
            Origin::File(path, None) => write!(f, "{}", path.display()),
            Origin::Environment(name) => write!(f, "environment variable {name}"),
            Origin::Default => f.write_str("built-in default"),
        }
    }
}

/// One problem of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key's path, such as `smtp.port`; empty for the whole file.
    pub path: String,
    pub origin: Origin,
    /// The problem, mostly in the form of [`mismatch`].
    pub problem: String,
}

/// The most common problem: an unexpected value.
pub fn mismatch(found: impl fmt::Display, expected: impl fmt::Display) -> String {
    format!("found {found}, expected {expected}")
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.problem)
    }
}

/// The problems of a rejected configuration.
#[derive(Debug)]
pub struct Refused(pub Vec<Fault>);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "the configuration has a problem")?,
            n => write!(f, "the configuration has {n} problems")?,
        }
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for Refused {}

impl Refused {
    /// Whether nothing is configured: only the default admin key is missing.
    pub fn lacks_everything(&self) -> bool {
        let is_that = |fault: &Fault| {
            fault.origin == Origin::Default && fault.path == "organizations.default.admin_key"
        };
        self.0.iter().any(is_that)
    }
}

/// A key's path, such as `thresholds[1].within`, with indexes from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPath(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    Key(String),
    Index(usize),
}

impl KeyPath {
    /// Parses a path such as `smtp.port`; the keys must not contain dots.
    pub fn of(dotted: &str) -> KeyPath {
        KeyPath(dotted.split('.').map(|key| Segment::Key(key.to_owned())).collect())
    }

    pub fn key(&self, key: &str) -> KeyPath {
        KeyPath(self.0.iter().cloned().chain([Segment::Key(key.to_owned())]).collect())
    }

    pub fn index(&self, index: usize) -> KeyPath {
        KeyPath(self.0.iter().cloned().chain([Segment::Index(index)]).collect())
    }

    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// The path without its last segment.
    pub fn parent(&self) -> KeyPath {
        KeyPath(self.0.iter().take(self.0.len().saturating_sub(1)).cloned().collect())
    }

    /// Whether one path is a prefix of the other.
    pub fn touches(&self, other: &KeyPath) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a == b)
    }
}

impl From<&serde_path_to_error::Path> for KeyPath {
    fn from(path: &serde_path_to_error::Path) -> KeyPath {
        use serde_path_to_error::Segment as S;
        KeyPath(
            path.iter()
                .filter_map(|segment| match segment {
                    S::Seq { index } => Some(Segment::Index(*index)),
                    S::Map { key } => Some(Segment::Key(key.clone())),
                    S::Enum { variant } => Some(Segment::Key(variant.clone())),
                    S::Unknown => None,
                })
                .collect(),
        )
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if i == 0 => f.write_str(redact::name(key))?,
                Segment::Key(key) => write!(f, ".{}", redact::name(key))?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
