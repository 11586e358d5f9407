//! A simulated year of an organization: 50 certificates and their successors, 300 projects, 6
//! notifiers, a scan every six hours, rotations, outages of the API and of receivers, restarts.
//!
//! A second, simple implementation computes the expected messages for these certificates. They are
//! compared with the messages that the receivers got. The API's responses are made without HTTP,
//! which the tests of the scan cover; the receivers and the database are real.

use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use certvigil::{
    demo::{
        mailbox::{Mailbox, Terms},
        pages::parts,
        world::World,
    },
    domain::{
        certificate::{Certificate, CertificateId, OrganizationName, Project, ProjectId, Scope},
        delivery::DeliveryState,
        notifier::NotifierState,
        reading::{Listed, Reading},
        text::Name,
    },
    message::{
        Notification,
        forecast::{CurrentState, forecast},
    },
    service,
    store::Which,
    usecase::scan::{self, Read},
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::support::{Service, days, serve, start};

const PROJECTS: usize = 300;
const EVERY: i64 = 6;
const WEBHOOKS: [&str; 5] = ["all", "pager", "team_a", "team_b", "quiet"];

/// A webhook that is down at times, and records accepted messages.
#[derive(Clone, Default)]
struct Hook {
    down: Arc<AtomicBool>,
    bodies: Arc<Mutex<Vec<Value>>>,
}

impl Hook {
    async fn serve(&self) -> SocketAddr {
        let take = async |State(hook): State<Hook>, Json(body): Json<Value>| {
            if hook.down.load(Ordering::SeqCst) {
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            hook.bodies.lock().unwrap().push(body);
            StatusCode::NO_CONTENT
        };
        serve(Router::new().route("/hook", post(take)).with_state(self.clone())).await
    }
}

/// What the simulated API answers: everything, nothing, or everything but some projects.
enum Outage {
    None,
    Whole,
    Projects(std::ops::Range<usize>),
}

fn reading(world: &World, outage: &Outage) -> Reading {
    const DOWN: &str = "HTTP 503";
    let mut reading = Reading::failed(DOWN);
    reading.admin_keys = None;
    if matches!(outage, Outage::Whole) {
        return reading;
    }
    reading.project_list = Ok(());
    let certificates: Vec<Arc<Certificate>> =
        world.certificates.iter().map(|one| Arc::new(certificate(one))).collect();
    let listed = |active: &dyn Fn(&certvigil::demo::world::Certificate) -> Option<bool>| {
        let listed = world.certificates.iter().zip(&certificates).filter_map(|(one, known)| {
            Some(Listed { active: active(one)?, certificate: Arc::clone(known) })
        });
        vec![Arc::new(listed.collect::<Vec<_>>())]
    };
    reading.take(Scope::Organization, listed(&|_| Some(false)));
    for (index, project) in world.projects.iter().enumerate() {
        let id = ProjectId::parse(&project.id).unwrap();
        let broken = matches!(outage, Outage::Projects(range) if range.contains(&index));
        let scope = Scope::Project(id.clone());
        if broken {
            reading.listings.insert(scope, Err(DOWN.into()));
        } else {
            reading.take(scope, listed(&|one| one.projects.get(&project.id).copied()));
        }
        let name = project.name.as_deref().and_then(Name::clean);
        reading.projects.insert(id.clone(), Project { id, name });
    }
    reading
}

fn certificate(one: &certvigil::demo::world::Certificate) -> Certificate {
    Certificate {
        id: CertificateId::parse(&one.id).unwrap(),
        name: one.name.as_deref().and_then(Name::clean),
        created_at: Some(one.created_at),
        valid_at: one.valid_at,
        expires_at: one.expires_at,
        strange_expiry: None,
        content: None,
        reported: None,
    }
}

/// `(severity, label, lead in hours, repeat in hours)`; 0 is the end.
const LADDER: [(u8, &str, i64, Option<i64>); 6] = [
    (0, "90d", 90 * 24, None),
    (1, "30d", 30 * 24, None),
    (1, "14d", 14 * 24, None),
    (2, "7d", 7 * 24, None),
    (2, "1d", 24, Some(6)),
    (2, "expired", 0, Some(24)),
];

/// The last alert of a certificate: its expiry, step of the ladder, severity and time.
type Heard = (Option<DateTime<Utc>>, usize, u8, DateTime<Utc>);

/// A notifier's filters, and the alerts that the contract requires for it.
struct Expected {
    name: &'static str,
    least: u8,
    prefix: &'static str,
    resolved: bool,
    told: BTreeMap<String, Heard>,
    uncovered: BTreeSet<String>,
    uncovered_at: DateTime<Utc>,
    /// The projects that had an active certificate at some time.
    protected: BTreeSet<String>,
    unprotected: BTreeSet<String>,
    unprotected_at: DateTime<Utc>,
    /// The expected messages of each scan: `severity id label` for open alerts, `id reason` for
    /// resolved ones.
    effect: BTreeMap<DateTime<Utc>, BTreeSet<String>>,
}

impl Expected {
    fn all() -> Vec<Expected> {
        let one = |name, least, prefix, resolved| Expected {
            name,
            least,
            prefix,
            resolved,
            told: BTreeMap::new(),
            uncovered: BTreeSet::new(),
            uncovered_at: start(),
            protected: BTreeSet::new(),
            unprotected: BTreeSet::new(),
            unprotected_at: start(),
            effect: BTreeMap::new(),
        };
        vec![
            one("all", 0, "", true),
            one("pager", 2, "", true),
            one("team_a", 0, "a-", true),
            one("team_b", 1, "b-", true),
            one("quiet", 1, "", false),
        ]
    }

    fn asks_for(&self, project: &str) -> bool {
        let number: usize = project.strip_prefix("proj_").unwrap().parse().unwrap();
        team(number).starts_with(self.prefix)
    }

    /// One scan, of the world as it was last read.
    fn scan(&mut self, world: &World, now: DateTime<Utc>) {
        let mut said = BTreeSet::new();
        let mut open = BTreeSet::new();
        for certificate in &world.certificates {
            let (id, end) = (&certificate.id, certificate.expires_at.unwrap());
            let active: Vec<&String> = certificate
                .projects
                .iter()
                .filter(|(_, active)| **active)
                .map(|(id, _)| id)
                .collect();
            let left = end - now;
            let Some(step) = LADDER.iter().rposition(|step| left <= TimeDelta::hours(step.2))
            else {
                continue;
            };
            let calm = active.iter().all(|project| has_successor(world, certificate, project, now));
            let severity = if calm { LADDER[step].0.min(1) } else { LADDER[step].0 };
            let concerns = active.iter().any(|project| self.asks_for(project));
            if active.is_empty() || ignored(id, now) || !concerns || severity < self.least {
                continue;
            }
            open.insert(id.clone());
            let repeat = match LADDER[step].3 {
                _ if calm => None,
                Some(24) if -left > days(7) => Some(7 * 24),
                repeat => repeat,
            };
            let due = match self.told.get(id) {
                None => true,
                Some((of, at_step, told, at)) => {
                    *of != certificate.expires_at
                        || step > *at_step
                        || severity > *told
                        || (step == *at_step
                            && repeat.is_some_and(|hours| now - *at >= TimeDelta::hours(hours)))
                }
            };
            if due {
                said.insert(format!("{} {id} {}", SEVERITIES[severity as usize], LADDER[step].1));
                self.told.insert(id.clone(), (certificate.expires_at, step, severity, now));
            }
        }
        let over: Vec<String> =
            self.told.keys().filter(|id| !open.contains(*id)).cloned().collect();
        for id in over {
            let Some((end, ..)) = self.told.remove(&id) else { continue };
            if self.resolved {
                said.insert(format!("{id} {}", why_over(world, &id, end.unwrap(), now)));
            }
        }
        self.projects(world, now, &mut said);
        if !said.is_empty() {
            self.effect.insert(now, said);
        }
    }

    fn projects(&mut self, world: &World, now: DateTime<Utc>, said: &mut BTreeSet<String>) {
        let uncovered: BTreeSet<String> = world
            .projects
            .iter()
            .map(|project| project.id.clone())
            .filter(|id| {
                let active: Vec<_> = active_in(world, id).collect();
                !active.is_empty()
                    && active.iter().all(|one| one.expires_at.unwrap() <= now)
                    && !active.iter().all(|one| ignored(&one.id, now))
                    && self.asks_for(id)
            })
            .collect();
        let joined = uncovered.difference(&self.uncovered).next().is_some();
        if !uncovered.is_empty() && (joined || now - self.uncovered_at >= days(1)) {
            said.insert(format!("{} uncovered", uncovered.len()));
            self.uncovered_at = now;
        }
        let mine = world.projects.iter().map(|project| project.id.clone());
        let (active, none): (BTreeSet<_>, BTreeSet<_>) = mine
            .filter(|id| self.asks_for(id))
            .partition(|id| active_in(world, id).next().is_some());
        self.protected.extend(active);
        let unprotected: BTreeSet<String> = none.intersection(&self.protected).cloned().collect();
        let joined = unprotected.difference(&self.unprotected).next().is_some();
        if !unprotected.is_empty() && (joined || now - self.unprotected_at >= days(7)) {
            said.insert(format!("{} unprotected", unprotected.len()));
            self.unprotected_at = now;
        }
        assert!(self.unprotected.is_subset(&unprotected), "this year, none is protected again");
        let left = self.uncovered.difference(&uncovered).filter(|id| !unprotected.contains(*id));
        let left = left.count();
        self.unprotected = unprotected;
        if left > 0 && self.resolved {
            said.insert(format!("{left} covered"));
        }
        self.uncovered = uncovered;
    }
}

const SEVERITIES: [&str; 3] = ["info", "warning", "critical"];

/// The reason why the alert of a certificate with this expiry is resolved.
fn why_over(world: &World, id: &str, end: DateTime<Utc>, now: DateTime<Utc>) -> &'static str {
    let known = world.certificates.iter().find(|one| one.id == id);
    if known.is_some_and(|one| one.expires_at != Some(end)) {
        return "renewed";
    }
    // A notifier for critical alerts gets no more alerts about a replaced certificate.
    let replaced = projects_of(id).all(|project| outlived(world, id, end, &project, now));
    match known {
        _ if replaced => "replaced",
        Some(_) => "deactivated",
        None => "deleted",
    }
}

/// The projects in which a certificate is, or was, active.
fn projects_of(id: &str) -> impl Iterator<Item = String> {
    let number: usize = id.split('_').nth(1).unwrap().parse().unwrap();
    (6 * number + 1..=6 * number + 6).map(|n| format!("proj_{n:04}"))
}

fn active_in<'a>(
    world: &'a World,
    project: &'a str,
) -> impl Iterator<Item = &'a certvigil::demo::world::Certificate> {
    world.certificates.iter().filter(move |one| one.projects.get(project) == Some(&true))
}

fn has_successor(
    world: &World,
    one: &certvigil::demo::world::Certificate,
    project: &str,
    now: DateTime<Utc>,
) -> bool {
    outlived(world, &one.id, one.expires_at.unwrap(), project, now)
}

/// Whether another certificate is active in the project that outlives this end by enough.
fn outlived(
    world: &World,
    id: &str,
    end: DateTime<Utc>,
    project: &str,
    now: DateTime<Utc>,
) -> bool {
    active_in(world, project)
        .filter(|other| other.id != id)
        .map(|other| other.expires_at.unwrap())
        .any(|other| other > now && other - end > days(90))
}

fn ignored(id: &str, now: DateTime<Utc>) -> bool {
    match id {
        "cert_10" => true,
        "cert_11" => now < start() + days(200),
        _ => false,
    }
}

/// What a message says, in the words of [`Expected::says`].
fn words(alerts: &[Value]) -> BTreeSet<String> {
    let mut covered = 0;
    let mut words = BTreeSet::new();
    for alert in alerts {
        let event = alert["event"].as_str().unwrap();
        let id = alert["certificate"]["id"].as_str().unwrap_or_default();
        let new = match event {
            "project.uncovered" | "project.unprotected" => {
                let what = event.strip_prefix("project.").unwrap();
                words.insert(format!("{} {what}", alert["projects_total"]))
            }
            "project.covered" => {
                covered += alert["projects_total"].as_u64().unwrap();
                true
            }
            "certificate.resolved" => {
                words.insert(format!("{id} {}", alert["reason"].as_str().unwrap()))
            }
            _ => {
                let word = |key: &str| alert[key].as_str().unwrap();
                words.insert(format!("{} {id} {}", word("severity"), word("stage")))
            }
        };
        assert!(new, "said twice in one message: {alert}");
    }
    if covered > 0 {
        words.insert(format!("{covered} covered"));
    }
    words
}

/// 50 certificates, each active in six projects, that expire over the year and beyond.
fn world() -> World {
    let mut world = World::with_projects(PROJECTS, |n| format!("{}{n}", team(n)));
    for n in 0..50_usize {
        let (id, name) = (format!("cert_{n}"), format!("ca-{n}"));
        world.add(&id, Some(&name), Some(first_end(n)), 6 * n + 1..=6 * n + 6);
    }
    // Most projects have one more, which succeeds some of the others and not the rest.
    world.add("cert_base", Some("base"), Some(start() + days(340)), 61..=PROJECTS);
    // Inactive everywhere: a list that loses all its items at once is believed a scan later.
    let spare = world.add("cert_spare", Some("spare"), Some(start() + days(4_000)), 1..=PROJECTS);
    spare.projects.values_mut().for_each(|active| *active = false);
    world
}

fn team(project: usize) -> &'static str {
    ["a-", "b-", "c-"][project % 3]
}

/// Some at the very second of a scan, the others not.
fn first_end(n: usize) -> DateTime<Utc> {
    let minutes = if n.is_multiple_of(5) { 0 } else { 7 * n as i64 + 1 };
    start() + days(5 + 9 * n as i64) + TimeDelta::minutes(minutes)
}

/// What people do to certificate `n` in the year; gives whether something was changed.
fn live(world: &mut World, now: DateTime<Utc>) {
    for n in 0..50_usize {
        let id = format!("cert_{n}");
        let first_end = first_end(n);
        let passed = now - first_end;
        let at = |day: i64| passed >= days(day) && passed < days(day) + TimeDelta::hours(EVERY);
        let next = format!("cert_{n}_next");
        match n % 5 {
            // Rotated in time: the successor is activated, then the old one is deactivated.
            0 | 1 if at(-40) => {
                world.add(
                    &next,
                    Some("successor"),
                    Some(first_end + days(400)),
                    6 * n + 1..=6 * n + 6,
                );
            }
            0 if at(-20) => deactivate(world, &id),
            // Rotated, and forgotten to be deactivated.
            1 if at(60) => world.certificates.retain(|one| one.id != id),
            // Renewed in place.
            2 if at(-10) => {
                world.certificate(&id).unwrap().expires_at = Some(first_end + days(300));
            }
            // Expired, and replaced three days later.
            3 if at(3) => {
                world.add(
                    &next,
                    Some("successor"),
                    Some(first_end + days(500)),
                    6 * n + 1..=6 * n + 6,
                );
                deactivate(world, &id);
            }
            // Left alone, to repeat; one of them deactivated and activated again.
            4 if n == 14 && at(-25) => deactivate(world, &id),
            4 if n == 14 && at(-22) => {
                for active in world.certificate(&id).unwrap().projects.values_mut() {
                    *active = true;
                }
            }
            _ => {}
        }
    }
}

fn deactivate(world: &mut World, id: &str) {
    for active in world.certificate(id).unwrap().projects.values_mut() {
        *active = false;
    }
}

struct Year {
    service: Service,
    text: String,
    hooks: BTreeMap<&'static str, Hook>,
    mailbox: Mailbox,
    world: World,
}

impl Year {
    async fn start() -> Year {
        let mailbox = Mailbox::start(Terms::default()).unwrap();
        let mut text =
            "[organizations.acme]\nadmin_key = \"sk-x\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
                        [monitoring]\nblind_after = \"400d\"\n\
                        [[rules]]\ncertificates = [\"cert_10\"]\n\
                        ignore = { reason = \"being retired\", until = 2099-01-01 }\n"
                .to_owned();
        let lapses = (start() + days(200)).to_rfc3339();
        text.push_str(&format!(
            "[[rules]]\ncertificates = [\"cert_11\"]\n\
             ignore = {{ reason = \"being retired\", until = \"{lapses}\" }}\n"
        ));
        let mut hooks = BTreeMap::new();
        for name in WEBHOOKS {
            let hook = Hook::default();
            let address = hook.serve().await;
            let filters = match name {
                "pager" => "min_severity = \"critical\"\n",
                "team_a" => "projects = [\"a-*\"]\n",
                "team_b" => "min_severity = \"warning\"\nprojects = [\"b-*\"]\n",
                "quiet" => "min_severity = \"warning\"\nsend_resolved = false\n",
                _ => "",
            };
            text.push_str(&format!(
                "[notifiers.webhook.{name}]\nurl = \"http://{address}/hook\"\n\
                 max_per_minute = 6000\n{filters}"
            ));
            hooks.insert(name, hook);
        }
        text.push_str(&format!(
            "[notifiers.email.mail]\nto = [\"a@acme.example\"]\n[smtp]\nhost = \"127.0.0.1\"\n\
             port = {}\ntls = \"none\"\nfrom = \"certvigil@acme.example\"\n",
            mailbox.address.port()
        ));
        let service = Service::start_in(folder(), &text).await;
        Year { service, text, hooks, mailbox, world: world() }
    }

    async fn scan(&self, now: DateTime<Utc>, outage: &Outage) {
        let Service { target, store, notifiers, config, .. } = &self.service;
        let before = Arc::new(store.inventory(target.api.organization()).await.unwrap());
        let synchronization = certvigil::domain::skew::Synchronization::Synchronized;
        let reading = reading(&self.world, outage);
        let read = Read { before, reading, requests: 0, at: now, synchronization };
        let when = service::when(&config.schedule, now, now);
        let give_up_after = config.delivery.give_up_after;
        let lease = super::support::lease(store, Some(target.api.organization())).await;
        scan::keep(target, read, store, notifiers, give_up_after, when, lease).await.unwrap();
        self.service.deliver(now).await;
    }

    async fn restart(&mut self, now: DateTime<Utc>) {
        let place = Service::start_in(folder(), &self.text).await;
        let service = std::mem::replace(&mut self.service, place);
        self.service = service.restart(&self.text, now).await;
    }

    /// What a webhook got, by the scan that made it.
    fn got(&self, name: &str) -> BTreeMap<DateTime<Utc>, BTreeSet<String>> {
        let mut got = BTreeMap::new();
        for body in self.hooks[name].bodies.lock().unwrap().iter() {
            let at = body["scan"]["finished_at"].as_str().unwrap().parse().unwrap();
            let said = words(body["alerts"].as_array().unwrap());
            assert!(got.insert(at, said).is_none(), "{name}: two messages of one scan");
        }
        got
    }
}

/// In memory, where the system has such a place: a year has thousands of commits, and each waits
/// for the disk.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn ticks() -> impl Iterator<Item = (i64, DateTime<Utc>)> {
    (0..365 * 24 / EVERY).map(|tick| (tick, start() + TimeDelta::hours(EVERY * tick)))
}

#[tokio::test]
async fn in_a_year_of_rotations_and_outages_each_notifier_gets_its_alerts_once_and_in_time() {
    let mut year = Year::start().await;
    let mut expected = Expected::all();
    let mut seen = year.world.clone();
    for (tick, now) in ticks() {
        live(&mut year.world, now);
        let day = tick * EVERY / 24;
        let outage = match day {
            30..33 | 150..152 => Outage::Whole,
            75..80 => Outage::Projects(0..100),
            _ => Outage::None,
        };
        if !matches!(outage, Outage::Whole) {
            seen = year.world.clone();
        }
        for (name, hook) in &year.hooks {
            let down = matches!((*name, day), ("all", 60..62) | ("pager", 93..95));
            hook.down.store(down, Ordering::SeqCst);
        }
        if [40, 151, 300].contains(&day) && tick % 4 == 0 {
            year.restart(now).await;
        }
        year.scan(now, &outage).await;
        expected.iter_mut().for_each(|one| one.scan(&seen, now));
    }

    let deliveries = year.service.store.deliveries(&Which::default(), 100_000).await.unwrap();
    for one in &expected {
        let mut got = year.got(one.name);
        let superseded = deliveries.iter().filter(|delivery| {
            delivery.notifier == one.name && delivery.state == DeliveryState::Superseded
        });
        // What waited behind a receiver that was down, and was out of date when it was back.
        for delivery in superseded {
            assert!(["all", "pager"].contains(&one.name), "{delivery:?}");
            let said = one.effect.get(&delivery.created_at).cloned();
            assert!(got.insert(delivery.created_at, said.unwrap()).is_none());
        }
        let (missed, unasked): (Vec<_>, Vec<_>) = (
            one.effect.iter().filter(|(at, said)| got.get(at) != Some(said)).take(3).collect(),
            got.iter().filter(|(at, said)| one.effect.get(at) != Some(said)).take(3).collect(),
        );
        assert!(
            missed.is_empty() && unasked.is_empty(),
            "{}:\nmissing {missed:#?}\nunexpected {unasked:#?}",
            one.name
        );
        assert!(one.effect.len() > 40, "{}: {}", one.name, one.effect.len());
        let about_the_ignored = got.values().flatten().filter(|said| said.contains("cert_10 "));
        assert_eq!(about_the_ignored.count(), 0);
    }
    // The mails have the alerts of the webhook with the same filters, one mail per scan.
    let mails = year.mailbox.mails();
    let summaries: Vec<String> = mails
        .iter()
        .map(|mail| parts(&mail.data).unwrap().subject.split_once(" acme: ").unwrap().1.to_owned())
        .collect();
    assert_eq!(summaries.len(), expected[0].effect.len());
    let bodies = year.hooks["all"].bodies.lock().unwrap();
    let told: BTreeSet<&str> =
        bodies.iter().map(|body| body["summary"].as_str().unwrap()).collect();
    let alone = summaries.iter().filter(|summary| !told.contains(summary.as_str())).count();
    // Those that the webhook missed while it was down, or got when the time left read otherwise.
    assert!(alone <= 12, "{alone}");
}

/// What a forecast says, in the same words.
fn foretold(messages: &[Notification], name: &str) -> BTreeMap<DateTime<Utc>, BTreeSet<String>> {
    let of_name = messages.iter().filter(|message| message.notifier == name);
    of_name
        .map(|message| {
            let alerts: Vec<Value> = message
                .alerts
                .iter()
                .map(|alert| {
                    serde_json::json!({
                        "event": alert.event,
                        "reason": alert.reason,
                        "severity": alert.severity,
                        "stage": alert.stage,
                        "certificate": alert.certificate(),
                        "projects_total": alert.projects().map(|view| view.total),
                    })
                })
                .collect();
            (message.created_at, words(&alerts))
        })
        .collect()
}

#[tokio::test]
async fn the_forecast_of_day_0_is_what_is_sent_where_nothing_changes() {
    let year = Year::start().await;
    year.scan(start(), &Outage::None).await;
    let organization = OrganizationName::parse("acme").unwrap();
    let store = &year.service.store;
    let inventory = store.inventory(&organization).await.unwrap();
    let acknowledgements = store.acknowledgements(&organization).await.unwrap();
    let mut notifiers = Vec::new();
    for (state, _) in year.service.notifiers.iter().flat_map(|notifier| notifier.states()) {
        let name = state.ledger_name();
        let (ledger, _) = store.ledger(Some(&organization), &name, start()).await.unwrap();
        notifiers.push(NotifierState { ledger, ..state });
    }
    let present = CurrentState {
        organization: &organization,
        before: &inventory,
        inventory: &inventory,
        policy: &year.service.target.policy,
        acknowledgements: &acknowledgements,
    };
    // To the end of one of each kind; the rest of the year is more of the same, and slow.
    let later = || ticks().skip(1).map(|(_, now)| now).take_while(|now| *now < start() + days(120));
    let next = |after| later().find(|tick| *tick > after);
    let first = later().next().unwrap();
    let messages = forecast(&present, notifiers, first, next, chrono_tz::UTC);
    for now in later() {
        year.scan(now, &Outage::None).await;
    }
    for name in WEBHOOKS {
        let mut got = year.got(name);
        got.remove(&start());
        let foretold = foretold(&messages, name);
        assert!(got.len() > 50, "{name}: {}", got.len());
        for (at, said) in &foretold {
            assert_eq!(got.get(at), Some(said), "{name}, {at}");
        }
        assert_eq!(foretold.len(), got.len(), "{name}");
    }
}
