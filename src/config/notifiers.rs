//! `[notifiers.KIND.NAME]` and `[smtp]`.

use lettre::{Address, message::Mailbox};
use std::{collections::BTreeMap, net::IpAddr};

use super::{
    check::Checker,
    owners::Owners,
    problem::{KeyPath, mismatch},
    raw,
    routing::routing,
    value::{List, Text, unexpected},
};
use crate::{
    domain::{
        notifier::{Grouping, NotifierState},
        owner::Audience,
        routing::Routing,
    },
    message::style::Style,
    notify::{
        email::{self, Tls},
        log, webhook,
    },
};

/// The configured notifiers.
#[derive(Clone, Debug, Default)]
pub struct Notifiers {
    pub email: Vec<email::Settings>,
    pub webhook: Vec<webhook::Settings>,
    pub log: Vec<log::Settings>,
}

impl Notifiers {
    /// The name, routing and grouping of each notifier, and of each route of one with owners.
    pub fn listening(&self) -> Vec<(&str, &Routing, Grouping)> {
        let email = self.email.iter().flat_map(|one| {
            let routes = one.routes.iter();
            routes.map(|route| (one.name.as_str(), &route.routing, Grouping::Digest))
        });
        let webhook = self
            .webhook
            .iter()
            .map(|one| (one.name.as_str(), &one.routing, one.format.profile().grouping));
        let log = self.log.iter().map(|one| (one.name.as_str(), &one.routing, Grouping::Digest));
        email.chain(webhook).chain(log).collect()
    }

    /// The names of the notifiers.
    pub fn names(&self) -> Vec<&str> {
        let email = self.email.iter().map(|one| &one.name);
        let webhook = self.webhook.iter().map(|one| &one.name);
        let log = self.log.iter().map(|one| &one.name);
        email.chain(webhook).chain(log).map(String::as_str).collect()
    }

    /// The notifiers with empty ledgers, and the routes of one with owners.
    pub fn notifiers(&self) -> Vec<NotifierState> {
        let all = self.listening().into_iter();
        all.map(|(name, routing, grouping)| NotifierState::new(name, routing, grouping)).collect()
    }

    /// The grouping of the notifier with this name.
    pub fn grouping(&self, name: &str) -> Grouping {
        let all = self.listening();
        all.iter()
            .find(|(known, ..)| *known == name)
            .map_or(Grouping::Digest, |(.., grouping)| *grouping)
    }

    /// The recipients of a part of an email notifier's alerts; `None` for other notifiers.
    pub fn recipients(&self, name: &str, audience: &Audience) -> Option<&email::Recipients> {
        self.email.iter().find(|one| one.name == name)?.route(audience)
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

pub fn check(
    checker: &mut Checker<'_>,
    raw: &raw::Notifiers,
    shared: &raw::Smtp,
    style: &Style,
    owners: &Owners,
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
        email_notifier(checker, &path, name, raw, shared, (style, owners))
    });
    let email = email.collect();
    let webhook = raw.webhook.iter().filter_map(|(name, raw)| {
        super::webhook::check(checker, &parent.key("webhook").key(name), name, raw, style)
    });
    let webhook = webhook.collect();
    let log = raw.log.iter().map(|(name, raw)| {
        let routing = routing(
            &raw.min_severity,
            &raw.organizations,
            &raw.projects,
            raw.send_resolved,
            &raw.events,
        );
        log::Settings { name: name.clone(), routing }
    });
    Notifiers { email, webhook, log: log.collect() }
}

fn email_notifier(
    checker: &mut Checker<'_>,
    path: &KeyPath,
    name: &str,
    raw: &raw::Email,
    shared: &raw::Smtp,
    (style, owners): (&Style, &Owners),
) -> Option<email::Settings> {
    let routing = routing(
        &raw.min_severity,
        &raw.organizations,
        &raw.projects,
        raw.send_resolved,
        &raw.events,
    );
    let max_per_minute = raw.max_per_minute.map_or(email::MAX_PER_MINUTE, |most| most.0);
    let routes = recipients(checker, path, raw, routing, owners);
    let smtp = smtp(checker, &path.key("smtp"), raw.smtp.as_ref(), shared)?;
    let name = name.to_owned();
    Some(email::Settings { name, routes, max_per_minute, smtp, style: style.clone() })
}

/// The addresses of a list.
pub fn mailboxes(list: &Option<List<Mailbox>>) -> Vec<Mailbox> {
    let list = list.iter().flat_map(|list| &list.0);
    list.map(|written| Mailbox::clone(written)).collect()
}

fn recipients(
    checker: &mut Checker<'_>,
    path: &KeyPath,
    raw: &raw::Email,
    routing: Routing,
    owners: &Owners,
) -> Vec<email::Recipients> {
    let written = raw.to.iter().flat_map(|list| &list.0);
    let (mut to, mut to_owners) = (Vec::new(), false);
    for one in written {
        match &**one {
            Recipient::Mailbox(mailbox) => to.push(mailbox.clone()),
            Recipient::Owner => to_owners = true,
        }
    }
    let (cc, fallback) = (mailboxes(&raw.cc), mailboxes(&raw.fallback));
    if !to_owners {
        if to.is_empty() {
            let found = if raw.to.is_none() { "nothing" } else { "an empty list" };
            checker.fault(&path.key("to"), found, "at least one address");
        }
        if raw.fallback.is_some() {
            let warning =
                format!("{}: has no effect without to = [\"owner\"]", path.key("fallback"));
            checker.warnings.push(warning);
        }
        return vec![email::Recipients { to, cc, routing }];
    }
    if !to.is_empty() || !cc.is_empty() {
        let key = if to.is_empty() { "cc" } else { "to" };
        let found = "\"owner\" and addresses";
        let expected = "only \"owner\"; for these addresses, add another notifier";
        checker.fault(&path.key(key), found, expected);
    }
    if fallback.is_empty() {
        let expected = "at least one address for the alerts without an owner";
        checker.missing(&path.key("fallback"), expected);
    }
    if owners.teams.is_empty() {
        let found = "\"owner\" without any owner";
        checker.fault(&path.key("to"), found, "[[owners]] with a team and its addresses");
    }
    owners.routes(&routing, &fallback)
}

/// A recipient of a notifier: an address, or the owners.
#[derive(Clone, Debug)]
pub enum Recipient {
    Owner,
    Mailbox(Mailbox),
}

impl Text for Recipient {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "owner" => Ok(Recipient::Owner),
            text => Mailbox::parse(text).map(Recipient::Mailbox),
        }
    }
}

/// An address with or without a display name. The domain is in its ASCII form (RFC 5891), so that
/// no server needs SMTPUTF8.
impl Text for Mailbox {
    fn parse(text: &str) -> Result<Self, String> {
        let clean = crate::domain::text::one_line(text, 500);
        let ascii = |mailbox: Mailbox| {
            let domain = url::Host::parse(mailbox.email.domain()).ok()?;
            let address = Address::new(mailbox.email.user(), domain.to_string()).ok()?;
            address.user().is_ascii().then(|| Mailbox::new(mailbox.name, address))
        };
        let expected = "an address such as \"ops@acme.example\" or \"Ops <ops@acme.example>\"";
        let mailbox = clean.parse().ok().and_then(ascii);
        mailbox.map_or_else(|| unexpected(&clean, expected), Ok)
    }
}

/// The name or address of a mail server; an IPv6 address has no brackets.
#[derive(Clone, Debug)]
pub struct Host(String);

impl Text for Host {
    fn parse(text: &str) -> Result<Self, String> {
        let host = match text.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => Some(address.to_string()),
            Err(_) => url::Host::parse(text).ok().map(|host| host.to_string()),
        };
        let wrong = || mismatch("an invalid host name", SERVER);
        host.map(Host).ok_or_else(wrong)
    }
}

impl Host {
    fn is_loopback(&self) -> bool {
        self.0 == "localhost" || self.0.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

const SERVER: &str = "the name or address of a mail server";

/// The name in EHLO (RFC 5321, section 4.1.1.1).
#[derive(Clone, Debug)]
pub struct HelloName(String);

impl Text for HelloName {
    fn parse(text: &str) -> Result<Self, String> {
        match !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic()) {
            true => Ok(HelloName(text.to_owned())),
            false => unexpected(text, "a host name"),
        }
    }
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
    // The path and value of a key, in the notifier or else in `[smtp]`.
    macro_rules! pick {
        ($key:ident) => {
            match (own_path.key(stringify!($key)), &own.$key) {
                (path, Some(value)) => (path, Some(value)),
                (path, None) if checker.is_rejected(&path) => (path, None),
                (_, None) => (shared_path.key(stringify!($key)), shared.$key.as_ref()),
            }
        };
    }
    let (path, host) = pick!(host);
    if host.is_none() {
        checker.missing(&path, SERVER);
    }
    let (path, from) = pick!(from);
    if from.is_none() {
        checker.missing(&path, "the sender's address");
    }
    let (path, tls) = pick!(tls);
    let tls = tls.map(|tls| **tls);
    let insecure = pick!(allow_insecure).1.copied().unwrap_or(false);
    let beyond_loopback = host.is_some_and(|host| !host.is_loopback());
    match (tls, beyond_loopback, insecure) {
        (Some(Tls::None), true, false) => {
            let expected = "\"starttls\" or \"implicit\" for a server that is not on loopback, \
                            or allow_insecure = true";
            checker.fault(&path, "“none”", expected);
        }
        (Some(Tls::None), true, true) => checker.warnings.push(format!(
            "{path}: without TLS, anyone on the network path can read and change the mails and \
             the password"
        )),
        _ => {}
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
    let (path, ca_file) = pick!(ca_file);
    let ca = checker.pem(&path, ca_file);
    let (path, port) = pick!(port);
    let port = port.and_then(|port| u16::try_from(port.0).ok());
    let usual = match (port, tls) {
        (Some(465), Some(Tls::StartTls)) => Some("port 465 usually needs smtp.tls = \"implicit\""),
        (Some(25 | 587), Some(Tls::Implicit)) => {
            Some("ports 587 and 25 usually need smtp.tls = \"starttls\"")
        }
        (Some(_) | None, _) => None,
    };
    checker.warnings.extend(usual.map(|usual| format!("{path}: {usual}")));
    Some(email::Smtp {
        host: host?.0.clone(),
        port: port?,
        tls: tls?,
        login,
        auth: **pick!(auth).1?,
        from: Mailbox::clone(from?),
        ca,
        timeout: pick!(timeout).1?.duration(),
        hello_name: pick!(hello_name).1.map(|name| name.0.clone()),
    })
}
