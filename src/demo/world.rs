//! A simulated organization: projects, and certificates with the scopes in which they are active.

use super::audit_log::Actor;
use chrono::{DateTime, TimeDelta, Utc};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::SystemTime,
};

/// A project of the simulated organization.
#[derive(Clone, Debug)]
pub struct Project {
    pub id: String,
    pub name: Option<String>,
    pub archived: bool,
    /// The HTTP status of its certificate list, instead of the list.
    pub broken: Option<u16>,
}

/// A certificate of the simulated organization.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub id: String,
    pub name: Option<String>,
    pub created_at: DateTime<Utc>,
    pub valid_at: Option<DateTime<Utc>>,
    pub expires_at: Option<DateTime<Utc>>,
    /// Whether it is active for the organization, and thus for every project.
    pub organization_wide: bool,
    /// The projects that list it, each with whether it is active there.
    pub projects: BTreeMap<String, bool>,
    /// Its content.
    pub pem: Option<String>,
}

/// An admin key of the simulated organization.
#[derive(Clone, Debug)]
pub struct AdminKey {
    pub id: String,
    pub name: Option<String>,
    pub redacted_value: String,
    pub expires_at: Option<DateTime<Utc>>,
    /// The id and the name of its owner.
    pub owner: (String, String),
}

/// The simulated organization. The API returns its certificates in this order; the real one returns
/// the newest first.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub projects: Vec<Project>,
    pub certificates: Vec<Certificate>,
    pub admin_keys: Vec<AdminKey>,
    /// The HTTP status of the list of admin keys, instead of the list.
    pub admin_keys_broken: Option<u16>,
    /// The HTTP status of the contents of certificates, instead of the contents.
    pub contents_broken: Option<u16>,
    /// The ids of certificates whose content is not found.
    pub without_content: Vec<String>,
    /// The events of the audit log, latest first. [`World::log`] adds one.
    pub audit_log: Vec<serde_json::Value>,
    /// The HTTP status of the audit log, instead of the log.
    pub audit_log_broken: Option<u16>,
    /// The number of logged events.
    pub logged: usize,
}

impl World {
    /// An organization with the projects `proj_0001` and so on; `name` returns the name of each
    /// number.
    pub fn with_projects(count: usize, name: impl Fn(usize) -> String) -> World {
        let projects = (1..=count).map(|n| Project {
            id: format!("proj_{n:04}"),
            name: Some(name(n)),
            archived: false,
            broken: None,
        });
        World { projects: projects.collect(), ..World::default() }
    }

    /// Adds a certificate that is active in the projects with these numbers, from 1.
    pub fn add(
        &mut self,
        id: &str,
        name: Option<&str>,
        expires_at: Option<DateTime<Utc>>,
        active_in: impl IntoIterator<Item = usize>,
    ) -> &mut Certificate {
        let projects = active_in.into_iter().map(|n| (format!("proj_{n:04}"), true)).collect();
        self.certificates.push(Certificate {
            id: id.to_owned(),
            name: name.map(str::to_owned),
            created_at: DateTime::UNIX_EPOCH,
            valid_at: None,
            expires_at,
            organization_wide: false,
            projects,
            pem: None,
        });
        let last = self.certificates.len() - 1;
        &mut self.certificates[last]
    }

    /// The certificate with this id.
    pub fn certificate(&mut self, id: &str) -> Option<&mut Certificate> {
        self.certificates.iter_mut().find(|certificate| certificate.id == id)
    }

    /// The organization of the demo: a few dozen projects, and a certificate in every state.
    pub fn demo(now: DateTime<Utc>) -> World {
        let teams = ["chat", "search", "billing", "support", "labs", "mobile"];
        let mut world = World::with_projects(36, |n| {
            let stage = if n <= 18 { "prod" } else { "staging" };
            format!("{stage}-{}-{}", teams[n % teams.len()], n)
        });
        let day = TimeDelta::days(1);
        let hour = TimeDelta::hours(1);
        let at = |delta: TimeDelta| Some(now + delta);
        world.add("cert_demo_successor", Some("prod-ca-2027"), at(day * 700), 1..=6);
        world.add("cert_demo_prod", Some("prod-ca-2026"), at(day * 6 + hour), 1..=12);
        world.add("cert_demo_expired", Some("legacy-batch-ca"), at(-day * 3), [13, 14]);
        world.add("cert_demo_hours", Some("billing-ca"), at(hour * 5 + hour / 2), [15]);
        world.add("cert_demo_minute", Some("watch-me-expire"), at(TimeDelta::seconds(90)), [16]);
        world.add("cert_demo_twelve", Some("support-ca"), at(day * 13 + hour), [17, 18]);
        world.add("cert_demo_weeks", Some("staging-ca"), at(day * 25 + hour), 19..=30);
        world.add("cert_demo_months", Some("labs-ca"), at(day * 80 + hour), [31]);
        world.add("cert_demo_healthy", Some("search-ca"), at(day * 500), [32, 33]);
        world
            .add("cert_demo_shared", Some("company-root"), at(day * 45 + hour), [])
            .organization_wide = true;
        world.add("cert_demo_nameless", None, at(day * 20 + hour), [34]);
        world.add("cert_demo_hostile", Some(HOSTILE), at(day * 28 + hour), [35]);
        world.add("cert_demo_unknown", Some("no-end-given"), None, [36]);
        let inactive = world.add("cert_demo_inactive", Some("retired-ca"), at(day * 4), []);
        inactive.projects.insert("proj_0020".to_owned(), false);
        let young = world.add("cert_demo_young", Some("next-year-ca"), at(day * 400), [32]);
        young.valid_at = at(day * 3 + hour);
        for certificate in &mut world.certificates {
            certificate.created_at = now - day * 300;
            certificate.valid_at = certificate.valid_at.or(at(-day * 300));
        }
        world.issue("Acme");
        world.admin_keys.push(AdminKey {
            id: "key_demo".to_owned(),
            name: Some("certvigil".to_owned()),
            redacted_value: "sk-admin...ted".to_owned(),
            expires_at: at(day * 200),
            owner: ("sa_terraform".to_owned(), "terraform".to_owned()),
        });
        // The admin key lacks the scope for its certificates.
        world.projects.push(Project {
            id: "proj_0037".to_owned(),
            name: Some("prod-secretive-37".to_owned()),
            archived: false,
            broken: Some(403),
        });
        world
    }
}

/// The subjects of the demo's certificates, if that is not their name. Certificates with the same
/// subject have the same key.
const SUBJECTS: [(&str, &str); 2] =
    [("cert_demo_prod", "Prod CA"), ("cert_demo_successor", "Prod CA")];

impl World {
    /// Issues each certificate with a start and an expiry, signed by itself. Without an issued one,
    /// a certificate has no content.
    fn issue(&mut self, organization: &str) {
        let mut keys: BTreeMap<String, KeyPair> = BTreeMap::new();
        for certificate in &mut self.certificates {
            let own = certificate.name.clone().unwrap_or_else(|| certificate.id.clone());
            let subject = SUBJECTS.iter().find(|(id, _)| *id == certificate.id);
            let subject = subject.map_or(own, |(_, subject)| (*subject).to_owned());
            certificate.pem = issue(organization, subject, certificate, &mut keys);
        }
    }
}

fn issue(
    organization: &str,
    subject: String,
    certificate: &Certificate,
    keys: &mut BTreeMap<String, KeyPair>,
) -> Option<String> {
    let key = match keys.entry(subject.clone()) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(new) => new.insert(KeyPair::generate().ok()?),
    };
    let mut params = CertificateParams::default();
    params.not_before = SystemTime::from(certificate.valid_at?).into();
    params.not_after = SystemTime::from(certificate.expires_at?).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.distinguished_name.push(DnType::CommonName, subject);
    Some(params.self_signed(key).ok()?.pem())
}

impl World {
    /// A second organization of the demo, in the middle of its rotations: one is half done, one has
    /// a leftover certificate, and [`lose_protection`](World::lose_protection) comes later.
    pub fn rotations(now: DateTime<Utc>) -> World {
        let names = ["checkout", "catalog", "fraud", "payments", "returns"];
        let mut world = World::with_projects(names.len(), |n| names[n - 1].to_owned());
        let at = |days: i64| Some(now + TimeDelta::days(days) + TimeDelta::hours(1));
        world.add("cert_partner_2027", Some("partner-ca-2027"), at(700), [1]);
        world.add("cert_partner_2026", Some("partner-ca-2026"), at(12), 1..=3);
        world.add("cert_payments", Some("payments-ca"), at(300), [4]);
        world.add("cert_returns_2027", Some("returns-ca-2027"), at(400), [5]);
        world.add("cert_returns_2026", Some("returns-ca-2026"), at(-9), [5]);
        for (age, certificate) in (1..).zip(&mut world.certificates) {
            certificate.created_at = now - TimeDelta::days(60 * age);
            certificate.valid_at = Some(certificate.created_at);
        }
        world.issue("Acme Partners");
        world.admin_keys.push(AdminKey {
            id: "key_partners".to_owned(),
            name: Some("certvigil".to_owned()),
            redacted_value: "sk-admin...ted".to_owned(),
            expires_at: at(150),
            owner: ("sa_terraform".to_owned(), "terraform".to_owned()),
        });
        let terraform = Actor::ServiceAccount("sa_terraform");
        let dana = Actor::Session("user_dana", "dana@demo.example");
        for certificate in world.certificates.clone().iter().rev() {
            let (id, at) = (&[certificate.id.as_str()], certificate.created_at);
            world.log("certificate.created", at, terraform, None, id);
            for project in certificate.projects.keys() {
                let at = at + TimeDelta::hours(2);
                world.log("certificates.activated", at, dana, Some(project), id);
            }
        }
        world
    }

    /// Deactivates the last active certificate of the project “payments”.
    pub fn lose_protection(&mut self, now: DateTime<Utc>) {
        let erin = Actor::Session("user_erin", "erin@demo.example");
        let (project, certificate) = (Some("proj_0004"), &["cert_payments"]);
        self.log("certificates.deactivated", now, erin, project, certificate);
        let last =
            self.certificate("cert_payments").and_then(|one| one.projects.get_mut("proj_0004"));
        if let Some(active) = last {
            *active = false;
        }
    }
}

/// A malicious name.
const HOSTILE: &str =
    "<script>alert(1)</script>\r\nBcc: eve@evil.example \u{202e}gpj.<!channel> {{ 7*7 }}";
