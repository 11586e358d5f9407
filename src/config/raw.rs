//! The configuration as written: each value is valid by itself. The sections check rules across
//! keys, and read files and secrets.
//!
//! An unknown key is an error. A key that is not an `Option` has a default in
//! `config/default.toml`.

use chrono_tz::Tz;
use lettre::message::Mailbox;
use schemars::JsonSchema;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{
    expectations::{Expected, Remaining},
    http::{Listen, Origin},
    messages::Link,
    notifiers::{HelloName, Host, Recipient},
    organizations::ApiUrl,
    policy::Until,
    routing::Extra,
    schema,
    state::MOST_CONNECTIONS,
    value::{Level, List, Positive, Selection, Within, Written},
    webhook::{ContentType, FormatName},
};
use crate::{
    domain::{
        credential::WatchedKeys,
        selection::Glob,
        text::Name,
        threshold::{Lead, Severity},
    },
    logging,
    notify::email::{Auth, Tls},
    schedule::Cron,
    secret::Secret,
    store::LEAST_CONNECTIONS,
};

/// The URL of the database: may be a secret or contain one.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct Address(pub Secret);

impl Serialize for Address {
    /// Omits the password.
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
            #[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
            #[serde(deny_unknown_fields)]
            $(#[$doc])*
            pub struct $name { $($(#[$of])* pub $key: $type,)* }
        )*
    };
}

sections! {
    /// A whole configuration.
    Raw {
        timezone: Written<Tz>,
        schedule: Schedule,
        api: Api,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        organizations: BTreeMap<String, Organization>,
        thresholds: Vec<Threshold>,
        expired: Expired,
        rules: Option<Vec<Rule>>,
        owners: Option<Vec<Owner>>,
        tests: Option<Vec<Test>>,
        #[serde(default)]
        notifiers: Notifiers,
        smtp: Smtp,
        messages: Messages,
        drill: Drill,
        summary: Summary,
        delivery: Delivery,
        monitoring: Monitoring,
        state: State,
        http: Http,
        log: Log,
    }
    Summary {
        cron: Option<Written<Cron>>,
        notifiers: Option<List<Name>>,
    }
    Drill {
        cron: Option<Written<Cron>>,
        confirm_within: Written<Positive>,
        notifiers: Option<List<Name>>,
    }
    Schedule {
        cron: Written<Cron>,
        run_on_start: bool,
        jitter: Written<Duration>,
        scan_timeout: Written<Positive>,
    }
    Api {
        concurrency: Concurrency,
        requests_per_second: Rate,
        request_timeout: Written<Positive>,
        max_attempts: Attempts,
        certificate_content: bool,
    }
    #[derive(Default)]
    Organization {
        #[schemars(with = "schema::Secret")]
        admin_key: Option<Secret>,
        base_url: Option<Written<ApiUrl>>,
        include_projects: Option<Selection>,
        exclude_projects: Option<List<Glob>>,
        include_archived: Option<bool>,
        include_inactive: Option<bool>,
        ca_file: Option<PathBuf>,
        client_identity: Option<ClientIdentity>,
        expect_mtls: Option<List<Glob>>,
        unprotected: Option<Written<Option<Severity>>>,
        unprotected_ignore: Option<List<Glob>>,
        #[schemars(with = "schema::Secret")]
        heartbeat_url: Option<Secret>,
        concurrency: Option<Concurrency>,
        requests_per_second: Option<Rate>,
        request_timeout: Option<Written<Positive>>,
        max_attempts: Option<Attempts>,
        certificate_content: Option<bool>,
        audit_log: Option<bool>,
        audit_log_addresses: Option<bool>,
    }
    ClientIdentity {
        certificate: Option<PathBuf>,
        #[schemars(with = "schema::Secret")]
        key: Option<Secret>,
    }
    Threshold {
        within: Option<Written<Lead>>,
        severity: Option<Written<Severity>>,
        repeat: Option<Written<Positive>>,
    }
    Expired {
        severity: Option<Written<Severity>>,
        repeat: Option<Written<Positive>>,
    }
    Rule {
        certificates: Option<Selection>,
        projects: Option<Selection>,
        organizations: Option<Selection>,
        thresholds: Option<Vec<Threshold>>,
        expired: Option<Expired>,
        ignore: Option<Ignore>,
    }
    Owner {
        team: Option<String>,
        to: Option<List<Mailbox>>,
        certificates: Option<Selection>,
        projects: Option<Selection>,
        uploaders: Option<Selection>,
        organizations: Option<Selection>,
    }
    Test {
        name: Option<Written<Name>>,
        organization: Option<Written<Name>>,
        certificate: Option<Written<Name>>,
        projects: Option<List<Name>>,
        uploader: Option<Written<Name>>,
        expires_in: Option<Written<Remaining>>,
        lifetime: Option<Written<Positive>>,
        has_successor: Option<bool>,
        severity: Option<Written<Expected>>,
        reaches: Option<List<Name>>,
        does_not_reach: Option<List<Name>>,
    }
    Ignore {
        reason: Option<String>,
        until: Option<Written<Until>>,
    }
    #[derive(Default)]
    #[serde(default)]
    Notifiers {
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        email: BTreeMap<String, Email>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        webhook: BTreeMap<String, Webhook>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        log: BTreeMap<String, LogNotifier>,
    }
    Email {
        to: Option<List<Recipient>>,
        cc: Option<List<Mailbox>>,
        fallback: Option<List<Mailbox>>,
        min_severity: Option<Written<Severity>>,
        organizations: Option<Selection>,
        projects: Option<Selection>,
        send_resolved: Option<bool>,
        events: Option<List<Extra>>,
        max_per_minute: Option<PerMinute>,
        smtp: Option<Smtp>,
    }
    Webhook {
        #[schemars(with = "schema::Secret")]
        url: Option<Secret>,
        format: Option<Written<FormatName>>,
        template: Option<PathBuf>,
        content_type: Option<Written<ContentType>>,
        #[schemars(with = "schema::Secret")]
        key: Option<Secret>,
        #[schemars(with = "schema::Secret")]
        secret: Option<Secret>,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        #[schemars(with = "schema::Headers")]
        headers: BTreeMap<String, Secret>,
        ca_file: Option<PathBuf>,
        concurrency: Option<Within<1, 64>>,
        max_per_minute: Option<PerMinute>,
        min_severity: Option<Written<Severity>>,
        organizations: Option<Selection>,
        projects: Option<Selection>,
        send_resolved: Option<bool>,
        events: Option<List<Extra>>,
    }
    #[derive(Default)]
    LogNotifier {
        min_severity: Option<Written<Severity>>,
        organizations: Option<Selection>,
        projects: Option<Selection>,
        send_resolved: Option<bool>,
        events: Option<List<Extra>>,
    }
    #[derive(Default)]
    Smtp {
        host: Option<Written<Host>>,
        port: Option<Within<1, 65_535>>,
        tls: Option<Written<Tls>>,
        allow_insecure: Option<bool>,
        username: Option<String>,
        #[schemars(with = "schema::Secret")]
        password: Option<Secret>,
        auth: Option<Written<Auth>>,
        from: Option<Written<Mailbox>>,
        ca_file: Option<PathBuf>,
        timeout: Option<Written<Positive>>,
        hello_name: Option<Written<HelloName>>,
    }
    Messages {
        runbook_url: Option<Written<Link>>,
        acknowledge_links: bool,
    }
    Delivery {
        give_up_after: Written<Positive>,
        retry_initial: Written<Positive>,
        retry_max: Written<Positive>,
    }
    Monitoring {
        blind_after: Option<Written<Positive>>,
        replaced_severity: Written<Severity>,
        admin_keys: Written<WatchedKeys>,
        #[schemars(with = "schema::Secret")]
        heartbeat_url: Option<Secret>,
        heartbeat_start_fail: bool,
    }
    State {
        #[schemars(with = "schema::Secret")]
        url: Option<Address>,
        #[schemars(with = "schema::Secret")]
        password: Option<Secret>,
        ca_file: Option<PathBuf>,
        max_connections: Within<LEAST_CONNECTIONS, MOST_CONNECTIONS>,
        connect_timeout: Written<Positive>,
        timeout: Written<Positive>,
        history: Written<Positive>,
    }
    Http {
        listen: Written<Listen>,
        #[schemars(with = "schema::Secret")]
        token: Option<Secret>,
        #[schemars(with = "schema::Secret")]
        read_token: Option<Secret>,
        public_url: Option<Written<Origin>>,
    }
    Log {
        format: Written<logging::Format>,
        level: Written<Level>,
    }
}

/// Concurrent requests to the Admin API.
type Concurrency = Within<1, 256>;
/// Requests per second; 0 for no limit.
type Rate = Within<0, 10_000>;
type Attempts = Within<1, 20>;
type PerMinute = Within<1, 6_000>;
