//! The configuration: layers, validation, and one typed section for each module.
//!
//! A configuration is accepted or rejected as a whole, with every problem and its key. Other
//! modules rely on an accepted configuration and do not check it again.

mod check;
mod expectations;
mod http;
mod jobs;
pub mod keys;
mod layers;
mod messages;
mod notifiers;
mod organizations;
mod outline;
mod owners;
pub mod place;
mod policy;
pub mod problem;
pub mod raw;
mod routing;
pub mod schema;
mod state;
mod value;
mod variables;
mod webhook;

use chrono_tz::Tz;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::{
    domain::{expectation::Expectation, retry::RetryPolicy},
    files, heartbeat, logging,
    message::style::Style,
    net::fits_url,
    redact::quoted,
    schedule,
    secret::{Credential, Secret},
    store, usecase,
};
use check::Checker;
use layers::{Layers, Source};
use problem::{Fault, KeyPath, Origin, Refused};

pub use layers::DEFAULTS;
pub use notifiers::{NotifierSettings, Notifiers};
pub use organizations::Organization;
pub use policy::Policies;

/// The largest accepted configuration file, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub timezone: Tz,
    pub schedule: schedule::Settings,
    pub policy: Policies,
    pub organizations: Vec<Organization>,
    pub notifiers: Notifiers,
    /// The entries of `[[tests]]`.
    pub expectations: Vec<Expectation>,
    /// `None` if drills are off.
    pub drill: Option<usecase::drill::Settings>,
    /// `None` if summaries are off.
    pub summary: Option<usecase::summary::Settings>,
    pub delivery: RetryPolicy,
    pub state: store::Settings,
    pub http: crate::http::Settings,
    /// Requested after complete scans of all organizations.
    pub heartbeat: Option<heartbeat::Settings>,
    pub log: logging::Settings,
    /// Whether messages have links that acknowledge their alerts.
    pub acknowledge_links: bool,
    /// The keys that affect alerts, with their values.
    pub outline: BTreeMap<String, String>,
    /// Whether there is a configuration file.
    pub has_file: bool,
}

impl Config {
    /// The APIs that receive the admin keys: scheme, host and port.
    pub fn api_origins(&self) -> String {
        let apis = self.organizations.iter().map(|one| one.api.base_url.origin());
        let origins: BTreeSet<String> = apis.map(|origin| origin.ascii_serialization()).collect();
        origins.into_iter().collect::<Vec<_>>().join(", ")
    }
}

/// The secrets that a command needs; others are not read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Needs {
    pub organizations: bool,
    pub notifiers: bool,
    /// The tokens of the HTTP server.
    pub http: bool,
}

impl Needs {
    pub const ALL: Needs = Needs { organizations: true, notifiers: true, http: true };

    /// Only commands that scan and send alerts send heartbeats.
    fn heartbeats(self) -> bool {
        self.organizations && self.notifiers
    }
}

/// A configuration with its warnings.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    /// Its file; `None` for built-in defaults and environment.
    pub file: Option<PathBuf>,
    pub warnings: Vec<String>,
    /// The effective configuration, with the sources of secrets instead of their values.
    pub effective: raw::Raw,
}

/// Finds, reads, merges and validates the configuration.
///
/// # Errors
/// Every problem, without values of secrets.
pub fn load(file: Option<&Path>, needs: Needs) -> Result<Loaded, Refused> {
    let found = place::find(file)?;
    let source = found.path.map(read_source).transpose()?;
    let mut loaded = from_layers(source, environment(), needs)?;
    loaded.warnings.splice(0..0, found.warnings);
    let names = environment().map(|(name, _)| name);
    loaded.warnings.extend(variables::misspelled(names, &loaded.effective));
    Ok(loaded)
}

/// The listener of a service with this configuration. Other keys may be invalid: a running service
/// then keeps its previous configuration.
///
/// # Errors
/// If the file cannot be read, or this key is invalid.
pub fn listens(file: Option<&Path>) -> Result<Option<SocketAddr>, Refused> {
    let source = place::find(file)?.path.map(read_source).transpose()?;
    let Layers { raw, faults, .. } = layers::merge(source, environment());
    let path = KeyPath::of("http.listen");
    let concerns = |of: &KeyPath| !of.segments().is_empty() && of.touches(&path);
    match raw {
        Some(raw) if !faults.iter().any(|(of, _)| concerns(of)) => Ok(raw.http.listen.0),
        _ => Err(refused(faults)),
    }
}

fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    })
}

/// Validates a text as a configuration; relative files are resolved against the folder of `path`.
///
/// # Errors
/// As [`load`].
pub fn from_text(path: &Path, text: &str, needs: Needs) -> Result<Loaded, Refused> {
    let source = Source { path: path.to_owned(), text: text.to_owned() };
    from_layers(Some(source), [], needs)
}

fn read_source(path: PathBuf) -> Result<Source, Refused> {
    let unreadable = |why: String| {
        Refused(vec![Fault {
            path: String::new(),
            origin: Origin::File(path.clone(), None),
            problem: format!("cannot read the configuration file: {why}"),
        }])
    };
    let file = std::fs::File::open(&path);
    let text = file.and_then(|file| files::read_text_up_to(file, MAX_FILE));
    let text = text.map_err(|error| unreadable(error.to_string()))?;
    Ok(Source { path, text })
}

fn from_layers(
    source: Option<Source>,
    environment: impl IntoIterator<Item = (String, String)>,
    needs: Needs,
) -> Result<Loaded, Refused> {
    let file = source.as_ref().map(|source| source.path.clone());
    let base = match &file {
        Some(file) => file.parent().unwrap_or(Path::new("")).to_owned(),
        None => PathBuf::new(),
    };
    let Layers { raw, origins, faults } = layers::merge(source, environment);
    let Some(mut raw) = raw else {
        return Err(refused(faults));
    };
    if raw.organizations.is_empty() {
        raw.organizations.insert("default".to_owned(), raw::Organization::default());
    }
    if let Some(organization) = raw.organizations.get_mut("default") {
        organization.admin_key.get_or_insert_with(|| default_key(&base));
    }
    let notifiers = &mut raw.notifiers;
    if notifiers.email.is_empty() && notifiers.webhook.is_empty() && notifiers.log.is_empty() {
        notifiers.log.insert("log".to_owned(), raw::LogNotifier::default());
    }
    let mut checker = Checker {
        origins: &origins,
        base: &base,
        rejected: faults.iter().map(|(path, _)| path.clone()).collect(),
        needs,
        faults,
        warnings: Vec::new(),
    };
    let config = sections(&mut checker, &raw);
    match (config, checker.faults) {
        (Some(config), faults) if faults.is_empty() => {
            let config = Config { has_file: file.is_some(), ..config };
            Ok(Loaded { config, file, warnings: checker.warnings, effective: raw })
        }
        (_, faults) => Err(refused(faults)),
    }
}

fn refused(faults: Vec<(KeyPath, Fault)>) -> Refused {
    let mut faults: Vec<Fault> = faults.into_iter().map(|(_, fault)| fault).collect();
    faults.sort_by(|a, b| a.origin.cmp(&b.origin).then_with(|| a.path.cmp(&b.path)));
    Refused(faults)
}

/// The default admin key of the organization `default`.
fn default_key(base: &Path) -> Secret {
    let variable = Secret::Env("OPENAI_ADMIN_KEY".to_owned());
    let credential = Secret::Credential(Credential::named("openai_admin_key"));
    // If both are missing, report the variable.
    let is_there = |secret: &Secret| secret.clone().relative_to(base).read().is_ok();
    if !is_there(&variable) && is_there(&credential) { credential } else { variable }
}

fn sections(checker: &mut Checker<'_>, raw: &raw::Raw) -> Option<Config> {
    let timezone = *raw.timezone;
    let organizations = organizations::check(checker, raw);
    let style = Style { timezone, links: messages::check(checker, raw) };
    let owners = owners::check(checker, raw.owners.as_ref(), &organizations);
    let notifiers = notifiers::check(checker, &raw.notifiers, &raw.smtp, &style, &owners);
    owners::check_use(checker, &owners, &notifiers);
    let schedule = schedule::Settings {
        cron: raw.schedule.cron.in_timezone(timezone),
        run_on_start: raw.schedule.run_on_start,
        jitter: *raw.schedule.jitter,
        scan_timeout: raw.schedule.scan_timeout.duration(),
    };
    let policy = policy::check(checker, raw, timezone, &organizations, &schedule);
    let policy = policy.map(|policy| policy.with_owners(owners.entries));
    routing::check(checker, &organizations, &notifiers);
    let expectations = expectations::check(checker, raw.tests.as_ref());
    let delivery = delivery(checker, &raw.delivery);
    let drill = jobs::drill(checker, raw, &notifiers);
    let summary = jobs::summary(checker, raw, &notifiers);
    let state = state::check(checker, &raw.state);
    let http = http::check(checker, &raw.http);
    let url = raw.monitoring.heartbeat_url.as_ref();
    let path = KeyPath::of("monitoring.heartbeat_url");
    let heartbeat = checker.place(&path, url, checker.needs.heartbeats(), fits_url);
    checker.warn_about_plain_http(&path, heartbeat.as_ref());
    let start_fail = raw.monitoring.heartbeat_start_fail;
    Some(Config {
        timezone,
        schedule,
        policy: policy?,
        organizations,
        notifiers,
        expectations,
        drill,
        summary,
        delivery,
        state: state?,
        http,
        heartbeat: heartbeat.map(|url| heartbeat::Settings { url, start_fail }),
        log: logging::Settings { format: *raw.log.format, level: raw.log.level.0.clone() },
        acknowledge_links: raw.messages.acknowledge_links,
        outline: outline::of(raw),
        has_file: false,
    })
}

fn delivery(checker: &mut Checker<'_>, raw: &raw::Delivery) -> RetryPolicy {
    let policy = RetryPolicy {
        give_up_after: raw.give_up_after.delta(),
        initial: raw.retry_initial.delta(),
        max: raw.retry_max.delta(),
    };
    let path = KeyPath::of("delivery.retry_max");
    if policy.initial > policy.max && !checker.is_rejected(&KeyPath::of("delivery.retry_initial")) {
        checker.fault(&path, quoted(&raw.retry_max.text), "at least delivery.retry_initial");
    }
    policy
}
