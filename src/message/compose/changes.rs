//! The known changes of certificates, and the notice of new ones.

use uuid::Uuid;

use super::{Composed, MessageContext};
use crate::{
    domain::{
        certificate::{Certificate, CertificateId, Project, ProjectId, Scope},
        change::{CertificateChange, ChangeKind},
        evaluate::Evaluation,
        notifier::NotifierState,
        routing::Routing,
        selection::Globs,
        threshold::Severity,
    },
    message::{Alert, Body, ChangeView, ChangesView, Event, Named, Notification, ProjectName},
};

/// The maximum number of changes of a certificate.
const MAX_CHANGES: usize = 10;
/// The maximum number of changes in a notice.
const MAX_NEWS: usize = 100;
/// The maximum number of projects of a change.
const MAX_PROJECTS: usize = 10;

impl MessageContext<'_> {
    /// The latest changes of a certificate.
    pub(super) fn changes_of(&self, id: &CertificateId, routing: &Routing) -> Vec<ChangeView> {
        let changes = self.evaluation.inventory.changes.of(id);
        changes.take(MAX_CHANGES).map(|one| self.change(one, routing)).collect()
    }

    /// The deactivation that turned mutual TLS off in a project, if the audit log names who made it,
    /// and the scan that noticed the loss noticed nothing else that may be its cause.
    pub(super) fn deactivation(
        &self,
        project: &ProjectId,
        routing: &Routing,
    ) -> Option<ChangeView> {
        let its = |scope: &Scope| scope.project().is_none_or(|id| id == project);
        let lost_at = self.lost_protection(project)?;
        let noticed = || {
            let changes = self.evaluation.inventory.changes.all.iter();
            changes.filter(|one| one.kind.has_scope() && one.seen_at == lost_at)
        };
        if noticed().any(|one| one.scopes.is_empty()) {
            return None;
        }
        let latest = noticed()
            .filter(|one| one.compared && one.scopes.iter().any(its))
            .max_by_key(|one| one.at)?;
        let names = latest.kind == ChangeKind::Deactivated && !latest.actors.is_empty();
        names.then(|| self.change(latest, routing))
    }

    /// The notice of the changes that this scan noticed; `None` without any for the notifier.
    pub fn notice(&self, id: Uuid, notifier: &NotifierState) -> Option<Composed> {
        let Evaluation { inventory, now, .. } = self.evaluation;
        let routing = &notifier.routing;
        if !routing.changes || !routing.selects(self.evaluation.organization) {
            return None;
        }
        let news = inventory.changes.news(*now).filter(|one| self.concerns(one, routing));
        let (mut listed, mut total) = (Vec::new(), 0);
        for one in news {
            total += 1;
            if listed.len() < MAX_NEWS {
                listed.push(self.change(one, routing));
            }
        }
        let body = Body::Changes(ChangesView { listed, total });
        let alert = Alert::new(Event::CertificatesChanged, None, Severity::Info, body);
        let message = self.message(id, notifier, vec![(alert, Vec::new())], 1);
        // Later scans do not replace it.
        let notification = Notification { stale_at: None, ..message.notification };
        (total > 0).then_some(Composed { notification, ..message })
    }

    /// Whether a change concerns the selected projects and owners. A change whose projects are not
    /// all known concerns all projects, and the owners of the certificate.
    fn concerns(&self, change: &CertificateChange, routing: &Routing) -> bool {
        let has_no_project = !change.kind.has_scope()
            || change.scopes.len() < change.scopes_total.max(1)
            || change.scopes.contains(&Scope::Organization);
        let known = &self.evaluation.inventory.projects;
        let projects: Vec<&Project> = change.projects().filter_map(|id| known.get(id)).collect();
        if routing.audience.is_everyone() {
            let mut selected = projects.iter().map(|one| routing.projects.match_project(one));
            return routing.projects.is_all()
                || has_no_project
                || selected.any(|selected| selected);
        }
        let Some(certificate) = self.certificate(&change.certificate) else {
            return self.evaluation.concerns_organization(routing);
        };
        let projects = if has_no_project { self.projects_of(&certificate.id) } else { projects };
        let all = Routing { projects: Globs::all(), ..routing.clone() };
        let routing = if has_no_project { &all } else { routing };
        match projects.is_empty() {
            true => self.evaluation.concerns_certificate_without_projects(routing, certificate),
            false => {
                let selected = self.evaluation.selected_projects(routing, certificate, &projects);
                selected.into_iter().any(|selected| selected)
            }
        }
    }

    /// A certificate, or its state before this scan.
    fn certificate(&self, id: &CertificateId) -> Option<&Certificate> {
        let now = self.evaluation.inventory.certificates.get(id);
        let before = || self.before?.certificates.get(id);
        now.or_else(before).map(AsRef::as_ref)
    }

    /// The projects in which a certificate is active, or was before this scan.
    fn projects_of(&self, id: &CertificateId) -> Vec<&Project> {
        let mut projects = self.evaluation.inventory.projects_of(id);
        projects.extend(self.before.into_iter().flat_map(|before| before.projects_of(id)));
        projects
    }

    fn change(&self, change: &CertificateChange, routing: &Routing) -> ChangeView {
        let inventory = self.evaluation.inventory;
        let (has_scope, scopes) = (change.kind.has_scope(), &change.scopes);
        let organization = has_scope && scopes.contains(&Scope::Organization);
        let named = change.projects().filter_map(|id| {
            let known = inventory.projects.get(id);
            let selected = match known {
                Some(project) => match self.certificate(&change.certificate) {
                    Some(certificate) => {
                        self.evaluation.selected_projects(routing, certificate, &[project])[0]
                    }
                    None => routing.projects.match_project(project),
                },
                None => routing.projects.is_all(),
            };
            let name = known.and_then(|project| project.name.clone());
            selected.then(|| ProjectName { id: id.clone(), name })
        });
        let total = if has_scope { change.scopes_total } else { 0 };
        ChangeView {
            kind: change.kind,
            certificate: Named { id: change.certificate.clone(), name: change.name.clone() },
            at: change.at,
            logged: change.events > 0,
            organization,
            projects: named.take(MAX_PROJECTS).collect(),
            projects_total: total - usize::from(organization).min(total),
            actors: change.actors.clone(),
        }
    }
}
