//! Assesses every certificate and project of an inventory: rules, successors, acknowledgements,
//! stages.

use chrono::{DateTime, TimeDelta, Utc};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::OnceLock,
};

use super::{
    acknowledgement::{Acknowledgement, Acknowledgements},
    active::{Active, Projects},
    blindness::{Blind, blind},
    certificate::{Certificate, CertificateId, OrganizationName, Project, ProjectId},
    content::Defect,
    coverage,
    credential::{Credential, credentials},
    inventory::Inventory,
    owner::{Owners, Team},
    policy::{Policy, Ruling},
    subject::Subject,
    threshold::{Reached, Severity, Stage},
    words::words,
};

/// The repeat interval of not yet valid certificates, unknown expiries, and projects without an
/// active certificate.
pub(super) const WEEKLY: TimeDelta = TimeDelta::days(7);
/// The repeat interval of uncovered projects.
const DAILY: TimeDelta = TimeDelta::days(1);

/// The assessment of an organization at one time.
pub struct Evaluation<'a> {
    pub organization: &'a OrganizationName,
    pub inventory: &'a Inventory,
    pub policy: &'a Policy,
    pub now: DateTime<Utc>,
    /// The certificates in a stage, ordered by id. The others are assessed on demand, because there
    /// may be many.
    pub in_stage: Vec<Assessment<'a>>,
    /// The uncovered projects, ordered by id.
    pub uncovered: Vec<Uncovered<'a>>,
    /// The unprotected projects that are reported, ordered by id.
    pub unprotected: Vec<Unprotected<'a>>,
    /// The lists that were unreadable for too long.
    pub blind: Option<Blind<'a>>,
    /// The watched admin keys, and certvigil's client certificate.
    pub credentials: Vec<Credential<'a>>,
    /// The active certificates whose content gives a reason for an alert, ordered by id.
    pub content_findings: Vec<(ContentFinding, Assessment<'a>)>,
    pub owners: Owners<'a>,
    acknowledgements: &'a Acknowledgements,
    pub(super) active: Active<'a>,
    unread: Vec<&'a Project>,
    stale: HashSet<&'a CertificateId>,
}

/// The assessment of one certificate.
#[derive(Clone, Debug)]
pub struct Assessment<'a> {
    pub certificate: &'a Certificate,
    /// Active for the organization, and therefore inherited by every project.
    pub organization_wide: bool,
    /// The projects in which it is active, own or inherited.
    pub projects: Projects<'a>,
    /// The result of the rules.
    pub ruling: Ruling<'a>,
    /// Its stage, even if a rule ignores it; `None` if it is in none.
    pub reached: Option<Reached>,
    /// It is active in a project, and every such project has a successor for it.
    pub replaced: bool,
    /// Its latest acknowledgement, ended or not.
    pub acknowledgement: Option<&'a Acknowledgement>,
    /// Its owners, computed once: see [`Evaluation::owners_of`].
    pub(super) owners: OnceLock<BTreeSet<Option<Team>>>,
}

words! {
    /// What the content of an active certificate shows. Its stage has the same label.
    ContentFinding {
        /// Its own expiry differs from the one that the API reports.
        Mismatch = "mismatch",
        /// It may not work as a trust anchor.
        Unfit = "unfit",
    }
}

impl ContentFinding {
    pub fn subject(self, id: CertificateId) -> Subject {
        match self {
            ContentFinding::Mismatch => Subject::Mismatch(id),
            ContentFinding::Unfit => Subject::Fitness(id),
        }
    }

    /// Reported once: it changes only with another certificate.
    pub fn reached(self) -> Reached {
        let stage = match self {
            ContentFinding::Mismatch => Stage::Mismatch,
            ContentFinding::Unfit => Stage::Unfit,
        };
        let (label, severity) = (self.as_str().to_owned(), Severity::Warning);
        Reached { stage, label, severity, repeat: None, last: false }
    }
}

impl Assessment<'_> {
    pub fn is_active(&self) -> bool {
        self.organization_wide || !self.projects.is_empty()
    }

    /// Its stage, unless a rule ignores it.
    pub fn open(&self) -> Option<&Reached> {
        self.reached.as_ref().filter(|_| self.ruling.ignored.is_none())
    }

    /// The acknowledgement that applies now.
    pub fn acknowledged(&self, now: DateTime<Utc>) -> Option<&Acknowledgement> {
        self.acknowledgement.filter(|one| one.is_active(self.certificate, now))
    }
}

/// A project whose active certificates are all expired or not yet valid.
#[derive(Clone, Debug)]
pub struct Uncovered<'a> {
    pub project: &'a Project,
    /// Rules ignore all its active certificates.
    pub ignored: bool,
}

impl Uncovered<'_> {
    pub fn reached(&self) -> Reached {
        Reached {
            stage: Stage::Uncovered,
            label: "uncovered".to_owned(),
            severity: Severity::Critical,
            repeat: Some(DAILY),
            last: true,
        }
    }
}

/// A project without an active certificate: mutual TLS is off.
#[derive(Clone, Debug)]
pub struct Unprotected<'a> {
    pub project: &'a Project,
    /// Time at which it lost its last active certificate; `None` if it was never seen with one.
    pub since: Option<DateTime<Utc>>,
    pub severity: Severity,
    /// Its latest acknowledgement, ended or not.
    pub acknowledgement: Option<&'a Acknowledgement>,
}

impl Unprotected<'_> {
    /// The acknowledgement that applies now.
    pub fn acknowledged(&self, now: DateTime<Utc>) -> Option<&Acknowledgement> {
        self.acknowledgement.filter(|one| one.holds(now))
    }

    pub fn reached(&self) -> Reached {
        Reached {
            stage: Stage::Unprotected,
            label: "unprotected".to_owned(),
            severity: self.severity,
            repeat: Some(WEEKLY),
            last: false,
        }
    }
}

impl<'a> Evaluation<'a> {
    /// The active certificates of a project, own and inherited, ordered by id.
    pub fn active_in(&self, project: &ProjectId) -> &[&'a Certificate] {
        self.active.in_project(project)
    }

    pub fn is_active(&self, id: &CertificateId) -> bool {
        self.active.is_active(id)
    }

    /// Every certificate, ordered by id.
    pub fn assessments(&self) -> impl ExactSizeIterator<Item = Assessment<'a>> {
        self.inventory.certificates.values().map(|one| self.assess(one))
    }

    pub fn assessment(&self, id: &CertificateId) -> Option<Assessment<'a>> {
        self.inventory.certificates.get(id).map(|one| self.assess(one))
    }

    /// The assessment of a certificate in a stage.
    pub fn find_in_stage(&self, id: &CertificateId) -> Option<&Assessment<'a>> {
        let at = self.in_stage.binary_search_by(|one| one.certificate.id.cmp(id));
        at.ok().and_then(|at| self.in_stage.get(at))
    }

    fn assess(&self, certificate: &'a Certificate) -> Assessment<'a> {
        match self.find_in_stage(&certificate.id) {
            Some(known) => known.clone(),
            None => {
                let projects = self.active.projects_of(&certificate.id);
                self.assess_with(certificate, self.stage(certificate, projects))
            }
        }
    }

    /// The result of the rules for a certificate that is active in `projects`, and its stage.
    fn stage(
        &self,
        certificate: &'a Certificate,
        projects: Projects<'a>,
    ) -> (Projects<'a>, Ruling<'a>, Option<Reached>) {
        let ruling = self.policy.ruling(certificate, &projects, &self.unread, self.now);
        let is_active = !projects.is_empty() || self.active.is_inherited(&certificate.id);
        let reached = reached(certificate, is_active, self.policy, &ruling, self.now);
        (projects, ruling, reached)
    }

    fn assess_with(
        &self,
        certificate: &'a Certificate,
        (projects, ruling, mut reached): (Projects<'a>, Ruling<'a>, Option<Reached>),
    ) -> Assessment<'a> {
        let margin = ruling.steps.widest();
        let mut groups = self.active.groups_with(&certificate.id);
        let replaced = !projects.is_empty()
            && groups.all(|(active, _)| {
                coverage::successor(certificate, active, margin, self.now).is_some()
            });
        if let Some(reached) = &mut reached
            && replaced
            && reached.stage.is_of_expiry()
        {
            (reached.severity, reached.repeat) =
                self.policy.limited(replaced, reached.severity, reached.repeat);
            // Each stage can be acknowledged.
            reached.last = false;
        }
        Assessment {
            certificate,
            organization_wide: self.active.is_inherited(&certificate.id),
            projects,
            ruling,
            reached,
            replaced,
            acknowledgement: self.acknowledgements.of_certificate(&certificate.id),
            owners: OnceLock::new(),
        }
    }

    /// The uncovered projects. A project with an unread list is left out, because it may have other
    /// active certificates.
    fn find_uncovered(&self) -> Vec<Uncovered<'a>> {
        let unread: BTreeSet<&ProjectId> = self.unread.iter().map(|one| &one.id).collect();
        let mut known: BTreeMap<usize, (bool, bool)> = BTreeMap::new();
        let mut uncovered = Vec::new();
        for (group, active, project) in self.active.projects() {
            let (is_uncovered, ignored) = *known.entry(group).or_insert_with(|| {
                let is_uncovered = coverage::is_uncovered(active, self.now);
                let is_ignored = |one: &Certificate| {
                    self.assessment(&one.id).is_some_and(|one| one.ruling.ignored.is_some())
                };
                (is_uncovered, is_uncovered && active.iter().all(|one| is_ignored(one)))
            });
            if is_uncovered && !unread.contains(&project.id) {
                uncovered.push(Uncovered { project, ignored });
            }
        }
        uncovered
    }

    /// The projects that lost their last active certificate, or have none although the
    /// configuration expects one. A project with an unread list is left out.
    fn find_unprotected(&self) -> Vec<Unprotected<'a>> {
        let protection = &self.policy.protection;
        let Some(severity) = protection.severity else { return Vec::new() };
        let unread: BTreeSet<&ProjectId> = self.unread.iter().map(|one| &one.id).collect();
        let is_reported = |project: &Project| {
            let lost = self.inventory.protection_lost.get(&project.id);
            let counts = match lost {
                Some(lost) => lost.certain,
                None => protection.expected.match_project(project),
            };
            counts && !unread.contains(&project.id) && !protection.ignored.match_project(project)
        };
        let without = self.active.projects().filter(|(_, active, _)| active.is_empty());
        without
            .filter(|(_, _, project)| is_reported(project))
            .map(|(_, _, project)| Unprotected {
                project,
                since: self.inventory.protection_lost.get(&project.id).map(|lost| lost.at),
                severity,
                acknowledgement: self.acknowledgements.of_project(&project.id),
            })
            .collect()
    }

    /// The oldest other active object with the same content as this one, if that is older.
    pub fn older_twin(&self, certificate: &Certificate) -> Option<&'a Certificate> {
        let content = certificate.content.as_ref()?;
        let age = |one: &Certificate| (one.created_at, one.id.clone());
        let known = self.inventory.contents.iter();
        let twins = known.filter(|(_, known)| {
            known.content().is_some_and(|one| one.fingerprint == content.fingerprint)
        });
        let twins = twins.filter_map(|(id, _)| self.inventory.certificates.get(id));
        let twins = twins.map(AsRef::as_ref).filter(|one| self.is_active(&one.id));
        twins.min_by_key(|one| age(one)).filter(|twin| age(twin) < age(certificate))
    }

    /// Why a certificate may not work as a trust anchor; empty if its content is unknown.
    pub fn defects(&self, certificate: &Certificate) -> Vec<Defect> {
        let own = certificate.content.as_ref().map(|content| content.defects());
        let twin = self.older_twin(certificate).map(|_| Defect::Duplicate);
        own.into_iter().flatten().chain(twin).collect()
    }

    /// Whether certvigil's own client certificate depends on this certificate: it chains to it, and
    /// a project has no other active one that it chains to after its expiry.
    pub fn carries_certvigil(&self, certificate: &Certificate) -> bool {
        let Some(identity) = &self.policy.client_identity else { return false };
        let is_anchor = |one: &Certificate| {
            let content = one.content.as_ref();
            content.is_some_and(|content| content.can_issue() && identity.chains_to(content))
        };
        let takes_over = |other: &&Certificate| {
            let end = certificate.expires_at.unwrap_or(self.now).max(self.now);
            is_anchor(other)
                && other.has_started(end)
                && other.expires_at > certificate.expires_at.max(Some(self.now))
        };
        is_anchor(certificate)
            && self.is_active(&certificate.id)
            && !self
                .active
                .groups_with(&certificate.id)
                .all(|(active, _)| active.iter().any(takes_over))
    }

    fn find_in_contents(&self) -> Vec<(ContentFinding, Assessment<'a>)> {
        let ids = self.inventory.contents.iter().filter(|(_, known)| known.content().is_some());
        let assessed = ids.filter_map(|(id, _)| self.assessment(id)).filter(Assessment::is_active);
        let mut findings = Vec::new();
        for assessment in assessed.filter(|one| one.ruling.ignored.is_none()) {
            let certificate = assessment.certificate;
            if certificate.mismatch().is_some() {
                findings.push((ContentFinding::Mismatch, assessment.clone()));
            }
            if !self.defects(certificate).is_empty() {
                findings.push((ContentFinding::Unfit, assessment));
            }
        }
        findings
    }

    /// Whether the latest scan could not read a list that contains the certificate.
    pub fn is_stale(&self, id: &CertificateId) -> bool {
        self.stale.contains(id)
    }

    pub fn credential(&self, subject: &Subject) -> Option<&Credential<'a>> {
        self.credentials.iter().find(|one| one.subject() == *subject)
    }

    pub fn uncovered(&self, id: &ProjectId) -> Option<&Uncovered<'a>> {
        let index = self.uncovered.binary_search_by(|one| one.project.id.cmp(id)).ok()?;
        self.uncovered.get(index)
    }

    /// Since when an uncovered project has no valid certificate; `None` if none has started.
    pub fn uncovered_since(&self, id: &ProjectId) -> Option<DateTime<Utc>> {
        coverage::uncovered_from(self.active_in(id), self.now).filter(|since| *since < self.now)
    }

    pub fn unprotected(&self, id: &ProjectId) -> Option<&Unprotected<'a>> {
        let index = self.unprotected.binary_search_by(|one| one.project.id.cmp(id)).ok()?;
        self.unprotected.get(index)
    }
}

/// Assesses every certificate and project.
pub fn evaluate<'a>(
    organization: &'a OrganizationName,
    inventory: &'a Inventory,
    policy: &'a Policy,
    acknowledgements: &'a Acknowledgements,
    now: DateTime<Utc>,
) -> Evaluation<'a> {
    let mut evaluation = Evaluation {
        organization,
        inventory,
        policy,
        now,
        in_stage: Vec::new(),
        uncovered: Vec::new(),
        unprotected: Vec::new(),
        blind: policy.blind_after.and_then(|after| blind(inventory, after, now)),
        credentials: credentials(inventory, policy, now),
        content_findings: Vec::new(),
        owners: Owners::of(&policy.owners, inventory),
        acknowledgements,
        active: Active::of(inventory),
        unread: inventory.unread_projects(),
        stale: inventory.stale_certificates(),
    };
    let mut walk = evaluation.active.walk();
    let in_stage = inventory.certificates.values().filter_map(|certificate| {
        let own = walk.next(&certificate.id);
        let projects = evaluation.active.projects_in(&certificate.id, own);
        let stage = evaluation.stage(certificate, projects);
        stage.2.is_some().then(|| evaluation.assess_with(certificate, stage))
    });
    evaluation.in_stage = in_stage.collect();
    evaluation.uncovered = evaluation.find_uncovered();
    evaluation.unprotected = evaluation.find_unprotected();
    evaluation.content_findings = evaluation.find_in_contents();
    evaluation
}

fn reached(
    certificate: &Certificate,
    active: bool,
    policy: &Policy,
    ruling: &Ruling<'_>,
    now: DateTime<Utc>,
) -> Option<Reached> {
    if !active && !policy.include_inactive {
        return None;
    }
    let warning = |stage, label: &str| Reached {
        stage,
        label: label.to_owned(),
        severity: Severity::Warning,
        repeat: Some(WEEKLY),
        last: false,
    };
    match certificate.expires_at {
        None => active.then(|| warning(Stage::UnknownExpiry, "unknown_expiry")),
        Some(expires_at) => {
            let of_its_end = ruling.steps.reached(expires_at, now);
            let young = (active && !certificate.has_started(now))
                .then(|| warning(Stage::NotYetValid, "not_yet_valid"));
            match (of_its_end, young) {
                // Clients are rejected now, which outweighs an expiry of lower severity.
                (Some(reached), Some(young)) if reached.severity < young.severity => Some(young),
                (of_its_end, young) => of_its_end.or(young),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        inventory::tests::{certificate, everything, reading, start},
        threshold::{ExpiredStep, Ladder, Lead, Threshold, tests::ladder},
    };

    fn stage(certificate: Certificate, active: bool, include_inactive: bool) -> Option<Stage> {
        stage_by(ladder(&[30, 7]), certificate, active, include_inactive)
    }

    fn stage_by(
        ladder: Ladder,
        certificate: Certificate,
        active: bool,
        include_inactive: bool,
    ) -> Option<Stage> {
        let policy = Policy { include_inactive, ..Policy::new(ladder) };
        let days = 1;
        let mut inventory = Inventory::default().merge(
            reading(&[("", Ok(&[])), ("p", Ok(&[("c", days, active)]))]),
            &everything(),
            start(),
        );
        inventory.certificates.insert(certificate.id.clone(), certificate.into());
        let organization = OrganizationName::parse("acme").unwrap();
        let silences = Acknowledgements::default();
        let evaluation = evaluate(&organization, &inventory, &policy, &silences, start());
        evaluation.assessments().next().unwrap().reached.map(|reached| reached.stage)
    }

    #[test]
    fn not_yet_valid_outranks_an_expiry_of_lower_severity() {
        let step = |severity| Threshold {
            lead: Lead::Fixed(TimeDelta::days(30)),
            label: "30d".to_owned(),
            severity,
            repeat: None,
        };
        let cases = [
            (Severity::Info, Stage::NotYetValid),
            (Severity::Warning, Stage::Within(30 * 86_400)),
            (Severity::Critical, Stage::Within(30 * 86_400)),
        ];
        for (severity, expected) in cases {
            let expired = ExpiredStep { severity: Severity::Critical, repeat: None };
            let ladder = Ladder::new(vec![step(severity)], expired).unwrap();
            let valid_at = Some(start() + TimeDelta::days(1));
            let young = Certificate { valid_at, ..certificate("c", 20) };
            assert_eq!(stage_by(ladder, young, true, false), Some(expected), "{severity}");
        }
    }

    #[test]
    fn each_state_has_its_stage() {
        let seven = Stage::Within(7 * 86_400);
        let ahead = Some(start() + TimeDelta::days(1));
        let unknown = || Certificate { expires_at: None, ..certificate("c", 0) };
        let young = |days| Certificate { valid_at: ahead, ..certificate("c", days) };
        let cases = [
            (certificate("c", 400), true, false, None, "healthy"),
            (certificate("c", 5), true, false, Some(seven), "in a stage"),
            (certificate("c", 5), false, false, None, "inactive"),
            (certificate("c", 5), false, true, Some(seven), "inactive, but watched"),
            (certificate("c", -5), true, false, Some(Stage::Expired), "expired"),
            (unknown(), true, false, Some(Stage::UnknownExpiry), "unknown expiry"),
            (unknown(), false, true, None, "unknown expiry, inactive"),
            (young(400), true, false, Some(Stage::NotYetValid), "not yet valid"),
            (young(400), false, true, None, "not yet valid, inactive"),
            (young(5), true, false, Some(seven), "the expiry has the higher severity"),
        ];
        for (certificate, active, include_inactive, expected, reason) in cases {
            assert_eq!(stage(certificate, active, include_inactive), expected, "{reason}");
        }
    }
}
