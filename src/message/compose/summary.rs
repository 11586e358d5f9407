//! Summaries. They belong to no organization: one covers all that the notifier selects.

use chrono::{DateTime, SubsecRound, Utc};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

use super::{Composed, MAX_PROJECTS, acknowledged, ignored};
use crate::{
    domain::{
        acknowledgement::Acknowledgement,
        evaluate::{Evaluation, Unprotected},
        notifier::NotifierState,
        subject::Subject,
        summary::{AHEAD, ProjectState, Summarized, Summary, SummaryState, summarize},
        threshold::Severity,
    },
    message::{
        Alert, Body, CredentialView, Event, Listed, Notification, SilenceView, SummaryCertificate,
        SummaryCredential, SummaryDeliveries, SummaryExpiry, SummaryProject, SummaryScans,
        SummaryView,
    },
};

/// Maximum number of projects that a summary names for each certificate.
const NAMED_PROJECTS: usize = 3;

/// The data that the summaries of all notifiers share.
pub struct SummaryContext<'a> {
    /// In the order of the configuration.
    pub organizations: Vec<(Evaluation<'a>, SummaryScans)>,
    pub deliveries: SummaryDeliveries,
    /// Time of the previous summary.
    pub since: DateTime<Utc>,
    pub now: DateTime<Utc>,
}

impl SummaryContext<'_> {
    /// The summary for one part of a notifier's alerts; `None` if it selects no organization.
    pub fn compose(&self, id: Uuid, notifier: &NotifierState) -> Option<Composed> {
        let view = self.view(notifier)?;
        let body = Body::Summary(Box::new(view));
        let closes = Some(BTreeSet::new());
        let alert = Alert { closes, ..Alert::new(Event::Summary, None, Severity::Info, body) };
        let notification = Notification {
            id,
            created_at: self.now,
            notifier: notifier.name.clone(),
            audience: notifier.routing.audience.clone(),
            organization: None,
            severity: Severity::Info,
            scan: None,
            alerts: vec![alert],
            alerts_total: 1,
            stale_at: None,
        };
        Some(Composed { notification, subjects: BTreeSet::from([Subject::Summary]) })
    }

    fn view(&self, notifier: &NotifierState) -> Option<SummaryView> {
        let routing = &notifier.routing;
        let selected = self.organizations.iter();
        let selected = selected.filter(|(evaluation, _)| routing.selects(evaluation.organization));
        let (mut scans, mut certificates) = (Vec::new(), BTreeMap::new());
        let (mut projects, mut credentials, mut next) = (BTreeMap::new(), Vec::new(), Vec::new());
        // `None` without an organization.
        let mut until = None;
        for (evaluation, of_organization) in selected {
            until = until.max(Some(evaluation.now));
            let admin_keys_unreadable =
                of_organization.admin_keys_unreadable && evaluation.concerns_organization(routing);
            scans.push(SummaryScans { admin_keys_unreadable, ..of_organization.clone() });
            let summary = summarize(evaluation, routing);
            for one in &summary.certificates {
                let entry = certificate(evaluation, one);
                certificates.entry(one.state).or_insert_with(Vec::new).push(entry);
            }
            for (state, project) in of_projects(evaluation, &summary) {
                projects.entry(state).or_insert_with(Vec::new).push(project);
            }
            credentials.extend(summary.credentials.iter().map(|one| SummaryCredential {
                organization: evaluation.organization.clone(),
                credential: CredentialView {
                    kind: one.kind(),
                    id: one.id(),
                    name: one.name().cloned(),
                    expires_at: Some(seconds(one.expires_at)),
                    own: one.is_own(),
                },
                due: one.reached.is_some(),
            }));
            next.extend(summary.next_expiry.map(|(at, assessment)| SummaryExpiry {
                organization: evaluation.organization.clone(),
                id: assessment.certificate.id.clone(),
                name: assessment.certificate.name.clone(),
                expires_at: seconds(at),
            }));
        }
        for listed in certificates.values_mut() {
            listed.sort_by_key(|one| (one.expires_at.is_none(), one.expires_at));
        }
        credentials.sort_by_key(|one| one.credential.expires_at);
        let credentials_total = credentials.len();
        credentials.truncate(MAX_PROJECTS);
        let is_operator = routing.audience.includes(None);
        Some(SummaryView {
            since: seconds(self.since),
            until: seconds(until? + AHEAD),
            organizations: scans,
            certificates: certificates.into_iter().map(listed).collect(),
            projects: projects.into_iter().map(listed).collect(),
            credentials,
            credentials_total,
            next_expiry: next.into_iter().min_by_key(|one| one.expires_at),
            deliveries: is_operator.then(|| self.deliveries.clone()),
        })
    }
}

/// The first entries of a state.
fn listed<S, T>((state, mut entries): (S, Vec<T>)) -> Listed<S, T> {
    let total = entries.len();
    entries.truncate(MAX_PROJECTS);
    Listed { state, total, listed: entries }
}

fn certificate(evaluation: &Evaluation<'_>, one: &Summarized<'_>) -> SummaryCertificate {
    let certificate = one.assessment.certificate;
    let titles = one.projects.iter().take(NAMED_PROJECTS);
    SummaryCertificate {
        organization: evaluation.organization.clone(),
        id: certificate.id.clone(),
        name: certificate.name.clone(),
        expires_at: certificate.expires_at.map(seconds),
        projects_total: one.projects.len(),
        projects_waiting: one.projects_waiting,
        projects: titles.map(|project| project.title().to_owned()).collect(),
        owners: match evaluation.policy.owners.is_empty() {
            true => BTreeSet::new(),
            false => evaluation.owners_of(&one.assessment).clone(),
        },
        acknowledged: acknowledged(&one.assessment, evaluation.now)
            .filter(|silence| !silence.ended)
            .map(whole),
        ignored: ignored(&one.assessment).filter(|_| one.state == SummaryState::Ignored).map(whole),
    }
}

/// The projects without a valid or an active certificate.
fn of_projects(
    evaluation: &Evaluation<'_>,
    summary: &Summary<'_>,
) -> Vec<(ProjectState, SummaryProject)> {
    let of_unprotected = |state, one: &Unprotected<'_>| {
        let acknowledged = one.acknowledged(evaluation.now).map(silence);
        let since = one.since.map(seconds);
        let project = SummaryProject {
            organization: evaluation.organization.clone(),
            id: one.project.id.clone(),
            name: one.project.name.clone(),
            since,
            acknowledged,
        };
        (state, project)
    };
    let uncovered = summary.uncovered.iter().map(|one| {
        let project = SummaryProject {
            organization: evaluation.organization.clone(),
            id: one.project.id.clone(),
            name: one.project.name.clone(),
            since: evaluation.uncovered_since(&one.project.id).map(seconds),
            acknowledged: None,
        };
        (ProjectState::Uncovered, project)
    });
    let unprotected = summary.unprotected.iter();
    let unprotected = unprotected.map(|one| of_unprotected(ProjectState::Unprotected, one));
    let acknowledged = summary.acknowledged.iter();
    let acknowledged = acknowledged.map(|one| of_unprotected(ProjectState::Acknowledged, one));
    uncovered.chain(unprotected).chain(acknowledged).collect()
}

fn silence(acknowledgement: &Acknowledgement) -> SilenceView {
    SilenceView {
        reason: acknowledgement.reason.clone(),
        by: acknowledgement.by.clone(),
        until: seconds(acknowledgement.until),
        ended: false,
    }
}

fn whole(silence: SilenceView) -> SilenceView {
    SilenceView { until: seconds(silence.until), ..silence }
}

fn seconds(at: DateTime<Utc>) -> DateTime<Utc> {
    at.trunc_subsecs(0)
}
