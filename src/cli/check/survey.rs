//! The result of a check: every certificate with its state, and the unreadable lists.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    domain::{
        acknowledgement::Acknowledgements,
        active::Projects,
        certificate::{AdminKeyId, Certificate, OrganizationName, Project},
        compose,
        evaluate::evaluate,
        inventory::Inventory,
        notification::{CredentialKind, Named, SilenceView},
        rotation::RotationStep,
        status::Status,
        text::Name,
        threshold::{Reached, Severity},
        wording,
    },
    usecase::scan::Target,
};

/// One certificate of one organization.
pub struct Row {
    pub organization: OrganizationName,
    pub certificate: Certificate,
    pub status: Status,
    /// The stage it is in, unless it is ignored.
    pub reached: Option<Reached>,
    pub organization_wide: bool,
    /// Their names; certificates with the same projects share the list.
    pub projects: Arc<[String]>,
    pub ignored: Option<SilenceView>,
    pub acknowledged: Option<SilenceView>,
    /// The next step of its rotation, and the certificate to activate.
    pub to_do: Option<(RotationStep, Option<Named>)>,
}

/// An admin key, or certvigil's own client certificate.
pub struct Credential {
    pub organization: OrganizationName,
    pub kind: CredentialKind,
    pub id: Option<AdminKeyId>,
    pub name: Option<Name>,
    /// Whether certvigil itself uses it.
    pub own: bool,
    pub expires_at: DateTime<Utc>,
    /// Severity of its stage.
    pub severity: Option<Severity>,
}

impl Credential {
    /// `the admin key “certvigil”`.
    pub fn title(&self) -> String {
        let name = match (&self.name, &self.id) {
            (Some(name), _) => format!(" “{name}”"),
            (None, Some(id)) => format!(" {id}"),
            (None, None) => String::new(),
        };
        let own = if self.own { ", which certvigil uses" } else { "" };
        format!("{}{name}{own}", self.kind.title())
    }
}

/// A project that does not enforce mutual TLS.
pub struct Unprotected {
    pub project: Project,
    /// When it lost its last active certificate; `None` if none was ever seen.
    pub since: Option<DateTime<Utc>>,
    pub severity: Severity,
}

/// The results of all organizations.
pub struct Survey {
    pub now: DateTime<Utc>,
    /// The time zone for people.
    pub timezone: Tz,
    pub rows: Vec<Row>,
    /// Organization and error of each unreadable list.
    pub unreadable: Vec<(OrganizationName, String)>,
    /// Projects without a valid certificate now, unless all of them are ignored.
    pub uncovered: Vec<(OrganizationName, Project)>,
    /// The projects without an active certificate that are reported.
    pub unprotected: Vec<(OrganizationName, Unprotected)>,
    /// The credentials of certvigil with their expiry.
    pub credentials: Vec<Credential>,
    pub projects_read: usize,
    /// Failed deliveries, if the check sends alerts.
    pub undelivered: usize,
    /// Each of `[[rules]]` by index, and whether it applies to a certificate.
    rules: BTreeMap<usize, bool>,
}

impl Survey {
    pub fn new(now: DateTime<Utc>, timezone: Tz) -> Survey {
        Survey {
            now,
            timezone,
            rows: Vec::new(),
            unreadable: Vec::new(),
            uncovered: Vec::new(),
            unprotected: Vec::new(),
            credentials: Vec::new(),
            projects_read: 0,
            undelivered: 0,
            rules: BTreeMap::new(),
        }
    }

    pub fn add(
        &mut self,
        target: &Target,
        inventory: &Inventory,
        acknowledgements: &Acknowledgements,
    ) {
        let organization = target.api.organization();
        let evaluation =
            evaluate(organization, inventory, &target.policy, acknowledgements, self.now);
        let uncovered = evaluation.uncovered.iter().filter(|one| !one.ignored);
        for rule in &target.policy.rules {
            self.rules.entry(rule.index).or_insert(false);
        }
        self.uncovered.extend(uncovered.map(|one| (organization.clone(), one.project.clone())));
        self.unprotected.extend(evaluation.unprotected.iter().map(|one| {
            let project = one.project.clone();
            (
                organization.clone(),
                Unprotected { project, since: one.since, severity: one.severity },
            )
        }));
        self.credentials.extend(evaluation.credentials.iter().map(|one| Credential {
            organization: organization.clone(),
            kind: one.kind(),
            id: one.id(),
            name: one.name().cloned(),
            own: one.is_own(),
            expires_at: one.expires_at,
            severity: one.reached.as_ref().map(|reached| reached.severity),
        }));
        // By address: while these lists exist, no other list has it.
        let mut named: HashMap<usize, (Projects<'_>, Arc<[String]>)> = HashMap::new();
        for assessment in evaluation.assessments() {
            let status = evaluation.status(&assessment);
            let deciding = assessment.ruling.deciding();
            self.rules.extend(deciding.map(|rule| (rule.index, true)));
            let (_, projects) =
                named.entry(assessment.projects.as_ptr().addr()).or_insert_with(|| {
                    let names = assessment.projects.iter();
                    let names = names.map(|project| project.title().to_owned()).collect();
                    (Arc::clone(&assessment.projects), names)
                });
            self.rows.push(Row {
                organization: organization.clone(),
                certificate: assessment.certificate.clone(),
                status,
                organization_wide: assessment.organization_wide,
                projects: Arc::clone(projects),
                reached: assessment.open().cloned(),
                ignored: compose::ignored(&assessment).filter(|view| !view.ended),
                acknowledged: compose::acknowledged(&assessment, self.now)
                    .filter(|view| !view.ended),
                to_do: evaluation.to_do(&assessment),
            });
        }
        self.projects_read += inventory.projects.len() - inventory.unreadable_projects.len();
        for (scope, fault) in inventory.faults() {
            self.unreadable.push((organization.clone(), format!("{scope}: {}", fault.why)));
        }
        // Least time left first; inactive certificates and those without expiry last.
        self.rows.sort_by_key(|row| {
            let expires_at = row.certificate.expires_at;
            let rank = (row.status == Status::Inactive, expires_at.is_none(), expires_at);
            (rank, row.organization.clone(), row.certificate.id.clone())
        });
    }

    /// Whether every list was read and every alert delivered.
    pub fn is_certain(&self) -> bool {
        self.unreadable.is_empty() && self.undelivered == 0
    }

    /// The rules that apply to no certificate; none if a list is unreadable.
    pub fn idle_rules(&self) -> impl Iterator<Item = usize> {
        let known = self.unreadable.is_empty();
        self.rules.iter().filter(move |(_, decides)| known && !**decides).map(|(index, _)| *index)
    }

    pub fn worst(&self) -> Severity {
        let severities = self.rows.iter().filter_map(|row| row.reached.as_ref());
        let uncovered = self.uncovered.iter().map(|_| Severity::Critical);
        let credentials = self.credentials.iter().filter_map(|one| one.severity);
        let unprotected = self.unprotected.iter().map(|(_, one)| one.severity);
        let severities = severities.map(|reached| reached.severity);
        let all = severities.chain(uncovered).chain(unprotected).chain(credentials);
        all.max().unwrap_or(Severity::Info)
    }

    pub fn count(&self, severity: Severity) -> usize {
        let reached = self.rows.iter().filter_map(|row| row.reached.as_ref());
        reached.filter(|reached| reached.severity == severity).count()
    }
}

impl Row {
    pub fn time_left(&self, now: DateTime<Utc>) -> String {
        match self.certificate.expires_at {
            None => "unknown".to_owned(),
            Some(expires_at) if expires_at <= now => {
                format!("expired {} ago", wording::span(now - expires_at))
            }
            Some(expires_at) => wording::span(expires_at - now),
        }
    }

    pub fn severity(&self) -> Option<&'static str> {
        self.reached.as_ref().map(|reached| reached.severity.as_str())
    }

    /// The reason of its silence, or the next step.
    pub fn note(&self, timezone: Tz) -> Option<String> {
        let said = |what: &str, view: &Option<SilenceView>| {
            view.as_ref().map(|view| format!("{what} {}", wording::silence(view, timezone)))
        };
        let next = |(step, candidate): &(RotationStep, Option<Named>)| {
            format!("next: {}", wording::next_step(*step, candidate.as_ref()))
        };
        said("ignored", &self.ignored)
            .or_else(|| said("acknowledged", &self.acknowledged))
            .or_else(|| self.to_do.as_ref().map(next))
    }

    pub fn scope(&self) -> String {
        /// How many projects a line names.
        const NAMED: usize = 3;
        if self.organization_wide {
            return format!(
                "the organization ({})",
                wording::count(self.projects.len(), "project")
            );
        }
        let named = self.projects.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        match self.projects.len() {
            0 => "-".to_owned(),
            n if n > NAMED => format!("{named} and {} more", n - NAMED),
            _ => named,
        }
    }
}
