//! The active certificates of each project. Projects that share a list form one group, because
//! there may be thousands of projects.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    certificate::{Certificate, CertificateId, Project, ProjectId},
    inventory::Inventory,
};

/// The active certificates of every project, own and inherited.
#[derive(Debug)]
pub struct Active<'a> {
    groups: Vec<Group<'a>>,
    group_of: BTreeMap<&'a ProjectId, usize>,
    /// Each certificate with each group whose own list has it active, ordered by certificate id.
    own: Vec<GroupEntry<'a>>,
    /// The certificates that are active for the organization, ordered by id.
    inherited: Vec<&'a CertificateId>,
    all: Projects<'a>,
}

/// A certificate, and the index of a group whose own list has it active.
type GroupEntry<'a> = (&'a CertificateId, usize);

/// One pass over the groups in the order of the certificate ids, instead of a search for each
/// certificate.
pub struct Walk<'b, 'a> {
    rest: &'b [GroupEntry<'a>],
}

impl<'b, 'a> Walk<'b, 'a> {
    /// The groups with this certificate. Calls must be in ascending order of ids.
    pub fn next(&mut self, id: &CertificateId) -> &'b [GroupEntry<'a>] {
        let before = self.rest.iter().take_while(|(other, _)| !other.is(id) && *other < id);
        let rest = &self.rest[before.count()..];
        let same = rest.iter().take_while(|(other, _)| other.is(id));
        let (found, rest) = rest.split_at(same.count());
        self.rest = rest;
        found
    }
}

/// Projects, ordered by id. Clones share them.
pub type Projects<'a> = Arc<[&'a Project]>;

/// Projects that share a list.
#[derive(Debug)]
struct Group<'a> {
    /// Ordered by id.
    certificates: Vec<&'a Certificate>,
    projects: Projects<'a>,
}

impl<'a> Active<'a> {
    pub fn of(inventory: &'a Inventory) -> Active<'a> {
        let inherited: Vec<&CertificateId> =
            inventory.organization.iter().flat_map(|listing| listing.list.active()).collect();
        let mut members: Vec<Vec<&Project>> = Vec::new();
        let mut known: HashMap<Option<usize>, usize> = HashMap::new();
        let mut group_of = BTreeMap::new();
        for (id, project) in &inventory.projects {
            let list = inventory.listings.get(id).map(|listing| listing.list.address());
            let group = *known.entry(list).or_insert(members.len());
            if group == members.len() {
                members.push(Vec::new());
            }
            members[group].push(project);
            group_of.insert(id, group);
        }
        let listing_of = |projects: &Vec<&Project>| {
            projects.first().and_then(|first| inventory.listings.get(&first.id))
        };
        let rows = members.iter().filter_map(listing_of).map(|listing| listing.list.iter().len());
        let mut own = Vec::with_capacity(rows.sum());
        for (group, projects) in members.iter().enumerate() {
            let listing = listing_of(projects);
            let active = listing.iter().flat_map(|listing| listing.list.active());
            own.extend(active.map(|id| (id, group)));
        }
        // The list of each group is sorted already, which makes the sort fast.
        own.sort();
        let mut active_in: Vec<Vec<&Certificate>> = vec![Vec::new(); members.len()];
        let mut walk = Walk { rest: &own };
        for (id, certificate) in &inventory.certificates {
            let groups = walk.next(id);
            if inherited.binary_search(&id).is_ok() {
                active_in.iter_mut().for_each(|all| all.push(certificate));
            } else {
                groups.iter().for_each(|(_, group)| active_in[*group].push(certificate));
            }
        }
        let groups = members.into_iter().zip(active_in);
        let groups = groups
            .map(|(projects, certificates)| Group { certificates, projects: projects.into() });
        let groups = groups.collect();
        let all = inventory.projects.values().collect();
        Active { groups, group_of, own, inherited, all }
    }

    pub fn walk(&self) -> Walk<'_, 'a> {
        Walk { rest: &self.own }
    }

    /// The active certificates of a project, own and inherited, ordered by id.
    pub fn in_project(&self, project: &ProjectId) -> &[&'a Certificate] {
        self.group(project).map_or(&[], |group| &group.certificates)
    }

    fn group(&self, project: &ProjectId) -> Option<&Group<'a>> {
        self.groups.get(*self.group_of.get(project)?)
    }

    /// Every project, ordered by id, with the index of its group and its active certificates.
    pub fn projects(&self) -> impl Iterator<Item = (usize, &[&'a Certificate], &'a Project)> {
        self.all
            .iter()
            .zip(self.group_of.values())
            .map(|(project, group)| (*group, self.groups[*group].certificates.as_slice(), *project))
    }

    /// Whether the certificate is active for the organization, and therefore inherited by every
    /// project.
    pub fn is_inherited(&self, id: &CertificateId) -> bool {
        self.inherited.binary_search(&id).is_ok()
    }

    /// Whether the certificate is active in a project or for the organization.
    pub fn is_active(&self, id: &CertificateId) -> bool {
        self.is_inherited(id) || !self.own_groups(id).is_empty()
    }

    fn own_groups(&self, id: &CertificateId) -> &[GroupEntry<'a>] {
        let from = self.own.partition_point(|(other, _)| *other < id);
        Walk { rest: &self.own[from..] }.next(id)
    }

    /// The projects in which the certificate is active; all projects if it is inherited.
    pub fn projects_of(&self, id: &CertificateId) -> Projects<'a> {
        self.projects_in(id, self.own_groups(id))
    }

    /// [`Active::projects_of`] with the groups that a [`Walk`] returned for the certificate.
    pub fn projects_in(&self, id: &CertificateId, own: &[GroupEntry<'a>]) -> Projects<'a> {
        if self.is_inherited(id) {
            return Arc::clone(&self.all);
        }
        match own {
            [(_, only)] => Arc::clone(&self.groups[*only].projects),
            some => {
                let projects =
                    some.iter().flat_map(|(_, group)| self.groups[*group].projects.iter());
                let mut projects: Vec<&Project> = projects.copied().collect();
                projects.sort_unstable_by(|a, b| a.id.cmp(&b.id));
                projects.into()
            }
        }
    }

    /// Each group in which the certificate is active: its active certificates and its projects.
    pub fn groups_with(
        &self,
        id: &CertificateId,
    ) -> impl Iterator<Item = (&[&'a Certificate], &Projects<'a>)> {
        let everywhere = if self.is_inherited(id) { self.groups.as_slice() } else { &[] };
        let own = if everywhere.is_empty() { self.own_groups(id) } else { &[] };
        let own = own.iter().map(|(_, group)| &self.groups[*group]);
        everywhere.iter().chain(own).map(|group| (group.certificates.as_slice(), &group.projects))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::inventory::tests::{everything, reading, start};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn active_certificates_equal_those_of_the_inventory(
            lists in proptest::collection::vec(proptest::collection::vec((0..4usize, any::<bool>()), 0..3), 1..7),
            inherited in proptest::collection::vec((0..4usize, any::<bool>()), 0..3),
            unread in any::<bool>(),
        ) {
            let names = ["c0", "c1", "c2", "c3"];
            let listed = |list: &[(usize, bool)]| -> Vec<(&str, i64, bool)> {
                list.iter().map(|(n, active)| (names[*n], 90, *active)).collect()
            };
            let lists: Vec<_> = lists.iter().map(|list| listed(list)).collect();
            let ids: Vec<String> = (0..lists.len()).map(|n| format!("p{n}")).collect();
            let inherited = listed(&inherited);
            let mut scopes = vec![("", Ok(inherited.as_slice()))];
            scopes.extend(ids.iter().zip(&lists).map(|(id, list)| (id.as_str(), Ok(list.as_slice()))));
            if unread {
                scopes.push(("unread", Err("HTTP 500")));
            }
            let inventory = Inventory::default().merge(reading(&scopes), &everything(), start());
            let active = Active::of(&inventory);
            for project in inventory.projects.keys() {
                prop_assert_eq!(active.in_project(project), inventory.active_in_project(project));
            }
            for id in inventory.certificates.keys() {
                prop_assert_eq!(active.projects_of(id).to_vec(), inventory.projects_of(id));
                prop_assert_eq!(active.is_inherited(id), inventory.active_in_organization(id));
                let lists = active.groups_with(id).map(|(list, _)| list.to_vec());
                let mut lists_with: Vec<_> = lists.collect();
                let each = inventory.projects_of(id);
                let mut each: Vec<_> = each.iter().map(|one| inventory.active_in_project(&one.id)).collect();
                let by_id = |a: &Vec<&Certificate>, b: &Vec<&Certificate>| {
                    a.iter().map(|one| &one.id).cmp(b.iter().map(|one| &one.id))
                };
                for all in [&mut lists_with, &mut each] {
                    all.sort_by(by_id);
                    all.dedup();
                }
                prop_assert_eq!(lists_with, each);
            }
        }
    }
}
