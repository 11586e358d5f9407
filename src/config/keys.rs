//! The documentation of every key, parsed from `config/default.toml`.
//!
//! Format of that file: a line of prose starts with `# `; an example of a setting without default
//! starts with `#` and no space; the documentation of a key or table is directly above it.

use super::DEFAULTS;

/// A key or a table of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its table, with `*` for user-defined names: `notifiers.email.*`. Empty at the top level.
    pub table: String,
    /// Empty for the table itself.
    pub name: String,
    pub description: String,
    /// Its default or an example, as TOML.
    pub value: String,
    pub has_default: bool,
}

/// Every documented key, in the order of the file.
pub fn documented() -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    let mut table = String::new();
    let mut description: Vec<&str> = Vec::new();
    for line in DEFAULTS.lines() {
        if let Some(prose) = line.strip_prefix("# ") {
            description.push(prose);
            continue;
        }
        let has_default = !line.starts_with('#');
        let line = as_setting(line);
        let (name, value) = if line.starts_with('[') {
            table = pattern(line.trim_matches(['[', ']']));
            (String::new(), String::new())
        } else if let Some((name, value)) = line.split_once(" = ") {
            (name.to_owned(), value.to_owned())
        } else {
            // An empty line or a lone `#` ends the documentation above it.
            description.clear();
            continue;
        };
        let description = std::mem::take(&mut description).join(" ");
        if !description.is_empty() {
            keys.push(Key { table: table.clone(), name, description, value, has_default });
        }
    }
    keys
}

/// Turns every example in the text into a setting.
pub fn uncommented(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", as_setting(line))).collect()
}

fn as_setting(line: &str) -> &str {
    let is_example = |rest: &&str| rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase());
    line.strip_prefix('#').filter(is_example).unwrap_or(line)
}

/// The path of the table, with `*` for user-defined names.
fn pattern(table: &str) -> String {
    let mut parts: Vec<&str> = table.split('.').collect();
    let named = match parts.first() {
        Some(&"organizations") => 1,
        Some(&"notifiers") => 2,
        _ => return table.to_owned(),
    };
    if let Some(name) = parts.get_mut(named) {
        *name = "*";
    }
    parts.join(".")
}
