//! Builds the parts of the service from a configuration.

use anyhow::Context;
use chrono::{DateTime, Utc};
use std::{collections::BTreeSet, sync::Arc};

use super::{Timing, scans};
use crate::{
    admin_api::AdminApi,
    clock::Clock,
    config::{Config, Organization},
    domain::{certificate::OrganizationName, unreadable::CONFIRM_AFTER},
    heartbeat::Heartbeat,
    http::Configured,
    notify::{self, Notifier},
    schedule,
    secret::Secret,
    usecase::{
        jobs::Jobs,
        scan::{ScanTimes, Target},
        summary::Watched,
    },
};

/// The settings for the scans of an organization.
///
/// # Errors
/// If a secret is no longer readable, or TLS cannot be set up.
pub fn target(
    config: &Config,
    organization: &Organization,
    clock: &Clock,
) -> anyhow::Result<Target> {
    let name = organization.api.organization.clone();
    Ok(Target {
        api: AdminApi::new(organization.api.clone(), clock.clone())
            .with_context(|| format!("cannot set up the organization {name}"))?,
        selection: organization.selection.clone(),
        policy: config.policy.of(organization),
        certificate_content: organization.certificate_content,
        audit_log: organization.audit_log,
        timeout: config.schedule.scan_timeout,
        confirm_after: CONFIRM_AFTER,
    })
}

/// The times of a scan that starts now.
pub fn when(schedule: &schedule::Settings, now: DateTime<Utc>, tick: DateTime<Utc>) -> ScanTimes {
    let timezone = schedule.cron.timezone();
    let (stale_at, max_delay) = (schedule.stale_after(now), schedule.max_delay(tick));
    ScanTimes { started_at: now, tick, timezone, stale_at, max_delay }
}

/// The jobs of this configuration.
pub fn jobs(config: &Config, timing: &Timing, now: DateTime<Utc>) -> Jobs {
    let organizations = config.organizations.iter();
    Jobs {
        drill: config.drill.clone(),
        summary: config.summary.clone(),
        watched: Watched {
            organizations: organizations
                .map(|one| (one.api.organization.clone(), config.policy.of(one)))
                .collect(),
            notifiers: config.notifiers.names().into_iter().map(ToOwned::to_owned).collect(),
            cron: config.schedule.cron.clone(),
            late: scans::late(&config.schedule, timing),
            on_time_within: config.schedule.on_time_within(now),
        },
        give_up_after: config.delivery.give_up_after,
    }
}

/// The configured notifiers.
///
/// # Errors
/// As [`notify::all`].
pub fn notifiers(config: &Config) -> anyhow::Result<Vec<Arc<dyn Notifier>>> {
    let notifiers = &config.notifiers;
    Ok(notify::all(&notifiers.email, &notifiers.webhook, &notifiers.log)?)
}

/// A heartbeat and its organizations. Its name in the database is that of its organization; the
/// heartbeat for all organizations has an empty name.
pub struct ConfiguredHeartbeat {
    pub name: String,
    pub heartbeat: Heartbeat,
    pub of: BTreeSet<OrganizationName>,
}

/// The configured heartbeats: the one for all organizations, and those of single organizations.
///
/// # Errors
/// If a URL is not readable.
pub fn heartbeats(config: &Config) -> anyhow::Result<Vec<ConfiguredHeartbeat>> {
    let all: BTreeSet<_> =
        config.organizations.iter().map(|one| one.api.organization.clone()).collect();
    let own = config.organizations.iter().filter_map(|one| {
        let name = one.api.organization.clone();
        Some((name.to_string(), one.heartbeat.as_ref()?, BTreeSet::from([name])))
    });
    let shared = config.heartbeat.as_ref().map(|settings| (String::new(), settings, all));
    shared
        .into_iter()
        .chain(own)
        .map(|(name, settings, of)| {
            Ok(ConfiguredHeartbeat { name, heartbeat: Heartbeat::new(settings)?, of })
        })
        .collect()
}

/// The part of a configuration that the HTTP server needs.
///
/// # Errors
/// If the token is no longer readable.
pub(super) fn configured(
    config: &Config,
    notifiers: &[Arc<dyn Notifier>],
    timing: &Timing,
    now: DateTime<Utc>,
) -> anyhow::Result<Configured> {
    let read = |secret: &Option<Secret>| secret.as_ref().map(Secret::read).transpose();
    let organizations = config.organizations.iter();
    Ok(Configured {
        timezone: config.timezone,
        cron: config.schedule.cron.clone(),
        late: scans::late(&config.schedule, timing),
        on_time_within: config.schedule.on_time_within(now),
        organizations: organizations
            .map(|one| (one.api.organization.clone(), config.policy.of(one)))
            .collect(),
        notifiers: config.notifiers.notifiers(),
        give_up_after: config.delivery.give_up_after,
        retry_max: config.delivery.max,
        token: read(&config.http.token).context("http.token")?,
        read_token: read(&config.http.read_token).context("http.read_token")?,
        public_url: config.http.public_url.clone(),
        links: config.acknowledge_links && config.http.public_url.is_some(),
        drilled: config.drill.as_ref().map(|drill| drill.receivers(notifiers)),
    })
}

/// The parts built from a configuration before any loop starts.
pub(super) struct Parts {
    pub targets: Vec<Target>,
    pub notifiers: Vec<Arc<dyn Notifier>>,
    pub heartbeats: Vec<ConfiguredHeartbeat>,
    pub configured: Arc<Configured>,
}

impl Parts {
    pub fn of(config: &Config, clock: &Clock, timing: &Timing) -> anyhow::Result<Parts> {
        let targets =
            config.organizations.iter().map(|organization| target(config, organization, clock));
        let notifiers = notifiers(config)?;
        Ok(Parts {
            targets: targets.collect::<anyhow::Result<_>>()?,
            heartbeats: heartbeats(config)?,
            configured: Arc::new(configured(config, &notifiers, timing, clock.now())?),
            notifiers,
        })
    }
}
