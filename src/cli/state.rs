//! What the commands that look into the state share: opening it, the organizations in it, and finding a
//! certificate by its id or name.

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};

use crate::{
    config::{Config, Organization},
    domain::{
        certificate::{Certificate, CertificateId},
        text::{Name, one_line},
    },
    known::Known,
    store::{Store, StoreFault},
};

/// Opens the state beside a running service, and says which one.
pub async fn open(config: &Config) -> Result<Store, StoreFault> {
    let store = Store::open_beside(&config.state).await?;
    eprintln!("state: {}", config.state.place);
    Ok(store)
}

/// The state, and all that it has of the organizations that are configured.
pub async fn load(config: &Config, now: DateTime<Utc>) -> anyhow::Result<(Store, Vec<Known>)> {
    let store = open(config).await?;
    let mut known = Vec::new();
    for organization in &config.organizations {
        let one = of(config, organization, Some(&store), now).await;
        let name = &organization.api.organization;
        known.push(one.with_context(|| format!("the organization {name}"))?);
    }
    Ok((store, known))
}

/// What the state has of a configured organization; nothing where there is no state.
pub async fn of(
    config: &Config,
    organization: &Organization,
    store: Option<&Store>,
    now: DateTime<Utc>,
) -> Result<Known, StoreFault> {
    let name = organization.api.organization.clone();
    let listeners = config.notifiers.listeners();
    Known::load(name, config.policy.of(organization), listeners, store, now).await
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
            one.inventory.certificates.values().map(move |certificate| (one, certificate.as_ref()))
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
