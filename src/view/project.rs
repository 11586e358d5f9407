//! Projects and their coverage.

use chrono::{DateTime, Utc};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

use super::seconds;
use crate::domain::{
    certificate::{self, CertificateId, OrganizationName, ProjectId},
    coverage,
    evaluate::{Assessment, Evaluation},
    text::Name,
    threshold::{Reached, Severity},
    unreadable,
    words::words,
};

words! {
    /// Whether a project has a valid certificate.
    Coverage {
        /// All its active certificates are expired or not yet valid.
        Uncovered = "uncovered",
        /// It has no active certificate, and one was active before or is expected: mutual TLS is
        /// off.
        Unprotected = "unprotected",
        /// The certificate whose expiry leaves it uncovered has reached a threshold.
        Ending = "ending",
        /// Its list, or the organization's, was never read.
        Unknown = "unknown",
        Covered = "covered",
        /// It has no active certificate, and none is expected.
        None = "none",
    }
}

/// A project.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Project {
    #[schema(value_type = String)]
    pub organization: OrganizationName,
    #[schema(value_type = String)]
    pub id: ProjectId,
    #[schema(value_type = Option<String>)]
    pub name: Option<Name>,
    pub coverage: Coverage,
    /// Severity of the end of its coverage, or of having no active certificate; null if no
    /// threshold is reached, or if it is ignored.
    pub severity: Option<Severity>,
    /// Start of the time without a valid certificate, past or future; null if unknown.
    pub uncovered_from: Option<DateTime<Utc>>,
    /// Time since which no certificate is active; null if one is, or if none was ever seen.
    pub unprotected_since: Option<DateTime<Utc>>,
    /// The certificate whose expiry ends, or ended, its coverage.
    #[schema(value_type = Option<String>)]
    pub ended_by: Option<CertificateId>,
    /// Number of active certificates, its own and inherited.
    pub certificates: usize,
    /// The error, if the latest scan could not read its list.
    pub unreadable: Option<Unreadable>,
    /// Time of the last complete read of its list; null if there was none.
    pub read_at: Option<DateTime<Utc>>,
    /// Whether rules ignore all certificates that were active.
    #[serde(skip)]
    pub ignored: bool,
    /// Whether the missing mutual TLS is acknowledged.
    #[serde(skip)]
    pub acknowledged: bool,
}

/// An unreadable list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Unreadable {
    pub since: DateTime<Utc>,
    #[schema(value_type = String)]
    pub error: Arc<str>,
}

impl From<&unreadable::Unreadable> for Unreadable {
    fn from(one: &unreadable::Unreadable) -> Unreadable {
        Unreadable { since: seconds(one.since), error: Arc::clone(&one.why) }
    }
}

impl Project {
    pub(super) fn of(evaluation: &Evaluation<'_>, project: &certificate::Project) -> Project {
        let inventory = evaluation.inventory;
        let active = evaluation.active_in(&project.id);
        let uncovered = evaluation.uncovered(&project.id);
        let unprotected = evaluation.unprotected(&project.id);
        let read = inventory.organization.is_some() && inventory.listings.contains_key(&project.id);
        // If no certificate of an uncovered project has started, there is no such time.
        let is_one = |from: &DateTime<Utc>| read && (uncovered.is_none() || *from < evaluation.now);
        let uncovered_from = match active {
            [] => None,
            active => coverage::uncovered_from(active, evaluation.now).filter(is_one),
        };
        let last =
            uncovered_from.and_then(|from| active.iter().find(|one| one.expires_at == Some(from)));
        // A certificate that is not valid yet ends no coverage.
        let ends = |reached: &&Reached| reached.stage.is_of_expiry();
        let assessment = last.and_then(|last| evaluation.find_in_stage(&last.id));
        let reached = assessment.and_then(Assessment::open).filter(ends);
        Project {
            organization: evaluation.organization.clone(),
            id: project.id.clone(),
            name: project.name.clone(),
            coverage: match (uncovered, unprotected, reached) {
                (Some(_), _, _) => Coverage::Uncovered,
                (None, Some(_), _) => Coverage::Unprotected,
                (None, None, _) if !read => Coverage::Unknown,
                (None, None, _) if active.is_empty() => Coverage::None,
                (None, None, Some(_)) => Coverage::Ending,
                (None, None, None) => Coverage::Covered,
            },
            severity: match (uncovered, unprotected) {
                (Some(one), _) => (!one.ignored).then_some(Severity::Critical),
                (None, Some(one)) => Some(one.severity),
                (None, None) => reached.map(|reached| reached.severity),
            },
            uncovered_from: uncovered_from.map(seconds),
            unprotected_since: unprotected.and_then(|one| one.since).map(seconds),
            ended_by: last.map(|one| one.id.clone()),
            certificates: active.len(),
            unreadable: inventory.unreadable_projects.get(&project.id).map(Into::into),
            read_at: inventory.listings.get(&project.id).map(|list| seconds(list.read_at)),
            ignored: uncovered.is_some_and(|one| one.ignored),
            acknowledged: unprotected.is_some_and(|one| one.acknowledged(evaluation.now).is_some()),
        }
    }

    /// The name, or the id of a project without a name.
    pub fn title(&self) -> &str {
        self.name.as_ref().map_or(self.id.as_str(), Name::as_str)
    }

    /// Whether its id or name contains a text, given in lower case, in any case.
    pub fn has(&self, text: &str) -> bool {
        self.id.as_str().to_lowercase().contains(text)
            || self.name.as_ref().is_some_and(|name| name.has(text))
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
            self.id.clone(),
        )
    }
}
