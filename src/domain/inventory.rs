//! The inventory of an organization: the pages of all scopes merged into one entry for each
//! certificate.
//!
//! A certificate counts as absent only after a complete reading; an unreadable list keeps its last
//! known content. The result does not depend on the order of pages.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::{
    capacity::EXCEEDED,
    certificate::{Certificate, CertificateId, Certificates, Project, ProjectId, Scope},
    change::{Audit, Changes},
    content::Knowledge,
    credential::AdminKeys,
    reading::{List, Reading},
    selection::Selection,
    unreadable::{Cause, ReadError, Unreadable},
};

/// The list of one scope, as last read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    pub read_at: DateTime<Utc>,
    pub list: List,
}

/// The loss of a project's last active certificate, own or inherited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtectionLost {
    pub at: DateTime<Utc>,
    /// Whether every list that could contain an active certificate was read since.
    pub certain: bool,
}

/// The known state of an organization after a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    pub projects: BTreeMap<ProjectId, Project>,
    pub certificates: Certificates,
    /// The organization's own list, if it was ever read.
    pub organization: Option<Listing>,
    /// The lists of the projects that were ever read.
    pub listings: BTreeMap<ProjectId, Listing>,
    pub unreadable_projects: BTreeMap<ProjectId, Unreadable>,
    pub unreadable_organization: Option<Unreadable>,
    pub unreadable_project_list: Option<Unreadable>,
    /// The admin keys, if they were ever read. A scan is complete without them.
    pub admin_keys: Option<AdminKeys>,
    pub unreadable_admin_keys: Option<Unreadable>,
    /// The projects that once had an active certificate and have none now.
    pub protection_lost: BTreeMap<ProjectId, ProtectionLost>,
    /// The contents of certificates that were requested. A scan is complete without them.
    pub contents: BTreeMap<CertificateId, Knowledge>,
    /// Who changed the certificates. A scan is complete without it.
    pub changes: Changes,
}

impl Inventory {
    /// Merges a reading into the inventory. Lists that contradict each other count as unreadable.
    pub fn merge(&self, reading: Reading, selection: &Selection, now: DateTime<Utc>) -> Inventory {
        let Reading {
            mut projects,
            project_list,
            mut certificates,
            mut listings,
            partial,
            admin_keys,
            contents,
            mut audit,
            key_owners,
            confirm_after,
            mut capacity,
            ..
        } = reading;
        if let Audit::Read(reading) = &mut audit
            && reading.key_owners.is_empty()
        {
            reading.key_owners = key_owners;
        }
        let since =
            |before: Option<&Unreadable>, error: ReadError| Unreadable::after(before, error, now);
        let is_confirmed = |before: Option<&Unreadable>, cause| {
            before.is_some_and(|before| before.confirms(cause, confirm_after, now))
        };
        // A list that suddenly lost all items counts only after a later scan confirms it.
        let doubt = |before: Option<&Listing>, unreadable: Option<&Unreadable>, list: List| {
            let emptied = before.is_some_and(|before| !before.list.is_empty()) && list.is_empty();
            match emptied && !is_confirmed(unreadable, Cause::Emptied) {
                true => Err(ReadError {
                    why: "the list is suddenly empty; a scan five minutes later must confirm it"
                        .into(),
                    cause: Cause::Emptied,
                }),
                false => Ok(list),
            }
        };
        projects.retain(|id, _| match listings.get(&Scope::Project(id.clone())) {
            Some(Err(error)) if error.cause == Cause::Missing => {
                !is_confirmed(self.unreadable_projects.get(id), Cause::Missing)
            }
            Some(_) | None => true,
        });
        let mut overflow = false;
        let unreadable_project_list =
            project_list.err().map(|error| since(self.unreadable_project_list.as_ref(), error));
        if unreadable_project_list.is_some() {
            // An incomplete list proves no absence; an excluded project is dropped.
            let known = self.projects.iter().filter(|(_, known)| selection.matches(known));
            for (id, project) in known {
                if !projects.contains_key(id) {
                    overflow |= capacity.project(project).is_err();
                    projects.insert(id.clone(), project.clone());
                }
            }
        }
        // An unreadable list keeps its last known rows and certificates.
        let mut keep = |listing: &Listing| {
            let new: Vec<_> = listing
                .list
                .iter()
                .filter_map(|(id, _)| self.certificates.get_key_value(id))
                .filter(|(id, _)| !certificates.contains_key(*id))
                .collect();
            let named = new.iter().map(|(_, known)| known.as_ref());
            overflow |= capacity.list(listing.list.clone(), named).is_err();
            certificates.extend(new.into_iter().map(|(id, known)| (id.clone(), known.clone())));
            listing.clone()
        };
        let not_reached = ReadError::from("not read in this scan");
        // The merged list of a scope, and the error if it is unreadable or incomplete.
        let mut resolve =
            |scope: Scope, before: Option<&Listing>, unreadable: Option<&Unreadable>| {
                let listed = listings.remove(&scope).unwrap_or_else(|| Err(not_reached.clone()));
                let listed = match partial.get(&scope) {
                    Some(error) => listed.map(|list| (list, Some(error.clone()))),
                    None => listed
                        .and_then(|list| doubt(before, unreadable, list))
                        .map(|list| (list, None)),
                };
                match listed {
                    Ok((list, None)) => (Some(Listing { read_at: now, list }), None),
                    Ok((list, Some(error))) => {
                        // An item that could not be parsed may be any known one: keep them all.
                        let listing = match before.map(&mut keep) {
                            Some(known) => {
                                Listing { read_at: known.read_at, list: list.or(&known.list) }
                            }
                            None => Listing { read_at: now, list },
                        };
                        (Some(listing), Some(since(unreadable, error)))
                    }
                    Err(error) => (before.map(&mut keep), Some(since(unreadable, error))),
                }
            };
        let (organization, unreadable_organization) = resolve(
            Scope::Organization,
            self.organization.as_ref(),
            self.unreadable_organization.as_ref(),
        );
        let mut kept: BTreeMap<ProjectId, Listing> = BTreeMap::new();
        let mut unreadable_projects = BTreeMap::new();
        for id in projects.keys() {
            let (before, unreadable) = (self.listings.get(id), self.unreadable_projects.get(id));
            let (listing, unreadable) = resolve(Scope::Project(id.clone()), before, unreadable);
            kept.extend(listing.map(|listing| (id.clone(), listing)));
            unreadable_projects.extend(unreadable.map(|unreadable| (id.clone(), unreadable)));
        }

        if overflow {
            // Dropping known data for new data would resolve alerts: the whole scan counts as
            // unreadable.
            let mut failed = Reading::failed(EXCEEDED);
            failed.admin_keys = admin_keys;
            failed.contents = contents;
            failed.audit = audit;
            return self.merge(failed, selection, now);
        }
        let (admin_keys, unreadable_admin_keys) = match admin_keys {
            None => (None, None),
            Some(Ok(keys)) => {
                let keys = keys.into_iter().map(|key| (key.id.clone(), key)).collect();
                (Some(AdminKeys { read_at: now, keys }), None)
            }
            Some(Err(error)) => {
                (self.admin_keys.clone(), Some(since(self.unreadable_admin_keys.as_ref(), error)))
            }
        };

        let mut after = Inventory {
            projects,
            certificates,
            organization,
            listings: kept,
            unreadable_projects,
            unreadable_organization,
            unreadable_project_list,
            admin_keys,
            unreadable_admin_keys,
            protection_lost: BTreeMap::new(),
            contents: BTreeMap::new(),
            changes: Changes::default(),
        };
        after.protection_lost = after.protection_lost_since(self, now);
        after.contents = contents.map_or_else(BTreeMap::new, |new| self.contents_with(new));
        after.contents.retain(|id, _| after.certificates.contains_key(id));
        after.apply_contents();
        let differences = after.differences(self);
        after.changes = self.changes.with(audit, differences, &after.certificates, now);
        after
    }

    /// The known contents and the new ones. A failed request keeps a known content.
    fn contents_with(
        &self,
        new: BTreeMap<CertificateId, Knowledge>,
    ) -> BTreeMap<CertificateId, Knowledge> {
        let mut contents = self.contents.clone();
        for (id, new) in new {
            let known = contents.get(&id).and_then(Knowledge::content);
            if new.content().is_some() || known.is_none() {
                contents.insert(id, new);
            }
        }
        contents
    }

    /// Adds the known contents to the certificates, and removes those that are no longer known.
    pub fn apply_contents(&mut self) {
        for (id, certificate) in &mut self.certificates {
            let content = self.contents.get(id).and_then(Knowledge::content);
            if certificate.content.as_ref() != content {
                let listed = certificate.as_listed();
                *certificate = Arc::new(match content {
                    Some(content) => listed.with_content(Arc::clone(content)),
                    None => listed,
                });
            }
        }
    }

    /// The projects without an active certificate that had one in `before`, or had already lost it
    /// there. An unreadable list makes the loss uncertain.
    pub fn protection_lost_since(
        &self,
        before: &Inventory,
        now: DateTime<Utc>,
    ) -> BTreeMap<ProjectId, ProtectionLost> {
        if self.organization_has_active() {
            return BTreeMap::new();
        }
        let had_active = before.organization_has_active();
        let lost = |id: &ProjectId| {
            let known = before.protection_lost.get(id);
            let lost = known.is_some() || had_active || before.has_own_active(id);
            (lost && !self.has_own_active(id)).then(|| ProtectionLost {
                at: known.map_or(now, |known| known.at),
                certain: known.is_some_and(|known| known.certain) || self.is_read(id),
            })
        };
        self.projects.keys().filter_map(|id| Some((id.clone(), lost(id)?))).collect()
    }

    /// Whether a project has an active certificate, own or inherited.
    pub fn has_active(&self, project: &ProjectId) -> bool {
        self.organization_has_active() || self.has_own_active(project)
    }

    fn organization_has_active(&self) -> bool {
        self.organization.as_ref().is_some_and(|listing| listing.list.active().next().is_some())
    }

    fn has_own_active(&self, project: &ProjectId) -> bool {
        let listing = self.listings.get(project);
        listing.is_some_and(|listing| listing.list.active().next().is_some())
    }

    /// Whether the latest scan read the lists of the project and the organization.
    pub fn is_read(&self, project: &ProjectId) -> bool {
        self.organization.is_some()
            && self.unreadable_organization.is_none()
            && self.listings.contains_key(project)
            && !self.unreadable_projects.contains_key(project)
    }

    /// Whether the latest scan read the list of projects, every selected project's list and the
    /// organization's list to their ends.
    pub fn is_complete(&self) -> bool {
        self.unreadable_project_list.is_none()
            && self.unreadable_organization.is_none()
            && self.unreadable_projects.is_empty()
    }

    /// Whether a later scan has to confirm that something is gone.
    pub fn needs_confirmation(&self) -> bool {
        let lists = self.unreadable_projects.values().chain(&self.unreadable_organization);
        lists.into_iter().any(|one| one.cause.needs_confirmation())
    }

    /// Whether the certificate is active for the organization, and therefore inherited by every
    /// project.
    pub fn active_in_organization(&self, id: &CertificateId) -> bool {
        self.organization.as_ref().is_some_and(|listing| listing.list.has_active(id))
    }

    /// The active certificates of a project, own and inherited, ordered by id.
    pub fn active_in_project<'a>(&'a self, project: &ProjectId) -> Vec<&'a Certificate> {
        let listings = self.listings.get(project).into_iter().chain(&self.organization);
        let mut ids: Vec<&CertificateId> =
            listings.flat_map(|listing| listing.list.active()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().filter_map(|id| self.certificates.get(id)).map(Arc::as_ref).collect()
    }

    /// The projects in which the certificate is active; all projects if it is inherited.
    pub fn projects_of(&self, id: &CertificateId) -> Vec<&Project> {
        let inherited = self.active_in_organization(id);
        self.projects
            .values()
            .filter(|project| {
                inherited
                    || self
                        .listings
                        .get(&project.id)
                        .is_some_and(|listing| listing.list.has_active(id))
            })
            .collect()
    }

    /// The projects with unknown active certificates: their list, or the organization’s, was never
    /// read.
    pub fn unread_projects(&self) -> Vec<&Project> {
        let read = |project: &&Project| {
            self.organization.is_some() && self.listings.contains_key(&project.id)
        };
        self.projects.values().filter(|project| !read(project)).collect()
    }

    /// The projects whose lists contain the certificate, active or not.
    pub fn projects_that_list(&self, id: &CertificateId) -> Vec<&Project> {
        let lists = |project: &&Project| {
            let listing = self.listings.get(&project.id);
            listing.is_some_and(|listing| listing.list.names(id))
        };
        self.projects.values().filter(lists).collect()
    }

    /// The certificates in the last known content of unreadable lists.
    pub fn stale_certificates(&self) -> HashSet<&CertificateId> {
        let organization = self.unreadable_organization.as_ref().and(self.organization.as_ref());
        let projects = self.unreadable_projects.keys().filter_map(|id| self.listings.get(id));
        let mut lists = HashSet::new();
        let mut stale = HashSet::new();
        for listing in organization.into_iter().chain(projects) {
            if lists.insert(listing.list.address()) {
                stale.extend(listing.list.iter().map(|(id, _)| id));
            }
        }
        stale
    }

    /// The time of the oldest reading in use; `None` if no list was ever read.
    pub fn oldest_reading(&self) -> Option<DateTime<Utc>> {
        self.organization.iter().chain(self.listings.values()).map(|listing| listing.read_at).min()
    }

    /// The unreadable lists, with a description of their scope.
    pub fn faults(&self) -> impl Iterator<Item = (String, &Unreadable)> {
        let list =
            self.unreadable_project_list.iter().map(|u| ("the list of projects".to_owned(), u));
        let organization = self
            .unreadable_organization
            .iter()
            .map(|u| ("the organization's certificates".to_owned(), u));
        let projects = self.unreadable_projects.iter().map(|(id, u)| {
            let name = self.projects.get(id).and_then(|project| project.name.as_ref());
            (name.map_or(format!("project {id}"), |name| format!("project {id} “{name}”")), u)
        });
        list.chain(organization).chain(projects)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::{
        capacity::Capacity,
        reading::Listed,
        selection::{Glob, Globs},
    };
    use chrono::TimeDelta;
    use proptest::prelude::*;

    pub(crate) fn everything() -> Selection {
        Selection { include: Globs::all(), exclude: Globs(vec![]), archived: false }
    }

    pub(crate) fn start() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    pub(crate) fn certificate(id: &str, days: i64) -> Certificate {
        Certificate {
            strange_expiry: None,
            content: None,
            reported: None,
            id: CertificateId::parse(id).unwrap(),
            name: None,
            created_at: None,
            valid_at: None,
            expires_at: Some(start() + TimeDelta::days(days)),
        }
    }

    fn project(id: &str) -> ProjectId {
        ProjectId::parse(id).unwrap()
    }

    pub(crate) type Scoped<'a> = (&'a str, Result<&'a [(&'a str, i64, bool)], &'a str>);

    /// A reading in which the scope `""` is the organization.
    pub(crate) fn reading(scopes: &[Scoped<'_>]) -> Reading {
        let mut reading = Reading::begin(Arc::default(), "", false);
        reading.project_list = Ok(());
        read(&mut reading, scopes);
        reading
    }

    fn read(reading: &mut Reading, scopes: &[Scoped<'_>]) {
        for (scope, listed) in scopes {
            let scope = if scope.is_empty() {
                Scope::Organization
            } else {
                let id = project(scope);
                reading.projects.insert(id.clone(), Project { id: id.clone(), name: None });
                Scope::Project(id)
            };
            match listed {
                Ok(all) => {
                    let listed = |(id, days, active): &(&str, i64, bool)| Listed {
                        certificate: Arc::new(certificate(id, *days)),
                        active: *active,
                    };
                    reading.take(scope, vec![Arc::new(all.iter().map(listed).collect())]);
                }
                Err(why) => reading.fail(scope, (*why).into()),
            }
        }
    }

    /// Changes the certificates of a reading.
    pub(crate) fn each(reading: &mut Reading, change: impl Fn(&mut Certificate)) {
        reading.certificates.values_mut().for_each(|one| change(Arc::make_mut(one)));
    }

    fn merged(before: Inventory, scopes: &[Scoped<'_>]) -> Inventory {
        before.merge(reading(scopes), &everything(), start())
    }

    #[test]
    fn a_certificate_in_several_projects_is_one_entry() {
        let list: &[_] = &[("c", 5, true)];
        let inventory = merged(
            Inventory::default(),
            &[("", Ok(&[("c", 5, false)])), ("p1", Ok(list)), ("p2", Ok(list)), ("p3", Ok(&[]))],
        );
        assert_eq!(inventory.certificates.len(), 1);
        let id = CertificateId::parse("c").unwrap();
        let projects: Vec<_> = inventory.projects_of(&id).iter().map(|p| p.id.as_str()).collect();
        assert_eq!(projects, ["p1", "p2"]);
        assert!(inventory.is_complete());
    }

    #[test]
    fn every_project_inherits_the_active_certificates_of_the_organization() {
        let inventory = merged(
            Inventory::default(),
            &[("", Ok(&[("c", 5, true)])), ("p1", Ok(&[])), ("p2", Ok(&[]))],
        );
        let id = CertificateId::parse("c").unwrap();
        assert_eq!(inventory.projects_of(&id).len(), 2);
        assert_eq!(inventory.active_in_project(&project("p1")).len(), 1);
    }

    #[test]
    fn known_data_is_never_dropped_for_new_data() {
        let (two, others): (&[_], &[_]) =
            (&[("a", 5, true), ("b", 5, true)], &[("c", 5, true), ("d", 5, true)]);
        let before = merged(Inventory::default(), &[("", Ok(&[])), ("p1", Ok(two))]);
        let scopes = [("", Ok(&[] as &[_])), ("p1", Err("HTTP 500")), ("p2", Ok(others))];
        for (rows, kept) in [(4, ["a", "b", "c", "d"].as_slice()), (3, &["a", "b"])] {
            let mut reading = reading(&[]);
            reading.capacity = Capacity::of(rows, 10, 10_000);
            read(&mut reading, &scopes);
            let after = before.merge(reading, &everything(), start());
            let ids: Vec<&str> = after.certificates.keys().map(CertificateId::as_str).collect();
            assert_eq!(ids, kept);
            let p1 = &after.unreadable_projects[&project("p1")];
            let expected = if kept.len() == 4 { "HTTP 500" } else { "not read in this scan" };
            assert_eq!(&*p1.why, expected);
            assert_eq!(after.unreadable_project_list.is_some(), kept.len() == 2);
            assert!(!after.is_complete());
        }
    }

    #[test]
    fn an_unreadable_project_keeps_its_last_known_data() {
        let before = merged(
            Inventory::default(),
            &[("", Ok(&[])), ("p1", Ok(&[("c", 5, true)])), ("p2", Ok(&[]))],
        );
        let after =
            merged(before.clone(), &[("", Ok(&[])), ("p1", Err("HTTP 500")), ("p2", Ok(&[]))]);
        assert_eq!(after.certificates, before.certificates);
        assert_eq!(after.listings[&project("p1")], before.listings[&project("p1")]);
        assert!(!after.is_complete());
        assert!(after.stale_certificates().contains(&CertificateId::parse("c").unwrap()));
    }

    #[test]
    fn a_project_missing_from_a_complete_list_is_removed_with_its_certificates() {
        let before = merged(Inventory::default(), &[("", Ok(&[])), ("p1", Ok(&[("c", 5, true)]))]);
        let after = merged(before, &[("", Ok(&[]))]);
        assert!(after.projects.is_empty() && after.certificates.is_empty());
        assert!(after.is_complete());
    }

    #[test]
    fn a_project_missing_from_an_incomplete_list_is_kept() {
        let before = merged(Inventory::default(), &[("", Ok(&[])), ("p1", Ok(&[("c", 5, true)]))]);
        let mut broken = reading(&[("", Ok(&[]))]);
        broken.project_list = Err("connection reset".into());
        let after = before.clone().merge(broken.clone(), &everything(), start());
        assert_eq!(after.certificates, before.certificates);
        let excluding = Selection { exclude: Globs(vec![Glob::new("p1")]), ..everything() };
        let excluded = before.merge(broken, &excluding, start());
        assert!(excluded.projects.is_empty(), "excluded projects count as read and empty");
    }

    #[test]
    fn unreadable_since_is_the_first_failure() {
        let first =
            Inventory::default().merge(reading(&[("", Err("HTTP 403"))]), &everything(), start());
        let later = start() + TimeDelta::hours(6);
        let second = first.merge(reading(&[("", Err("HTTP 500"))]), &everything(), later);
        let unreadable = second.unreadable_organization.unwrap();
        assert_eq!((unreadable.since, &*unreadable.why), (start(), "HTTP 500"));
    }

    proptest! {
        /// Two lists of one scan may differ if a certificate was changed between the requests.
        #[test]
        fn the_order_of_pages_does_not_matter(
            entries in proptest::collection::vec((0..4u8, -5..90i64, any::<bool>(), 0..3u8), 0..24),
            seed in any::<u64>(),
        ) {
            let listed: Vec<(String, Listed)> = entries.iter().map(|(id, days, active, scope)| {
                let certificate = Arc::new(certificate(&format!("c{id}"), *days));
                (format!("p{scope}"), Listed { certificate, active: *active })
            }).collect();
            let build = |listed: &[(String, Listed)]| {
                let mut reading = reading(&[("", Ok(&[]))]);
                let mut scopes: Vec<(&str, Vec<Arc<Vec<Listed>>>)> = Vec::new();
                for (scope, one) in listed {
                    let page = Arc::new(vec![one.clone()]);
                    match scopes.iter_mut().find(|(of, _)| of == scope) {
                        Some((_, pages)) => pages.push(page),
                        None => scopes.push((scope, vec![page])),
                    }
                }
                for (scope, pages) in scopes {
                    let id = project(scope);
                    reading.projects.insert(id.clone(), Project { id: id.clone(), name: None });
                    reading.take(Scope::Project(id), pages);
                }
                Inventory::default().merge(reading, &everything(), start())
            };
            let mut shuffled = listed.clone();
            fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
            prop_assert_eq!(build(&listed), build(&shuffled));
        }
    }
}
