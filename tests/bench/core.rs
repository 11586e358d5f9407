//! The cost of decisions without network and disk, by the number of certificates.
//!
//! ```sh
//! cargo bench --bench core
//! ```

use certvigil::domain::{
    acknowledgement::Acknowledgements,
    alert::{Decision, ScanTime, Transition, decide},
    certificate::{Certificate, CertificateId, OrganizationName, Project, ProjectId, Scope},
    credential::WatchedKeys,
    evaluate::evaluate,
    inventory::Inventory,
    notifier::{Grouping, NotifierState},
    policy::Policy,
    reading::{Listed, Reading},
    routing::Routing,
    selection::{Globs, Selection},
    threshold::{ExpiredStep, Ladder, Lead, Severity, Threshold},
};
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use divan::{Bencher, black_box};
use std::sync::Arc;

const SIZES: [usize; 3] = [100, 1_000, 10_000];
/// Certificates in each project.
const EACH: usize = 50;
const NOTIFIERS: usize = 10;

fn main() {
    divan::main();
}

fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap_or_default()
}

/// Certificates that are all different, fifty in a project; a tenth of them ends within the first
/// threshold.
fn reading(certificates: usize) -> Reading {
    let mut reading = Reading::begin(Arc::default(), "", false);
    reading.project_list = Ok(());
    reading.take(Scope::Organization, Vec::new());
    for first in (0..certificates).step_by(EACH) {
        let Ok(id) = ProjectId::parse(&format!("proj_{first:08}")) else { continue };
        let listed = (first..certificates.min(first + EACH)).filter_map(|n| {
            let days = if n % 10 == 0 { 20 } else { 400 };
            let certificate = Certificate {
                id: CertificateId::parse(&format!("cert_{n:08}")).ok()?,
                name: None,
                created_at: Some(start() - TimeDelta::days(100)),
                valid_at: Some(start() - TimeDelta::days(100)),
                expires_at: Some(start() + TimeDelta::days(days)),
                strange_expiry: None,
                content: None,
                reported: None,
            };
            Some(Listed { certificate: Arc::new(certificate), active: true })
        });
        reading.take(Scope::Project(id.clone()), vec![Arc::new(listed.collect())]);
        reading.projects.insert(id.clone(), Project { id, name: None });
    }
    reading
}

fn policy() -> Option<Policy> {
    let step = |days: i64, severity| Threshold {
        lead: Lead::Fixed(TimeDelta::days(days)),
        label: format!("{days}d"),
        severity,
        repeat: Some(TimeDelta::days(7)),
    };
    let steps =
        vec![step(90, Severity::Info), step(30, Severity::Warning), step(7, Severity::Critical)];
    let ladder =
        Ladder::new(steps, ExpiredStep { severity: Severity::Critical, repeat: None }).ok()?;
    Some(Policy { admin_keys: WatchedKeys::Off, ..Policy::new(ladder) })
}

fn everything() -> Selection {
    Selection { include: Globs::all(), exclude: Globs(Vec::new()), archived: false }
}

/// Merges a reading into the inventory.
#[divan::bench(args = SIZES)]
fn merge(bencher: Bencher<'_, '_>, certificates: usize) {
    let before = Inventory::default();
    bencher
        .with_inputs(|| reading(certificates))
        .bench_values(|reading| before.merge(reading, &everything(), start()));
}

/// One scan's decisions for ten notifiers: the first, where all is news, and a second one, where
/// nothing is.
fn decisions(bencher: Bencher<'_, '_>, certificates: usize, told: bool) {
    let inventory = Inventory::default().merge(reading(certificates), &everything(), start());
    let (Some(policy), Ok(organization)) = (policy(), OrganizationName::parse("acme")) else {
        return;
    };
    let none = Acknowledgements::default();
    let mut notifiers: Vec<NotifierState> = (0..NOTIFIERS)
        .map(|n| NotifierState {
            name: format!("n{n}"),
            routing: Routing::all(),
            grouping: Grouping::Digest,
            ledger: Default::default(),
        })
        .collect();
    let now = start();
    let moment =
        ScanTime { now, tick: now, timezone: Tz::UTC, decided_at: None, clock_is_certain: true };
    let scan = |notifiers: &[NotifierState]| -> Vec<Vec<Decision>> {
        let evaluation = evaluate(&organization, &inventory, &policy, &none, now);
        let world = Transition::watched(&inventory, &evaluation);
        notifiers.iter().map(|listener| decide(&world, listener, moment)).collect()
    };
    if told {
        for (decisions, listener) in scan(&notifiers).iter().zip(&mut notifiers) {
            decisions.iter().for_each(|decision| listener.ledger.learn(decision));
        }
    }
    bencher.bench(|| black_box(scan(&notifiers)));
}

#[divan::bench(args = SIZES)]
fn evaluate_and_reconcile_news(bencher: Bencher<'_, '_>, certificates: usize) {
    decisions(bencher, certificates, false);
}

#[divan::bench(args = SIZES)]
fn evaluate_and_reconcile_nothing_new(bencher: Bencher<'_, '_>, certificates: usize) {
    decisions(bencher, certificates, true);
}
