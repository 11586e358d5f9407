//! Owners: the teams that are responsible for certificates, and the part of the alerts that each
//! receiver gets.
//!
//! In each project, a certificate has one owner: the team of the first matching entry of
//! `[[owners]]`. A certificate that is active in several projects may have several. The
//! rest, which has no owner, goes to a fallback, so that nothing is lost.

use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
};

use super::{
    certificate::{Certificate, CertificateId, Project, ProjectId},
    change::{Actor, ChangeKind},
    evaluate::{Assessment, Evaluation},
    inventory::Inventory,
    routing::Routing,
    selection::Globs,
    subject::ProjectKind,
};

/// The name of a team: 1 to 64 characters of a-z, 0-9 and _.
pub type Team = String;

/// An entry of `[[owners]]`. All its filters must match.
#[derive(Clone, Debug)]
pub struct Owner {
    /// Its index in the configuration, from 0.
    pub index: usize,
    pub team: Team,
    pub certificates: Globs,
    pub projects: Globs,
    /// The uploader's address, id or name, according to the audit log, in any case.
    pub uploaders: Globs,
}

impl Owner {
    /// `uploader` is `None` if it is unknown.
    fn matches_certificate(&self, certificate: &Certificate, uploader: Option<&Actor>) -> bool {
        self.certificates.matches(certificate.id.as_str(), certificate.name.as_ref())
            && (self.uploaders.is_all() || uploader.is_some_and(|one| self.matches_uploader(one)))
    }

    fn matches_uploader(&self, actor: &Actor) -> bool {
        self.uploaders.matches(actor.id.as_str(), actor.name.as_ref())
            || actor
                .email
                .as_ref()
                .is_some_and(|email| self.uploaders.matches(email.as_str(), None))
    }

    /// Whether it is responsible for whole projects, whatever their certificates are.
    fn is_of_projects(&self) -> bool {
        self.certificates.is_all() && self.uploaders.is_all()
    }
}

/// Whose alerts a receiver gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Audience {
    /// Those of every owner, and the rest.
    #[default]
    Everyone,
    /// Those of these teams; `None` is the rest.
    Owners(BTreeSet<Option<Team>>),
}

impl Audience {
    pub fn is_everyone(&self) -> bool {
        matches!(self, Audience::Everyone)
    }

    /// The teams joined by `+`, with an empty text for the rest; empty for everyone.
    pub fn key(&self) -> String {
        match self {
            Audience::Everyone => String::new(),
            Audience::Owners(teams) => {
                let teams = teams.iter().map(|team| team.as_deref().unwrap_or_default());
                teams.collect::<Vec<_>>().join("+")
            }
        }
    }

    /// The name of the ledger for this part of a notifier's alerts. Names of notifiers and teams
    /// contain neither `/` nor `+`. The rest uses the ledger that the notifier had before it had
    /// owners.
    pub fn ledger_of(&self, notifier: &str) -> String {
        match self.key().as_str() {
            "" => notifier.to_owned(),
            key => format!("{notifier}/{key}"),
        }
    }

    /// The teams, with `None` for the rest; `None` for everyone.
    pub fn teams(&self) -> Option<&BTreeSet<Option<Team>>> {
        match self {
            Audience::Everyone => None,
            Audience::Owners(teams) => Some(teams),
        }
    }

    /// A notifier with this part of its alerts: `mail (payments)`, `mail (no owner)`.
    pub fn title_of(&self, notifier: &str) -> String {
        match self.teams() {
            None => notifier.to_owned(),
            Some(teams) => format!("{notifier} ({})", names(teams)),
        }
    }

    /// Whether it includes all of another audience.
    pub fn covers(&self, other: &Audience) -> bool {
        match (self, other) {
            (Audience::Everyone, _) => true,
            (Audience::Owners(_), Audience::Everyone) => false,
            (Audience::Owners(teams), Audience::Owners(others)) => others.is_subset(teams),
        }
    }

    /// Whether it includes a team, or for `None` the rest.
    pub fn includes(&self, team: Option<&str>) -> bool {
        match self {
            Audience::Everyone => true,
            Audience::Owners(teams) => teams.iter().any(|one| one.as_deref() == team),
        }
    }
}

/// The teams in words, with `no owner` for the rest: `payments, search, no owner`.
pub fn names(teams: &BTreeSet<Option<Team>>) -> String {
    let (rest, owners): (Vec<_>, Vec<_>) = teams.iter().partition(|team| team.is_none());
    let words = owners.into_iter().chain(rest);
    let words = words.map(|team| team.as_deref().unwrap_or("no owner"));
    words.collect::<Vec<_>>().join(", ")
}

impl From<Audience> for String {
    fn from(audience: Audience) -> String {
        audience.key()
    }
}

/// Reads a key. Everyone is not written.
impl From<String> for Audience {
    fn from(key: String) -> Audience {
        let teams = key.split('+').map(|team| Some(team.to_owned()).filter(|one| !one.is_empty()));
        Audience::Owners(teams.collect())
    }
}

/// The owners of one inventory. Matching names with patterns is slow, so each project is matched
/// once.
pub struct Owners<'a> {
    all: &'a [Owner],
    /// The indices of the entries that match each project, in ascending order.
    of_project: HashMap<&'a ProjectId, Vec<usize>>,
    /// Who uploaded each certificate, according to the audit log. Several contradict each other.
    uploaders: HashMap<&'a CertificateId, BTreeSet<&'a Actor>>,
}

impl<'a> Owners<'a> {
    pub fn of(all: &'a [Owner], inventory: &'a Inventory) -> Owners<'a> {
        if all.is_empty() {
            return Owners { all, of_project: HashMap::new(), uploaders: HashMap::new() };
        }
        let projects = inventory.projects.iter();
        // Only the event itself names the uploader: the difference of two scans does not, and
        // neither does a later event.
        let changes = inventory.changes.all.iter();
        let uploads = changes.filter(|one| one.kind == ChangeKind::Uploaded && one.events > 0);
        let mut uploaders: HashMap<&CertificateId, BTreeSet<&Actor>> = HashMap::new();
        for upload in uploads {
            uploaders.entry(&upload.certificate).or_default().extend(&upload.actors);
        }
        Owners {
            all,
            of_project: projects.map(|(id, project)| (id, matching(all, project))).collect(),
            uploaders,
        }
    }

    /// The indices of the entries that match a certificate, in ascending order.
    fn entries_of(&self, certificate: &Certificate) -> Vec<usize> {
        let uploaders = self.uploaders.get(&certificate.id);
        let uploader = uploaders.filter(|all| all.len() == 1).and_then(BTreeSet::first).copied();
        let all = self.all.iter().enumerate();
        let matching = all.filter(|(_, owner)| owner.matches_certificate(certificate, uploader));
        matching.map(|(index, _)| index).collect()
    }

    /// The indices of the entries that match a project, in ascending order.
    fn entries_of_project(&self, project: &Project) -> Cow<'_, [usize]> {
        match self.of_project.get(&project.id) {
            Some(entries) => Cow::Borrowed(entries),
            // It has been archived.
            None => Cow::Owned(matching(self.all, project)),
        }
    }

    /// The first of a certificate's entries that also matches the project.
    fn first(&self, entries: &[usize], project: &Project) -> Option<&'a Owner> {
        let of_project = self.entries_of_project(project);
        let common = entries.iter().find(|entry| of_project.binary_search(entry).is_ok())?;
        Some(&self.all[*common])
    }

    /// The owner of a certificate in each of these projects; `None` is the rest. A certificate
    /// without projects has the owner of the first entry for all projects.
    pub fn of_certificate(
        &self,
        certificate: &Certificate,
        projects: &[&Project],
    ) -> Vec<Option<&'a str>> {
        let entries = self.entries_for(certificate, projects).into_iter();
        entries.map(|entry| entry.map(|owner| owner.team.as_str())).collect()
    }

    /// The entries that decide [`Owners::of_certificate`].
    pub fn entries_for(
        &self,
        certificate: &Certificate,
        projects: &[&Project],
    ) -> Vec<Option<&'a Owner>> {
        if self.all.is_empty() {
            return vec![None; projects.len().max(1)];
        }
        let entries = self.entries_of(certificate);
        if projects.is_empty() {
            let mut own = entries.iter().map(|entry| &self.all[*entry]);
            return vec![own.find(|owner| owner.projects.is_all())];
        }
        projects.iter().map(|project| self.first(&entries, project)).collect()
    }

    /// The owner of a project without an active certificate; `None` is the rest.
    pub fn of_project(&self, project: &Project) -> Option<&'a str> {
        let entries = self.entries_of_project(project);
        let mut owners = entries.iter().map(|entry| &self.all[*entry]);
        owners.find(|owner| owner.is_of_projects()).map(|owner| owner.team.as_str())
    }
}

fn matching(all: &[Owner], project: &Project) -> Vec<usize> {
    let matching = all.iter().enumerate();
    let matching = matching.filter(|(_, owner)| owner.projects.match_project(project));
    matching.map(|(index, _)| index).collect()
}

impl<'a> Evaluation<'a> {
    /// For each of the projects, whether a route gets what happens to the certificate there.
    pub fn selected_projects(
        &self,
        routing: &Routing,
        certificate: &Certificate,
        projects: &[&Project],
    ) -> Vec<bool> {
        let of_filter = projects.iter().map(|project| routing.projects.match_project(project));
        if routing.audience.is_everyone() {
            return of_filter.collect();
        }
        let owners = self.owners.of_certificate(certificate, projects);
        of_filter
            .zip(owners)
            .map(|(fits, owner)| fits && routing.audience.includes(owner))
            .collect()
    }

    /// The owners of a certificate, with `None` for the rest. There may be thousands of projects,
    /// so they are computed once.
    pub fn owners_of<'b>(&self, assessment: &'b Assessment<'_>) -> &'b BTreeSet<Option<Team>> {
        assessment.owners.get_or_init(|| {
            let Assessment { certificate, projects, .. } = assessment;
            let owners = self.owners.of_certificate(certificate, projects);
            let owners: BTreeSet<Option<&str>> = owners.into_iter().collect();
            owners.into_iter().map(|team| team.map(ToOwned::to_owned)).collect()
        })
    }

    /// Whether a route gets what happens to a certificate.
    pub fn concerns(&self, routing: &Routing, assessment: &Assessment<'_>) -> bool {
        let Assessment { certificate, projects, .. } = assessment;
        if routing.audience.is_everyone() {
            return routing.concerns(projects);
        }
        if routing.projects.is_all() {
            let mut owners = self.owners_of(assessment).iter();
            return owners.any(|owner| routing.audience.includes(owner.as_deref()));
        }
        self.selected_projects(routing, certificate, projects).into_iter().any(|fits| fits)
    }

    /// Whether a route gets what happens to a certificate that is active in no project.
    pub fn concerns_certificate_without_projects(
        &self,
        routing: &Routing,
        certificate: &Certificate,
    ) -> bool {
        let owner = self.owners.of_certificate(certificate, &[]);
        routing.projects.is_all() && owner.iter().all(|owner| routing.audience.includes(*owner))
    }

    /// Whether a route gets the alert about an uncovered or unprotected project. An uncovered
    /// project concerns the owners of its active certificates.
    pub fn concerns_project(
        &self,
        routing: &Routing,
        kind: ProjectKind,
        project: &Project,
    ) -> bool {
        if !routing.projects.match_project(project) || routing.audience.is_everyone() {
            return routing.projects.match_project(project);
        }
        let active = match kind {
            ProjectKind::Uncovered => self.active_in(&project.id),
            ProjectKind::Unprotected => &[],
        };
        match active {
            [] => routing.audience.includes(self.owners.of_project(project)),
            some => some
                .iter()
                .flat_map(|certificate| self.owners.of_certificate(certificate, &[project]))
                .any(|owner| routing.audience.includes(owner)),
        }
    }

    /// Whether a route gets what concerns the whole organization: unreadable lists, admin keys and
    /// certvigil's client certificate.
    pub fn concerns_organization(&self, routing: &Routing) -> bool {
        routing.audience.includes(None)
    }
}

#[cfg(test)]
mod tests;
