//! The configuration as a JSON Schema for editors: types from [`raw`](super::raw), documentation
//! and defaults from `config/default.toml`.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Value, json};
use std::borrow::Cow;

use super::{
    keys::{Key, documented},
    layers::DEFAULTS,
    raw::Raw,
};

/// The identifier: a name, not a URL.
const ID: &str = "urn:certvigil:configuration";
/// Tables with the keys of another table.
const ALIKE: [(&str, &str); 4] = [
    ("api", "organizations.*"),
    ("smtp", "notifiers.email.*.smtp"),
    ("thresholds", "rules.thresholds"),
    ("expired", "rules.expired"),
];
/// The pattern of the names of organizations and notifiers.
const NAME: &str = "^[a-z0-9_]{1,64}$";

/// The schema in draft 7, which TOML editors support.
///
/// # Errors
/// Never for the built-in defaults.
pub fn schema() -> anyhow::Result<Value> {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Raw>().to_value();
    plain(&mut schema);
    schema["$id"] = ID.into();
    schema["title"] = "The configuration of certvigil".into();
    let keys = documented();
    let defaults = serde_json::to_value(toml::from_str::<toml::Table>(DEFAULTS)?)?;
    for (like, table) in ALIKE {
        for key in keys.iter().filter(|key| key.table == like && !key.name.is_empty()) {
            describe(&mut schema, &Key { table: table.to_owned(), ..key.clone() });
        }
    }
    for key in &keys {
        describe(&mut schema, key);
        if key.has_default
            && let Some(value) = defaults.pointer(&format!("/{}/{}", key.table, key.name))
            && let Some(place) = place(&mut schema, key)
        {
            place["default"] = value.clone();
        }
    }
    schema["properties"]["timezone"]["default"] = defaults["timezone"].clone();
    schema["properties"]["thresholds"]["default"] = defaults["thresholds"].clone();
    Ok(schema)
}

fn describe(schema: &mut Value, key: &Key) {
    if let Some(place) = place(schema, key) {
        place["description"] = key.description.clone().into();
    }
}

/// The schema of a key.
fn place<'a>(schema: &'a mut Value, key: &Key) -> Option<&'a mut Value> {
    let table = key.table.split('.').filter(|part| !part.is_empty());
    let path = table.chain((!key.name.is_empty()).then_some(key.name.as_str()));
    path.into_iter().try_fold(schema, |at, part| {
        let at = if at.get("items").is_some() { &mut at["items"] } else { at };
        match part {
            "*" => at.get_mut("additionalProperties"),
            name => at.get_mut("properties")?.get_mut(name),
        }
    })
}

/// Removes details of the Rust types: TOML has no null, and every key is optional.
fn plain(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|of| of != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(words)) = object.get_mut("enum") {
                words.retain(|word| !word.is_null());
            }
            if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
                choices.retain(|of| of["type"] != "null");
                if let [Value::Object(only)] = choices.as_slice() {
                    let only = only.clone();
                    object.remove("anyOf");
                    object.extend(only);
                }
            }
            object.remove("default");
            // Every key has a default, or its section checks that it is set.
            object.remove("required");
            if object.get("additionalProperties").is_some_and(Value::is_object)
                && object.get("propertyNames").is_none()
            {
                object.insert("propertyNames".to_owned(), json!({ "pattern": NAME }));
            }
            object.values_mut().for_each(plain);
        }
        Value::Array(list) => list.iter_mut().for_each(plain),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Defines types by their JSON Schema.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident: $schema:tt)*) => {
        $(
            $(#[$doc])*
            pub struct $name;
            impl JsonSchema for $name {
                fn schema_name() -> Cow<'static, str> {
                    stringify!($name).into()
                }
                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!($schema)
                }
            }
        )*
    };
}

texts! {
    Secret: {
        "anyOf": [
            { "type": "string" },
            {
                "type": "object",
                "properties": {
                    "env": { "type": "string", "description": "the name of an environment variable" },
                    "file": { "type": "string", "description": "a path, absolute or relative to \
                     the folder of the configuration file" },
                    "credential": {
                        "type": "string",
                        "description": "a file name in $CREDENTIALS_DIRECTORY, or in the folder \
                         secrets next to this file"
                    }
                },
                "additionalProperties": false,
                "minProperties": 1,
                "maxProperties": 1
            }
        ]
    }
    /// Headers, with user-defined names.
    Headers: {
        "type": "object",
        "propertyNames": { "minLength": 1 },
        "additionalProperties": {
            "anyOf": [{ "type": "string" }, { "type": "object", "minProperties": 1, "maxProperties": 1 }]
        }
    }
}
