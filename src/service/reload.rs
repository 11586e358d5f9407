//! Reloads the configuration: the new one replaces the previous one, or is rejected.

use backon::{ExponentialBuilder, Retryable};
use chrono::{DateTime, Utc};
use std::sync::Arc;

use super::{Control, Parts, Shared, peers};
use crate::{
    config::Config,
    domain::notifier::Route,
    logging,
    net::error_chain,
    notify::Notifier,
    store::{LEASE, Lease, LeaseOutcome, Store},
    usecase::{Failed, scan},
};

/// Loads the new configuration and builds its parts; `None` if it is rejected, and the previous one
/// stays active.
pub fn load(control: &Control, running: &Config) -> Option<(Config, Parts)> {
    let refused = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "reload failed: keeping the previous configuration");
    };
    let mut config = (control.load)().map_err(|error| refused(&error)).ok()?;
    let parts = Parts::of(&config, &control.clock, &control.timing)
        .map_err(|error| refused(&format!("{error:#}")))
        .ok()?;
    let restart = |key: &str| {
        tracing::warn!("{key} changed: takes effect after a restart");
    };
    if config.state.place.differs(&running.state.place) {
        restart("state.url");
        config.state.place = running.state.place.clone();
    }
    if config.http.listen != running.http.listen {
        restart("http.listen");
        config.http.listen = running.http.listen;
    }
    if config.log.format != running.log.format {
        restart("log.format");
        config.log.format = running.log.format;
    }
    logging::change_level(&config.log);
    Some((config, parts))
}

/// Applies a new configuration to the database and the status. Returns whether the cleanup in the
/// database is done.
pub async fn change(config: &Config, parts: &Parts, shared: &Shared) -> bool {
    let membership = Arc::new(peers::membership(config, &parts.notifiers, shared.started_at));
    let now = || shared.clock.now();
    let join = || shared.store.join(&membership, true, &now);
    let joined = join.retry(ExponentialBuilder::default()).await;
    if let Err(error) = joined {
        // The next renewal of the registration announces it.
        tracing::error!(
            %error, "cannot announce the new configuration to other instances, will retry"
        );
    }
    shared.membership.send_replace(membership);
    shared.schedule.send_replace(config.schedule.clone());
    let settle = || settle_changes(config, &shared.store, &parts.notifiers, shared.clock.now());
    let settled = settle.retry(ExponentialBuilder::default()).await.unwrap_or_else(|error| {
        let error = error_chain(&error);
        tracing::error!(error, "cleanup of removed organizations and notifiers failed, will retry");
        false
    });
    shared.configured.send_replace(Arc::clone(&parts.configured));
    shared.status.send_modify(|status| {
        status
            .organizations
            .retain(|name, _| config.organizations.iter().any(|one| one.api.organization == *name));
        status.outbox.clear();
    });
    settled
}

/// Runs `settle` if this instance acquires the lease.
///
/// # Errors
/// If the database fails.
pub async fn settle_changes(
    config: &Config,
    store: &Store,
    notifiers: &[Arc<dyn Notifier>],
    now: DateTime<Utc>,
) -> Result<bool, Failed> {
    match store.take(None, None, LEASE, now).await.map_err(Failed::during("taking the lease"))? {
        LeaseOutcome::Acquired(lease) => settle(config, store, notifiers, &lease, now).await,
        LeaseOutcome::Held | LeaseOutcome::Done | LeaseOutcome::Superseded => Ok(false),
    }
}

/// Cleans up after removals from the configuration: cancels the pending deliveries of removed
/// notifiers and receivers, and resolves the alerts of removed organizations. Returns whether that
/// is done; otherwise another instance is doing it, or has a newer configuration.
///
/// # Errors
/// If the database fails.
pub async fn settle(
    config: &Config,
    store: &Store,
    notifiers: &[Arc<dyn Notifier>],
    lease: &Lease,
    now: DateTime<Utc>,
) -> Result<bool, Failed> {
    let routes: Vec<(String, Route)> = notifiers
        .iter()
        .flat_map(|one| one.routes().into_iter().map(|route| (one.name().to_owned(), route)))
        .collect();
    let cancelled = store.cancel_removed(&routes, lease, now).await;
    for (notifier, deliveries) in cancelled.map_err(Failed::during("cancelling deliveries"))? {
        tracing::warn!(
            notifier,
            deliveries,
            "pending deliveries cancelled: their notifier or receiver was removed, or the receiver \
             belongs to other owners now"
        );
    }
    let mut done = true;
    for organization in
        store.organizations().await.map_err(Failed::during("reading the organizations"))?
    {
        if config.organizations.iter().all(|one| one.api.organization != organization) {
            let taken = store.take(Some(&organization), None, LEASE, now).await;
            let LeaseOutcome::Acquired(lease) =
                taken.map_err(Failed::during("taking the lease"))?
            else {
                done = false;
                continue;
            };
            tracing::warn!(%organization, "organization no longer configured: its data is deleted");
            let policy = config.policy.of_name(&organization);
            let give_up_after = config.delivery.give_up_after;
            let held = lease.clone();
            scan::retire(&organization, &policy, store, notifiers, give_up_after, held, now)
                .await?;
            store.release(&lease).await.map_err(Failed::during("releasing the lease"))?;
        }
    }
    Ok(done)
}
