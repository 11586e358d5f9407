//! The keys of the configuration: documented in one place, described for editors, and where their
//! secrets come from.

use certvigil::config::{
    DEFAULTS, Needs, from_text,
    keys::{documented, uncommented},
    schema::schema,
};
use serde_json::Value;
use std::path::Path;

use super::support::{certvigil, with};

/// Every key and every table that there is, as paths.
fn every_key(schema: &Value, path: &str, found: &mut Vec<String>) {
    if let Some(items) = schema.get("items") {
        every_key(items, path, found);
    }
    if let Some(named) = schema.get("additionalProperties").filter(|named| named.is_object()) {
        every_key(named, &format!("{path}.*"), found);
    }
    for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{key}").trim_start_matches('.').to_owned();
        if inner["description"].as_str().is_some_and(|said| !said.is_empty()) {
            found.push(path.clone());
        } else {
            // Tables with user-defined names are documented below these names.
            let named = &inner["additionalProperties"]["description"];
            assert!(named.is_string(), "{path} is documented nowhere: {inner}");
        }
        every_key(inner, &path, found);
    }
}

#[test]
fn each_key_is_documented_in_one_place_and_what_is_documented_is_a_key() {
    let schema = schema().unwrap();
    let mut keys = Vec::new();
    every_key(&schema, "", &mut keys);
    assert!(keys.len() > 100, "{}", keys.len());
    for key in documented() {
        let path = [key.table.as_str(), key.name.as_str()];
        let path =
            path.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(".");
        let named = path.ends_with(".*");
        assert!(named || keys.contains(&path), "{path} is documented, and is no key");
    }
    for heading in DEFAULTS.lines().map(|line| line.trim_start_matches('#')) {
        assert!(
            !heading.starts_with(' ') || !heading.contains(" = {"),
            "an example in prose: {heading}"
        );
    }
}

/// A file as JSON, as an editor validates it: dates become texts.
fn as_json(text: &str) -> Value {
    fn plain(value: toml::Value) -> Value {
        match value {
            toml::Value::Datetime(at) => at.to_string().into(),
            toml::Value::Table(table) => {
                table.into_iter().map(|(key, value)| (key, plain(value))).collect()
            }
            toml::Value::Array(list) => list.into_iter().map(plain).collect(),
            other => serde_json::to_value(other).unwrap(),
        }
    }
    plain(toml::Value::Table(toml::from_str(text).unwrap()))
}

#[test]
fn the_schema_takes_what_certvigil_takes_and_refuses_what_it_refuses() {
    let schema = jsonschema::validator_for(&schema().unwrap()).unwrap();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut files: Vec<_> =
        vec![config.join("default.toml"), config.join("certvigil.toml.example")];
    let examples = std::fs::read_dir(config.join("examples")).unwrap();
    files.extend(
        examples
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().unwrap() == "toml"),
    );
    assert!(files.len() >= 7, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for text in [text.clone(), uncommented(&text)] {
            if let Err(error) = schema.validate(&as_json(&text)) {
                panic!("{}: {error} at {}", file.display(), error.instance_path);
            }
        }
    }
    for wrong in [
        "x = 1",
        "[smtp]\nx = 1",
        "[smtp]\nport = 70000",
        "[smtp]\ntls = \"ssl\"",
        "[smtp]\npassword = { env = \"A\", file = \"b\" }",
        "[smtp]\ntimeout = 30",
        "[smtp]\ntimeout = \"soon\"",
        "[log]\nformat = \"xml\"",
        "[monitoring]\nadmin_keys = \"mine\"",
        "[notifiers.email.ops]\nto = \"a@b.example\"",
        "[notifiers.email.Ops]\nto = [\"a@b.example\"]",
        "[notifiers.webhook.a]\nformat = \"irc\"\nurl = \"https://a.example\"",
        "[notifiers.pigeon.a]",
        "[[thresholds]]\nwithin = \"30d\"\nseverity = \"bad\"",
        "[[thresholds]]\nwithin = \"-10%\"\nseverity = \"info\"",
        "[http]\npublic_url = \"ftp://a.example\"",
    ] {
        assert!(schema.validate(&as_json(wrong)).is_err(), "the schema takes {wrong}");
        // The mail server is looked at where somebody is mailed.
        let mailed = "\n[notifiers.email.somebody]\nto = [\"a@b.example\"]";
        let wrong = &format!("{wrong}{mailed}");
        let refused = from_text(Path::new("c.toml"), wrong, Needs::default());
        assert!(refused.is_err(), "certvigil takes {wrong}");
    }
    // Each word that the schema has is one.
    for (table, key, of) in [
        ("smtp", "tls", "/properties/smtp/properties/tls"),
        ("log", "format", "/properties/log/properties/format"),
        ("monitoring", "admin_keys", "/properties/monitoring/properties/admin_keys"),
        ("expired", "severity", "/properties/expired/properties/severity"),
    ] {
        let schema = certvigil::config::schema::schema().unwrap();
        let words = schema.pointer(of).unwrap()["enum"].as_array().unwrap().clone();
        for word in words {
            let ladder = "[[thresholds]]\nwithin = \"1d\"\nseverity = \"info\"\n";
            let text = format!("{ladder}[{table}]\n{key} = {word}\nallow_insecure = true");
            let text =
                if table == "smtp" { text } else { text.replace("allow_insecure = true", "") };
            let loaded = from_text(Path::new("c.toml"), &text, Needs::default());
            assert!(loaded.is_ok(), "{text}: {}", loaded.unwrap_err());
        }
    }
}

#[test]
fn a_credential_is_found_where_systemd_and_containers_put_it_and_beside_the_file_at_a_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for inner in ["secrets", "given", "of_a_folder"] {
        std::fs::create_dir(path(inner)).unwrap();
    }
    let token = "[http]\ntoken = { credential = \"http_token\" }\n";
    let code = |directory: Option<&str>, text: &str| {
        let mut command = with(folder.path(), text, &["config", "check"]);
        command.env("OPENAI_ADMIN_KEY", "sk-admin-x");
        if let Some(directory) = directory {
            command.env("CREDENTIALS_DIRECTORY", path(directory));
        }
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (refused, said) = code(None, token);
    assert_eq!(refused, 2);
    assert!(
        said.contains("http.token")
            && said.contains("cannot read credential http_token")
            && said.contains("secrets/http_token cannot be read"),
        "{said}"
    );
    std::fs::write(path("secrets/http_token"), "a-token-of-some-length\n").unwrap();
    assert_eq!(code(None, token).0, 0);
    let (refused, said) = code(Some("given"), token);
    assert!(refused == 2 && said.contains("given/http_token cannot be read"), "{refused} {said}");
    std::fs::write(path("given/http_token"), "a-token-of-some-length\n").unwrap();
    assert_eq!(code(Some("given"), token).0, 0);
    // As systemd names what LoadCredential=certvigil:FOLDER loads.
    std::fs::write(path("of_a_folder/certvigil_http_token"), "a-token-of-some-length\n").unwrap();
    assert_eq!(code(Some("of_a_folder"), token).0, 0);
    for name in ["", "a/b", "../http_token", ".hidden"] {
        let (refused, said) = code(None, &token.replace("http_token", name));
        assert!(
            refused == 2 && said.contains("a credential whose name is a path"),
            "{name}: {said}"
        );
    }
}

#[test]
fn the_environment_replaces_the_whole_of_every_secret() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "a-token-of-some-length").unwrap();
    std::fs::write(folder.path().join("url"), "https://heartbeat.example/x").unwrap();
    let text = "[http]\ntoken = { env = \"NOT_THERE\" }\n[monitoring]\nheartbeat_url = { credential = \"nor_this\" }\n";
    let mut command = with(folder.path(), text, &["config", "check"]);
    command.env("OPENAI_ADMIN_KEY", "sk-admin-x");
    command.env("CERTVIGIL__HTTP__TOKEN__FILE", folder.path().join("token"));
    command.env("CERTVIGIL__MONITORING__HEARTBEAT_URL__FILE", folder.path().join("url"));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn without_a_configuration_the_key_is_a_credential_where_there_is_no_variable() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("openai_admin_key"), "sk-admin-x").unwrap();
    let mut command = certvigil(folder.path());
    command.args(["config", "check"]);
    assert_eq!(command.output().unwrap().status.code(), Some(2));
    command.env("CREDENTIALS_DIRECTORY", folder.path());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
