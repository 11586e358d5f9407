//! The stored state of one organization: its inventory, its acknowledgements, and the alerts sent
//! to each notifier. Read-only.

use chrono::{DateTime, Utc};
use std::collections::BTreeSet;

use crate::{
    domain::{
        acknowledgement::Acknowledgements,
        alert::Ledger,
        certificate::{CertificateId, OrganizationName},
        inventory::Inventory,
        notifier::NotifierState,
        policy::Policy,
        subject::Subject,
    },
    message::{
        Notification,
        forecast::{CurrentState, forecast},
    },
    schedule::Cron,
    store::{Store, StoreError},
};

/// A configured organization with its stored state.
#[derive(Clone, Debug)]
pub struct OrganizationState {
    pub organization: OrganizationName,
    pub policy: Policy,
    /// The stored inventory.
    pub before: Inventory,
    /// The stored inventory, or a newer reading merged into it.
    pub inventory: Inventory,
    pub acknowledgements: Acknowledgements,
    pub notifiers: Vec<NotifierState>,
}

impl OrganizationState {
    /// Loads the state of an organization, and the ledgers of the notifiers; empty without a
    /// database.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn load(
        organization: OrganizationName,
        policy: Policy,
        mut notifiers: Vec<NotifierState>,
        store: Option<&Store>,
        now: DateTime<Utc>,
    ) -> Result<OrganizationState, StoreError> {
        let (mut inventory, mut acknowledgements) =
            (Inventory::default(), Acknowledgements::default());
        if let Some(store) = store {
            inventory = store.inventory(&organization).await?;
            acknowledgements = store.acknowledgements(&organization).await?;
            for notifier in &mut notifiers {
                let ledger = notifier.ledger_name();
                (notifier.ledger, _) = store.ledger(Some(&organization), &ledger, now).await?;
            }
        }
        let before = inventory.clone();
        Ok(OrganizationState {
            organization,
            policy,
            before,
            inventory,
            acknowledgements,
            notifiers,
        })
    }

    /// The notifications of the scans from `first` up to and including `end`.
    pub fn forecast(
        &self,
        cron: &Cron,
        first: DateTime<Utc>,
        end: DateTime<Utc>,
    ) -> Vec<Notification> {
        if first > end {
            return Vec::new();
        }
        let present = CurrentState {
            organization: &self.organization,
            before: &self.before,
            inventory: &self.inventory,
            policy: &self.policy,
            acknowledgements: &self.acknowledgements,
        };
        let next = |after: DateTime<Utc>| {
            let in_time = (after < end).then(|| cron.next_after(after)).flatten();
            in_time.filter(|next| *next <= end)
        };
        forecast(&present, self.notifiers.clone(), first, next, cron.timezone())
    }

    /// The part of the state that decides the alerts of one certificate, with one project for each
    /// group that no filter or rule distinguishes. A forecast over thousands of projects would be
    /// slow.
    pub fn narrowed(&self, id: &CertificateId) -> OrganizationState {
        let inventory = &self.inventory;
        let unread = inventory.unread_projects();
        let listing = inventory.projects_that_list(id);
        let concerned = inventory.projects_of(id).into_iter().chain(listing).chain(unread.clone());
        let mut kinds = BTreeSet::new();
        let mut kept = BTreeSet::new();
        for project in concerned {
            let active: Vec<&CertificateId> = {
                let active = inventory.active_in_project(&project.id);
                active.into_iter().map(|one| &one.id).collect()
            };
            let asked = self.notifiers.iter().map(|one| &one.routing.projects);
            let ruled = self.policy.rules.iter().map(|rule| &rule.projects);
            let owned = self.policy.owners.iter().map(|owner| &owner.projects);
            let matched: Vec<bool> =
                asked.chain(ruled).chain(owned).map(|globs| globs.match_project(project)).collect();
            let listed = inventory.listings.get(&project.id);
            let doubt = (
                inventory.unreadable_projects.contains_key(&project.id),
                unread.iter().any(|one| one.id == project.id),
                listed.is_some_and(|listing| listing.list.names(id)),
            );
            if kinds.insert((active, matched, doubt)) {
                kept.insert(project.id.clone());
            }
        }
        let narrow = |inventory: &Inventory| {
            let mut inventory = inventory.clone();
            inventory.projects.retain(|project, _| kept.contains(project));
            inventory.listings.retain(|project, _| kept.contains(project));
            inventory.unreadable_projects.retain(|project, _| kept.contains(project));
            let mut named: BTreeSet<CertificateId> = BTreeSet::from([id.clone()]);
            for project in &kept {
                named.extend(inventory.active_in_project(project).iter().map(|one| one.id.clone()));
            }
            inventory.certificates.retain(|other, _| named.contains(other));
            inventory
        };
        let subject = Subject::Certificate(id.clone());
        let only = |ledger: &Ledger| {
            let mut ledger = ledger.clone();
            ledger.open.retain(|of, _| *of == subject);
            ledger.past.retain(|of, _| *of == subject);
            ledger.undelivered.retain(|of, _| *of == subject);
            ledger
        };
        let notifiers = self.notifiers.iter();
        OrganizationState {
            organization: self.organization.clone(),
            policy: self.policy.clone(),
            before: narrow(&self.before),
            inventory: narrow(&self.inventory),
            acknowledgements: self.acknowledgements.clone(),
            notifiers: notifiers
                .map(|one| NotifierState { ledger: only(&one.ledger), ..one.clone() })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::{
        domain::{
            evaluate::evaluate,
            inventory::tests::{Scoped, everything, reading, start},
            notifier::Grouping,
            policy::{Effect, Ignore, Rule},
            routing::Routing,
            selection::{Glob, Globs},
            threshold::{ExpiredStep, Ladder, Lead, Severity, Threshold},
        },
        view::explain,
    };

    /// Three certificates: one active everywhere, its successor in some projects, and an
    /// independent one.
    fn known() -> OrganizationState {
        let lists: [&[(&str, i64, bool)]; 3] =
            [&[("a", 40, true), ("b", 400, true)], &[("a", 40, true)], &[("c", 3, true)]];
        let ids: Vec<String> = (0..60).map(|n| format!("p{n}")).collect();
        let mut scopes: Vec<Scoped<'_>> = vec![("", Ok(&[]))];
        scopes.extend(ids.iter().enumerate().map(|(n, id)| (id.as_str(), Ok(lists[n % 3]))));
        // Some lists were never read; one that contained an inactive certificate is unreadable now.
        scopes.push(("u1", Err("HTTP 500")));
        scopes.push(("u2", Err("HTTP 500")));
        scopes.push(("old", Ok(&[("c", 3, false)])));
        let before = Inventory::default().merge(reading(&scopes), &everything(), start());
        scopes.pop();
        scopes.push(("old", Err("HTTP 500")));
        let inventory = before.merge(reading(&scopes), &everything(), start());
        let step = |days, severity| Threshold {
            lead: Lead::Fixed(TimeDelta::days(days)),
            label: format!("{days}d"),
            severity,
            repeat: Some(TimeDelta::days(5)),
        };
        let expired = ExpiredStep { severity: Severity::Critical, repeat: None };
        let ladder =
            Ladder::new(vec![step(30, Severity::Warning), step(7, Severity::Critical)], expired);
        let only = Globs(vec![Glob::new("p1"), Glob::new("p2")]);
        let some = Routing { projects: only, ..Routing::all() };
        OrganizationState {
            organization: OrganizationName::parse("acme").unwrap(),
            policy: Policy::new(ladder.unwrap()),
            before: inventory.clone(),
            inventory,
            acknowledgements: Acknowledgements::default(),
            notifiers: vec![
                NotifierState::new("all", &Routing::all(), Grouping::Digest),
                NotifierState::new("some", &some, Grouping::EachAlert),
            ],
        }
    }

    fn ignore(projects: &[&str]) -> Rule {
        Rule {
            index: 0,
            certificates: Globs::all(),
            projects: Globs(projects.iter().map(|glob| Glob::new(glob)).collect()),
            effect: Effect::Ignore(Ignore {
                reason: "as the test has it".to_owned(),
                until: start() + TimeDelta::days(900),
            }),
        }
    }

    #[test]
    fn a_narrowed_state_has_the_same_forecast() {
        same(known());
        // First, one unread project does not match, which prevents the ignore; then all match.
        for projects in [&["p*", "u1", "old"][..], &["p*", "u*", "old"], &["p1"]] {
            let mut known = known();
            known.policy.rules.push(ignore(projects));
            same(known);
        }
        // A sent alert about a certificate that no readable list contains.
        let mut gone = known();
        gone.inventory.listings.retain(|id, _| id.as_str() == "old");
        same(gone);
    }

    fn same(known: OrganizationState) {
        let cron = Cron::parse("0 */6 * * *", chrono_tz::UTC).unwrap();
        for id in ["a", "b", "c"] {
            let id = CertificateId::parse(id).unwrap();
            let narrow = known.narrowed(&id);
            assert!(narrow.inventory.projects.len() <= 8, "{}", narrow.inventory.projects.len());
            let next = |known: &OrganizationState| {
                let forecast = known.forecast(&cron, start(), start() + TimeDelta::days(500));
                let evaluation = evaluate(
                    &known.organization,
                    &known.inventory,
                    &known.policy,
                    &known.acknowledgements,
                    start(),
                );
                let assessment = evaluation.assessment(&id).unwrap();
                format!(
                    "{:#?}",
                    explain(&evaluation, &assessment, &known.notifiers, &forecast).notifiers
                )
            };
            assert_eq!(next(&narrow), next(&known), "{id}");
        }
    }
}
