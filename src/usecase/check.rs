//! A check: reads and evaluates every organization once. It can run next to the service.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;

use super::scan::{self, Progress, Target};
use crate::{
    clock,
    domain::{
        acknowledgement::Acknowledgements, certificate::OrganizationName, evaluate::evaluate,
        inventory::Inventory, threshold::Severity,
    },
    store::{Store, StoreError},
    view::{CertificateRow, Coverage, Credential, Overview, Project},
};

/// The reading of an organization.
pub struct Read<'a> {
    pub target: &'a Target,
    pub inventory: Inventory,
    /// The difference from the API's clock, if it is too large.
    pub skew: Option<TimeDelta>,
}

/// Reads the organizations in parallel; stores nothing. The contents of certificates that the
/// database has are not requested again.
///
/// # Errors
/// If the database fails.
pub async fn read<'a>(
    targets: impl IntoIterator<Item = &'a Target>,
    store: Option<&Store>,
    progress: &watch::Sender<Progress>,
) -> Result<Vec<Read<'a>>, StoreError> {
    let scans = targets.into_iter().map(|target| async move {
        let started_at = target.api.clock().now();
        let contents = match store {
            Some(store) => store.inventory(target.api.organization()).await?.contents,
            None => BTreeMap::new(),
        };
        let known = Arc::new(Inventory { contents, ..Inventory::default() });
        let reading = scan::read(target, Arc::clone(&known), started_at, progress).await;
        let skew = target.clock(target.api.clock().now(), clock::synchronization()).skew();
        if let Some(skew) = skew {
            scan::log_clock_skew(target.api.organization(), skew);
        }
        let now = target.api.clock().now() + skew.unwrap_or_default();
        let inventory = known.merge(reading, &target.selection, now);
        Ok(Read { target, inventory, skew })
    });
    futures_util::future::try_join_all(scans).await
}

/// The overview of every organization.
pub struct Survey {
    pub now: DateTime<Utc>,
    /// The time zone for people.
    pub timezone: Tz,
    organizations: Vec<Overview>,
    /// Failed deliveries, if the check sends alerts.
    pub undelivered: usize,
    /// Each of `[[rules]]` by index, and whether it applies to a certificate.
    rules: BTreeMap<usize, bool>,
}

impl Survey {
    /// Evaluates readings with the stored acknowledgements and losses of protection, if there is a
    /// database.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn of(
        read: Vec<Read<'_>>,
        store: Option<&Store>,
        now: DateTime<Utc>,
        timezone: Tz,
    ) -> Result<Survey, StoreError> {
        let skew = read.iter().find_map(|one| one.skew).unwrap_or_default();
        let mut survey = Survey::new(now + skew, timezone);
        for Read { target, mut inventory, .. } in read {
            let mut acknowledgements = Acknowledgements::default();
            if let Some(store) = store {
                let organization = target.api.organization();
                let known = store.inventory(organization).await?;
                inventory.protection_lost = inventory.protection_lost_since(&known, survey.now);
                acknowledgements = store.acknowledgements(organization).await?;
            }
            survey.add(target, &inventory, &acknowledgements);
        }
        Ok(survey)
    }

    /// Evaluates the stored inventories.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn stored(
        targets: &[Target],
        store: &Store,
        now: DateTime<Utc>,
        timezone: Tz,
    ) -> Result<Survey, StoreError> {
        let mut survey = Survey::new(now, timezone);
        for target in targets {
            let organization = target.api.organization();
            let inventory = store.inventory(organization).await?;
            survey.add(target, &inventory, &store.acknowledgements(organization).await?);
        }
        Ok(survey)
    }

    fn new(now: DateTime<Utc>, timezone: Tz) -> Survey {
        Survey { now, timezone, organizations: Vec::new(), undelivered: 0, rules: BTreeMap::new() }
    }

    fn add(&mut self, target: &Target, inventory: &Inventory, acknowledgements: &Acknowledgements) {
        let organization = target.api.organization();
        let evaluation =
            evaluate(organization, inventory, &target.policy, acknowledgements, self.now);
        for rule in &target.policy.rules {
            self.rules.entry(rule.index).or_insert(false);
        }
        if !target.policy.rules.is_empty() {
            for assessment in evaluation.assessments() {
                self.rules.extend(assessment.ruling.deciding().map(|rule| (rule.index, true)));
            }
        }
        self.organizations.push(Overview::of(&evaluation, None, None));
    }

    /// Every certificate, least time left first.
    pub fn certificates(&self) -> Vec<&CertificateRow> {
        let all = self.organizations.iter().flat_map(|one| &one.certificates);
        let mut all: Vec<&CertificateRow> = all.collect();
        all.sort_by_cached_key(|row| row.urgency());
        all
    }

    fn projects(&self) -> impl Iterator<Item = &Project> {
        self.organizations.iter().flat_map(|one| &one.projects)
    }

    /// The uncovered projects, except those whose certificates are all ignored.
    pub fn uncovered(&self) -> Vec<&Project> {
        let open = |row: &&Project| row.coverage == Coverage::Uncovered && !row.ignored;
        self.projects().filter(open).collect()
    }

    /// The unprotected projects that are reported.
    pub fn unprotected(&self) -> Vec<&Project> {
        self.projects().filter(|row| row.coverage == Coverage::Unprotected).collect()
    }

    pub fn credentials(&self) -> impl Iterator<Item = &Credential> {
        self.organizations.iter().flat_map(|one| &one.credentials)
    }

    /// Organization and error of each unreadable list.
    pub fn unreadable(&self) -> Vec<(&OrganizationName, String)> {
        let of = |one: &Overview| {
            let faults = one.faults.iter();
            faults.map(|(list, fault)| format!("{list}: {}", fault.error)).collect::<Vec<_>>()
        };
        let all = self.organizations.iter();
        all.flat_map(|one| of(one).into_iter().map(|fault| (&one.organization, fault))).collect()
    }

    pub fn projects_read(&self) -> usize {
        self.organizations.iter().map(Overview::projects_read).sum()
    }

    /// Whether every list was read.
    pub fn is_complete(&self) -> bool {
        self.organizations.iter().all(|one| one.faults.is_empty())
    }

    /// Whether every list was read and every alert delivered.
    pub fn is_certain(&self) -> bool {
        self.is_complete() && self.undelivered == 0
    }

    /// The rules that apply to no certificate; empty if a list is unreadable.
    pub fn idle_rules(&self) -> impl Iterator<Item = usize> {
        let known = self.is_complete();
        self.rules.iter().filter(move |(_, decides)| known && !**decides).map(|(index, _)| *index)
    }

    pub fn worst(&self) -> Severity {
        let certificates = self.organizations.iter().flat_map(|one| &one.certificates);
        let projects = self.uncovered().into_iter().chain(self.unprotected());
        let all = certificates.filter_map(|row| row.severity);
        let all = all.chain(projects.filter_map(|row| row.severity));
        let all = all.chain(self.credentials().filter_map(|one| one.severity));
        all.max().unwrap_or(Severity::Info)
    }

    pub fn count(&self, severity: Severity) -> usize {
        let all = self.organizations.iter().flat_map(|one| &one.certificates);
        all.filter(|row| row.severity == Some(severity)).count()
    }
}
