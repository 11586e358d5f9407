//! `[notifiers.KIND.NAME]` and `[smtp]`.

use lettre::{Address, message::Mailbox};
use std::collections::BTreeMap;

use super::{check::Checker, fault::KeyPath, raw};
use crate::{
    domain::{
        listener::{Grain, Listener},
        routing::Routing,
    },
    notify::{
        email::{self, Auth, Tls},
        log,
        style::Style,
        webhook,
    },
    redact::quoted,
};

/// The configured notifiers.
#[derive(Clone, Debug, Default)]
pub struct Notifiers {
    pub email: Vec<email::Settings>,
    pub webhook: Vec<webhook::Settings>,
    pub log: Vec<log::Settings>,
}

impl Notifiers {
    /// The name, routing and grouping of each notifier.
    pub fn listening(&self) -> Vec<(&str, &Routing, Grain)> {
        let email = self.email.iter().map(|one| (one.name.as_str(), &one.routing, Grain::Digest));
        let webhook =
            self.webhook.iter().map(|one| (one.name.as_str(), &one.routing, one.format.grain()));
        let log = self.log.iter().map(|one| (one.name.as_str(), &one.routing, Grain::Digest));
        email.chain(webhook).chain(log).collect()
    }

    /// The same with empty ledgers.
    pub fn listeners(&self) -> Vec<Listener> {
        let all = self.listening().into_iter();
        all.map(|(name, routing, grain)| Listener::new(name, routing, grain)).collect()
    }

    /// The grouping of the notifier with this name.
    pub fn grain(&self, name: &str) -> Grain {
        let all = self.listening();
        all.iter().find(|(known, ..)| *known == name).map_or(Grain::Digest, |(.., grain)| *grain)
    }

    /// The notifier with this name.
    pub fn find(&self, name: &str) -> Option<NotifierSettings<'_>> {
        let mut email =
            self.email.iter().filter(|one| one.name == name).map(NotifierSettings::Email);
        let mut webhook =
            self.webhook.iter().filter(|one| one.name == name).map(NotifierSettings::Webhook);
        let mut log = self.log.iter().filter(|one| one.name == name).map(NotifierSettings::Log);
        email.next().or_else(|| webhook.next()).or_else(|| log.next())
    }
}

/// A configured notifier.
pub enum NotifierSettings<'a> {
    Email(&'a email::Settings),
    Webhook(&'a webhook::Settings),
    Log(&'a log::Settings),
}

/// The keys that every kind of notifier has.
macro_rules! routing {
    ($checker:expr, $path:expr, $raw:expr) => {
        super::routing::Filters {
            min_severity: &$raw.min_severity,
            organizations: &$raw.organizations,
            projects: &$raw.projects,
            send_resolved: $raw.send_resolved,
        }
        .routing($checker, $path)
    };
}
pub(super) use routing;

pub fn check(
    checker: &mut Checker<'_>,
    raw: &raw::Notifiers,
    shared: &raw::Smtp,
    style: &Style,
) -> Notifiers {
    let parent = KeyPath::of("notifiers");
    let mut kind_of: BTreeMap<&str, &str> = BTreeMap::new();
    let names = [
        ("email", raw.email.keys().collect::<Vec<_>>()),
        ("webhook", raw.webhook.keys().collect()),
        ("log", raw.log.keys().collect()),
    ];
    for (kind, names) in names {
        for name in names {
            let path = parent.key(kind).key(name);
            checker.name(&path, name);
            if let Some(other) = kind_of.insert(name, kind) {
                let found = format!("the name of notifiers.{other}.{name}");
                checker.fault(&path, found, "a unique name");
            }
        }
    }
    let email = raw.email.iter().filter_map(|(name, raw)| {
        let path = parent.key("email").key(name);
        email_notifier(checker, &path, name, raw, shared, style)
    });
    let email = email.collect();
    let webhook = raw.webhook.iter().filter_map(|(name, raw)| {
        super::webhook::check(checker, &parent.key("webhook").key(name), name, raw, style)
    });
    let webhook = webhook.collect();
    let log = raw.log.iter().map(|(name, raw)| {
        let path = parent.key("log").key(name);
        log::Settings { name: name.clone(), routing: routing!(checker, &path, raw) }
    });
    Notifiers { email, webhook, log: log.collect() }
}

fn email_notifier(
    checker: &mut Checker<'_>,
    path: &KeyPath,
    name: &str,
    raw: &raw::Email,
    shared: &raw::Smtp,
    style: &Style,
) -> Option<email::Settings> {
    let to = mailboxes(checker, &path.key("to"), raw.to.as_ref());
    let cc = mailboxes(checker, &path.key("cc"), raw.cc.as_ref());
    if raw.to.as_ref().is_none_or(|to| to.0.is_empty()) {
        let found = if raw.to.is_none() { "nothing" } else { "an empty list" };
        checker.fault(&path.key("to"), found, "at least one address");
    }
    let routing = routing!(checker, path, raw);
    let most = raw.max_per_minute.or(Some(email::MAX_PER_MINUTE));
    let max_per_minute = checker.within(&path.key("max_per_minute"), most, 1, 6_000);
    let smtp = smtp(checker, &path.key("smtp"), raw.smtp.as_ref(), shared)?;
    let (name, max_per_minute) = (name.to_owned(), max_per_minute?);
    Some(email::Settings { name, to, cc, routing, max_per_minute, smtp, style: style.clone() })
}

fn mailboxes(
    checker: &mut Checker<'_>,
    path: &KeyPath,
    list: Option<&raw::Strings>,
) -> Vec<Mailbox> {
    let list = list.map(|list| list.0.as_slice()).unwrap_or_default();
    list.iter()
        .enumerate()
        .filter_map(|(index, text)| mailbox(checker, &path.index(index), text))
        .collect()
}

/// An address with or without a display name; the domain in its ASCII form (RFC 5891), so that no
/// server needs SMTPUTF8.
fn mailbox(checker: &mut Checker<'_>, path: &KeyPath, text: &str) -> Option<Mailbox> {
    let expected = "an address such as \"ops@acme.example\" or \"Ops <ops@acme.example>\"";
    let clean = crate::domain::text::one_line(text, 500);
    let parsed: Option<Mailbox> = checker.parsed(path, &clean, expected);
    let mailbox = parsed?;
    let ascii = url::Host::parse(mailbox.email.domain()).ok();
    let address = ascii
        .and_then(|domain| Address::new(mailbox.email.user(), domain.to_string()).ok())
        .filter(|address| address.user().is_ascii());
    if address.is_none() {
        checker.fault(path, quoted(&clean), expected);
    }
    Some(Mailbox::new(mailbox.name, address?))
}

fn smtp(
    checker: &mut Checker<'_>,
    own_path: &KeyPath,
    own: Option<&raw::Smtp>,
    shared: &raw::Smtp,
) -> Option<email::Smtp> {
    let shared_path = KeyPath::of("smtp");
    let empty = raw::Smtp::default();
    let own = own.unwrap_or(&empty);
    // Each key with its path: in the notifier, or in `[smtp]`.
    macro_rules! pick {
        ($key:ident) => {
            match &own.$key {
                Some(value) => (own_path.key(stringify!($key)), Some(value)),
                None => (shared_path.key(stringify!($key)), shared.$key.as_ref()),
            }
        };
    }
    let (path, host) = pick!(host);
    let host = match host {
        Some(text) => {
            // IPv6 addresses have brackets only in URLs.
            let address: Option<std::net::IpAddr> = text.trim_matches(['[', ']']).parse().ok();
            let host = match address {
                Some(address) => Some(address.to_string()),
                None => url::Host::parse(text).ok().map(|host| host.to_string()),
            };
            if host.is_none() {
                checker.fault(
                    &path,
                    "an invalid host name",
                    "the name or address of a mail server",
                );
            }
            host
        }
        None => {
            checker.missing(&path, "the name or address of a mail server");
            None
        }
    };
    let (path, from) = pick!(from);
    let from = match from {
        Some(text) => mailbox(checker, &path, text),
        None => {
            checker.missing(&path, "the sender's address");
            None
        }
    };
    let (path, tls) = pick!(tls);
    let tls = match tls.map(String::as_str) {
        Some("starttls") => Some(Tls::StartTls),
        Some("implicit") => Some(Tls::Implicit),
        Some("none") => Some(Tls::None),
        other => {
            let found = quoted(other.unwrap_or_default());
            checker.fault(&path, found, "\"starttls\", \"implicit\" or \"none\"");
            None
        }
    };
    let insecure = pick!(allow_insecure).1.copied().unwrap_or(false);
    let on_loopback = host.as_deref().is_some_and(|host| {
        host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    });
    if tls == Some(Tls::None) && host.is_some() && !on_loopback && !insecure {
        let expected = "\"starttls\" or \"implicit\" for a server that is not on loopback, \
                        or allow_insecure = true";
        checker.fault(&path, "“none”", expected);
    } else if tls == Some(Tls::None) && host.is_some() && !on_loopback {
        checker.warnings.push(format!(
            "{path}: without TLS, anyone on the network path can read and change the mails and the password"
        ));
    }
    let (username_path, username) = pick!(username);
    let (password_path, password) = pick!(password);
    let needed = checker.needs.notifiers;
    let password = checker.secret(&password_path, password, needed, |_| Ok(()));
    let login = match (username, password) {
        (Some(username), Some(password)) => Some((username.clone(), password)),
        (None, None) => None,
        (Some(_), None) => {
            checker.missing(&password_path, "a password for the username");
            None
        }
        (None, Some(_)) => {
            checker.missing(&username_path, "a username for the password");
            None
        }
    };
    let (path, auth) = pick!(auth);
    let auth = match auth.map(String::as_str) {
        Some("auto") => Some(Auth::Auto),
        Some("plain") => Some(Auth::Plain),
        Some("login") => Some(Auth::Login),
        other => {
            let found = quoted(other.unwrap_or_default());
            checker.fault(&path, found, "\"auto\", \"plain\" or \"login\"");
            None
        }
    };
    let (path, ca_file) = pick!(ca_file);
    let ca = checker.pem(&path, ca_file);
    let (path, timeout) = pick!(timeout);
    let timeout = checker.positive(&path, timeout);
    let (path, port) = pick!(port);
    let port = checker.within(&path, port.copied(), 1, u16::MAX);
    match (port, tls) {
        (Some(465), Some(Tls::StartTls)) => {
            checker.warnings.push(format!("{path}: port 465 usually needs smtp.tls = \"implicit\""))
        }
        (Some(25 | 587), Some(Tls::Implicit)) => checker
            .warnings
            .push(format!("{path}: ports 587 and 25 usually need smtp.tls = \"starttls\"")),
        (Some(_) | None, _) => {}
    }
    let (path, hello_name) = pick!(hello_name);
    if let Some(name) = hello_name
        && (name.is_empty() || !name.chars().all(|c| c.is_ascii_graphic()))
    {
        checker.fault(&path, quoted(name), "a host name");
    }
    Some(email::Smtp {
        host: host?,
        port: port?,
        tls: tls?,
        login,
        auth: auth?,
        from: from?,
        ca,
        timeout: timeout?,
        hello_name: hello_name.cloned(),
    })
}
