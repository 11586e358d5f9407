//! The stored inventory: its parts, of which only changed ones are written, and the previous
//! format.

use certvigil::{
    domain::{
        certificate::{Certificate, CertificateId, Project, ProjectId, Scope},
        inventory::Inventory,
        reading::{Listed, Reading},
        selection::{Globs, Selection},
        text::Name,
    },
    store::{Change, Commit},
};
use chrono::{DateTime, TimeDelta, Utc};
use std::sync::Arc;

use super::{
    store::{Contract, acme, contract, minutes, record},
    support::{days, lease, start},
};

fn certificate(n: usize, name: &str) -> Arc<Certificate> {
    let at = |days| Some(start() + TimeDelta::days(days));
    Arc::new(Certificate {
        id: CertificateId::parse(&format!("cert_{n:05}")).unwrap(),
        name: Name::clean(name),
        created_at: at(-9),
        valid_at: (!n.is_multiple_of(3)).then_some(at(-9)).flatten(),
        expires_at: (!n.is_multiple_of(5)).then_some(at(n as i64)).flatten(),
        strange_expiry: n.is_multiple_of(5).then_some(i64::MAX),
        content: None,
        reported: None,
    })
}

/// So many projects: half share a list, half have their own, and one is unreadable.
fn reading(before: &Inventory, projects: usize, name: &str) -> Reading {
    let mut reading = Reading::begin(Arc::new(before.clone()), "", false);
    reading.project_list = Ok(());
    let listed =
        |n: usize| Listed { certificate: certificate(n, name), active: !n.is_multiple_of(7) };
    reading.take(Scope::Organization, vec![Arc::new(vec![listed(1)])]);
    for n in 0..projects {
        let id = ProjectId::parse(&format!("proj_{n:05}")).unwrap();
        let own = if n.is_multiple_of(2) { 0..3 } else { n * 3..n * 3 + 3 };
        let scope = Scope::Project(id.clone());
        if n == 4 {
            reading.listings.insert(scope, Err("HTTP 500".into()));
        } else {
            reading.take(scope, vec![Arc::new(own.map(listed).collect())]);
        }
        let name = n.is_multiple_of(2).then(|| Name::clean("a “name”\\")).flatten();
        reading.projects.insert(id.clone(), Project { id, name });
    }
    reading
}

fn merged(before: &Inventory, projects: usize, name: &str, now: DateTime<Utc>) -> Inventory {
    let everything =
        Selection { include: Globs::all(), exclude: Globs(Vec::new()), archived: false };
    before.merge(reading(before, projects, name), &everything, now)
}

async fn keep(contract: &Contract, inventory: &Inventory, now: DateTime<Utc>) {
    let commit = Commit {
        lease: Some(lease(&contract.store, Some(&acme())).await),
        change: Change::Scan(Box::new((record(now), Arc::new(inventory.clone())))),
        plans: vec![],
        over: vec![],
        now,
        give_up_at: now + days(3),
    };
    contract.store.commit(&commit).await.unwrap();
}

async fn kept(contract: &Contract) -> Inventory {
    contract.store.inventory(&acme()).await.unwrap()
}

async fn what_is_known_is_read_as_it_was_kept_however_much_it_was_and_is(contract: Contract) {
    let mut before = Inventory::default();
    // Over a part of certificates, of lists and of projects; less again; and nothing.
    for (step, (projects, name)) in
        [(9, "a"), (6_000, "a"), (6_000, "another"), (3, "a"), (0, "a")].into_iter().enumerate()
    {
        let now = start() + minutes(step as i64);
        let inventory = merged(&before, projects, name, now);
        keep(&contract, &inventory, now).await;
        assert!(kept(&contract).await == inventory, "{projects} projects, {name:?}");
        before = inventory;
    }
    assert_eq!(before.certificates.len(), 1);
}

async fn the_form_of_before_is_read_and_replaced_by_the_next_scan(contract: Contract) {
    keep(&contract, &Inventory::default(), start()).await;
    contract
        .say(
            r#"UPDATE organizations SET inventory = '{
                "projects": {"p": {"id": "p", "name": "prod"}, "q": {"id": "q", "name": null}},
                "certificates": {"c": {"id": "c", "name": "ca", "created_at": null, "valid_at": null,
                                       "expires_at": "2027-01-20T00:00:00Z", "strange_expiry": null}},
                "organization": {"read_at": "2027-01-15T08:00:00.123Z", "certificates": {"c": false}},
                "listings": {"p": {"read_at": "2027-01-15T08:00:00.123Z", "certificates": {"c": true}}},
                "unreadable_projects": {"q": {"since": "2027-01-14T08:00:00Z", "why": "HTTP 500"}},
                "unreadable_organization": null, "unreadable_project_list": null}'"#,
        )
        .await;
    let inventory = kept(&contract).await;
    let id = CertificateId::parse("c").unwrap();
    let project = ProjectId::parse("p").unwrap();
    assert_eq!(inventory.certificates[&id].expires_at, "2027-01-20T00:00:00Z".parse().ok());
    assert_eq!(inventory.active_in_project(&project).len(), 1);
    assert!(!inventory.active_in_organization(&id) && !inventory.is_complete());
    assert_eq!(inventory.projects[&project].title(), "prod");
    keep(&contract, &inventory, start() + minutes(1)).await;
    assert!(kept(&contract).await == inventory);
}

contract! {
    what_is_known_is_read_as_it_was_kept_however_much_it_was_and_is
    the_form_of_before_is_read_and_replaced_by_the_next_scan
}
