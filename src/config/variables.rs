//! Environment variables that resemble a key of the configuration but are not read.

use serde_json::Value;
use std::collections::BTreeSet;

use super::{
    keys::{self, Key},
    layers::{PREFIX, SEPARATOR},
    raw::Raw,
};
use crate::domain::selection::Glob;

/// A warning for each variable such as `CERTVIGIL_SMTP_PORT` instead of `CERTVIGIL__SMTP__PORT`.
pub fn misspelled(names: impl IntoIterator<Item = String>, raw: &Raw) -> Vec<String> {
    let mut secrets = BTreeSet::new();
    if let Ok(value) = serde_json::to_value(raw) {
        secret_variables(&value, &mut secrets);
    }
    let keys: Vec<(Glob, String)> =
        keys::documented().iter().filter(|key| !key.name.is_empty()).map(variable).collect();
    names
        .into_iter()
        .filter(|name| name.starts_with(PREFIX) && !secrets.contains(name))
        .filter(|name| !name.starts_with(&format!("{PREFIX}{SEPARATOR}")))
        .filter_map(|name| {
            let joined = name.replace(SEPARATOR, "_");
            let (_, right) = keys.iter().find(|(pattern, _)| pattern.matches(&joined))?;
            Some(format!(
                "environment variable {name}: ignored; separate the parts with two underscores: {right}"
            ))
        })
        .collect()
}

/// The variable of a key with single underscores, and the correct one.
fn variable(key: &Key) -> (Glob, String) {
    let parts: Vec<String> = [PREFIX]
        .into_iter()
        .chain(key.table.split('.').filter(|part| !part.is_empty()))
        .chain([key.name.as_str()])
        .map(str::to_uppercase)
        .collect();
    (Glob::new(&parts.join("_")), parts.join(SEPARATOR).replace('*', "NAME"))
}

/// The variables with secrets, which may have any name.
fn secret_variables(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(table) => {
            names.extend(table.get("env").and_then(Value::as_str).map(str::to_owned));
            table.values().for_each(|value| secret_variables(value, names));
        }
        Value::Array(list) => list.iter().for_each(|value| secret_variables(value, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Needs, from_text};

    #[test]
    fn variables_with_single_underscores_cause_a_warning_except_secrets() {
        let text = "[smtp]\nusername = \"u\"\npassword = { env = \"CERTVIGIL_SMTP_PASSWORD\" }";
        let raw = from_text("c.toml".as_ref(), text, Needs::default()).unwrap().effective;
        let warned = |name: &str| misspelled([name.to_owned()], &raw);
        for (name, expected) in [
            ("CERTVIGIL_SMTP_PORT", "CERTVIGIL__SMTP__PORT"),
            ("CERTVIGIL_SMTP__PORT", "CERTVIGIL__SMTP__PORT"),
            ("CERTVIGIL_TIMEZONE", "CERTVIGIL__TIMEZONE"),
            ("CERTVIGIL_HTTP_READ_TOKEN", "CERTVIGIL__HTTP__READ_TOKEN"),
            ("CERTVIGIL_ORGANIZATIONS_ACME_BASE_URL", "CERTVIGIL__ORGANIZATIONS__NAME__BASE_URL"),
        ] {
            let warnings = warned(name);
            assert_eq!(warnings.len(), 1, "{name}");
            assert!(warnings[0].starts_with(&format!("environment variable {name}: ignored")));
            assert!(warnings[0].ends_with(&format!(": {expected}")), "{}", warnings[0]);
        }
        for name in
            ["CERTVIGIL_SMTP_PASSWORD", "CERTVIGIL_CONFIG", "CERTVIGIL__SMTP__PORT", "SMTP_PORT"]
        {
            assert_eq!(warned(name), Vec::<String>::new(), "{name}");
        }
    }
}
