//! Lists that were unreadable for too long: certificates in them may expire unnoticed.

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    certificate::Project,
    inventory::Inventory,
    threshold::{Reached, Severity, Stage},
    unreadable::{Cause, Unreadable},
};

/// The repeat interval of `monitor.blind`.
const DAILY: TimeDelta = TimeDelta::days(1);

/// Tolerance for a list that was read late in its scan: at a later scan it is unreadable for
/// slightly less than a multiple of the interval, and must not be reported one scan late.
const SCAN: TimeDelta = TimeDelta::minutes(1);
/// The tolerance is at most one tenth of `blind_after`.
const PART: i32 = 10;

/// An organization with lists that were unreadable for too long.
#[derive(Clone, Debug, PartialEq)]
pub struct Blind<'a> {
    /// Longest unreadable first; never empty.
    pub unseen: Vec<Unseen<'a>>,
    /// Number of projects whose certificates may expire unnoticed.
    pub projects: usize,
}

/// A list that was unreadable for too long.
#[derive(Clone, Debug, PartialEq)]
pub struct Unseen<'a> {
    pub list: List<'a>,
    /// Time of the last complete read; otherwise of the first failure.
    pub since: DateTime<Utc>,
    /// The latest error.
    pub why: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum List<'a> {
    /// The list of projects: new projects are missing.
    Projects,
    /// The organization's certificates, which every project inherits.
    Organization,
    Project(&'a Project),
}

impl<'a> Unseen<'a> {
    fn of(
        list: List<'a>,
        unreadable: &'a Unreadable,
        last_read: Option<DateTime<Utc>>,
    ) -> Unseen<'a> {
        let Unreadable { since, why, cause } = unreadable;
        // A list that waits for confirmation was read; only its content is in doubt.
        let last_read = last_read.filter(|_| !cause.needs_confirmation());
        Unseen { list, since: last_read.unwrap_or(*since).min(*since), why }
    }
}

impl Blind<'_> {
    pub fn reached(&self) -> Reached {
        Reached {
            stage: Stage::Blind,
            label: "blind".to_owned(),
            severity: Severity::Critical,
            repeat: Some(DAILY),
            last: true,
        }
    }
}

/// The lists that were unreadable for `after` or longer; `None` if there are none. A list that was
/// never read counts at once if the API rejects the key, because only the operator can fix that.
pub fn blind(inventory: &Inventory, after: TimeDelta, now: DateTime<Utc>) -> Option<Blind<'_>> {
    let after = after - SCAN.min(after / PART);
    let organization_read_at = inventory.organization.as_ref().map(|listing| listing.read_at);
    let unseen = [
        (
            List::Projects,
            inventory.unreadable_project_list.as_ref(),
            None,
            inventory.projects.is_empty(),
        ),
        (
            List::Organization,
            inventory.unreadable_organization.as_ref(),
            organization_read_at,
            organization_read_at.is_none(),
        ),
    ];
    let of_organization = unseen.into_iter().filter_map(|(list, unreadable, read_at, is_new)| {
        Some((
            Unseen::of(list, unreadable?, read_at),
            is_new && unreadable?.cause == Cause::Refused,
        ))
    });
    let of_projects = inventory.unreadable_projects.iter().filter_map(|(id, unreadable)| {
        let read_at = inventory.listings.get(id).map(|listing| listing.read_at);
        Some((Unseen::of(List::Project(inventory.projects.get(id)?), unreadable, read_at), false))
    });
    let mut all: Vec<Unseen<'_>> = of_organization
        .chain(of_projects)
        .filter(|(unseen, at_once)| *at_once || now - unseen.since >= after)
        .map(|(unseen, _)| unseen)
        .collect();
    all.sort_by_key(|unseen| unseen.since);
    let of_all = all.iter().any(|unseen| unseen.list == List::Organization);
    let of_project = |unseen: &&Unseen<'_>| matches!(unseen.list, List::Project(_));
    let projects =
        if of_all { inventory.projects.len() } else { all.iter().filter(of_project).count() };
    (!all.is_empty()).then_some(Blind { unseen: all, projects })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::inventory::tests::{everything, reading, start};

    #[test]
    fn only_lists_unreadable_for_too_long_are_reported() {
        let read = reading(&[("", Ok(&[])), ("p", Ok(&[])), ("q", Ok(&[]))]);
        let known = Inventory::default().merge(read, &everything(), start());
        let hours = |n: i64| start() + TimeDelta::hours(n);
        let day = TimeDelta::days(1);
        assert_eq!(blind(&known, day, hours(1_000)), None, "nothing failed");

        // One project fails from six hours on; its last read was at the start.
        let failing = || reading(&[("", Ok(&[])), ("p", Err("HTTP 500")), ("q", Ok(&[]))]);
        let known = known.merge(failing(), &everything(), hours(6));
        assert_eq!(blind(&known, day, hours(23)), None);
        let found = blind(&known, day, hours(24) - TimeDelta::milliseconds(5)).unwrap();
        assert_eq!(found.projects, 1);
        let [unseen] = found.unseen.as_slice() else { panic!("{found:?}") };
        assert_eq!((unseen.since, unseen.why), (start(), "HTTP 500"));
        assert!(matches!(unseen.list, List::Project(project) if project.id.as_str() == "p"));

        // The project is readable again.
        let fine = reading(&[("", Ok(&[])), ("p", Ok(&[])), ("q", Ok(&[]))]);
        assert_eq!(blind(&known.merge(fine, &everything(), hours(30)), day, hours(500)), None);
    }

    #[test]
    fn an_unreadable_list_of_the_organization_affects_every_project() {
        let read = reading(&[("", Err("HTTP 403")), ("p", Ok(&[])), ("q", Ok(&[]))]);
        let never = Inventory::default().merge(read, &everything(), start());
        let found = blind(&never, TimeDelta::days(1), start() + TimeDelta::days(1)).unwrap();
        assert_eq!(found.projects, 2, "inherited certificates are unreadable");
        assert_eq!(found.unseen[0].since, start(), "since the first failure");
    }
}
