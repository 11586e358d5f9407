//! The other instances on the same database: which ones run, their scans, and whether their
//! configurations agree.

use chrono::{DateTime, Utc};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Shared, Timing,
    reload::settle_changes,
    scans::{last_of, overdue},
};
use crate::{
    clock::Clock,
    config::{
        Config,
        place::{LOCAL, SYSTEM},
    },
    domain::certificate::OrganizationName,
    notify::Notifier,
    schedule,
    store::{Instance, Lease, LeaseOutcome, Membership, Store, StoreError},
    usecase::Failed,
};

/// The number of differing keys that are logged.
const LOGGED: usize = 20;

/// The registration of this instance.
pub fn membership(
    config: &Config,
    notifiers: &[Arc<dyn Notifier>],
    started_at: DateTime<Utc>,
) -> Membership {
    let mut settings = config.outline.clone();
    for notifier in notifiers {
        let key = format!("the receivers of {}", notifier.name());
        settings.insert(key, notifier.receivers().join(", "));
    }
    let text: Vec<String> = settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.join("\n").as_bytes());
    Membership {
        host: host(),
        process: std::process::id(),
        version: env!("CARGO_PKG_VERSION"),
        started_at,
        settings,
        digest: digest.simple().to_string(),
    }
}

fn host() -> String {
    // Not from /proc, which the service may not be allowed to read.
    let system = rustix::system::uname();
    crate::domain::text::one_line(&system.nodename().to_string_lossy(), 64)
}

/// A temporary instance, such as a command: its leases end with it.
pub struct Member {
    store: Store,
    clock: Clock,
    timing: Timing,
    beats: tokio::task::JoinHandle<()>,
}

impl Member {
    /// Registers, and cleans up after removals from the configuration.
    ///
    /// # Errors
    /// If the database fails, or another instance holds the lease.
    pub async fn join(
        config: &Config,
        store: &Store,
        notifiers: &[Arc<dyn Notifier>],
        clock: Clock,
        timing: Timing,
    ) -> anyhow::Result<Member> {
        refuse_to_forget(config, store, notifiers).await?;
        let membership = membership(config, notifiers, clock.now());
        store.join(&membership, false, &|| clock.now()).await?;
        let (beating, beats_clock) = (store.clone(), clock.clone());
        let (registration, lease) = (timing.registration, timing.lease);
        let beats = tokio::spawn(async move {
            while beating.is_shared() {
                if let Err(error) = beating.beat(&membership, lease, &|| beats_clock.now()).await {
                    tracing::debug!(%error, "cannot renew this instance’s registration");
                }
                tokio::time::sleep(registration).await;
            }
        });
        let member = Member { store: store.clone(), clock: clock.clone(), timing, beats };
        if !settle_changes(config, store, notifiers, clock.now()).await? {
            tracing::debug!(
                "cleanup of removed organizations and notifiers left to another instance"
            );
        }
        Ok(member)
    }

    /// Waits for the lease until the other instance releases it.
    ///
    /// # Errors
    /// If the database fails, the lease is not released in time, or another configuration is newer.
    pub async fn lease(&self, of: Option<&OrganizationName>) -> anyhow::Result<Lease> {
        let begun = tokio::time::Instant::now();
        loop {
            match self.store.take(of, None, self.timing.lease, self.clock.now()).await? {
                LeaseOutcome::Acquired(lease) => return Ok(lease),
                LeaseOutcome::Superseded => {
                    anyhow::bail!(
                        "another instance has a newer configuration, and only that instance scans; \
                         run this command with that configuration"
                    )
                }
                LeaseOutcome::Held | LeaseOutcome::Done
                    if begun.elapsed() > self.timing.lease_patience =>
                {
                    anyhow::bail!(
                        "another instance holds the lease and did not release it within {:?}: try \
                         again later",
                        self.timing.lease_patience
                    )
                }
                LeaseOutcome::Held | LeaseOutcome::Done => {
                    tokio::time::sleep(self.timing.registration / 2).await
                }
            }
        }
    }

    /// Releases its leases and ends its registration.
    pub async fn leave(self) {
        self.beats.abort();
        if let Err(error) = self.store.leave().await {
            tracing::debug!(
                %error, "cannot deregister this instance: its registration expires by itself"
            );
        }
    }
}

/// Refuses a start without configuration file if the database has unconfigured data: a missing file
/// is a mistake, not a decision to remove organizations.
///
/// # Errors
/// If there is no file and the database has unconfigured names; or if the database fails.
pub async fn refuse_to_forget(
    config: &Config,
    store: &Store,
    notifiers: &[Arc<dyn Notifier>],
) -> Result<(), OpenError> {
    if config.has_file {
        return Ok(());
    }
    let is_configured = |name: &OrganizationName| {
        config.organizations.iter().any(|one| one.api.organization == *name)
    };
    let organizations = store.organizations().await?.into_iter().filter(|one| !is_configured(one));
    let pending = store.waiting().await?.into_iter().map(|one| one.notifier);
    let pending = pending.filter(|name| notifiers.iter().all(|one| one.name() != name));
    let unknown: Vec<String> = organizations
        .map(|name| format!("the organization {name}"))
        .chain(pending.map(|name| format!("pending deliveries of the notifier {name}")))
        .collect();
    match unknown.is_empty() {
        true => Ok(()),
        false => Err(OpenError::Unknown(unknown.join(", "))),
    }
}

/// An error that prevents a start with this database.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Failed(#[from] Failed),
    #[error(
        "no configuration file was found ({SYSTEM}, ./{LOCAL}), but the database contains {0}: \
         name the file with --config or CERTVIGIL_CONFIG; if all settings are in the environment, \
         name an empty file"
    )]
    Unknown(String),
}

impl OpenError {
    /// Whether a retry may succeed.
    pub fn is_passing(&self) -> bool {
        match self {
            OpenError::Store(fault) | OpenError::Failed(Failed { source: fault, .. }) => {
                fault.is_passing()
            }
            OpenError::Unknown(_) => false,
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.beats.abort();
    }
}

/// Renews the registration until the process ends.
pub async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let (watchdog, pause) = (shared.watchdog.enter(), shared.timing.registration);
    let mut known = PeerObservations::default();
    let mut away = false;
    loop {
        let membership = Arc::clone(&shared.membership.borrow());
        let look = async {
            let instances =
                shared.store.beat(&membership, shared.timing.lease, &|| shared.clock.now()).await?;
            let latest = shared.store.latest_scans().await?;
            Ok::<_, crate::store::StoreError>((instances, latest))
        };
        match watchdog.during(Duration::from_secs(120), look).await {
            Ok((instances, latest)) => {
                if std::mem::take(&mut away) {
                    tracing::info!("database available again");
                }
                shared.status.send_modify(|status| status.instances.clone_from(&instances));
                known.update(&instances);
                for one in latest {
                    let is_unknown = || {
                        let status = shared.status.borrow();
                        let watched = status.organizations.get(&one.organization);
                        watched.is_some_and(|watched| watched.last.is_none())
                    };
                    let before = known.scans.insert(one.organization.clone(), one.scan);
                    if before != Some(one.scan) || is_unknown() {
                        note(&shared, &one.organization).await;
                    }
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut away, true) {
                    tracing::error!(%error, "database unavailable: no scans until it is available again");
                }
            }
        }
        if stop
            .run_until_cancelled(watchdog.during(pause * 2, tokio::time::sleep(pause)))
            .await
            .is_none()
        {
            return;
        }
    }
}

/// Updates the status after a scan of any instance.
async fn note(shared: &Shared, organization: &OrganizationName) {
    let Ok(Some(record)) = shared.store.latest_scan(organization).await else { return };
    let schedule: schedule::Settings = shared.schedule.borrow().clone();
    shared.status.send_modify(|status| {
        // Only configured organizations have a status.
        if let Some(watched) = status.organizations.get_mut(organization) {
            watched.overdue_at = watched.overdue_at.max(overdue(
                &schedule,
                &shared.timing,
                record.tick,
                record.tick,
            ));
            watched.last = Some(last_of(&record));
            watched.never_read &= !record.has_read();
            watched.fault = None;
        }
    });
}

/// The previous observations, so that each change is logged once.
#[derive(Default)]
struct PeerObservations {
    scans: BTreeMap<OrganizationName, Uuid>,
    there: BTreeMap<String, String>,
    /// Id and digest of each instance with another configuration, and the own digest.
    differ: BTreeSet<(String, String, String)>,
    scanning: Option<bool>,
}

impl PeerObservations {
    fn update(&mut self, instances: &[Instance]) {
        let Some(me) = instances.iter().find(|one| one.me) else { return };
        let others: Vec<&Instance> = instances.iter().filter(|one| one.there && !one.me).collect();
        let there: BTreeMap<String, String> =
            others.iter().map(|one| (one.id.clone(), name(one))).collect();
        for (id, instance) in &there {
            if !self.there.contains_key(id) {
                tracing::info!(%instance, "another instance uses the same database");
            }
        }
        for (id, instance) in &self.there {
            if !there.contains_key(id) {
                tracing::warn!(%instance, "instance gone: taking over its work");
            }
        }
        self.there = there;
        let mut differ = BTreeSet::new();
        for other in others.into_iter().filter(|one| one.digest != me.digest) {
            let key = (other.id.clone(), other.digest.clone(), me.digest.clone());
            if !self.differ.contains(&key) {
                let differences = differences(me, other);
                let who = match (me.in_force, other.in_force) {
                    (true, _) => {
                        "this instance scans; the other instance only delivers until it is reloaded"
                    }
                    (false, true) => {
                        "the other instance scans; this instance only delivers \
                                      until it is reloaded"
                    }
                    (false, false) => {
                        "a third instance has the newest configuration and scans; this instance \
                         and the other one only deliver until they are reloaded"
                    }
                };
                tracing::warn!(
                    instance = %name(other), differences = %differences,
                    "instances have different configurations: {who}"
                );
            }
            differ.insert(key);
        }
        self.differ = differ;
        if self.scanning.replace(me.in_force).is_some_and(|before| before != me.in_force) {
            match me.in_force {
                true => tracing::info!("this instance has the newest configuration: it scans"),
                false => tracing::warn!(
                    "another instance has a newer configuration: this instance only delivers \
                     until it is reloaded"
                ),
            }
        }
    }
}

/// The display name of an instance.
fn name(instance: &Instance) -> String {
    format!("{} (process {}, certvigil {})", instance.host, instance.process, instance.version)
}

/// The keys that differ, with both values.
fn differences(me: &Instance, other: &Instance) -> String {
    let all = me.differences(other);
    let mut texts: Vec<String> = all
        .iter()
        .take(LOGGED)
        .map(|one| {
            let shown = |value: &str| if value.is_empty() { "nothing" } else { value }.to_owned();
            format!("{}: here {}, there {}", one.key, shown(&one.here), shown(&one.there))
        })
        .collect();
    if all.len() > LOGGED {
        texts.push(format!("and {} more", all.len() - LOGGED));
    }
    texts.join("; ")
}
