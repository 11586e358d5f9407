//! Expectations: entries of `[[tests]]`. Each describes an imaginary certificate, and who must get
//! an alert about it.

use chrono::{DateTime, TimeDelta, Utc};
use std::{collections::BTreeSet, sync::Arc};

use super::{
    certificate::{Certificate, CertificateId, Project, ProjectId, Scope},
    change::{Actor, ActorKind, CertificateChange, ChangeKind},
    inventory::Inventory,
    reading::{Listed, Reading},
    selection::{Globs, Selection},
    text::Name,
    threshold::Severity,
};

/// The remaining validity of a successor: more than every threshold.
const SUCCESSOR: TimeDelta = TimeDelta::days(100 * 365);

#[derive(Clone, Debug)]
pub struct Expectation {
    /// Its index in the configuration, from 0.
    pub index: usize,
    pub name: Option<Name>,
    /// `None` for the only organization.
    pub organization: Option<Name>,
    /// The id and the name of the certificate.
    pub certificate: Name,
    /// The projects in which it is active: of each the id and the name.
    pub projects: Vec<Name>,
    /// The id, name and address of the uploader.
    pub uploader: Option<Name>,
    /// The time until its expiry; negative if it has expired.
    pub expires_in: TimeDelta,
    pub lifetime: Option<TimeDelta>,
    /// Whether every project has a successor.
    pub has_successor: bool,
    /// The severity of the alert: `Some(None)` for no alert, `None` for any.
    pub severity: Option<Option<Severity>>,
    /// Notifiers and mail addresses that must get the alert.
    pub reaches: Vec<String>,
    /// Notifiers and mail addresses that must not get it.
    pub does_not_reach: Vec<String>,
}

impl Expectation {
    /// The id of the certificate in the inventory.
    pub fn id(&self) -> Option<CertificateId> {
        let id = CertificateId::parse(self.certificate.as_str());
        id.or_else(|_| CertificateId::parse("cert_test")).ok()
    }

    /// The projects. A text that cannot be an id gets another id.
    pub fn projects(&self) -> Vec<Project> {
        let projects = self.projects.iter().enumerate().filter_map(|(index, name)| {
            let id = ProjectId::parse(name.as_str());
            let id = id.or_else(|_| ProjectId::parse(&format!("proj_test_{index}"))).ok()?;
            Some(Project { id, name: Some(name.clone()) })
        });
        projects.collect()
    }

    /// The inventory with this certificate.
    pub fn inventory(&self, now: DateTime<Utc>) -> Inventory {
        let mut reading = Reading::begin(Arc::default(), "", false);
        reading.project_list = Ok(());
        let expires_at = now + self.expires_in;
        let certificate = |id: &str, name: Option<Name>, valid_at, expires_at| {
            Some(Certificate {
                id: CertificateId::parse(id).ok()?,
                name,
                created_at: None,
                valid_at,
                expires_at: Some(expires_at),
                strange_expiry: None,
                content: None,
                reported: None,
            })
        };
        let valid_at = self.lifetime.map(|lifetime| expires_at - lifetime);
        let own = self.id().and_then(|id| {
            certificate(id.as_str(), Some(self.certificate.clone()), valid_at, expires_at)
        });
        let successor = || certificate("cert_test_successor", None, None, now + SUCCESSOR);
        let successor = self.has_successor.then(successor).flatten();
        let listed = own.into_iter().chain(successor);
        let listed = listed.map(|one| Listed { certificate: Arc::new(one), active: true });
        let page = Arc::new(listed.collect::<Vec<_>>());
        reading.take(Scope::Organization, vec![Arc::default()]);
        for project in self.projects() {
            reading.take(Scope::Project(project.id.clone()), vec![Arc::clone(&page)]);
            reading.projects.insert(project.id.clone(), project);
        }
        let all = Selection { include: Globs::all(), exclude: Globs(Vec::new()), archived: false };
        let mut inventory = Inventory::default().merge(reading, &all, now);
        inventory.changes.all.extend(self.upload(now));
        inventory
    }

    fn upload(&self, now: DateTime<Utc>) -> Option<CertificateChange> {
        let uploader = self.uploader.as_ref()?;
        let actor = Actor {
            kind: ActorKind::User,
            id: uploader.clone(),
            name: Some(uploader.clone()),
            email: Some(uploader.clone()),
        };
        Some(CertificateChange {
            kind: ChangeKind::Uploaded,
            certificate: self.id()?,
            name: Some(self.certificate.clone()),
            scopes: BTreeSet::new(),
            scopes_total: 0,
            at: now,
            actors: vec![actor],
            events: 1,
            since: None,
            compared: false,
            seen_at: now,
            is_news: false,
        })
    }
}
