//! The configuration: layers, validation, and one typed section for each owner.
//!
//! A configuration is accepted or refused as a whole, with every problem and its key. An accepted
//! one is valid: nothing checks it again.

mod check;
pub mod fault;
mod http;
pub mod keys;
mod layers;
mod messages;
mod notifiers;
mod organizations;
mod outline;
pub mod place;
mod policy;
pub mod raw;
mod routing;
pub mod schema;
mod state;
mod variables;
mod webhook;

use chrono_tz::Tz;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::{
    domain::retry::RetryPolicy,
    files, heartbeat, logging,
    net::fits_url,
    notify::style::Style,
    redact::quoted,
    schedule,
    secret::{Credential, Secret},
    store,
};
use check::Checker;
use fault::{Fault, KeyPath, Origin, Refused};
use layers::{Layers, Source};

pub use layers::DEFAULTS;
pub use notifiers::{NotifierSettings, Notifiers};
pub use organizations::Organization;
pub use policy::Policies;

/// The largest accepted configuration file, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// A configuration that was accepted.
#[derive(Clone, Debug)]
pub struct Config {
    pub timezone: Tz,
    pub schedule: schedule::Settings,
    pub policy: Policies,
    pub organizations: Vec<Organization>,
    pub notifiers: Notifiers,
    pub delivery: RetryPolicy,
    pub state: store::Settings,
    pub http: crate::http::Settings,
    /// Sent after complete scans of all organizations.
    pub heartbeat: Option<heartbeat::Settings>,
    pub log: logging::Settings,
    /// The keys that decide the alerts, with their values.
    pub outline: BTreeMap<String, String>,
    /// Whether it comes from a file.
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
    /// Those of the HTTP server.
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
    /// The effective configuration, with the places of secrets.
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

/// The listener of a service with this configuration. Other keys may be invalid, as while a service
/// keeps its previous configuration.
///
/// # Errors
/// If the file cannot be read, or this key is invalid.
pub fn listens(file: Option<&Path>) -> Result<Option<SocketAddr>, Refused> {
    let source = place::find(file)?.path.map(read_source).transpose()?;
    let Layers { raw, origins, .. } = layers::merge(source, environment());
    let path = KeyPath::of("http.listen");
    http::listens(raw.http.listen.as_deref().unwrap_or_default()).map_err(|expected| {
        let problem = fault::mismatch("an invalid address", expected);
        Refused(vec![Fault { path: path.to_string(), origin: origins.of(&path), problem }])
    })
}

fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    })
}

/// The same from a text; relative files are resolved against the folder of `path`.
///
/// # Errors
/// As [`load`].
pub fn from_text(path: &Path, text: &str, needs: Needs) -> Result<Loaded, Refused> {
    let source = Source { path: path.to_owned(), text: text.to_owned() };
    from_layers(Some(source), [], needs)
}

fn read_source(path: PathBuf) -> Result<Source, Refused> {
    let refused = |why: String| {
        Refused(vec![Fault {
            path: String::new(),
            origin: Origin::File(path.clone(), None),
            problem: format!("cannot read the configuration file: {why}"),
        }])
    };
    let file = std::fs::File::open(&path);
    let text = file.and_then(|file| files::read_text_up_to(file, MAX_FILE));
    let text = text.map_err(|error| refused(error.to_string()))?;
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
    let Layers { mut raw, origins, faults } = layers::merge(source, environment);
    if raw.organizations.is_empty() {
        raw.organizations.insert("default".to_owned(), raw::Organization::default());
    }
    if let Some(organization) = raw.organizations.get_mut("default") {
        organization.admin_key.get_or_insert_with(|| default_key(&base));
    }
    let told = &mut raw.notifiers;
    if told.email.is_empty() && told.webhook.is_empty() && told.log.is_empty() {
        told.log.insert("log".to_owned(), raw::LogNotifier::default());
    }
    let mut checker = Checker {
        origins: &origins,
        base: &base,
        taken_out: faults.iter().map(|(path, _)| path.clone()).collect(),
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
        (_, faults) => {
            let mut faults: Vec<Fault> = faults.into_iter().map(|(_, fault)| fault).collect();
            faults.sort_by(|a, b| a.origin.cmp(&b.origin).then_with(|| a.path.cmp(&b.path)));
            Err(Refused(faults))
        }
    }
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
    let timezone: Option<Tz> = raw.timezone.as_ref().and_then(|text| {
        let expected = "an IANA time zone such as \"Europe/Berlin\"";
        checker.parsed(&KeyPath::of("timezone"), text, expected)
    });
    let tz = timezone.unwrap_or(Tz::UTC);
    let organizations = organizations::check(checker, raw);
    let links = messages::check(checker, raw);
    let style = Style { timezone: tz, links };
    let notifiers = notifiers::check(checker, &raw.notifiers, &raw.smtp, &style);
    let schedule = schedule(checker, &raw.schedule, tz);
    let policy = policy::check(checker, raw, tz, &organizations, schedule.as_ref());
    routing::check(checker, &organizations, &notifiers);
    let delivery = delivery(checker, &raw.delivery);
    let state = state::check(checker, &raw.state);
    let http = http::check(checker, &raw.http);
    let log = log(checker, &raw.log);
    let url = raw.monitoring.heartbeat_url.as_ref();
    let path = KeyPath::of("monitoring.heartbeat_url");
    let heartbeat = checker.place(&path, url, checker.needs.heartbeats(), fits_url);
    checker.in_the_open(&path, heartbeat.as_ref());
    let start_fail = raw.monitoring.heartbeat_start_fail.unwrap_or(false);
    Some(Config {
        timezone: timezone?,
        schedule: schedule?,
        policy: policy?,
        organizations,
        notifiers,
        delivery: delivery?,
        state: state?,
        http: http?,
        heartbeat: heartbeat.map(|url| heartbeat::Settings { url, start_fail }),
        log: log?,
        outline: outline::of(raw),
        has_file: false,
    })
}

fn schedule(
    checker: &mut Checker<'_>,
    raw: &raw::Schedule,
    timezone: Tz,
) -> Option<schedule::Settings> {
    let path = KeyPath::of("schedule");
    let cron = raw.cron.as_ref().and_then(|text| match schedule::Cron::parse(text, timezone) {
        Ok(cron) => Some(cron),
        Err(why) => {
            let expected = "a cron expression of 5 fields, or 6 with seconds first";
            checker.fault(&path.key("cron"), format!("{} ({why})", quoted(text)), expected);
            None
        }
    });
    let jitter = checker.duration(&path.key("jitter"), raw.jitter.as_ref());
    let scan_timeout = checker.positive(&path.key("scan_timeout"), raw.scan_timeout.as_ref());
    Some(schedule::Settings {
        cron: cron?,
        run_on_start: raw.run_on_start?,
        jitter: jitter?,
        scan_timeout: scan_timeout?,
    })
}

fn delivery(checker: &mut Checker<'_>, raw: &raw::Delivery) -> Option<RetryPolicy> {
    let path = KeyPath::of("delivery");
    let give_up_after =
        checker.positive_delta(&path.key("give_up_after"), raw.give_up_after.as_ref());
    let initial = checker.positive_delta(&path.key("retry_initial"), raw.retry_initial.as_ref());
    let max = checker.positive_delta(&path.key("retry_max"), raw.retry_max.as_ref());
    let policy = RetryPolicy { give_up_after: give_up_after?, initial: initial?, max: max? };
    if policy.initial > policy.max {
        let found = quoted(raw.retry_max.as_deref().unwrap_or_default());
        checker.fault(&path.key("retry_max"), found, "at least delivery.retry_initial");
        return None;
    }
    Some(policy)
}

fn log(checker: &mut Checker<'_>, raw: &raw::Log) -> Option<logging::Settings> {
    let path = KeyPath::of("log");
    let format = match raw.format.as_deref()? {
        "text" => Some(logging::Format::Text),
        "json" => Some(logging::Format::Json),
        other => {
            checker.fault(&path.key("format"), quoted(other), "\"text\" or \"json\"");
            None
        }
    };
    let level = raw.level.clone()?;
    if let Err(why) = logging::check_level(&level) {
        let expected = "error, warn, info, debug, trace, or a list of target=level";
        checker.fault(&path.key("level"), format!("{} ({why})", quoted(&level)), expected);
    }
    Some(logging::Settings { format: format?, level })
}
