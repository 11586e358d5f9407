//! The result of reading an organization: each certificate and each distinct list once.
//!
//! It does not depend on the order of pages.

use chrono::{DateTime, TimeDelta, Utc};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use super::{
    capacity::Capacity,
    certificate::{Certificate, CertificateId, Certificates, Project, ProjectId, Scope},
    change::Audit,
    content::{Failure, Knowledge},
    credential::AdminKey,
    inventory::Inventory,
    text::Name,
    unreadable::{CONFIRM_AFTER, ReadError},
};

/// Number of recent lists that are recognized by their pages.
const RECENT_LISTS: usize = 16;

/// The maximum number of contents of an organization: its maximum number of certificates.
const MAX_CONTENTS: usize = 50;

/// The time after which an unreadable content is requested again.
const CONTENT_RETRY: TimeDelta = TimeDelta::days(1);

/// A certificate as one scope lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub certificate: Arc<Certificate>,
    pub active: bool,
}

/// The certificates of a list, ordered by id, and whether each is active there. Clones share it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct List(Arc<[(CertificateId, bool)]>);

impl List {
    /// Creates a list. An id that occurs twice is active if either entry is.
    pub fn new(mut listed: Vec<(CertificateId, bool)>) -> List {
        listed.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        listed.dedup_by(|(again, active), (id, kept)| {
            let same = again == id;
            *kept |= same && *active;
            same
        });
        List(listed.into())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// This list, and the entries that only `other` contains.
    pub fn or(&self, other: &List) -> List {
        let missing = other.iter().filter(|(id, _)| !self.names(id));
        List::new(self.iter().chain(missing).cloned().collect())
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &(CertificateId, bool)> {
        self.0.iter()
    }

    /// The ids of the active certificates, in order.
    pub fn active(&self) -> impl Iterator<Item = &CertificateId> {
        self.0.iter().filter(|(_, active)| *active).map(|(id, _)| id)
    }

    /// Whether it contains the certificate, active or not.
    pub fn names(&self, id: &CertificateId) -> bool {
        self.find(id).is_some()
    }

    pub fn has_active(&self, id: &CertificateId) -> bool {
        self.find(id) == Some(true)
    }

    fn find(&self, id: &CertificateId) -> Option<bool> {
        let at = self.0.binary_search_by(|(other, _)| other.cmp(id)).ok()?;
        self.0.get(at).map(|(_, active)| *active)
    }

    /// The memory address, which is the same for clones. Lists with the same content may have
    /// different addresses.
    pub fn address(&self) -> usize {
        self.0.as_ptr().addr()
    }
}

/// The result of reading an organization. A scope that is in none of the fields was not reached.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The selected projects that were listed.
    pub projects: BTreeMap<ProjectId, Project>,
    /// The error, if the list of projects is incomplete.
    pub project_list: Result<(), ReadError>,
    /// The certificates of all complete lists.
    pub certificates: Certificates,
    /// The complete lists, and the errors of the unreadable ones.
    pub listings: BTreeMap<Scope, Result<List, ReadError>>,
    /// The errors of lists with items that could not be parsed.
    pub partial: BTreeMap<Scope, ReadError>,
    /// The organization's admin keys; `None` if they are not watched.
    pub admin_keys: Option<Result<Vec<AdminKey>, ReadError>>,
    /// The names of the owners of admin keys, by id.
    pub key_owners: BTreeMap<Name, Name>,
    /// The contents that were requested; `None` if they are not wanted, and known ones are dropped.
    pub contents: Option<BTreeMap<CertificateId, Knowledge>>,
    /// The new part of the audit log.
    pub audit: Audit,
    /// How long an absence must last before it counts.
    pub confirm_after: TimeDelta,
    /// The previous inventory; unchanged certificates are shared with it.
    before: Arc<Inventory>,
    pub(super) capacity: Capacity,
    /// The latest lists with their pages.
    recent: VecDeque<(Vec<Arc<Vec<Listed>>>, List)>,
}

impl Reading {
    /// An empty reading. `why` is the error of the list of projects, and of the admin keys if they
    /// are watched, until they are read.
    pub fn begin(before: Arc<Inventory>, why: &str, admin_keys: bool) -> Reading {
        let listings = before.organization.iter().chain(before.listings.values());
        let known = listings.map(|listing| listing.list.clone());
        Reading {
            capacity: Capacity::new(known),
            before,
            projects: BTreeMap::new(),
            project_list: Err(why.into()),
            certificates: Certificates::new(),
            listings: BTreeMap::new(),
            partial: BTreeMap::new(),
            admin_keys: admin_keys.then(|| Err(why.into())),
            key_owners: BTreeMap::new(),
            contents: Some(BTreeMap::new()),
            audit: Audit::Skipped,
            confirm_after: CONFIRM_AFTER,
            recent: VecDeque::new(),
        }
    }

    /// A reading in which every list failed.
    pub fn failed(why: &str) -> Reading {
        let listings = BTreeMap::from([(Scope::Organization, Err(why.into()))]);
        let capacity = Capacity::unlimited();
        Reading { listings, capacity, ..Reading::begin(Arc::default(), why, true) }
    }

    /// Adds the projects of a page.
    ///
    /// # Errors
    /// If they exceed the capacity: the rest is left out, and the list of projects is incomplete.
    pub fn add_projects(&mut self, projects: Vec<Project>) -> Result<(), ReadError> {
        for project in projects {
            if !self.projects.contains_key(&project.id) {
                self.capacity.project(&project)?;
            }
            self.projects.insert(project.id.clone(), project);
        }
        Ok(())
    }

    /// Adds the complete list of a scope. A list that exceeds the capacity is unreadable.
    pub fn take(&mut self, scope: Scope, pages: Vec<Arc<Vec<Listed>>>) {
        let same = |(of, _): &&(Vec<Arc<Vec<Listed>>>, List)| {
            of.len() == pages.len() && of.iter().zip(&pages).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        if let Some((_, list)) = self.recent.iter().find(same) {
            self.listings.insert(scope, Ok(list.clone()));
            return;
        }
        let list = self.list(&pages);
        if let Ok(list) = &list {
            self.recent.truncate(RECENT_LISTS - 1);
            self.recent.push_front((pages, list.clone()));
        }
        self.listings.insert(scope, list);
    }

    /// Records that the list of a scope could not be read.
    pub fn fail(&mut self, scope: Scope, error: ReadError) {
        let error = self.capacity.error(error);
        self.listings.insert(scope, Err(error));
    }

    /// The lists of projects that lost their last active certificate since `before`, and the
    /// organization's list; empty if no project did.
    pub fn lists_that_lost_protection(&self, before: &Inventory) -> BTreeSet<Scope> {
        let organization = self.listings.get(&Scope::Organization);
        if self.is_active_for_all() || !organization.is_some_and(Result::is_ok) {
            return BTreeSet::new();
        }
        let has_lost = |(scope, list): &(&Scope, &Result<List, ReadError>)| {
            let none = list.as_ref().is_ok_and(|list| list.active().next().is_none());
            none && scope.project().is_some_and(|id| before.has_active(id))
        };
        let lost = self.listings.iter().filter(has_lost);
        let mut scopes: BTreeSet<Scope> = lost.map(|(scope, _)| scope.clone()).collect();
        if !scopes.is_empty() {
            scopes.insert(Scope::Organization);
        }
        scopes
    }

    /// Whether a certificate is active for the organization, and therefore inherited by every
    /// project.
    pub fn is_active_for_all(&self) -> bool {
        let list = self.listings.get(&Scope::Organization);
        list.is_some_and(|list| list.as_ref().is_ok_and(|list| list.active().next().is_some()))
    }

    /// Records that some items of a scope's list could not be parsed.
    pub fn add_partial(&mut self, scope: Scope, error: ReadError) {
        let error = self.capacity.error(error);
        self.partial.insert(scope, error);
    }

    /// The certificates whose content a scan requests: each once, active ones first. After a
    /// transient error, and if it is listed with other dates, a content is requested again in the
    /// next scan; after any other error, after a day.
    pub fn wanted_contents(&self, now: DateTime<Utc>) -> Vec<CertificateId> {
        let is_recent =
            |failure: &Failure| !failure.transient && (now - failure.at).abs() < CONTENT_RETRY;
        let known = || self.before.contents.values();
        // If the key could read none, it has no permission for the others either.
        let none = known().all(|known| known.content().is_none());
        let refused = |failure: &Failure| failure.refused && is_recent(failure);
        if none && known().filter_map(Knowledge::failure).any(refused) {
            return Vec::new();
        }
        let is_wanted = |id: &CertificateId, listed: &Certificate| {
            let was = self.before.certificates.get(id);
            match self.before.contents.get(id) {
                None => true,
                Some(Knowledge::Unreadable(failure)) => !is_recent(failure),
                Some(Knowledge::Read(_)) => {
                    was.is_some_and(|was| was.reported() != listed.reported())
                }
            }
        };
        let known = self.certificates.keys().filter(|id| self.before.contents.contains_key(*id));
        let room = MAX_CONTENTS.saturating_sub(known.count());
        let wanted = self.certificates.iter().filter(|(id, listed)| is_wanted(id, listed));
        let (mut again, mut new): (Vec<_>, Vec<_>) =
            wanted.map(|(id, _)| id.clone()).partition(|id| self.before.contents.contains_key(id));
        let lists = self.listings.values().filter_map(|list| list.as_ref().ok());
        let active: HashSet<&CertificateId> = lists.flat_map(List::active).collect();
        new.sort_by_key(|id| !active.contains(id));
        new.truncate(room);
        again.extend(new);
        again
    }

    fn list(&mut self, pages: &[Arc<Vec<Listed>>]) -> Result<List, ReadError> {
        let listed = || pages.iter().flat_map(|page| page.iter());
        let rows = listed().map(|one| (self.id(&one.certificate), one.active)).collect();
        let list = List::new(rows);
        let new: HashMap<&CertificateId, &Certificate> = listed()
            .map(|one| (&one.certificate.id, one.certificate.as_ref()))
            .filter(|(id, _)| !self.certificates.contains_key(*id))
            .collect();
        let list = self.capacity.list(list, new.into_values())?;
        listed().for_each(|one| self.know(&one.certificate));
        Ok(list)
    }

    /// The known copy of the id, so that all lists share its text.
    fn id(&self, certificate: &Arc<Certificate>) -> CertificateId {
        let known = self.certificates.get(&certificate.id);
        let known = known.or_else(|| self.before.certificates.get(&certificate.id));
        known.unwrap_or(certificate).id.clone()
    }

    /// Adds a certificate, or combines it with its entry from another list.
    fn know(&mut self, certificate: &Arc<Certificate>) {
        match self.certificates.get_mut(&certificate.id) {
            None => {
                let before = self.before.certificates.get(&certificate.id);
                let known = before.filter(|before| before.is_listed_as(certificate));
                let known = known.unwrap_or(certificate);
                self.certificates.insert(self.id(certificate), Arc::clone(known));
            }
            Some(known) => {
                if !known.is_listed_as(certificate) {
                    let other = Certificate::clone(certificate);
                    *known = Arc::new(known.as_listed().combine(other));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(listed: &[(&str, bool)]) -> List {
        let id = |id: &str| CertificateId::parse(id).unwrap();
        List::new(listed.iter().map(|(name, active)| (id(name), *active)).collect())
    }

    #[test]
    fn a_list_contains_each_certificate_once_in_any_order() {
        let one = list(&[("b", false), ("a", true), ("b", true), ("c", false)]);
        assert_eq!(
            one,
            list(&[("c", false), ("b", true), ("b", false), ("a", true), ("a", false)])
        );
        let active: Vec<&str> = one.active().map(CertificateId::as_str).collect();
        assert_eq!(active, ["a", "b"]);
        let id = |id: &str| CertificateId::parse(id).unwrap();
        assert!(one.names(&id("c")) && !one.has_active(&id("c")) && !one.names(&id("d")));
    }

    fn page(ids: &[&str]) -> Vec<Arc<Vec<Listed>>> {
        let listed = |id: &&str| Listed {
            certificate: Arc::new(super::super::inventory::tests::certificate(id, 9)),
            active: true,
        };
        vec![Arc::new(ids.iter().map(listed).collect::<Vec<_>>())]
    }

    fn scope(n: usize) -> Scope {
        Scope::Project(ProjectId::parse(&format!("p{n}")).unwrap())
    }

    #[test]
    fn a_list_beyond_the_capacity_is_unreadable_and_others_are_read() {
        let mut reading = Reading::begin(Arc::default(), "", false);
        reading.capacity = Capacity::of(4, 3, 1_000);
        let lists: [(&[&str], bool); 6] = [
            (&["a", "b"], true),
            (&["b", "a"], true),
            (&["a", "b", "c"], false),
            (&["d"], true),
            (&["e"], false),
            (&["a"], true),
        ];
        for (n, (ids, fits)) in lists.into_iter().enumerate() {
            reading.take(scope(n), page(ids));
            assert_eq!(reading.listings[&scope(n)].is_ok(), fits, "{ids:?}");
        }
        let ids: Vec<&str> = reading.certificates.keys().map(CertificateId::as_str).collect();
        assert_eq!(ids, ["a", "b", "d"], "nothing of a list beyond the capacity");

        let project = |n: usize| {
            let id = ProjectId::parse(&format!("p{n}")).unwrap();
            Project { id, name: crate::domain::text::Name::clean(&"n".repeat(100)) }
        };
        assert!(reading.add_projects(vec![project(0), project(0)]).is_ok());
        let many = (1..9).map(project).collect();
        let why = reading.add_projects(many).unwrap_err().why;
        assert!(why.contains("larger than certvigil can hold"), "{why}");
        let held = reading.projects.len();
        assert!((1..9).contains(&held), "{held}");
        reading.fail(scope(1), "x".repeat(300).into());
        let Err(error) = &reading.listings[&scope(1)] else { unreachable!() };
        assert!(Arc::ptr_eq(&error.why, &why), "errors beyond the capacity share one text");
    }

    #[test]
    fn lists_with_the_same_content_share_memory() {
        let mut reading = Reading::begin(Arc::default(), "", false);
        let first = page(&["a", "b"]);
        for (n, pages) in
            [first.clone(), first, page(&["b", "a"]), page(&["a"])].into_iter().enumerate()
        {
            reading.take(scope(n), pages);
        }
        let of = |n: usize| reading.listings[&scope(n)].as_ref().unwrap().address();
        assert_eq!(of(0), of(1));
        assert_eq!(of(0), of(2));
        assert_ne!(of(0), of(3));
        assert_eq!(reading.certificates.len(), 2);
    }
}
