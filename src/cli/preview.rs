//! `certvigil notify preview`: the message about open alerts, or a sample. It sends nothing and
//! reads no secret.

use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use lettre::message::Mailbox;
use serde_json::{Value, json};
use std::{os::unix::process::CommandExt, path::Path, process::Stdio};
use url::Url;

use super::{Failure, notify::unknown, state};
use crate::{
    clock::Clock,
    config::{Config, Needs, NotifierSettings},
    domain::{
        alert::{Decision, Transition, all_open},
        evaluate::evaluate,
        notifier::{Grouping, NotifierState},
        text::one_line,
    },
    message::{Event, Notification, ScanView, compose::MessageContext, sample},
    notify::{
        email, log,
        webhook::{self, format::Request},
    },
    service,
    store::{Store, StoreError, id_at},
    usecase::organization::OrganizationState,
};

/// Replaces the configured URL, which may be secret.
const NOWHERE: &str = "https://configured.invalid/";

#[derive(Args)]
pub struct Arguments {
    /// The notifier's name
    name: String,
    /// The output format; html only for mails
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Use a sample of one event, or of several events, instead of open alerts
    #[arg(long, value_name = "EVENT", num_args = 0..=1, default_missing_value = DIGEST)]
    sample: Option<String>,
    /// Preview only the messages about this organization
    #[arg(long, value_name = "NAME", conflicts_with = "sample")]
    organization: Option<String>,
    /// Write a mail's HTML to a file, and open it in the browser
    #[arg(long, conflicts_with = "format")]
    open: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Html,
    Text,
    Json,
}

/// The word for a sample of several events.
const DIGEST: &str = "digest";

pub async fn show(file: Option<&Path>, arguments: &Arguments) -> Result<(), Failure> {
    let config = super::start(file, Needs::default())?.config;
    let Some(notifier) = config.notifiers.find(&arguments.name) else {
        return Err(unknown(&arguments.name, &config.notifiers.names()));
    };
    let now = Clock::System.now();
    let sampled = match &arguments.sample {
        Some(word) => {
            Some(samples(word, &arguments.name, config.notifiers.grouping(&arguments.name), now)?)
        }
        None => None,
    };
    let (from, messages) = match sampled {
        Some(samples) => ("sample", samples),
        None => match open_now(&config, arguments, now).await? {
            Ok(messages) => ("state", messages),
            Err(why) => {
                eprintln!("{why}: showing a sample");
                let grouping = config.notifiers.grouping(&arguments.name);
                ("sample", samples(DIGEST, &arguments.name, grouping, now)?)
            }
        },
    };
    let previews: Vec<Preview> = messages
        .iter()
        .map(|message| Preview::of(&notifier, message, now))
        .collect::<anyhow::Result<_>>()?;
    if arguments.open || arguments.format == Format::Html {
        return html(previews, arguments.open);
    }
    super::print(&match arguments.format {
        Format::Html | Format::Text => {
            previews.into_iter().map(|preview| preview.text).collect::<Vec<_>>().join("\n")
        }
        Format::Json => {
            let document = json!({
                "schema": "certvigil.preview/1",
                "notifier": arguments.name,
                "from": from,
                "messages": previews.into_iter().map(|preview| preview.json).collect::<Vec<_>>(),
            });
            format!("{document:#}\n")
        }
    })
}

/// Prints or opens the HTML of the first message.
fn html(previews: Vec<Preview>, open: bool) -> Result<(), Failure> {
    let count = previews.len();
    let Some(page) = previews.into_iter().next().and_then(|preview| preview.html) else {
        let error = "only email notifiers have HTML; use --format text or --format json";
        return Err(Failure::Usage(error.to_owned()));
    };
    if count > 1 {
        eprintln!(
            "showing the first of {count} messages (one for each organization, and for each owner, \
             if the notifier has owners); choose another organization with --organization"
        );
    }
    if !open {
        return super::print(&page);
    }
    let file = tempfile::Builder::new().prefix("certvigil-preview-").suffix(".html").tempfile()?;
    std::fs::write(file.path(), page)?;
    let (_, path) = file.keep()?;
    super::print(&format!("{}\n", path.display()))?;
    if let Err(error) = browse(&path) {
        eprintln!("cannot open the file ({error}): open it by hand");
    }
    Ok(())
}

/// The environment variables that a browser gets. Others may contain the admin key.
const OF_A_BROWSER: [&str; 9] = [
    "PATH",
    "HOME",
    "LANG",
    "BROWSER",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
];

/// Opens a file in the browser, which may outlive this command.
fn browse(file: &Path) -> std::io::Result<()> {
    let mut last = std::io::Error::other("no program to open files");
    for mut command in open::commands(file) {
        let kept = OF_A_BROWSER.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        command.env_clear().envs(kept.collect::<Vec<_>>());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match command.process_group(0).spawn() {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn samples(
    word: &str,
    notifier: &str,
    grouping: Grouping,
    now: DateTime<Utc>,
) -> Result<Vec<Notification>, Failure> {
    if word == DIGEST {
        let each =
            || sample::DIGEST.iter().map(|event| sample::of(*event, notifier, now)).collect();
        return Ok(match grouping {
            Grouping::Digest => vec![sample::digest(notifier, now)],
            Grouping::EachAlert | Grouping::EachAlertRefreshed => each(),
        });
    }
    let Some(event) = Event::parse(word) else {
        let words: Vec<&str> = Event::ALL.iter().map(|event| event.as_str()).collect();
        let found = one_line(word, 60);
        let expected = words.join(", ");
        let error = format!("--sample: found “{found}”, expected {DIGEST}, {expected}");
        return Err(Failure::Usage(error));
    };
    Ok(vec![sample::of(event, notifier, now)])
}

/// The messages about open alerts that a new notifier would get, or the reason for none.
async fn open_now(
    config: &Config,
    arguments: &Arguments,
    now: DateTime<Utc>,
) -> Result<Result<Vec<Notification>, String>, Failure> {
    let asked = arguments.organization.as_deref();
    if let Some(name) = asked
        && config.organizations.iter().all(|one| one.api.organization.as_str() != name)
    {
        let name = one_line(name, 64);
        return Err(Failure::Usage(format!(
            "--organization: no organization “{name}” is configured"
        )));
    }
    let store = match state::open(config).await {
        Err(StoreError::Missing(state)) => return Ok(Err(format!("no database at {state} yet"))),
        opened => opened?,
    };
    let known = state::known(config, &store, now).await?;
    let mut messages = Vec::new();
    for one in known.iter().filter(|one| asked.is_none_or(|name| one.organization.as_str() == name))
    {
        for state in one.notifiers.iter().filter(|state| state.name == arguments.name) {
            messages.extend(open_of(config, &store, one, state, now).await?);
        }
    }
    if messages.is_empty() {
        return Ok(Err(format!("no open alerts for the notifier “{}”", arguments.name)));
    }
    // The most severe organization first, its messages in order.
    messages.sort_by_key(|message| std::cmp::Reverse(message.severity));
    Ok(Ok(messages))
}

async fn open_of(
    config: &Config,
    store: &Store,
    known: &OrganizationState,
    state: &NotifierState,
    now: DateTime<Utc>,
) -> anyhow::Result<Vec<Notification>> {
    let OrganizationState { organization, before, inventory, policy, acknowledgements, .. } = known;
    let evaluation = evaluate(organization, inventory, policy, acknowledgements, now);
    let scan = store.latest_scan(organization).await?;
    let scan = scan.map(|scan| ScanView::of(&scan, inventory.oldest_reading()));
    let when = service::when(&config.schedule, now, config.schedule.cron.latest(now));
    let context = MessageContext {
        scan,
        stale_at: Some(when.stale_at),
        ..MessageContext::without_scan(&evaluation)
    };
    let transition = Transition::watched(before, &evaluation);
    let open = all_open(&transition, &state.routing, when.moment());
    let open: Vec<&Decision> = open.iter().collect();
    let composed = context.compose(|| id_at(now), &state.with_empty_ledger(), &open);
    Ok(composed.into_iter().map(|composed| composed.notification).collect())
}

/// One message as a notifier would send it.
struct Preview {
    text: String,
    html: Option<String>,
    json: Value,
}

impl Preview {
    fn of(
        notifier: &NotifierSettings<'_>,
        message: &Notification,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Preview> {
        match notifier {
            NotifierSettings::Email(settings) => {
                let recipients = settings.route(&message.audience).or(settings.routes.first());
                let mail = email::Renderer::new()?.render(settings, recipients, message, now)?;
                let shown = |list: fn(&email::Recipients) -> &Vec<Mailbox>| -> Vec<String> {
                    recipients.into_iter().flat_map(list).map(ToString::to_string).collect()
                };
                let (to, cc) = (shown(|one| &one.to), shown(|one| &one.cc));
                let from = settings.smtp.from.to_string();
                let text = format!(
                    "From: {from}\nTo: {}\nSubject: {}\n\n{}\n",
                    to.join(", "),
                    mail.subject,
                    mail.text
                );
                let json = json!({
                    "from": from, "to": to, "cc": cc, "subject": mail.subject,
                    "text": mail.text, "html": mail.html,
                });
                Ok(Preview { text, html: Some(mail.html), json })
            }
            NotifierSettings::Webhook(settings) => {
                // Any other URL may be secret and is not read.
                let own = settings.format.profile().default_url.filter(|_| settings.url_by_default);
                let url = Url::parse(own.unwrap_or(NOWHERE))?;
                let calls = webhook::preview(settings, &url, message, now);
                let calls = calls.map_err(|why| anyhow::anyhow!(why))?;
                let shown: Vec<(String, Value)> =
                    calls.iter().map(|call| request(call, own.is_some())).collect();
                let (text, mut json): (Vec<String>, Vec<Value>) = shown.into_iter().unzip();
                let json = if json.len() == 1 { json.remove(0) } else { json.into() };
                Ok(Preview { text: text.join("\n"), html: None, json })
            }
            NotifierSettings::Log(_) => {
                let lines = log::lines(message, now);
                let text = format!("{}\n", lines.join("\n"));
                Ok(Preview { text, html: None, json: json!({ "lines": lines }) })
            }
        }
    }
}

/// A request, as text and as JSON.
fn request(call: &Request, own_url: bool) -> (String, Value) {
    let body: Option<Value> = serde_json::from_str(&call.body).ok();
    let shown = match &body {
        Some(body) => format!("{body:#}"),
        None => call.body.clone(),
    };
    let address = if own_url { call.url.as_str() } else { "(the configured address)" };
    let text = format!("POST {address}\nContent-Type: {}\n\n{shown}\n", call.content_type);
    let json = json!({
        "url": own_url.then_some(call.url.as_str()),
        "content_type": call.content_type,
        "body": body.unwrap_or_else(|| call.body.clone().into()),
    });
    (text, json)
}
