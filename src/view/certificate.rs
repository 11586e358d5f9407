//! Certificates: their current state, and their fields in documents.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    change::Change,
    content::Content,
    explanation::{Step, steps},
    seconds,
};
use crate::{
    domain::{
        certificate::OrganizationName,
        evaluate::{Assessment, Evaluation},
        rotation::RotationStep,
        routing::Routing,
        status::Status,
        threshold::Severity,
    },
    message::{
        CandidateView, CertificateBody, CertificateView, ProjectView, SilenceView, SuccessorView,
        compose::MessageContext, wording,
    },
};

/// Maximum number of projects that a scope names.
const NAMED: usize = 3;

/// A certificate of the inventory with its state.
#[derive(Debug)]
pub struct CertificateRow {
    pub organization: OrganizationName,
    pub view: CertificateView,
    pub successor: Option<SuccessorView>,
    pub status: Status,
    /// Severity of its stage, unless a rule ignores it.
    pub severity: Option<Severity>,
    pub stage: Option<String>,
    /// Number of projects without a valid certificate from its expiry on; only readable projects
    /// count.
    pub breaks: usize,
    /// Whether every project where it is active has a successor.
    pub replaced: bool,
    /// Whether the latest scan could not read a list that contains it.
    pub stale: bool,
    /// The ladder: widest threshold first, then the expiry.
    pub steps: Vec<Step>,
}

impl CertificateRow {
    pub(super) fn of(
        evaluation: &Evaluation<'_>,
        context: &MessageContext<'_>,
        assessment: &Assessment<'_>,
    ) -> CertificateRow {
        let CertificateBody { certificate: mut view, successor, .. } =
            context.view(assessment, &Routing::all());
        view.ignored.take_if(|silence| silence.ended);
        view.acknowledged.take_if(|silence| silence.ended);
        CertificateRow {
            organization: evaluation.organization.clone(),
            status: evaluation.status(assessment),
            severity: assessment.open().map(|reached| reached.severity),
            stage: assessment.reached.as_ref().map(|reached| reached.label.clone()),
            breaks: 0,
            replaced: assessment.replaced,
            stale: evaluation.is_stale(&view.id),
            steps: steps(evaluation, assessment),
            view,
            successor,
        }
    }

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

    /// Whether its id or name contains a text, given in lower case, in any case.
    pub fn has(&self, text: &str) -> bool {
        self.view.id.as_str().to_lowercase().contains(text)
            || self.view.name.as_ref().is_some_and(|name| name.has(text))
    }

    /// The number of projects without a successor.
    pub fn left_alone(&self) -> usize {
        self.view.active_in.all_without_successor()
    }

    /// `chat, search, batch and 4 more`.
    pub fn scope(&self) -> String {
        let active = &self.view.active_in;
        let total = active.projects_total;
        if active.organization {
            return format!("the organization ({})", wording::count(total, "project"));
        }
        let named: Vec<&str> = active.projects.iter().take(NAMED).map(|one| one.title()).collect();
        match total {
            0 if self.status == Status::UnknownActivity => "no readable project".to_owned(),
            0 => "no project".to_owned(),
            _ if total > NAMED => format!("{} and {} more", named.join(", "), total - named.len()),
            _ => named.join(", "),
        }
    }

    /// The acknowledgement or the rule that silences it, with its reason.
    pub fn silence(&self, timezone: Tz) -> Option<String> {
        let silence = |what: &str, one: &Option<SilenceView>| {
            one.as_ref().map(|one| format!("{what} {}", wording::silence(one, timezone)))
        };
        silence("acknowledged", &self.view.acknowledged)
            .or_else(|| silence("ignored", &self.view.ignored))
    }

    /// The next step of its rotation, with the certificate to activate.
    pub fn next_step(&self) -> Option<String> {
        let step = self.view.next?;
        let proposed = self.view.active_in.projects.iter().find(|one| one.next == Some(step));
        Some(wording::next_step(step, proposed.and_then(|one| one.candidate.as_ref())))
    }
}

/// A certificate in its current state.
#[derive(Serialize, ToSchema)]
pub struct Certificate {
    pub organization: String,
    #[serde(flatten)]
    pub details: CertificateDetails,
    status: Status,
    /// Severity of its stage; null if it is in none or ignored.
    severity: Option<Severity>,
    /// The tightest threshold it has reached, `expired`, or the name of its state.
    stage: Option<String>,
    /// The successor in most projects.
    successor: Option<Successor>,
    /// Whether every project where it is active has a successor.
    replaced: bool,
    /// Whether the latest scan could not read a list that contains it: it may have changed.
    stale: bool,
}

impl Certificate {
    pub fn of(row: &CertificateRow, now: DateTime<Utc>) -> Certificate {
        Certificate {
            organization: row.organization.to_string(),
            details: CertificateDetails::of(&row.view, now),
            status: row.status,
            severity: row.severity,
            stage: row.stage.clone(),
            successor: row.successor.as_ref().map(Into::into),
            replaced: row.replaced,
            stale: row.stale,
        }
    }
}

/// A certificate, and where it is active.
#[derive(Serialize, ToSchema)]
pub struct CertificateDetails {
    pub id: String,
    name: Option<String>,
    valid_at: Option<DateTime<Utc>>,
    /// Null if the API does not report it.
    expires_at: Option<DateTime<Utc>>,
    /// Negative if it has expired.
    expires_in_seconds: Option<i64>,
    /// The expiry as the API reports it, in Unix seconds, if another one is in use: the
    /// certificate's own one, or none because the API reports no time before the year 10000.
    expires_at_reported: Option<i64>,
    /// Null if it was not read.
    content: Option<Content>,
    /// Whether certvigil's own client certificate depends on it: certvigil cannot read the API after
    /// its expiry.
    carries_certvigil: bool,
    /// The teams that are responsible for it, with null for projects without an owner; empty
    /// without configured owners.
    owners: Vec<Option<String>>,
    /// Who uploaded, renamed, activated and deactivated it, and when; latest first, at most 10.
    changes: Vec<Change>,
    active_in: ActiveIn,
    /// The next step of its rotation, if it is in a stage or left over.
    next_step: Option<RotationStep>,
    ignored: Option<Silence>,
    acknowledged: Option<Silence>,
}

impl CertificateDetails {
    pub fn of(view: &CertificateView, now: DateTime<Utc>) -> CertificateDetails {
        CertificateDetails {
            id: view.id.to_string(),
            name: view.name.as_ref().map(ToString::to_string),
            valid_at: view.valid_at.map(seconds),
            expires_at: view.expires_at.map(seconds),
            expires_in_seconds: view.expires_at.map(|at| (at - now).num_seconds()),
            expires_at_reported: view.strange_expiry.or_else(|| {
                let reported = view.reported?.expires_at?;
                (Some(reported) != view.expires_at).then(|| reported.timestamp())
            }),
            content: Content::of(view),
            carries_certvigil: view.carries_certvigil,
            owners: view.owners.iter().cloned().collect(),
            changes: view.changes.iter().map(Into::into).collect(),
            active_in: ActiveIn {
                organization: view.active_in.organization,
                projects_total: view.active_in.projects_total,
                projects_without_successor: view.active_in.without_successor,
                projects_elsewhere: view.active_in.projects_elsewhere,
                projects_elsewhere_without_successor: view.active_in.elsewhere_without_successor,
                projects: view.active_in.projects.iter().map(Into::into).collect(),
            },
            next_step: view.next,
            ignored: view.ignored.as_ref().map(Into::into),
            acknowledged: view.acknowledged.as_ref().map(Into::into),
        }
    }
}

/// Where a certificate is active.
#[derive(Serialize, ToSchema)]
pub struct ActiveIn {
    /// Active for the organization and therefore in every project.
    organization: bool,
    projects_total: usize,
    projects_without_successor: usize,
    /// Of a notification: projects that the notifier does not select.
    projects_elsewhere: usize,
    projects_elsewhere_without_successor: usize,
    /// At most 50 of `projects_total`; those that lose coverage first come first.
    projects: Vec<ProjectOfCertificate>,
}

/// A project in which a certificate is active.
#[derive(Serialize, ToSchema)]
pub struct ProjectOfCertificate {
    id: String,
    name: Option<String>,
    /// The certificate that takes over in this project.
    successor_id: Option<String>,
    /// Start of the time without a valid certificate; null if there is a successor, or if it is
    /// unknown.
    uncovered_from: Option<DateTime<Utc>>,
    /// Time since which no certificate is active; null if one is, or if none was ever seen.
    unprotected_since: Option<DateTime<Utc>>,
    /// Of an unprotected project: the deactivation that turned mutual TLS off, if the audit log
    /// names who made it.
    deactivated: Option<Change>,
    /// The next rotation step in this project, if any.
    next_step: Option<RotationStep>,
    /// The certificate to activate, if that is the next step.
    candidate_id: Option<String>,
}

impl From<&ProjectView> for ProjectOfCertificate {
    fn from(view: &ProjectView) -> ProjectOfCertificate {
        ProjectOfCertificate {
            id: view.id.to_string(),
            name: view.name.as_ref().map(ToString::to_string),
            successor_id: view.successor_id.as_ref().map(ToString::to_string),
            uncovered_from: view.uncovered_from.map(seconds),
            unprotected_since: view.unprotected_since.map(seconds),
            deactivated: view.deactivated.as_deref().map(Into::into),
            next_step: view.next,
            candidate_id: view.candidate.as_ref().map(|one| one.id.to_string()),
        }
    }
}

/// The certificate that takes over.
#[derive(Serialize, ToSchema)]
pub struct Successor {
    id: String,
    name: Option<String>,
    valid_at: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
    covers_every_project: bool,
    /// Whether clients of the replaced certificate need nothing: it has the same name and key. Null if
    /// unknown.
    same_key: Option<bool>,
    ignored: Option<Silence>,
    acknowledged: Option<Silence>,
}

impl From<&SuccessorView> for Successor {
    fn from(view: &SuccessorView) -> Successor {
        Successor {
            id: view.id.to_string(),
            name: view.name.as_ref().map(ToString::to_string),
            valid_at: view.valid_at.map(seconds),
            expires_at: view.expires_at.map(seconds),
            covers_every_project: view.covers_every_project,
            same_key: view.same_key,
            ignored: view.ignored.as_ref().map(Into::into),
            acknowledged: view.acknowledged.as_ref().map(Into::into),
        }
    }
}

/// A certificate that could be activated in projects without a successor.
#[derive(Serialize, ToSchema)]
pub struct Candidate {
    id: String,
    name: Option<String>,
    expires_at: Option<DateTime<Utc>>,
    /// Whether it is the successor in other projects.
    successor_elsewhere: bool,
    /// As in a successor.
    same_key: Option<bool>,
}

impl From<&CandidateView> for Candidate {
    fn from(view: &CandidateView) -> Candidate {
        Candidate {
            id: view.id.to_string(),
            name: view.name.as_ref().map(ToString::to_string),
            expires_at: view.expires_at.map(seconds),
            successor_elsewhere: view.is_successor,
            same_key: view.same_key,
        }
    }
}

/// The reason and the end of a silence.
#[derive(Serialize, ToSchema)]
pub struct Silence {
    reason: String,
    by: Option<String>,
    until: DateTime<Utc>,
    /// Whether it has ended.
    ended: bool,
}

impl From<&SilenceView> for Silence {
    fn from(view: &SilenceView) -> Silence {
        Silence {
            reason: view.reason.clone(),
            by: view.by.clone(),
            until: seconds(view.until),
            ended: view.ended,
        }
    }
}
