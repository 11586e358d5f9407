//! The differences between two scans. An unreadable list has its last known content, and thus no
//! difference.

use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    super::{
        certificate::{CertificateId, Scope},
        inventory::{Inventory, Listing},
        reading::List,
        text::Name,
        unreadable::Unreadable,
    },
    ChangeKind,
};

/// A change between two scans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub kind: ChangeKind,
    pub certificate: CertificateId,
    pub name: Option<Name>,
    /// Where it happened; the organization for kinds without a scope.
    pub scopes: BTreeSet<Scope>,
    /// The time of the earlier reading.
    pub since: DateTime<Utc>,
}

/// Collects differences: one for each kind and certificate.
#[derive(Default)]
struct Differences(BTreeMap<(CertificateId, ChangeKind), (BTreeSet<Scope>, DateTime<Utc>)>);

impl Differences {
    fn add(&mut self, kind: ChangeKind, id: &CertificateId, scope: Scope, since: DateTime<Utc>) {
        let known = self.0.entry((id.clone(), kind));
        let (scopes, earliest) = known.or_insert_with(|| (BTreeSet::new(), since));
        scopes.insert(scope);
        *earliest = (*earliest).min(since);
    }
}

/// A list as both scans read it.
struct Both<'a> {
    before: &'a Listing,
    after: &'a Listing,
}

impl<'a> Both<'a> {
    /// `None` unless an earlier scan read it to its end.
    fn new(
        before: Option<&'a Listing>,
        unreadable_before: Option<&Unreadable>,
        after: Option<&'a Listing>,
    ) -> Option<Both<'a>> {
        let (before, after) = (before?, after?);
        // Its first reading had unreadable items.
        let never_whole = unreadable_before.is_some_and(|one| before.read_at >= one.since);
        (!never_whole).then_some(Both { before, after })
    }
}

impl Inventory {
    /// The changes since `before`. A list that was not read before has none.
    pub fn differences(&self, before: &Inventory) -> Vec<Difference> {
        let mut found = Differences::default();
        let organization = Both::new(
            before.organization.as_ref(),
            before.unreadable_organization.as_ref(),
            self.organization.as_ref(),
        );
        if let Some(both) = &organization {
            self.compare_objects(before, both, &mut found);
        }
        // Lists with the same content are compared once.
        let mut compared: HashMap<(usize, usize), Vec<(CertificateId, ChangeKind)>> =
            HashMap::new();
        let of_projects = self.listings.iter().filter_map(|(id, after)| {
            let both =
                Both::new(before.listings.get(id), before.unreadable_projects.get(id), Some(after));
            Some((Some(id), both?))
        });
        let organization = organization.map(|both| (None, both));
        for (project, both) in organization.into_iter().chain(of_projects) {
            let (old, new) = (&both.before.list, &both.after.list);
            let switched = compared
                .entry((old.address(), new.address()))
                .or_insert_with(|| switched(old, new));
            for (id, kind) in switched {
                let scope = project.map_or(Scope::Organization, |id| Scope::Project(id.clone()));
                found.add(*kind, id, scope, both.before.read_at);
            }
        }
        let name = |id: &CertificateId| {
            let known = self.certificates.get(id).or_else(|| before.certificates.get(id));
            known.and_then(|known| known.name.clone())
        };
        let all = found.0.into_iter();
        all.map(|((certificate, kind), (scopes, since))| Difference {
            name: name(&certificate),
            kind,
            certificate,
            scopes,
            since,
        })
        .collect()
    }

    /// Adds uploaded, deleted and renamed certificates.
    fn compare_objects(&self, before: &Inventory, both: &Both<'_>, found: &mut Differences) {
        let since = both.before.read_at;
        let mut add = |kind, id| found.add(kind, id, Scope::Organization, since);
        for (id, _) in both.after.list.iter().filter(|(id, _)| !both.before.list.names(id)) {
            add(ChangeKind::Uploaded, id);
        }
        for (id, known) in &before.certificates {
            match self.certificates.get(id) {
                Some(now) if now.name != known.name => add(ChangeKind::Renamed, id),
                Some(_) => {}
                None if self.unreadable_organization.is_none() => add(ChangeKind::Deleted, id),
                None => {}
            }
        }
    }
}

/// The certificates that became active or inactive.
fn switched(old: &List, new: &List) -> Vec<(CertificateId, ChangeKind)> {
    if old.address() == new.address() {
        return Vec::new();
    }
    let activated = new.active().filter(|id| !old.has_active(id));
    let deactivated = old.active().filter(|id| !new.has_active(id));
    let activated = activated.map(|id| (id.clone(), ChangeKind::Activated));
    activated.chain(deactivated.map(|id| (id.clone(), ChangeKind::Deactivated))).collect()
}
