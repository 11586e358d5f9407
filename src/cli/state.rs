//! What the commands that look into the state share: opening it, the organizations in it, and finding a
//! certificate by its id or name.

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};

use crate::{
    config::{Config, Organization},
    domain::{
        acknowledgement::Acknowledgements,
        certificate::{Certificate, CertificateId, OrganizationName},
        forecast::{Present, forecast},
        inventory::Inventory,
        ledger::Ledger,
        listener::Listener,
        notification::Notification,
        policy::Policy,
        text::{Name, one_line},
    },
    store::{Store, StoreFault},
};

/// Opens the state beside a running service, and says which one.
pub async fn open(config: &Config) -> Result<Store, StoreFault> {
    let store = Store::open_beside(&config.state).await?;
    eprintln!("state: {}", config.state.file.display());
    Ok(store)
}

/// The state, and all that it has of the organizations that are configured.
pub async fn load(config: &Config, now: DateTime<Utc>) -> anyhow::Result<(Store, Vec<Known>)> {
    let store = open(config).await?;
    let mut known = Vec::new();
    for organization in &config.organizations {
        let one = Known::load(config, organization, Some(&store), now).await;
        let name = &organization.api.organization;
        known.push(one.with_context(|| format!("the organization {name}"))?);
    }
    Ok((store, known))
}

/// One configured organization, and what is known and was told of it.
pub struct Known {
    pub organization: OrganizationName,
    pub policy: Policy,
    /// What the state has.
    pub before: Inventory,
    /// The same, or what was read on top of it.
    pub inventory: Inventory,
    pub acknowledgements: Acknowledgements,
    pub listeners: Vec<Listener>,
}

impl Known {
    /// What the state has of an organization; nothing where there is no state.
    pub async fn load(
        config: &Config,
        organization: &Organization,
        store: Option<&Store>,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Known> {
        let name = organization.api.organization.clone();
        let (mut inventory, mut acknowledgements) = (Inventory::default(), Acknowledgements::new());
        if let Some(store) = store {
            inventory = store.inventory(&name).await?;
            acknowledgements = store.acknowledgements(&name).await?;
        }
        let mut listeners = Vec::new();
        for (notifier, routing, grain) in config.notifiers.listening() {
            let ledger = match store {
                Some(store) => store.ledger(Some(&name), notifier, now).await?,
                None => Ledger::default(),
            };
            let (name, routing) = (notifier.to_owned(), routing.clone());
            listeners.push(Listener { name, routing, grain, ledger });
        }
        let policy = config.policy.of(organization);
        let before = inventory.clone();
        Ok(Known { organization: name, policy, before, inventory, acknowledgements, listeners })
    }

    /// Who will be told what by the scans from `first` on that come before `end`, or at it.
    pub fn forecast(
        &self,
        config: &Config,
        first: DateTime<Utc>,
        end: DateTime<Utc>,
    ) -> Vec<Notification> {
        if first > end {
            return Vec::new();
        }
        let present = Present {
            organization: &self.organization,
            before: &self.before,
            inventory: &self.inventory,
            policy: &self.policy,
            acknowledgements: &self.acknowledgements,
        };
        let cron = &config.schedule.cron;
        let next = |after: DateTime<Utc>| {
            let in_time = (after < end).then(|| cron.next_after(after)).flatten();
            in_time.filter(|next| *next <= end)
        };
        forecast(&present, self.listeners.clone(), first, next, cron.timezone())
    }
}

/// The only certificate with this id, or else with this name.
///
/// # Errors
/// Where there is none, or more than one: then it says which.
pub fn find<'a>(
    known: &'a [Known],
    text: &str,
    organization: Option<&str>,
) -> anyhow::Result<(&'a Known, &'a Certificate)> {
    if let Some(name) = organization
        && known.iter().all(|one| one.organization.as_str() != name)
    {
        bail!("there is no organization “{}”", one_line(name, 64));
    }
    let asked = |one: &&Known| organization.is_none_or(|name| one.organization.as_str() == name);
    let all = || {
        known.iter().filter(asked).flat_map(|one| {
            one.inventory.certificates.values().map(move |certificate| (one, certificate))
        })
    };
    // As names are kept.
    let (id, name) = (CertificateId::parse(text).ok(), Name::clean(text));
    let mut found: Vec<_> = all().filter(|(_, one)| Some(&one.id) == id.as_ref()).collect();
    if found.is_empty() {
        found = all().filter(|(_, one)| one.name.is_some() && one.name == name).collect();
    }
    match found.as_slice() {
        [one] => Ok(*one),
        [] => bail!(
            "there is no certificate “{}” in the latest scans; certvigil check lists them",
            one_line(text, 120)
        ),
        several => {
            let list: Vec<String> = several
                .iter()
                .map(|(known, one)| format!("{} of {}", one.id, known.organization))
                .collect();
            bail!(
                "“{}” is more than one certificate: {}; give {}",
                one_line(text, 120),
                list.join(", "),
                if several[0].1.id.as_str() == text { "--organization" } else { "the id" }
            )
        }
    }
}
