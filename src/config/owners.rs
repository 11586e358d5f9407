//! `[[owners]]`: the teams that are responsible for certificates, and their addresses.

use lettre::message::Mailbox;
use std::collections::{BTreeMap, BTreeSet};

use super::{
    Notifiers, Organization, check::Checker, notifiers::mailboxes, problem::KeyPath, raw,
    value::selected,
};
use crate::{
    domain::{
        owner::{Audience, Owner, Team},
        routing::Routing,
        selection::Globs,
    },
    notify::email::Recipients,
    redact::quoted,
};

/// The maximum number of teams with the same address.
const MAX_TEAMS: usize = 20;

/// The checked owners.
#[derive(Clone, Debug, Default)]
pub struct Owners {
    /// The entries with the organizations for which they apply.
    pub entries: Vec<(Globs, Owner)>,
    /// The addresses of each team.
    pub teams: BTreeMap<Team, Vec<Mailbox>>,
}

pub fn check(
    checker: &mut Checker<'_>,
    written: Option<&Vec<raw::Owner>>,
    organizations: &[Organization],
) -> Owners {
    let parent = KeyPath::of("owners");
    if written.is_some_and(Vec::is_empty) {
        let expected = "at least one owner; to have no owners, remove the key “owners”";
        checker.fault(&parent, "an empty list", expected);
    }
    let mut owners = Owners::default();
    for (index, one) in written.into_iter().flatten().enumerate() {
        let path = parent.index(index);
        let Some(team) = &one.team else {
            checker.missing(&path.key("team"), "the name of a team");
            continue;
        };
        checker.name(&path.key("team"), team);
        owners.teams.entry(team.clone()).or_default().extend(mailboxes(&one.to));
        let of = selected(&one.organizations);
        let owner = Owner {
            index,
            team: team.clone(),
            certificates: selected(&one.certificates),
            projects: selected(&one.projects),
            uploaders: selected(&one.uploaders).ignoring_case(),
        };
        warn(checker, &path, (&of, &owner), organizations, &owners.entries);
        owners.entries.push((of, owner));
    }
    check_addresses(checker, &parent, &owners);
    let without = owners.teams.iter().filter(|(_, to)| to.is_empty());
    for team in without.map(|(team, _)| team.clone()).collect::<Vec<_>>() {
        let mut entries = written.into_iter().flatten();
        let first = entries.position(|one| one.team.as_ref() == Some(&team)).unwrap_or_default();
        let path = parent.index(first).key("to");
        checker.missing(&path, format!("at least one address of the team {}", quoted(&team)));
    }
    owners
}

/// Limits the teams of an address: their names are part of a key in the database.
fn check_addresses(checker: &mut Checker<'_>, parent: &KeyPath, owners: &Owners) {
    let mut teams: BTreeMap<String, usize> = BTreeMap::new();
    for to in owners.teams.values() {
        let addresses: BTreeSet<String> = to.iter().map(key).collect();
        addresses.into_iter().for_each(|address| *teams.entry(address).or_default() += 1);
    }
    for (address, count) in teams.into_iter().filter(|(_, count)| *count > MAX_TEAMS) {
        let found = format!("{count} teams with the address {}", quoted(&address));
        let expected = format!("at most {MAX_TEAMS}; for this address, add another notifier");
        checker.fault(parent, found, expected);
    }
}

/// An address for comparison. Mail servers ignore the case of addresses, in practice.
fn key(mailbox: &Mailbox) -> String {
    mailbox.email.to_string().to_lowercase()
}

/// Warns about an entry that never matches.
fn warn(
    checker: &mut Checker<'_>,
    path: &KeyPath,
    (of, owner): (&Globs, &Owner),
    organizations: &[Organization],
    earlier: &[(Globs, Owner)],
) {
    let mut concerned = organizations
        .iter()
        .filter(|one| of.matches(one.api.organization.as_str(), None))
        .peekable();
    if concerned.peek().is_none() {
        let warning = format!("{path}: matches no organization, so it has no effect");
        checker.warnings.push(warning);
    }
    let takes_all = |(of, owner): &(Globs, Owner)| {
        of.is_all()
            && owner.certificates.is_all()
            && owner.projects.is_all()
            && owner.uploaders.is_all()
    };
    if let Some(first) = earlier.iter().position(takes_all) {
        let warning =
            format!("{path}: never reached; owners[{first}] already matches every certificate");
        checker.warnings.push(warning);
    }
    if owner.uploaders.is_all() {
        return;
    }
    let needs_addresses = owner.uploaders.0.iter().any(|glob| glob.contains('@'));
    for organization in concerned {
        let name = &organization.api.organization;
        let (what, key) = match &organization.audit_log {
            None => ("uploaders", "audit_log"),
            Some(settings) if needs_addresses && !settings.addresses => {
                ("addresses of uploaders", "audit_log_addresses")
            }
            Some(_) => continue,
        };
        checker.warnings.push(format!(
            "{path}.uploaders: the {what} in the organization {name} are unknown without \
             {key} = true"
        ));
    }
}

/// Warns if no notifier sends to the owners.
pub fn check_use(checker: &mut Checker<'_>, owners: &Owners, notifiers: &Notifiers) {
    let mut listening = notifiers.listening().into_iter();
    if !owners.entries.is_empty() && listening.all(|(_, routing, _)| routing.audience.is_everyone())
    {
        let warning =
            "owners: no notifier sends to them; add an email notifier with to = [\"owner\"]";
        checker.warnings.push(warning.to_owned());
    }
}

impl Owners {
    /// The recipients of a notifier that sends each owner its own alerts, and the rest to the
    /// fallback. Who belongs to several teams, or to the fallback, too, gets all their alerts in
    /// one mail.
    pub fn routes(&self, routing: &Routing, fallback: &[Mailbox]) -> Vec<Recipients> {
        let mut teams_of: BTreeMap<String, (Mailbox, BTreeSet<Option<Team>>)> = BTreeMap::new();
        let rest = fallback.iter().map(|mailbox| (None, mailbox));
        let owners = self.teams.iter();
        let owners =
            owners.flat_map(|(team, to)| to.iter().map(move |mailbox| (Some(team), mailbox)));
        for (team, mailbox) in rest.chain(owners) {
            let known = teams_of.entry(key(mailbox));
            let (_, teams) = known.or_insert_with(|| (mailbox.clone(), BTreeSet::new()));
            teams.insert(team.cloned());
        }
        let mut routes: BTreeMap<BTreeSet<Option<Team>>, Vec<Mailbox>> = BTreeMap::new();
        for (mailbox, teams) in teams_of.into_values() {
            routes.entry(teams).or_default().push(mailbox);
        }
        let routes = routes.into_iter().map(|(teams, to)| {
            let audience = Audience::Owners(teams);
            Recipients { to, cc: Vec::new(), routing: Routing { audience, ..routing.clone() } }
        });
        routes.collect()
    }
}
