//! Shared by the commands that use the database: opening it, its organizations, and finding a
//! certificate or project by id or name.

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use std::sync::Arc;

use crate::{
    config::{Config, Organization},
    domain::{
        certificate::{Certificate, Project},
        text::{Name, one_line},
    },
    store::{Store, StoreError},
    usecase::organization::OrganizationState,
};

/// Opens the database next to a running service, and prints its location.
pub async fn open(config: &Config) -> Result<Store, StoreError> {
    let store = Store::open_beside(&config.state).await?;
    eprintln!("database: {}", config.state.place);
    Ok(store)
}

/// The database, and the stored state of every configured organization.
pub async fn load(
    config: &Config,
    now: DateTime<Utc>,
) -> anyhow::Result<(Store, Vec<OrganizationState>)> {
    let store = open(config).await?;
    let known = known(config, &store, now).await?;
    Ok((store, known))
}

/// The stored state of every configured organization.
pub async fn known(
    config: &Config,
    store: &Store,
    now: DateTime<Utc>,
) -> anyhow::Result<Vec<OrganizationState>> {
    let mut known = Vec::new();
    for organization in &config.organizations {
        let one = of(config, organization, Some(store), now).await;
        let name = &organization.api.organization;
        known.push(one.with_context(|| format!("cannot load the organization {name}"))?);
    }
    Ok(known)
}

/// The stored state of a configured organization; empty without a database.
pub async fn of(
    config: &Config,
    organization: &Organization,
    store: Option<&Store>,
    now: DateTime<Utc>,
) -> Result<OrganizationState, StoreError> {
    let name = organization.api.organization.clone();
    let notifiers = config.notifiers.notifiers();
    OrganizationState::load(name, config.policy.of(organization), notifiers, store, now).await
}

/// The certificate with this id, or the only one with this name.
///
/// # Errors
/// If no certificate matches, or several do; the error lists them.
pub fn find<'a>(
    known: &'a [OrganizationState],
    text: &str,
    organization: Option<&str>,
) -> anyhow::Result<(&'a OrganizationState, &'a Certificate)> {
    let all = |one: &'a OrganizationState| one.inventory.certificates.values().map(Arc::as_ref);
    let of = |one: &'a Certificate| (one.id.as_str(), one.name.as_ref());
    only("certificate", text, organization, known, all, of)
}

/// The project with this id, or the only one with this name.
///
/// # Errors
/// As [`find`].
pub fn find_project<'a>(
    known: &'a [OrganizationState],
    text: &str,
    organization: Option<&str>,
) -> anyhow::Result<(&'a OrganizationState, &'a Project)> {
    let all = |one: &'a OrganizationState| one.inventory.projects.values();
    let of = |one: &'a Project| (one.id.as_str(), one.name.as_ref());
    only("project", text, organization, known, all, of)
}

fn only<'a, T, I: Iterator<Item = &'a T>>(
    kind: &str,
    text: &str,
    organization: Option<&str>,
    known: &'a [OrganizationState],
    all: impl Fn(&'a OrganizationState) -> I,
    of: impl Fn(&'a T) -> (&'a str, Option<&'a Name>),
) -> anyhow::Result<(&'a OrganizationState, &'a T)> {
    if let Some(name) = organization
        && known.iter().all(|one| one.organization.as_str() != name)
    {
        bail!("--organization: no organization “{}” is configured", one_line(name, 64));
    }
    let asked = known
        .iter()
        .filter(|one| organization.is_none_or(|name| one.organization.as_str() == name));
    let all: Vec<(&OrganizationState, &T)> =
        asked.flat_map(|one| all(one).map(move |item| (one, item))).collect();
    let mut found: Vec<_> = all.iter().filter(|(_, item)| of(item).0 == text).collect();
    if found.is_empty() {
        // Names are stored cleaned.
        let name = Name::clean(text);
        found =
            all.iter().filter(|(_, item)| name.is_some() && of(item).1 == name.as_ref()).collect();
    }
    match found.as_slice() {
        [one] => Ok(**one),
        [] => bail!(
            "no {kind} “{}” in the latest scans; to list all, run certvigil check",
            one_line(text, 120)
        ),
        several => {
            let ids = several
                .iter()
                .map(|(known, item)| format!("{} of {}", of(item).0, known.organization));
            bail!(
                "“{}” matches more than one {kind}: {}; use {}",
                one_line(text, 120),
                ids.collect::<Vec<_>>().join(", "),
                if of(several[0].1).0 == text { "--organization" } else { "the id" }
            )
        }
    }
}
