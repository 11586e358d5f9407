//! The written form of a configuration: every key optional, only types checked.
//!
//! An unknown key is an error. The sections decide meaning and required keys.

use schemars::JsonSchema;
use secrecy::ExposeSecret;
use serde::{Deserialize, Deserializer, Serialize, de};
use std::{collections::BTreeMap, path::PathBuf};

use super::schema;
use crate::secret::Secret;

/// A list of strings; from the environment, a JSON array.
#[derive(Clone, Debug, Serialize, PartialEq)]
#[serde(transparent)]
pub struct Strings(pub Vec<String>);

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strings, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Strings;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of strings such as [\"a\", \"b\"]")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Strings, E> {
                serde_json::from_str(text)
                    .map(Strings)
                    .map_err(|_| E::invalid_type(de::Unexpected::Str(text), &self))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Strings, A::Error> {
                let mut strings = Vec::new();
                while let Some(one) = seq.next_element()? {
                    strings.push(one);
                }
                Ok(Strings(strings))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A date or time (RFC 3339), in TOML or as a string.
#[derive(Clone, Debug, Serialize, PartialEq)]
#[serde(transparent)]
pub struct Date(pub String);

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Date, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Date;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a date such as 2027-03-01, or a time such as 2027-03-01T12:00:00Z")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Date, E> {
                Ok(Date(text.to_owned()))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Date, A::Error> {
                let inner = de::value::MapAccessDeserializer::new(map);
                let datetime = toml::value::Datetime::deserialize(inner);
                let datetime = datetime
                    .map_err(|_| <A::Error as de::Error>::invalid_type(de::Unexpected::Map, &self));
                Ok(Date(datetime?.to_string()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The URL of the database: may be a secret or contain one.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct Address(pub Secret);

impl Serialize for Address {
    /// Without a password.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Secret::Literal(url) if url.expose_secret().starts_with("sqlite:") => {
                url.expose_secret().serialize(serializer)
            }
            Secret::Literal(url) => {
                crate::store::shown_url(url.expose_secret()).serialize(serializer)
            }
            place @ (Secret::Env(_) | Secret::File(_) | Secret::Credential(_)) => {
                place.serialize(serializer)
            }
        }
    }
}

macro_rules! sections {
    ($($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $key:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
            #[serde(deny_unknown_fields, default)]
            pub struct $name {
                $($(#[$of])* #[serde(skip_serializing_if = "is_unset")] pub $key: $type,)*
            }
        )*
    };
}

/// Whether `config show` omits a key.
fn is_unset<T: Unset>(value: &T) -> bool {
    value.is_unset()
}

trait Unset {
    fn is_unset(&self) -> bool;
}
impl<T> Unset for Option<T> {
    fn is_unset(&self) -> bool {
        self.is_none()
    }
}
impl<K, V> Unset for BTreeMap<K, V> {
    fn is_unset(&self) -> bool {
        self.is_empty()
    }
}
macro_rules! shown_as_a_table {
    ($($name:ident)*) => {
        $(impl Unset for $name {
            fn is_unset(&self) -> bool {
                false
            }
        })*
    };
}
shown_as_a_table! { Schedule Api Expired Notifiers Smtp Messages Delivery Monitoring State Http Log }

sections! {
    /// A whole configuration.
    Raw {
        timezone: Option<String>,
        schedule: Schedule,
        api: Api,
        organizations: BTreeMap<String, Organization>,
        thresholds: Option<Vec<Threshold>>,
        expired: Expired,
        rules: Option<Vec<Rule>>,
        notifiers: Notifiers,
        smtp: Smtp,
        messages: Messages,
        delivery: Delivery,
        monitoring: Monitoring,
        state: State,
        http: Http,
        log: Log,
    }
    Schedule {
        cron: Option<String>,
        run_on_start: Option<bool>,
        #[schemars(with = "schema::Duration")]
        jitter: Option<String>,
        #[schemars(with = "schema::Duration")]
        scan_timeout: Option<String>,
    }
    Api {
        concurrency: Option<usize>,
        requests_per_second: Option<u32>,
        #[schemars(with = "schema::Duration")]
        request_timeout: Option<String>,
        max_attempts: Option<u32>,
    }
    Organization {
        #[schemars(with = "schema::Secret")]
        admin_key: Option<Secret>,
        #[schemars(with = "schema::Http")]
        base_url: Option<String>,
        #[schemars(with = "schema::Strings")]
        include_projects: Option<Strings>,
        #[schemars(with = "schema::Strings")]
        exclude_projects: Option<Strings>,
        include_archived: Option<bool>,
        include_inactive: Option<bool>,
        ca_file: Option<PathBuf>,
        client_identity: Option<ClientIdentity>,
        #[schemars(with = "schema::Strings")]
        expect_mtls: Option<Strings>,
        #[schemars(with = "schema::SeverityOrOff")]
        unprotected: Option<String>,
        #[schemars(with = "schema::Strings")]
        unprotected_ignore: Option<Strings>,
        #[schemars(with = "schema::Secret")]
        heartbeat_url: Option<Secret>,
        concurrency: Option<usize>,
        requests_per_second: Option<u32>,
        #[schemars(with = "schema::Duration")]
        request_timeout: Option<String>,
        max_attempts: Option<u32>,
    }
    ClientIdentity {
        certificate: Option<PathBuf>,
        #[schemars(with = "schema::Secret")]
        key: Option<Secret>,
    }
    Threshold {
        #[schemars(with = "schema::Within")]
        within: Option<String>,
        #[schemars(with = "schema::SeverityWord")]
        severity: Option<String>,
        #[schemars(with = "schema::Duration")]
        repeat: Option<String>,
    }
    Expired {
        #[schemars(with = "schema::SeverityWord")]
        severity: Option<String>,
        #[schemars(with = "schema::Duration")]
        repeat: Option<String>,
    }
    Rule {
        #[schemars(with = "schema::Strings")]
        certificates: Option<Strings>,
        #[schemars(with = "schema::Strings")]
        projects: Option<Strings>,
        #[schemars(with = "schema::Strings")]
        organizations: Option<Strings>,
        thresholds: Option<Vec<Threshold>>,
        expired: Option<Expired>,
        ignore: Option<Ignore>,
    }
    Ignore {
        reason: Option<String>,
        #[schemars(with = "schema::Date")]
        until: Option<Date>,
    }
    Notifiers {
        email: BTreeMap<String, Email>,
        webhook: BTreeMap<String, Webhook>,
        log: BTreeMap<String, LogNotifier>,
    }
    Email {
        #[schemars(with = "schema::Strings")]
        to: Option<Strings>,
        #[schemars(with = "schema::Strings")]
        cc: Option<Strings>,
        #[schemars(with = "schema::SeverityWord")]
        min_severity: Option<String>,
        #[schemars(with = "schema::Strings")]
        organizations: Option<Strings>,
        #[schemars(with = "schema::Strings")]
        projects: Option<Strings>,
        send_resolved: Option<bool>,
        max_per_minute: Option<u32>,
        smtp: Option<Smtp>,
    }
    Webhook {
        #[schemars(with = "schema::Secret")]
        url: Option<Secret>,
        #[schemars(with = "schema::Format")]
        format: Option<String>,
        template: Option<PathBuf>,
        content_type: Option<String>,
        #[schemars(with = "schema::Secret")]
        key: Option<Secret>,
        #[schemars(with = "schema::Secret")]
        secret: Option<Secret>,
        #[schemars(with = "schema::Headers")]
        headers: BTreeMap<String, Secret>,
        ca_file: Option<PathBuf>,
        concurrency: Option<usize>,
        max_per_minute: Option<u32>,
        #[schemars(with = "schema::SeverityWord")]
        min_severity: Option<String>,
        #[schemars(with = "schema::Strings")]
        organizations: Option<Strings>,
        #[schemars(with = "schema::Strings")]
        projects: Option<Strings>,
        send_resolved: Option<bool>,
    }
    LogNotifier {
        #[schemars(with = "schema::SeverityWord")]
        min_severity: Option<String>,
        #[schemars(with = "schema::Strings")]
        organizations: Option<Strings>,
        #[schemars(with = "schema::Strings")]
        projects: Option<Strings>,
        send_resolved: Option<bool>,
    }
    Smtp {
        host: Option<String>,
        port: Option<u16>,
        #[schemars(with = "schema::Tls")]
        tls: Option<String>,
        allow_insecure: Option<bool>,
        username: Option<String>,
        #[schemars(with = "schema::Secret")]
        password: Option<Secret>,
        #[schemars(with = "schema::Auth")]
        auth: Option<String>,
        from: Option<String>,
        ca_file: Option<PathBuf>,
        #[schemars(with = "schema::Duration")]
        timeout: Option<String>,
        hello_name: Option<String>,
    }
    Messages {
        #[schemars(with = "schema::Http")]
        runbook_url: Option<String>,
    }
    Delivery {
        #[schemars(with = "schema::Duration")]
        give_up_after: Option<String>,
        #[schemars(with = "schema::Duration")]
        retry_initial: Option<String>,
        #[schemars(with = "schema::Duration")]
        retry_max: Option<String>,
    }
    Monitoring {
        #[schemars(with = "schema::Duration")]
        blind_after: Option<String>,
        #[schemars(with = "schema::SeverityWord")]
        replaced_severity: Option<String>,
        #[schemars(with = "schema::AdminKeys")]
        admin_keys: Option<String>,
        #[schemars(with = "schema::Secret")]
        heartbeat_url: Option<Secret>,
        heartbeat_start_fail: Option<bool>,
    }
    State {
        #[schemars(with = "schema::Secret")]
        url: Option<Address>,
        #[schemars(with = "schema::Secret")]
        password: Option<Secret>,
        ca_file: Option<PathBuf>,
        max_connections: Option<u32>,
        #[schemars(with = "schema::Duration")]
        connect_timeout: Option<String>,
        #[schemars(with = "schema::Duration")]
        timeout: Option<String>,
        #[schemars(with = "schema::Duration")]
        history: Option<String>,
    }
    Http {
        listen: Option<String>,
        #[schemars(with = "schema::Secret")]
        token: Option<Secret>,
        #[schemars(with = "schema::Secret")]
        read_token: Option<Secret>,
        #[schemars(with = "schema::Http")]
        public_url: Option<String>,
    }
    Log {
        #[schemars(with = "schema::LogFormat")]
        format: Option<String>,
        level: Option<String>,
    }
}
