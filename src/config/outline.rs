//! The keys that affect alerts, which instances on the same database compare. They contain no
//! secrets and nothing that is specific to a host.

use serde_json::Value;
use std::collections::BTreeMap;

use super::raw::Raw;

/// Sections and keys that may differ between instances.
const OWN: [&str; 6] =
    ["http", "log", "state", "tests", "schedule.run_on_start", "schedule.jitter"];
/// Keys that may differ, by their last segment.
const PATHS: [&str; 3] = ["ca_file", "client_identity", "password"];

/// The dotted keys with their values as JSON.
pub fn of(raw: &Raw) -> BTreeMap<String, String> {
    let mut outline = BTreeMap::new();
    // Serializing a parsed configuration cannot fail.
    if let Ok(value) = serde_json::to_value(raw) {
        flatten("", &value, &mut outline);
    }
    outline
}

fn flatten(path: &str, value: &Value, outline: &mut BTreeMap<String, String>) {
    let last = path.rsplit('.').next().unwrap_or_default();
    if OWN.contains(&path) || PATHS.contains(&last) {
        return;
    }
    match value {
        Value::Null => {}
        Value::Object(table) if is_a_place(table) => {}
        // An empty table has an effect, such as that of a notifier.
        Value::Object(table) if table.values().all(Value::is_null) => {
            drop(outline.insert(path.to_owned(), "{}".to_owned()));
        }
        Value::Object(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, outline);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            for (index, value) in list.iter().enumerate() {
                flatten(&format!("{path}[{index}]"), value, outline);
            }
        }
        value => drop(outline.insert(path.to_owned(), value.to_string())),
    }
}

/// Whether a table is the source of a secret.
fn is_a_place(table: &serde_json::Map<String, Value>) -> bool {
    table.len() == 1 && ["env", "file", "credential"].iter().any(|key| table.contains_key(*key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Needs, from_text};

    fn outline(text: &str) -> BTreeMap<String, String> {
        from_text("c.toml".as_ref(), text, Needs::default()).unwrap().config.outline
    }

    #[test]
    fn the_outline_omits_secrets_and_host_specific_keys() {
        let one = outline(
            "[organizations.acme]\nadmin_key = { env = \"A\" }\n[notifiers.webhook.hook]\nurl = \"https://a.example/x\"\n\
             key = \"hunter2\"\n[http]\nlisten = \"off\"\n[state]\nurl = \"postgres://u:hunter2@h/d\"",
        );
        let other = outline(
            "[organizations.acme]\nadmin_key = { file = \"b\" }\n[notifiers.webhook.hook]\n\
             url = \"https://b.example/y\"\nkey = \"hunter3\"\n[log]\nlevel = \"debug\"\n\
             [monitoring]\nheartbeat_url = { env = \"HEARTBEAT\" }",
        );
        assert_eq!(one, other);
        assert_eq!(one["thresholds[0].within"], "\"90d\"");
        assert!(one.keys().any(|key| key.starts_with("notifiers.webhook.hook")), "{one:?}");
        let text = format!("{one:?}");
        assert!(!text.contains("hunter") && !text.contains("a.example"), "{text}");
    }

    #[test]
    fn the_outline_changes_with_keys_that_affect_alerts() {
        let one = outline("");
        for other in [
            "[expired]\nseverity = \"critical\"\nrepeat = \"2d\"",
            "[notifiers.log.audit]",
            "timezone = \"Europe/Berlin\"",
        ] {
            assert_ne!(one, outline(other), "{other}");
        }
    }
}
