//! One scan of every organization with its deliveries, for a command.

use chrono::{DateTime, TimeDelta, Utc};
use std::{collections::BTreeSet, sync::Arc};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    ConfiguredHeartbeat, Member, Timing, heartbeats, jobs, log_scan, monitor::is_late, notifiers,
    when,
};
use crate::{
    clock::Clock,
    config::Config,
    domain::certificate::OrganizationName,
    heartbeat::Signal,
    notify::Notifier,
    store::{Store, StoreError},
    usecase::{
        check::Survey,
        deliver,
        scan::{self, Progress, Report, Target},
    },
};

/// The work of one command, registered as an instance.
pub struct Once<'a> {
    config: &'a Config,
    clock: Clock,
    store: Store,
    notifiers: Vec<Arc<dyn Notifier>>,
    member: Member,
    started_at: DateTime<Utc>,
    /// The organizations with a complete scan.
    complete: BTreeSet<OrganizationName>,
    skew: TimeDelta,
    /// The error of the last failed scan. Alerts of other organizations are still delivered.
    failed: Option<anyhow::Error>,
}

impl Once<'_> {
    /// # Errors
    /// If the database cannot be opened, or a service uses the same file.
    pub async fn join(config: &Config, clock: Clock) -> anyhow::Result<Once<'_>> {
        let notifiers = notifiers(config)?;
        let store = Store::open(&config.state).await?;
        let timing = Timing::default();
        let member = Member::join(config, &store, &notifiers, clock.clone(), timing).await?;
        Ok(Once {
            config,
            started_at: clock.now(),
            clock,
            store,
            notifiers,
            member,
            complete: BTreeSet::new(),
            skew: TimeDelta::zero(),
            failed: None,
        })
    }

    /// Scans the organizations one after the other, and stores the results.
    pub async fn scan(&mut self, targets: &[Target], progress: &watch::Sender<Progress>) {
        for target in targets {
            match self.scan_one(target, progress).await {
                Ok(report) => {
                    log_scan(&report);
                    if self.skew.is_zero() {
                        self.skew = report.record.clock_skew.unwrap_or_default();
                    }
                    let complete = report.record.complete.then_some(report.record.organization);
                    self.complete.extend(complete);
                }
                Err(error) => self.failed = Some(error),
            }
        }
    }

    async fn scan_one(
        &self,
        target: &Target,
        progress: &watch::Sender<Progress>,
    ) -> anyhow::Result<Report> {
        let now = self.clock.now();
        let schedule = &self.config.schedule;
        let when = when(schedule, now, schedule.cron.latest(now));
        let give_up_after = self.config.delivery.give_up_after;
        let (store, notifiers) = (&self.store, &self.notifiers);
        let lease = self.member.lease(Some(target.api.organization())).await?;
        let held = lease.clone();
        let scanned =
            scan::run_once(target, store, notifiers, give_up_after, when, held, progress).await;
        store.release(&lease).await?;
        Ok(scanned?)
    }

    /// Sends deliveries, reports failing notifiers through the others, requests the heartbeats, and
    /// evaluates the stored inventories.
    ///
    /// # Errors
    /// If a scan or the database failed.
    pub async fn finish(mut self, targets: &[Target]) -> anyhow::Result<Survey> {
        let survey = self.deliver_and_evaluate(targets).await;
        self.member.leave().await;
        self.store.close().await;
        survey
    }

    async fn deliver_and_evaluate(&mut self, targets: &[Target]) -> anyhow::Result<Survey> {
        let (config, store, notifiers) = (self.config, &self.store, &self.notifiers);
        let mut undelivered = self.deliver().await?;
        let lease = self.member.lease(None).await?;
        let now = self.clock.now();
        let jobs = jobs(config, &Timing::default(), now);
        let report = jobs.run_once(store, notifiers, self.started_at, lease, now).await;
        if report.has_messages() {
            undelivered += self.deliver().await?;
        }
        report.drill?;
        report.summaries?;
        let (failing, now) = (report.notifiers?.failing.len(), self.clock.now());
        let late = is_late(store, &config.delivery, failing, notifiers.len(), now).await?;
        for ConfiguredHeartbeat { heartbeat, of, .. } in heartbeats(config)? {
            let fine = !late && of.is_subset(&self.complete);
            heartbeat.send(if fine { Signal::Well } else { Signal::Fail }).await;
        }
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let now = self.clock.now() + self.skew;
        let mut survey = Survey::stored(targets, store, now, config.timezone).await?;
        survey.undelivered = undelivered;
        Ok(survey)
    }

    /// Sends pending deliveries; returns the number of failed attempts.
    async fn deliver(&self) -> Result<usize, StoreError> {
        let (never, policy) = (CancellationToken::new(), &self.config.delivery);
        let deliveries = self.notifiers.iter().map(|notifier| {
            deliver::run_once(&self.store, notifier.as_ref(), policy, self.clock.now(), &never)
        });
        let mut failed = 0;
        for report in futures_util::future::join_all(deliveries).await {
            let report = report?;
            failed += report.waiting + report.failed;
        }
        Ok(failed)
    }
}
