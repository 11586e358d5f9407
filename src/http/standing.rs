//! How one organization stands, as pages, lists, metrics and the calendar show it: each certificate
//! and each project once, the most urgent first.

use chrono::{DateTime, TimeDelta, Utc};
use std::collections::BTreeMap;

use crate::{
    domain::{
        acknowledgement::Acknowledgements,
        certificate::{CertificateId, OrganizationName, Project},
        compose::{self, Occasion, Shown},
        coverage,
        evaluate::{Assessment, Evaluation, evaluate},
        explain::{Rung, rungs},
        inventory::Inventory,
        notification::{CertificateView, CredentialKind, SuccessorView},
        policy::Policy,
        routing::Routing,
        status::Status,
        text::Name,
        threshold::{Reached, Severity, Stage},
        unreadable::Unreadable,
        words::words,
    },
    store::ScanRecord,
};

/// What an evaluation rests on.
pub struct What {
    pub organization: OrganizationName,
    pub policy: Policy,
    pub inventory: Inventory,
    pub acknowledgements: Acknowledgements,
}

/// One organization.
#[derive(Debug)]
pub struct Standing {
    pub organization: OrganizationName,
    /// How far the API's clock is ahead of this machine's, where that is too much: then the API's
    /// counts.
    pub skew: TimeDelta,
    /// The least time left first.
    pub certificates: Vec<CertificateRow>,
    /// Those without a valid or an active certificate first, then those that are left without one
    /// first.
    pub projects: Vec<ProjectRow>,
    pub credentials: Vec<CredentialRow>,
    /// The latest scan that was kept.
    pub scan: Option<ScanRecord>,
    /// When the latest complete one ended.
    pub complete_at: Option<DateTime<Utc>>,
    /// The unreadable lists, with time and error.
    pub faults: Vec<(String, Unreadable)>,
}

/// One certificate.
#[derive(Debug)]
pub struct CertificateRow {
    pub organization: OrganizationName,
    pub view: CertificateView,
    pub successor: Option<SuccessorView>,
    pub status: Status,
    /// Of the stage that it is in, unless a rule ignores it.
    pub severity: Option<Severity>,
    pub stage: Option<String>,
    /// How many projects have no valid certificate from its end on, or since; of those that were
    /// read.
    pub breaks: usize,
    /// Whether every project where it is active has a successor.
    pub replaced: bool,
    /// A list that names it could not be read in the latest scan.
    pub stale: bool,
    /// Its thresholds and its end, from the widest.
    pub rungs: Vec<Rung>,
}

words! {
    /// Whether a project has a valid certificate.
    Coverage {
        /// It has none: all that are active there are expired or not yet valid.
        Uncovered = "uncovered",
        /// No certificate is active there, and one was before or is expected: mutual TLS is off.
        Unprotected = "unprotected",
        /// It will have none when the certificate expires that covers it, which has reached a
        /// threshold.
        Ending = "ending",
        /// Its list, or the organization's, was never read.
        Unknown = "unknown",
        Covered = "covered",
        /// No certificate is active there: it does not use them.
        None = "none",
    }
}

/// One project.
#[derive(Debug)]
pub struct ProjectRow {
    pub organization: OrganizationName,
    pub project: Project,
    pub coverage: Coverage,
    /// Of what ends its coverage, unless that is ignored.
    pub severity: Option<Severity>,
    /// From when it has no valid certificate, or since when; where that is known.
    pub uncovered_from: Option<DateTime<Utc>>,
    /// Since when none is active, where one was before.
    pub unprotected_since: Option<DateTime<Utc>>,
    /// How many are active, its own and inherited.
    pub certificates: usize,
    /// All certificates that were active there are ignored.
    pub ignored: bool,
    /// That none is active is acknowledged.
    pub acknowledged: bool,
    pub unreadable: Option<Unreadable>,
    pub read_at: Option<DateTime<Utc>>,
    /// The certificate whose expiry ends it, or did.
    pub ended_by: Option<CertificateId>,
}

/// What certvigil reads with.
#[derive(Debug)]
pub struct CredentialRow {
    pub kind: CredentialKind,
    pub id: String,
    pub name: Option<Name>,
    /// Whether certvigil itself uses it.
    pub own: bool,
    pub expires_at: DateTime<Utc>,
    pub severity: Option<Severity>,
}

impl Standing {
    /// Evaluates the inventory.
    pub fn of(
        known: &What,
        scan: Option<ScanRecord>,
        complete_at: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Standing {
        // A clock that has been set back since is another one.
        let believed = scan.as_ref().filter(|scan| scan.finished_at <= now);
        let skew = believed.and_then(|scan| scan.clock_skew).unwrap_or_default();
        let at = now + skew;
        let What { organization, policy, inventory, acknowledgements } = known;
        let evaluation = evaluate(organization, inventory, policy, acknowledgements, at);
        let occasion = Occasion {
            evaluation: &evaluation,
            before: None,
            scan: None,
            stale_at: None,
            allowed: None,
        };
        let all = evaluation.assessments();
        let mut certificates: Vec<CertificateRow> =
            all.map(|one| certificate(&evaluation, &occasion, &one)).collect();
        certificates.sort_by_key(CertificateRow::urgency);
        let mut projects: Vec<ProjectRow> =
            inventory.projects.values().map(|one| project(&evaluation, one)).collect();
        projects.sort_by_key(ProjectRow::urgency);
        let mut breaks: BTreeMap<&CertificateId, usize> = BTreeMap::new();
        for id in projects.iter().filter_map(|row| row.ended_by.as_ref()) {
            *breaks.entry(id).or_default() += 1;
        }
        for row in &mut certificates {
            row.breaks = breaks.get(&row.view.id).copied().unwrap_or(0);
        }
        let credentials = evaluation.credentials.iter().map(|one| CredentialRow {
            kind: one.kind(),
            id: one.id().map_or("client_identity".to_owned(), |id| id.to_string()),
            name: one.name().cloned(),
            own: one.is_own(),
            expires_at: one.expires_at,
            severity: one.reached.as_ref().map(|reached| reached.severity),
        });
        let credentials = credentials.collect();
        let faults = inventory.faults().map(|(scope, why)| (scope, why.clone())).collect();
        let organization = organization.clone();
        Standing {
            organization,
            skew,
            certificates,
            projects,
            credentials,
            scan,
            complete_at,
            faults,
        }
    }
}

fn certificate(
    evaluation: &Evaluation<'_>,
    occasion: &Occasion<'_>,
    assessment: &Assessment<'_>,
) -> CertificateRow {
    let Shown { certificate: mut view, successor, .. } = occasion.view(assessment, &Routing::all());
    // Ended silences are left out.
    view.ignored = compose::ignored(assessment).filter(|silence| !silence.ended);
    view.acknowledged =
        compose::acknowledged(assessment, evaluation.now).filter(|silence| !silence.ended);
    let reached = assessment.open();
    CertificateRow {
        organization: evaluation.organization.clone(),
        status: evaluation.status(assessment),
        severity: reached.map(|reached| reached.severity),
        stage: assessment.reached.as_ref().map(|reached| reached.label.clone()),
        breaks: 0,
        replaced: assessment.replaced,
        stale: evaluation.is_stale(&view.id),
        rungs: rungs(assessment, evaluation.now),
        view,
        successor,
    }
}

fn project(evaluation: &Evaluation<'_>, project: &Project) -> ProjectRow {
    let inventory = evaluation.inventory;
    let active = evaluation.active_in(&project.id);
    let uncovered = evaluation.uncovered(&project.id);
    let read = inventory.organization.is_some() && inventory.listings.contains_key(&project.id);
    // Where none was valid yet there is no such moment.
    let is_one = |from: &DateTime<Utc>| read && (uncovered.is_none() || *from < evaluation.now);
    let uncovered_from = match active {
        [] => None,
        active => coverage::uncovered_from(active, evaluation.now).filter(is_one),
    };
    let cause = uncovered_from.and_then(|from| {
        let ends = active.iter().find(|one| one.expires_at == Some(from))?;
        evaluation.assessment(&ends.id)
    });
    // A next certificate that is not valid yet ends no coverage.
    let ends = |reached: &&Reached| matches!(reached.stage, Stage::Within(_) | Stage::Expired);
    let reached = cause.as_ref().and_then(Assessment::open).filter(ends);
    let unprotected = evaluation.unprotected(&project.id);
    let coverage = match (uncovered, reached) {
        (Some(_), _) => Coverage::Uncovered,
        (None, _) if unprotected.is_some() => Coverage::Unprotected,
        (None, _) if !read => Coverage::Unknown,
        (None, _) if active.is_empty() => Coverage::None,
        (None, Some(_)) => Coverage::Ending,
        (None, None) => Coverage::Covered,
    };
    let ignored = uncovered.is_some_and(|one| one.ignored);
    ProjectRow {
        organization: evaluation.organization.clone(),
        project: project.clone(),
        coverage,
        severity: match uncovered {
            Some(one) if one.ignored => None,
            Some(_) => Some(Severity::Critical),
            None => match unprotected {
                Some(unprotected) => Some(unprotected.severity),
                None => reached.map(|reached| reached.severity),
            },
        },
        uncovered_from,
        unprotected_since: unprotected.and_then(|one| one.since),
        certificates: active.len(),
        ignored,
        acknowledged: unprotected.is_some_and(|one| one.acknowledged(evaluation.now).is_some()),
        unreadable: inventory.unreadable_projects.get(&project.id).cloned(),
        read_at: inventory.listings.get(&project.id).map(|listing| listing.read_at),
        ended_by: cause.map(|one| one.certificate.id.clone()),
    }
}

impl CredentialRow {
    /// `the admin key “certvigil” that reads acme`.
    pub fn title(&self, organization: &OrganizationName) -> String {
        let name = self.name.as_ref().map_or(String::new(), |name| format!(" “{name}”"));
        let does = if self.own { "that reads" } else { "of" };
        format!("{}{name} {does} {organization}", self.kind.title())
    }
}

impl CertificateRow {
    /// The order of a list: least time left first; then those without expiry and inactive ones.
    pub fn urgency(&self) -> impl Ord + use<> {
        let expires_at = self.view.expires_at;
        (
            self.status == Status::Inactive,
            expires_at.is_none(),
            expires_at,
            self.organization.clone(),
            self.view.id.clone(),
        )
    }

    /// Whether its id or name has a text, given in lower case.
    pub fn has(&self, text: &str) -> bool {
        has(self.view.id.as_str(), self.view.name.as_ref(), text)
    }

    /// In how many projects no successor takes over from it.
    pub fn left_alone(&self) -> usize {
        self.view.active_in.without_successor + self.view.active_in.elsewhere_without_successor
    }
}

fn has(id: &str, name: Option<&Name>, text: &str) -> bool {
    id.to_lowercase().contains(text)
        || name.is_some_and(|name| name.as_str().to_lowercase().contains(text))
}

impl ProjectRow {
    /// Whether its id or name has a text, given in lower case.
    pub fn has(&self, text: &str) -> bool {
        has(self.project.id.as_str(), self.project.name.as_ref(), text)
    }

    /// Projects that need action come first, soonest first; then unreadable ones.
    pub fn urgency(&self) -> impl Ord + use<> {
        let rank = match (self.coverage, self.severity) {
            (Coverage::Uncovered, Some(_)) => 0,
            (_, Some(Severity::Critical)) => 1,
            (_, Some(Severity::Warning)) => 2,
            (Coverage::Unknown, _) => 3,
            _ if self.unreadable.is_some() => 4,
            (_, Some(Severity::Info)) => 5,
            (
                Coverage::Uncovered | Coverage::Unprotected | Coverage::Ending | Coverage::Covered,
                None,
            ) => 6,
            (Coverage::None, None) => 7,
        };
        (
            rank,
            self.uncovered_from.is_none(),
            self.uncovered_from,
            self.organization.clone(),
            self.project.id.clone(),
        )
    }
}
