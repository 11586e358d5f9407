//! The content of certificates: read once, compared with what the API reports, and used.

use certvigil::{
    admin_api::{AdminApi, Settings},
    clock::Clock,
    demo::{admin_api::KEY, pages::parts, world::World},
    domain::{certificate::CertificateId, content::Content},
};
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
};
use secrecy::SecretString;
use serde_json::Value;
use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use super::support::{Heard, Service, Sim, crypto, days, fits_schema, program, run, start, with};

const USAGES: [(KeyUsagePurpose, &str, &str); 7] = [
    (KeyUsagePurpose::DigitalSignature, "Digital Signature", "digitalSignature"),
    (KeyUsagePurpose::ContentCommitment, "Non Repudiation", "nonRepudiation"),
    (KeyUsagePurpose::KeyEncipherment, "Key Encipherment", "keyEncipherment"),
    (KeyUsagePurpose::DataEncipherment, "Data Encipherment", "dataEncipherment"),
    (KeyUsagePurpose::KeyAgreement, "Key Agreement", "keyAgreement"),
    (KeyUsagePurpose::KeyCertSign, "Certificate Sign", "keyCertSign"),
    (KeyUsagePurpose::CrlSign, "CRL Sign", "cRLSign"),
];

/// A client of the simulated API.
fn client(sim: &Sim) -> AdminApi {
    let settings = Settings {
        organization: certvigil::domain::certificate::OrganizationName::parse("acme").unwrap(),
        base_url: format!("http://{}/v1", sim.api_address).parse().unwrap(),
        admin_key: certvigil::secret::Secret::Literal(SecretString::from(KEY)),
        concurrency: 8,
        requests_per_second: 0,
        request_timeout: Duration::from_secs(10),
        max_attempts: 1,
        ca: None,
        identity: None,
    };
    AdminApi::new(settings, Clock::System).unwrap()
}

fn id(text: &str) -> CertificateId {
    CertificateId::parse(text).unwrap()
}

fn params(subject: &str, from: DateTime<Utc>, until: DateTime<Utc>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = SystemTime::from(from).into();
    params.not_after = SystemTime::from(until).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    params
}

/// A CA certificate that signs itself.
fn ca(subject: &str, key: &KeyPair, until: DateTime<Utc>) -> String {
    params(subject, until - days(900), until).self_signed(key).unwrap().pem()
}

fn openssl(arguments: &[&str], input: &str) -> Option<String> {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

/// What OpenSSL reads, in the form of [`shown`].
fn as_openssl_reads(pem: &str) -> Vec<String> {
    let names = ["-nameopt", "RFC2253,-esc_msb,utf8"];
    let asked = ["-subject", "-issuer", "-serial", "-fingerprint", "-sha256", "-dates"];
    let arguments = [&["x509", "-noout"], &names[..], &asked[..], &["-text"]].concat();
    let text = openssl(&arguments, pem).unwrap();
    let after = |start: &str| {
        let found = text.lines().find_map(|line| line.trim().strip_prefix(start));
        found.map(|rest| rest.trim().to_owned())
    };
    // The line after this one.
    let below = |heading: &str| {
        let mut lines = text.lines().skip_while(|line| !line.trim().starts_with(heading)).skip(1);
        lines.next().map(|line| line.trim().trim_start_matches("keyid:").to_owned())
    };
    let date = |start: &str| {
        let text = after(start).unwrap();
        NaiveDateTime::parse_from_str(&text, "%b %e %H:%M:%S %Y GMT").unwrap().and_utc()
    };
    let usage = below("X509v3 Key Usage").map(|line| {
        let named = line.split(", ").map(|one| USAGES.iter().find(|(_, name, _)| *name == one));
        named.map(|found| found.unwrap().2).collect::<Vec<_>>().join(" ")
    });
    let key = openssl(&["x509", "-noout", "-pubkey"], pem).unwrap();
    let key =
        openssl(&["pkey", "-pubin", "-pubout", "-outform", "DER", "-out", "/dev/stdout"], &key)
            .map(|_| key)
            .unwrap();
    vec![
        after("subject=").unwrap(),
        after("issuer=").unwrap(),
        after("serial=").unwrap(),
        after("sha256 Fingerprint=").unwrap(),
        after("Signature Algorithm:").unwrap().to_lowercase(),
        // `Public-Key: (2048 bit)`; Ed25519 has no size there.
        after("Public-Key: (")
            .map_or("256".to_owned(), |rest| rest.split(' ').next().unwrap().to_owned()),
        below("X509v3 Subject Key Identifier").unwrap_or_default(),
        below("X509v3 Authority Key Identifier").unwrap_or_default(),
        text.contains("CA:TRUE").to_string(),
        usage.unwrap_or("any".to_owned()),
        date("notBefore=").to_string(),
        date("notAfter=").to_string(),
        spki(&key),
    ]
}

/// The SHA-256 of a public key (PEM), by OpenSSL.
fn spki(key: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.der");
    let file = file.to_str().unwrap();
    openssl(&["pkey", "-pubin", "-outform", "DER", "-out", file], key).unwrap();
    let digest = openssl(&["dgst", "-sha256", "-c", file], "").unwrap();
    digest.trim().rsplit(' ').next().unwrap().to_uppercase()
}

fn shown(content: &Content) -> Vec<String> {
    vec![
        content.subject.clone(),
        content.issuer.clone(),
        content.serial.clone(),
        content.fingerprint.clone(),
        content.signature.to_lowercase(),
        content.key.bits.unwrap().to_string(),
        content.subject_key_id.clone().unwrap_or_default(),
        content.authority_key_id.clone().unwrap_or_default(),
        content.is_ca.to_string(),
        content.key_usage.as_ref().map_or("any".to_owned(), |usage| usage.join(" ")),
        content.not_before.to_string(),
        content.not_after.to_string(),
        content.key.sha256.clone(),
    ]
}

/// Certificates of every sort: keys, signers, names, dates, extensions.
fn of_every_sort(count: usize) -> Vec<String> {
    let mut chance = fastrand::Rng::with_seed(7);
    let algorithms = [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ECDSA_P521_SHA512,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
        &rcgen::PKCS_RSA_SHA512,
    ];
    let keys: Vec<KeyPair> =
        algorithms.iter().map(|one| KeyPair::generate_for(one).unwrap()).collect();
    let names = [
        "plain",
        "Größe, GmbH",
        "a+b=c;<d>",
        "#first",
        " spaces ",
        "quote\"back\\slash",
        "日本語",
        "*.example",
        "trailing\\",
    ];
    let other = [DnType::OrganizationName, DnType::CountryName, DnType::StateOrProvinceName];
    let mut all: Vec<String> = Vec::new();
    while all.len() < count {
        let key = &keys[chance.usize(..keys.len())];
        let from = DateTime::UNIX_EPOCH + TimeDelta::seconds(chance.i64(0..4_000_000_000));
        let until = from + TimeDelta::seconds(chance.i64(1..40_000_000_000));
        let mut params = params(names[chance.usize(..names.len())], from, until);
        for kind in &other[..chance.usize(..=other.len())] {
            let value = match kind {
                DnType::CountryName => DnValue::PrintableString("DE".try_into().unwrap()),
                _ if chance.bool() => DnValue::BmpString("Ünï ©".try_into().unwrap()),
                _ => DnValue::Utf8String(names[chance.usize(..names.len())].to_owned()),
            };
            params.distinguished_name.push(kind.clone(), value);
        }
        let length = chance.usize(1..=20);
        let mut serial: Vec<u8> = (0..length).map(|_| chance.u8(..)).collect();
        serial[0] = serial[0].clamp(1, 0x7f);
        params.serial_number = Some(SerialNumber::from(serial));
        params.key_usages =
            USAGES.iter().filter(|_| chance.bool()).map(|(usage, ..)| *usage).collect();
        params.is_ca = match chance.u8(..3) {
            0 => IsCa::NoCa,
            1 => IsCa::ExplicitNoCa,
            _ => IsCa::Ca(BasicConstraints::Constrained(chance.u8(..4))),
        };
        params.use_authority_key_identifier_extension = chance.bool();
        if chance.u8(..5) == 0 {
            let private =
                CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
            params.custom_extensions.push(private);
        }
        let signed = match chance.bool() {
            true => params.self_signed(key),
            false => {
                let signer = self::params("signer", from, until);
                let by = &keys[chance.usize(..keys.len())];
                params.signed_by(key, &Issuer::from_params(&signer, by))
            }
        };
        let pem = signed.unwrap().pem();
        let before = all.last().cloned().unwrap_or_default();
        all.push(match chance.u8(..6) {
            // Only the first certificate counts, and text between the blocks does not.
            0 => format!("Bag Attributes\n  friendlyName: -- x\n{pem}\nmore\n{before}"),
            1 => pem.replace('\n', "\r\n"),
            _ => pem,
        });
    }
    all
}

/// The ones that rcgen does not issue: short keys and old signatures.
fn weak() -> Vec<String> {
    let issue = |arguments: &[&str]| {
        let all = [
            &[
                "req",
                "-x509",
                "-nodes",
                "-keyout",
                "/dev/null",
                "-days",
                "900",
                "-subj",
                "/CN=weak",
            ],
            arguments,
        ];
        openssl(&all.concat(), "").unwrap()
    };
    vec![
        issue(&["-newkey", "rsa:1024", "-sha256"]),
        issue(&["-newkey", "rsa:2048", "-sha1"]),
        issue(&["-newkey", "rsa:3072", "-sha384"]),
        issue(&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"]),
    ]
}

#[tokio::test]
async fn it_reads_the_same_as_openssl() {
    crypto();
    if program("openssl", "openssl").is_none() {
        return;
    }
    let mut world = World::with_projects(1, |_| "chat".to_owned());
    let mut all = of_every_sort(300);
    all.extend(weak());
    for (n, pem) in all.iter().enumerate() {
        world.add(&format!("cert_{n}"), None, Some(start()), [1]).pem = Some(pem.clone());
    }
    let sim = Sim::start(world).await;
    let api = client(&sim);
    let expected = tokio::task::spawn_blocking(move || {
        all.iter().map(|pem| as_openssl_reads(pem)).collect::<Vec<_>>()
    });
    for (n, expected) in expected.await.unwrap().into_iter().enumerate() {
        let read = api.content(&id(&format!("cert_{n}"))).await.unwrap();
        assert_eq!(shown(&read), expected, "cert_{n}");
    }
}

/// The base64 of a certificate with bytes replaced.
fn changed(pem: &str, change: impl Fn(&mut Vec<u8>)) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let mut der = STANDARD.decode(body).unwrap();
    change(&mut der);
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der))
}

#[tokio::test]
async fn an_unreadable_content_is_a_clear_error_of_limited_length() {
    crypto();
    let key = KeyPair::generate().unwrap();
    let good = ca("good", &key, start());
    let deep = |depth: usize| {
        let mut der = vec![0x30, 0x00];
        for _ in 0..depth {
            let mut outer = vec![0x30, 0x82];
            outer.extend(u16::try_from(der.len()).unwrap().to_be_bytes());
            outer.extend(&der);
            der = outer;
        }
        der
    };
    let claims = |length: &[u8]| [&[0x30, 0x84], length, &[0x30, 0x03, 0x02, 0x01]].concat();
    let cases = [
        (String::new(), "no BEGIN CERTIFICATE block"),
        ("hello".to_owned(), "no BEGIN CERTIFICATE block"),
        (key.serialize_pem(), "no BEGIN CERTIFICATE block"),
        (good.replace("-----END", "-----FIN"), "not X.509 (DER)"),
        ("x".repeat(16 * 1_024 + 1), "the PEM has 16385 bytes"),
        (changed(&good, |der| der.truncate(60)), "not X.509 (DER)"),
        (changed(&good, |der| der.extend([0, 0])), "data after its end"),
        (changed(&good, |der| *der = deep(2_000)), "not X.509 (DER)"),
        // An integer of ten megabytes, and more than there can be.
        (changed(&good, |der| *der = claims(&[0, 0x98, 0x96, 0x80])), "not X.509 (DER)"),
        (changed(&good, |der| *der = claims(&[0xff; 4])), "not X.509 (DER)"),
    ];
    let mut world = World::with_projects(1, |_| "chat".to_owned());
    for (n, (pem, _)) in cases.iter().enumerate() {
        world.add(&format!("cert_{n}"), None, Some(start()), [1]).pem = Some(pem.clone());
    }
    world.add("cert_none", None, Some(start()), [1]);
    let sim = Sim::start(world).await;
    let api = client(&sim);
    for (n, (_, expected)) in cases.iter().enumerate() {
        let error = api.content(&id(&format!("cert_{n}"))).await.unwrap_err().to_string();
        assert!(error.contains(expected) && error.len() < 500, "{expected}: {error}");
    }
    assert!(api.content(&id("cert_none")).await.is_err());
    assert_eq!(api.content(&id("cert_gone")).await.unwrap_err().status(), Some(404));
}

/// Projects that all have these certificates.
fn world(projects: usize, certificates: &[(&str, &str, DateTime<Utc>, Option<String>)]) -> World {
    let mut world = World::with_projects(projects, |n| format!("prod-{n}"));
    for (id, name, expires_at, pem) in certificates {
        world.add(id, Some(name), Some(*expires_at), 1..=projects).pem = pem.clone();
    }
    world
}

fn of_contents(requests: &[String]) -> usize {
    requests.iter().filter(|one| one.contains("include%5B%5D=content")).count()
}

#[tokio::test]
async fn each_content_is_requested_once_and_kept() {
    crypto();
    let certificates: Vec<_> = (0..50)
        .map(|n| {
            let key = KeyPair::generate().unwrap();
            let until = start() + days(400 + n);
            (format!("cert_{n}"), format!("ca-{n}"), until, Some(ca("x", &key, until)))
        })
        .collect();
    let listed: Vec<_> = certificates
        .iter()
        .map(|(id, name, until, pem)| (id.as_str(), name.as_str(), *until, pem.clone()))
        .collect();
    let mut world = world(1_000, &listed);
    // Three were deleted after they were listed.
    world.without_content = vec!["cert_1".to_owned(), "cert_2".to_owned(), "cert_3".to_owned()];
    let sim = Sim::start(world).await;
    let service = Service::start(&sim.config()).await;
    let report = service.scan(start()).await;
    assert!(report.record.complete && report.content_refused.is_none());
    assert_eq!(of_contents(&sim.api.take_requests()), 50);
    for n in 1..=10 {
        service.scan(start() + TimeDelta::hours(2) * n).await;
    }
    assert_eq!(of_contents(&sim.api.take_requests()), 0, "ten later scans");
    // After a day, the three unreadable ones.
    service.scan(start() + TimeDelta::hours(25)).await;
    assert_eq!(of_contents(&sim.api.take_requests()), 3);
    // It survives a restart, and a list with other dates is a reason to look again.
    let service = service.restart(&sim.config(), start() + days(2)).await;
    sim.api.world().certificate("cert_9").unwrap().expires_at = Some(start() + days(500));
    service.scan(start() + TimeDelta::hours(26)).await;
    assert_eq!(of_contents(&sim.api.take_requests()), 1);
    let kept = service.store.inventory(service.target.api.organization()).await.unwrap();
    assert!(kept.certificates[&id("cert_9")].content.is_some());
    // Off: nothing is requested, and nothing is kept.
    let off = format!("{}[api]\ncertificate_content = false\n", sim.config());
    let service = service.restart(&off, start() + days(2)).await;
    service.scan(start() + days(2)).await;
    assert_eq!(of_contents(&sim.api.take_requests()), 0);
    let kept = service.store.inventory(service.target.api.organization()).await.unwrap();
    assert!(kept.contents.is_empty());
    assert!(kept.certificates.values().all(|one| one.content.is_none()));
}

#[tokio::test]
async fn a_key_without_the_permission_is_reported_once_and_everything_else_works() {
    crypto();
    let listed: Vec<_> = (0..20).map(|n| (format!("cert_{n}"), start() + days(5))).collect();
    let listed: Vec<_> = listed.iter().map(|(id, at)| (id.as_str(), "ca", *at, None)).collect();
    let mut refusing = world(3, &listed);
    refusing.contents_broken = Some(403);
    let sim = Sim::start(refusing).await;
    let service = Service::start(&format!("{}[api]\nconcurrency = 1\n", sim.config())).await;
    let report = service.scan(start()).await;
    assert!(report.record.complete && report.notifications > 0);
    let why = report.content_refused.unwrap();
    assert!(why.contains("HTTP 403"), "{why}");
    assert_eq!(of_contents(&sim.api.take_requests()), 1, "not for each certificate");
    let report = service.scan(start() + TimeDelta::hours(1)).await;
    assert_eq!((report.content_refused, of_contents(&sim.api.take_requests())), (None, 0));
    // The permission was granted meanwhile.
    sim.api.world().contents_broken = None;
    let report = service.scan(start() + TimeDelta::hours(25)).await;
    assert!(report.content_refused.is_none());
    assert_eq!(of_contents(&sim.api.take_requests()), 20);
}

#[tokio::test]
async fn the_earlier_of_two_expiries_counts_and_a_small_difference_changes_nothing() {
    crypto();
    let key = KeyPair::generate().unwrap();
    let at = |n: i64| start() + days(n);
    let soon = at(6) + TimeDelta::hours(6);
    let mut awkward = world(
        4,
        &[
            // The API is late, early, and half a day off.
            ("cert_late", "late", at(300), Some(ca("late", &key, soon))),
            ("cert_early", "early", soon, Some(ca("early", &key, at(300)))),
            ("cert_near", "near", soon, Some(ca("near", &key, soon - TimeDelta::hours(12)))),
            ("cert_none", "none", at(0), Some(ca("none", &key, soon))),
        ],
    );
    awkward.certificate("cert_none").unwrap().expires_at = None;
    for (n, one) in (1..).zip(&mut awkward.certificates) {
        // Each has its own project: no certificate is the successor of another.
        one.projects.retain(|project, _| *project == format!("proj_{n:04}"));
    }
    let sim = Sim::start(awkward).await;
    let off = format!("{}[api]\ncertificate_content = false\n", sim.config());
    let service = Service::start(&off).await;
    service.scan(at(0)).await;
    service.deliver(at(0)).await;
    let sent = |sim: &Sim| -> Vec<(String, String)> {
        let posts = sim.receiver.posts();
        let body: Value = serde_json::from_str(&posts.last().unwrap().body).unwrap();
        let alerts = body["alerts"].as_array().unwrap().iter();
        let mut sent: Vec<_> = alerts
            .map(|one| {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                (text(&one["certificate"]["name"]), text(&one["event"]))
            })
            .collect();
        sent.sort();
        sent
    };
    let pair = |name: &str, event: &str| (name.to_owned(), format!("certificate.{event}"));
    assert_eq!(
        sent(&sim),
        [pair("early", "expiring"), pair("near", "expiring"), pair("none", "unknown_expiry")]
    );
    let service = service.restart(&sim.config(), at(0)).await;
    service.scan(at(0) + TimeDelta::hours(1)).await;
    service.deliver(at(0) + TimeDelta::hours(1)).await;
    let posts = sim.receiver.posts().len();
    let expected = [
        pair("early", "mismatch"),
        pair("late", "expiring"),
        pair("late", "mismatch"),
        pair("none", "expiring"),
    ];
    assert_eq!(sent(&sim), expected, "nothing again");
    service.scan(at(0) + TimeDelta::hours(2)).await;
    service.deliver(at(0) + TimeDelta::hours(2)).await;
    assert_eq!(sim.receiver.posts().len(), posts);
    let kept = service.store.inventory(service.target.api.organization()).await.unwrap();
    let expiry = |name: &str| kept.certificates[&id(name)].expires_at;
    assert_eq!(expiry("cert_late"), Some(soon));
    assert_eq!(expiry("cert_early"), Some(soon));
    assert_eq!(expiry("cert_near"), Some(soon));
    assert_eq!(expiry("cert_none"), Some(soon));
}

#[tokio::test]
async fn a_successor_with_the_same_key_needs_no_new_clients_and_another_key_does() {
    crypto();
    let (old, new) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let at = |n: i64| start() + days(n);
    let steps = |sim: &Sim| {
        let text = parts(&sim.mailbox.mails().last().unwrap().data).unwrap().text;
        let words: Vec<String> =
            text.split_whitespace().map(|w| w.replace('\u{2060}', "")).collect();
        words.join(" ")
    };
    for (subject, key, expected, plan) in [
        ("Prod CA", &old, "The clients need no new certificates", "deactivate"),
        ("Prod CA", &new, "Issue client certificates that the successor signs", "move_clients"),
        // A client finds its issuer by name, so the same key under another name does not do.
        ("Other", &old, "Issue client certificates that the successor signs", "move_clients"),
    ] {
        let sim = Sim::start(world(
            2,
            &[
                ("cert_old", "old", at(6), Some(ca("Prod CA", &old, at(6)))),
                ("cert_new", "new", at(700), Some(ca(subject, key, at(700)))),
            ],
        ))
        .await;
        let service = Service::start(&sim.config()).await;
        service.scan(start()).await;
        service.deliver(start()).await;
        assert!(steps(&sim).contains(expected), "{expected}: {}", steps(&sim));
        let posts = sim.receiver.posts();
        let body: Value = serde_json::from_str(&posts.last().unwrap().body).unwrap();
        assert_eq!(body["alerts"][0]["certificate"]["next_step"], plan);
        assert_eq!(body["alerts"][0]["successor"]["same_key"], expected.contains("no new"));
    }
}

/// Runs a command of the real binary beside a service's database.
async fn command(service: &Service, sim: &Sim, arguments: &[&str]) -> String {
    let text = format!("{}[state]\nurl = \"sqlite:state.db\"\n", sim.config());
    let folder: &Path = service.folder.path();
    let (code, out, err) = run(with(folder, &text, arguments)).await;
    assert!(code < 3 && !err.contains("error:"), "{arguments:?}: {code} {err}");
    out
}

#[tokio::test]
async fn explain_check_and_the_webhook_show_the_content() {
    crypto();
    let key = KeyPair::generate().unwrap();
    let until = Clock::System.now() + days(6);
    let pem = ca("Prod CA, <b>1</b>", &key, until);
    let sim = Sim::start(world(1, &[("cert_a", "prod-ca", until + days(90), Some(pem))])).await;
    let service = Service::start(&sim.config()).await;
    let mut heard = Heard::of(&sim);
    service.scan(Clock::System.now()).await;
    service.deliver(Clock::System.now()).await;
    assert_eq!(heard.news()[0].0, "certificate.expiring");
    let posts = sim.receiver.posts();
    let body: Value = serde_json::from_str(&posts.last().unwrap().body).unwrap();
    let content = &body["alerts"][0]["certificate"]["content"];
    assert_eq!(content["subject"], "CN=Prod CA\\, \\<b\\>1\\</b\\>");
    let text = command(&service, &sim, &["explain", "cert_a"]).await;
    let print = content["fingerprint"].as_str().unwrap();
    for expected in ["The certificate itself", print, "EC, 256 bits", "expires_at"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let explained = command(&service, &sim, &["explain", "cert_a", "--output", "json"]).await;
    let explained: Value = serde_json::from_str(&explained).unwrap();
    assert_eq!(explained["certificate"]["content"], *content);
    sim.api.take_requests();
    let checked = command(&service, &sim, &["check", "--output", "json"]).await;
    assert_eq!(of_contents(&sim.api.take_requests()), 0, "known from the database");
    let checked: Value = serde_json::from_str(&checked).unwrap();
    assert_eq!(checked["certificates"][0]["content"], *content);
}

/// The events of the last webhook message, with the names of their certificates.
fn events(sim: &Sim) -> Vec<(String, String, String)> {
    let posts = sim.receiver.posts();
    let Some(last) = posts.last() else { return Vec::new() };
    let body: Value = serde_json::from_str(&last.body).unwrap();
    fits_schema(&body);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let alerts = body["alerts"].as_array().unwrap().iter();
    let mut events: Vec<_> = alerts
        .map(|one| (text(&one["certificate"]["name"]), text(&one["event"]), text(&one["reason"])))
        .collect();
    events.sort();
    events
}

fn event(name: &str, event: &str, reason: &str) -> (String, String, String) {
    (name.to_owned(), format!("certificate.{event}"), reason.to_owned())
}

#[tokio::test]
async fn other_dates_of_the_api_are_reported_once_and_resolved_when_they_agree() {
    crypto();
    let key = KeyPair::generate().unwrap();
    let at = |n: i64| start() + days(n);
    let half = TimeDelta::hours(12);
    let sim = Sim::start(world(
        1,
        &[
            ("cert_late", "late", at(700), Some(ca("late", &key, at(300)))),
            ("cert_early", "early", at(300), Some(ca("early", &key, at(700)))),
            ("cert_near", "near", at(300), Some(ca("near", &key, at(300) - half))),
        ],
    ))
    .await;
    let service = Service::start(&sim.config()).await;
    let step = async |hour: i64| {
        let now = start() + TimeDelta::hours(hour);
        service.scan(now).await;
        service.deliver(now).await;
        sim.receiver.posts().len()
    };
    let first = step(0).await;
    let expected = [event("early", "mismatch", "opened"), event("late", "mismatch", "opened")];
    assert_eq!(events(&sim), expected);
    let mail = parts(&sim.mailbox.mails().last().unwrap().data).unwrap().text;
    assert!(mail.contains("Alerts follow the earlier date, 2027-11-28."), "{mail}");
    assert_eq!(step(24 * 30).await, first, "once");
    // The API corrects one of them.
    sim.api.world().certificate("cert_late").unwrap().expires_at = Some(at(300));
    step(24 * 31).await;
    assert_eq!(events(&sim), [event("late", "resolved", "corrected")]);
    let mail = parts(&sim.mailbox.mails().last().unwrap().data).unwrap().text;
    assert!(mail.contains("the API reports the certificate’s own expiry now"), "{mail}");
    let over = "the expiry mismatch of “late” is no longer reported";
    assert!(mail.to_lowercase().contains(over), "other alerts may be open: {mail}");
    // Without a date to compare, the other one stays open.
    let sent = sim.receiver.posts().len();
    sim.api.world().certificate("cert_early").unwrap().expires_at = None;
    assert_eq!(step(24 * 32).await, sent);
}

#[tokio::test]
async fn a_date_that_only_the_configuration_changes_is_no_renewal() {
    crypto();
    let key = KeyPair::generate().unwrap();
    let soon = start() + days(6) + TimeDelta::hours(6);
    let own = Some(ca("ca", &key, soon));
    let sim = Sim::start(world(1, &[("cert_a", "ca", start() + days(700), own)])).await;
    let service = Service::start(&sim.config()).await;
    service.scan(start()).await;
    service.deliver(start()).await;
    assert_eq!(events(&sim)[0], event("ca", "expiring", "opened"));
    let off = format!("{}[api]\ncertificate_content = false\n", sim.config());
    let now = start() + TimeDelta::hours(1);
    let service = service.restart(&off, now).await;
    service.scan(now).await;
    service.deliver(now).await;
    let over = event("ca", "resolved", "policy_changed");
    assert_eq!(events(&sim), [over.clone(), over], "the expiry and the mismatch");
    let mail = parts(&sim.mailbox.mails().last().unwrap().data).unwrap().text;
    assert!(!mail.contains("renewed"), "{mail}");
}

#[tokio::test]
async fn a_certificate_that_cannot_issue_is_no_successor_and_the_same_key_goes_first() {
    crypto();
    let (old, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let at = |n: i64| start() + days(n);
    let mut leaf = params("leaf", at(-9), at(900));
    leaf.is_ca = IsCa::NoCa;
    let leaf = leaf.self_signed(&other).unwrap().pem();
    let anchors = [
        ("cert_old", "old", at(6), Some(ca("Prod CA", &old, at(6)))),
        ("cert_leaf", "leaf", at(900), Some(leaf)),
        ("cert_same", "same", at(400), Some(ca("Prod CA", &old, at(400)))),
        ("cert_later", "later", at(800), Some(ca("Later", &other, at(800)))),
    ];
    for (listed, expected, severity) in
        [(&anchors[..2], Value::Null, "critical"), (&anchors[..4], "cert_same".into(), "warning")]
    {
        let sim = Sim::start(world(1, listed)).await;
        let service = Service::start(&sim.config()).await;
        service.scan(start()).await;
        service.deliver(start()).await;
        let posts = sim.receiver.posts();
        let body: Value = serde_json::from_str(&posts.last().unwrap().body).unwrap();
        let alerts = body["alerts"].as_array().unwrap();
        let expiring = alerts.iter().find(|one| one["event"] == "certificate.expiring").unwrap();
        assert_eq!(expiring["successor"]["id"], expected);
        assert_eq!(expiring["severity"], severity);
    }
}

#[tokio::test]
async fn a_content_is_requested_again_at_once_after_a_passing_error() {
    crypto();
    let key = KeyPair::generate().unwrap();
    let until = start() + days(300);
    let mut broken = world(1, &[("cert_a", "ca", until, Some(ca("ca", &key, until)))]);
    broken.contents_broken = Some(503);
    let sim = Sim::start(broken).await;
    let once = format!("{}[api]\nmax_attempts = 1\n", sim.config());
    let service = Service::start(&once).await;
    assert!(service.scan(start()).await.content_refused.is_none());
    sim.api.world().contents_broken = None;
    sim.api.take_requests();
    service.scan(start() + TimeDelta::minutes(5)).await;
    assert_eq!(of_contents(&sim.api.take_requests()), 1);
}

#[tokio::test]
async fn an_active_certificate_that_may_not_work_is_reported_once() {
    crypto();
    let key = KeyPair::generate().unwrap();
    let until = start() + days(700);
    let good = ca("good", &key, until);
    let issue = |change: fn(&mut CertificateParams)| {
        let mut params = params("odd", until - days(900), until);
        change(&mut params);
        Some(params.self_signed(&key).unwrap().pem())
    };
    let no_sign = issue(|one| one.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let mut odd = world(
        1,
        &[
            ("cert_1", "good", until, Some(good.clone())),
            ("cert_2", "leaf", until, issue(|one| one.is_ca = IsCa::NoCa)),
            ("cert_3", "silent", until, no_sign.clone()),
            ("cert_4", "bundle", until, Some(format!("{}{good}", ca("x", &key, until)))),
            ("cert_5", "twin", until, Some(good)),
            ("cert_6", "inactive", until, no_sign),
        ],
    );
    let twin = odd.certificate("cert_5").unwrap();
    twin.created_at = start() - days(1);
    odd.certificate("cert_6").unwrap().projects.values_mut().for_each(|active| *active = false);
    let sim = Sim::start(odd).await;
    let service = Service::start(&sim.config()).await;
    service.scan(start()).await;
    service.deliver(start()).await;
    let opened = |name: &str| event(name, "unfit", "opened");
    assert_eq!(events(&sim), [opened("bundle"), opened("leaf"), opened("silent"), opened("twin")]);
    let posts = sim.receiver.posts();
    let body: Value = serde_json::from_str(&posts.last().unwrap().body).unwrap();
    let defects = |name: &str| {
        let alerts = body["alerts"].as_array().unwrap();
        let found = alerts.iter().find(|one| one["certificate"]["name"] == name).unwrap();
        assert_eq!(found["severity"], "warning");
        found["certificate"]["content"]["defects"].clone()
    };
    assert_eq!(defects("leaf"), serde_json::json!(["not_a_ca"]));
    assert_eq!(defects("silent"), serde_json::json!(["no_cert_sign"]));
    assert_eq!(defects("bundle"), serde_json::json!(["bundle"]));
    assert_eq!(defects("twin"), serde_json::json!(["duplicate"]));
    let mail = parts(&sim.mailbox.mails().last().unwrap().data).unwrap().text;
    assert!(mail.contains("Duplicate of: “good” (cert_1)"), "{mail}");
    assert!(mail.contains("Choose which of the two objects to keep, and activate it wherever"));
    service.scan(start() + days(30)).await;
    service.deliver(start() + days(30)).await;
    assert_eq!(sim.receiver.posts().len(), posts.len(), "once");
    // Deactivated, deleted, ignored.
    {
        let mut now = sim.api.world();
        now.certificate("cert_2").unwrap().projects.values_mut().for_each(|active| *active = false);
        now.certificates.retain(|one| one.id != "cert_4");
    }
    let rule = "[[rules]]\ncertificates = [\"silent\"]\nignore = { reason = \"known\", until = 2099-01-01 }\n";
    let service = service.restart(&format!("{}{rule}", sim.config()), start() + days(31)).await;
    service.scan(start() + days(31)).await;
    service.deliver(start() + days(31)).await;
    let over = |name: &str, reason: &str| event(name, "resolved", reason);
    assert_eq!(
        events(&sim),
        [over("bundle", "deleted"), over("leaf", "deactivated"), over("silent", "ignored")]
    );
}

#[tokio::test]
async fn the_anchor_of_certvigils_own_certificate_says_that_certvigil_goes_blind() {
    crypto();
    let (own, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let soon = start() + days(6) + TimeDelta::hours(1);
    let anchor = params("Own CA", soon - days(900), soon);
    let key = KeyPair::generate().unwrap();
    let mut leaf = params("certvigil", start() - days(9), start() + days(300));
    (leaf.is_ca, leaf.use_authority_key_identifier_extension) = (IsCa::NoCa, true);
    let leaf = leaf.signed_by(&key, &Issuer::from_params(&anchor, &own)).unwrap().pem();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let identity = format!(
        "client_identity = {{ certificate = \"{}\", key = {{ file = \"{}\" }} }}\n",
        file("own.pem", leaf),
        file("own.key", key.serialize_pem())
    );
    let blind = "certvigil itself cannot read the API from 2027-02-07 on";
    let later = || Some(ca("Own CA", &own, start() + days(700)));
    // Active everywhere, not known to be an anchor, and in another project only.
    for (successor, elsewhere, says) in
        [(later(), false, false), (None, false, true), (later(), true, true)]
    {
        let anchors = [
            ("cert_own", "own-ca", soon, Some(anchor.self_signed(&own).unwrap().pem())),
            ("cert_other", "other-ca", soon, Some(ca("Other CA", &other, soon))),
            ("cert_next", "own-ca-2", start() + days(700), successor),
        ];
        let mut anchored = world(2, &anchors);
        for one in &mut anchored.certificates {
            let kept = if one.id == "cert_next" && elsewhere { "proj_0002" } else { "proj_0001" };
            one.projects.retain(|project, _| project == kept);
        }
        let sim = Sim::start(anchored).await;
        let text = sim.config().replacen("\n", &format!("\n{identity}"), 1);
        let service = Service::start(&text).await;
        service.scan(start()).await;
        service.deliver(start()).await;
        let posts = sim.receiver.posts();
        let body: Value = serde_json::from_str(&posts.last().unwrap().body).unwrap();
        let alerts = body["alerts"].as_array().unwrap();
        let carries = |name: &str| {
            let of = |one: &&Value| one["certificate"]["name"] == name;
            alerts.iter().find(of).unwrap()["certificate"]["carries_certvigil"] == true
        };
        assert_eq!((carries("own-ca"), carries("other-ca")), (says, false));
        let mail = parts(&sim.mailbox.mails().last().unwrap().data).unwrap().text;
        let words: Vec<&str> = mail.split_whitespace().collect();
        assert_eq!(words.join(" ").matches(blind).count(), usize::from(says), "{mail}");
    }
}
