//! Merges the layers (built-in defaults, file, environment) into one [`Raw`] configuration.
//!
//! serde reports one problem at a time. To find all of them, a rejected value is recorded and
//! removed, and the rest is read again. The `config` crate converts types, so that a variable can
//! be a number; the file is first read without conversions.

use config::{Environment, File, FileFormat};
use serde::de::DeserializeOwned;
use std::{collections::BTreeMap, path::PathBuf};
use toml::Value;

use super::{
    problem::{Fault, KeyPath, Origin, Segment, mismatch},
    raw::Raw,
};

pub const DEFAULTS: &str = include_str!("../../config/default.toml");
pub const PREFIX: &str = "CERTVIGIL";
pub const SEPARATOR: &str = "__";
/// Keys whose table `{ env | file | credential }` is one value, which a higher layer replaces as a
/// whole.
const SECRET_KEYS: [&str; 8] =
    ["admin_key", "password", "url", "key", "secret", "token", "read_token", "heartbeat_url"];

/// A configuration file.
pub struct Source {
    pub path: PathBuf,
    pub text: String,
}

/// The merged configuration, with the source of each key.
pub struct Layers {
    /// `None` if the layers are unreadable even without the rejected values.
    pub raw: Option<Raw>,
    pub origins: Origins,
    pub faults: Vec<(KeyPath, Fault)>,
}

/// The source of each key.
pub struct Origins {
    file: Option<Source>,
    environment: BTreeMap<String, KeyPath>,
}

impl Origins {
    pub fn of(&self, path: &KeyPath) -> Origin {
        let variable = self.environment.iter().find(|(_, of)| {
            of.segments().starts_with(path.segments()) || path.segments().starts_with(of.segments())
        });
        if let Some((name, _)) = variable {
            return Origin::Environment(name.clone());
        }
        self.in_file(path)
    }

    /// The place in the file.
    fn in_file(&self, path: &KeyPath) -> Origin {
        match &self.file {
            Some(source) => match line_of(&source.text, path) {
                Line::Exactly(line) => Origin::File(source.path.clone(), Some(line)),
                // For a missing key, this is the line of its table.
                Line::Near(line) => Origin::File(source.path.clone(), Some(line)),
                Line::Nowhere if in_defaults(path) => Origin::Default,
                Line::Nowhere => Origin::File(source.path.clone(), None),
            },
            None => Origin::Default,
        }
    }

    /// Whether the value comes from the file and not from the environment.
    pub fn is_from_file(&self, path: &KeyPath) -> bool {
        matches!(self.of(path), Origin::File(..))
    }
}

/// Parses and merges the layers.
pub fn merge(
    file: Option<Source>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Layers {
    let mut faults = Vec::new();
    let mut variables: BTreeMap<String, String> = environment
        .into_iter()
        .filter(|(name, value)| {
            name.starts_with(&format!("{PREFIX}{SEPARATOR}")) && !value.is_empty()
        })
        .collect();
    let mut written = Value::Table(toml::Table::new());
    if let Some(source) = &file {
        match strict_table(source) {
            Ok(parsed) => written = Value::Table(parsed),
            Err(fault) => faults.push((KeyPath::default(), *fault)),
        }
    }
    let origins = Origins {
        environment: variables.keys().map(|name| (name.clone(), path_of(name))).collect(),
        file,
    };

    // A variable replaces a key of the file, and the whole place of a secret.
    for path in origins.environment.values() {
        remove(&mut written, &secret_that_it_replaces(path).unwrap_or_else(|| path.clone()));
    }

    // Read the file over the defaults, without conversions.
    let mut removed: Vec<KeyPath> = Vec::new();
    while let Err((found, message)) = read::<Raw, _>(over_defaults(&written)) {
        // A list of tables is removed as a whole, so that other items keep their index.
        let found =
            if is_in_a_list_of_tables(&mut written, &found) { found.parent() } else { found };
        let path = as_written(&found, &removed);
        // A list that is empty without its rejected items is no further problem.
        if !removed.iter().any(|below| below.parent() == path) {
            faults.push((path.clone(), fault(&path, origins.in_file(&path), &message)));
        }
        if !remove(&mut written, &found) {
            break;
        }
        removed.push(path);
    }

    loop {
        match read_merged(&written, &variables) {
            Ok(raw) => return Layers { raw: Some(raw), origins, faults },
            Err((path, message)) => {
                let guilty = origins
                    .environment
                    .iter()
                    .find(|(name, of)| variables.contains_key(*name) && of.touches(&path))
                    .map(|(name, _)| name.clone());
                let origin = guilty.clone().map_or(Origin::Default, Origin::Environment);
                faults.push((path.clone(), fault(&path, origin, &message)));
                match guilty {
                    Some(name) => variables.remove(&name),
                    None => return Layers { raw: None, origins, faults },
                };
            }
        }
    }
}

/// The file over the built-in defaults.
fn over_defaults(written: &Value) -> Value {
    fn merge(below: &mut Value, above: &Value) {
        match (below, above) {
            (Value::Table(below), Value::Table(above)) => {
                for (key, value) in above {
                    merge(below.entry(key).or_insert_with(|| value.clone()), value);
                }
            }
            (below, above) => below.clone_from(above),
        }
    }
    let mut merged = Value::Table(toml::from_str(DEFAULTS).unwrap_or_default());
    merge(&mut merged, written);
    merged
}

fn is_in_a_list_of_tables(written: &mut Value, path: &KeyPath) -> bool {
    let [list @ .., Segment::Index(_)] = path.segments() else {
        return false;
    };
    let list = find(written, list).and_then(|list| list.as_array());
    list.is_some_and(|list| list.iter().any(Value::is_table))
}

/// The path as written in the file, before earlier items of its lists were removed.
fn as_written(path: &KeyPath, removed: &[KeyPath]) -> KeyPath {
    path.segments().iter().fold(KeyPath::default(), |written, segment| match segment {
        Segment::Key(key) => written.key(key),
        Segment::Index(index) => {
            let mut kept = (0..).filter(|at| !removed.contains(&written.index(*at)));
            written.index(kept.nth(*index).unwrap_or(*index))
        }
    })
}

/// Parses the TOML syntax. The error has the line but not its text, which may be a secret.
fn strict_table(source: &Source) -> Result<toml::Table, Box<Fault>> {
    toml::from_str::<toml::Table>(&source.text).map_err(|error| {
        let line = error.span().map(|span| line_at(&source.text, span.start));
        Box::new(Fault {
            path: String::new(),
            origin: Origin::File(source.path.clone(), line),
            problem: format!("invalid TOML: {}", error.message().replace('\n', ", ")),
        })
    })
}

fn read<T: DeserializeOwned, E>(
    deserializer: impl for<'de> serde::Deserializer<'de, Error = E>,
) -> Result<T, (KeyPath, String)>
where
    E: std::error::Error,
{
    serde_path_to_error::deserialize(deserializer)
        .map_err(|error| (KeyPath::from(error.path()), error.into_inner().to_string()))
}

/// The variables over the file and the defaults.
fn read_merged(
    written: &Value,
    variables: &BTreeMap<String, String>,
) -> Result<Raw, (KeyPath, String)> {
    fn whole(error: impl std::error::Error) -> (KeyPath, String) {
        (KeyPath::default(), error.to_string())
    }
    let file = toml::to_string(&over_defaults(written)).map_err(whole)?;
    let variables = variables.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let merged = config::Config::builder()
        .add_source(File::from_str(&file, FileFormat::Toml))
        .add_source(
            Environment::with_prefix(PREFIX)
                .prefix_separator(SEPARATOR)
                .separator(SEPARATOR)
                .source(Some(variables)),
        )
        .build()
        .map_err(whole)?;
    read(merged)
}

/// Converts `CERTVIGIL__SMTP__PORT` to `smtp.port`.
fn path_of(variable: &str) -> KeyPath {
    let keys = &variable[PREFIX.len() + SEPARATOR.len()..];
    keys.to_lowercase().split(SEPARATOR).fold(KeyPath::default(), |path, key| path.key(key))
}

fn secret_that_it_replaces(path: &KeyPath) -> Option<KeyPath> {
    let [.., Segment::Key(secret), Segment::Key(last)] = path.segments() else {
        return None;
    };
    let is_place = matches!(last.as_str(), "env" | "file" | "credential");
    (is_place && SECRET_KEYS.contains(&secret.as_str())).then(|| path.parent())
}

/// Converts a message of serde into the form “found …, expected …”.
fn fault(path: &KeyPath, origin: Origin, message: &str) -> Fault {
    // The config crate appends the source, which is printed separately.
    let message = message.lines().next().unwrap_or_default();
    let message = message.split(" for key `").next().unwrap_or_default();
    // Values with their own parser report their problem in this form.
    if message.starts_with("found ") {
        return Fault { path: path.to_string(), origin, problem: message.to_owned() };
    }
    let (found, expected) = match message.split_once(", expected ") {
        Some((found, expected)) => (found, expected),
        None => (message, "a valid value"),
    };
    // serde prints values: show only numbers and booleans, which are not secret.
    let found = found.trim_start_matches("invalid type: ").trim_start_matches("invalid value: ");
    let found = if found.starts_with("string ") { "a text" } else { found };
    let found = match found.strip_prefix("unknown field ") {
        Some(_) => "an unknown key",
        None => found,
    };
    let expected = match expected {
        "u32" => "a whole number, 0 or more",
        "a boolean" => "true or false",
        "a map" => "a table",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    Fault { path: path.to_string(), origin, problem: mismatch(found, expected) }
}

/// The value of a path.
fn find<'a>(root: &'a mut Value, path: &[Segment]) -> Option<&'a mut Value> {
    path.iter().try_fold(root, |value, segment| match segment {
        Segment::Key(key) => value.get_mut(key),
        Segment::Index(index) => value.get_mut(*index),
    })
}

fn remove(root: &mut Value, path: &KeyPath) -> bool {
    let Some((last, parents)) = path.segments().split_last() else {
        return false;
    };
    match (last, find(root, parents)) {
        (Segment::Key(key), Some(Value::Table(table))) => table.remove(key).is_some(),
        (Segment::Index(index), Some(Value::Array(list))) if *index < list.len() => {
            list.remove(*index);
            true
        }
        (Segment::Key(_) | Segment::Index(_), _) => false,
    }
}

enum Line {
    Exactly(usize),
    /// The line of the innermost existing table.
    Near(usize),
    Nowhere,
}

fn line_of(text: &str, path: &KeyPath) -> Line {
    use toml::de::{DeTable, DeValue};
    let Ok(document) = DeTable::parse(text) else {
        return Line::Nowhere;
    };
    let mut table = Some(document.get_ref());
    let mut array: Option<&toml::de::DeArray<'_>> = None;
    let mut line = Line::Nowhere;
    let count = path.segments().len();
    for (i, segment) in path.segments().iter().enumerate() {
        let (start, value) = match segment {
            Segment::Key(key) => {
                let entry = table.and_then(|table| table.get_key_value(key.as_str()));
                match entry {
                    Some((key, value)) => (key.span().start, value),
                    None => return line,
                }
            }
            Segment::Index(index) => match array.and_then(|array| array.get(*index)) {
                Some(value) => (value.span().start, value),
                None => return line,
            },
        };
        let at = line_at(text, start);
        line = if i + 1 == count { Line::Exactly(at) } else { Line::Near(at) };
        (table, array) = match value.get_ref() {
            DeValue::Table(table) => (Some(table), None),
            DeValue::Array(array) => (None, Some(array)),
            _ => (None, None),
        };
    }
    line
}

fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn in_defaults(path: &KeyPath) -> bool {
    matches!(line_of(DEFAULTS, path), Line::Exactly(_))
}
