//! Refusals of the API: the same sentence everywhere, with the remedy.

use axum::{
    extract::Request,
    http::StatusCode,
    middleware::Next,
    response::{Html, IntoResponse, Response},
};
use certvigil::{clock::Clock, demo::world::World};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use serde_json::{Value, json};
use std::{path::Path, time::SystemTime};

use super::{
    daemon::Daemon,
    support::{
        Service, Sim, Tls, days, organization, run, serve, serve_tls, start, until, webhook, with,
    },
};

fn world() -> World {
    let mut world = World::with_projects(2, |n| format!("prod-{n}"));
    let end = Clock::System.now() + days(400);
    world.add("cert_a", Some("ca"), Some(end), 1..=2);
    world
}

/// The simulated API, where one path is refused.
async fn refusing(sim: &Sim, path: &'static str, answer: fn() -> Response) -> String {
    let meddle = move |request: Request, next: Next| async move {
        if request.uri().path() == path { answer() } else { next.run(request).await }
    };
    let router = sim.api.router().layer(axum::middleware::from_fn(meddle));
    organization(serve(router).await)
}

#[tokio::test]
async fn a_missing_scope_is_named_in_the_same_words_everywhere() {
    let sim = Sim::start(world()).await;
    let answer = || {
        let body =
            json!({ "error": "You have insufficient permissions. Missing scopes: api.mtls.read." });
        (StatusCode::FORBIDDEN, axum::Json(body)).into_response()
    };
    let organization = refusing(&sim, "/v1/organization/certificates", answer).await;
    let text = format!(
        "{organization}{}[state]\nurl = \"sqlite:state.db\"\n[schedule]\ncron = \"0 0 1 1 *\"\n",
        webhook(sim.hook)
    );
    let said = "HTTP 403: reading the organization’s certificates needs the scope api.mtls.read; create a key with this scope: \
                You have insufficient permissions. Missing scopes: api.mtls.read.";
    let folder = tempfile::tempdir().unwrap();
    let (code, out, err) = run(with(folder.path(), &text, &["check"])).await;
    assert!(code == 3 && out.contains(said), "check: {out}{err}");
    let mut daemon = Daemon::start_in(folder, &text, |_| ());
    daemon.logged(said, 0).await;
    let ready = daemon.ready(200).await.to_string();
    assert!(ready.contains(said), "/readyz: {ready}");
    let page = daemon.text("/").await.replace("&#x2f;", "/");
    assert!(page.contains(said), "the page: {page}");
    let blind = until("monitor.blind", || {
        sim.receiver.posts().first().map(|post| serde_json::from_str::<Value>(&post.body).unwrap())
    })
    .await;
    assert_eq!(blind["alerts"][0]["event"], "monitor.blind");
    assert!(blind.to_string().contains(said), "{blind}");
    daemon.stop().await;
}

#[tokio::test]
async fn an_answer_of_a_proxy_is_reported_as_that() {
    let sim = Sim::start(world()).await;
    type Answer = fn() -> Response;
    let cases: [(Answer, &str); 3] = [
        (
            || (StatusCode::FORBIDDEN, Html("<html>blocked</html>")).into_response(),
            "HTTP 403 with text/html; charset=utf-8: this response is not from the API, but from a server in between",
        ),
        (
            || (StatusCode::BAD_GATEWAY, Html("<html>502</html>")).into_response(),
            "HTTP 502 with text/html; charset=utf-8: this response is not from the API, but from a server in between",
        ),
        (
            || Html("<html>sign in</html>").into_response(),
            "the response is not JSON (content type text/html",
        ),
    ];
    for (answer, said) in cases {
        let organization = refusing(&sim, "/v1/organization/certificates", answer).await;
        let service =
            Service::start(&format!("{organization}max_attempts = 1\n[notifiers.log.log]\n")).await;
        let report = service.scan(start()).await;
        assert!(report.record.faults[0].contains(said), "{:?}", report.record.faults);
    }
}

/// A client certificate, and the error that it causes.
struct Identity {
    title: &'static str,
    /// PEM; the client's own certificate first.
    chain: String,
    key: String,
    /// Part of the error; empty if the API accepts it.
    said: &'static str,
}

fn identities() -> (String, Vec<Identity>) {
    fn ca(name: &str) -> CertificateParams {
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.distinguished_name.push(rcgen::DnType::CommonName, name);
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca
    }
    let issuer = |ca: CertificateParams| {
        CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap()
    };
    let (root, other) = (issuer(ca("root")), issuer(ca("other")));
    let intermediate =
        CertifiedIssuer::signed_by(ca("intermediate"), KeyPair::generate().unwrap(), &root)
            .unwrap();
    let client = || {
        let mut client = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        client.use_authority_key_identifier_extension = true;
        client
    };
    let mut expired = client();
    expired.not_after = SystemTime::from(Clock::System.now() - days(1)).into();
    let mut server = client();
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let signed = |title,
                  parameters: CertificateParams,
                  issuer: &CertifiedIssuer<'_, KeyPair>,
                  more: &str,
                  said| {
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, issuer).unwrap();
        let chain = format!("{}{more}", certificate.pem());
        Identity { title, chain, key: key.serialize_pem(), said }
    };
    let unusable = "the API rejects the certificate of client_identity: it must be valid now, allow client authentication";
    let untrusted =
        "no active trust anchor accepts the certificate of client_identity: activate its CA";
    let identities = vec![
        signed("of the anchor", client(), &root, "", ""),
        signed("with its intermediate", client(), &intermediate, &intermediate.pem(), ""),
        signed("without its intermediate", client(), &intermediate, "", untrusted),
        signed("of another authority", client(), &other, "", untrusted),
        signed("expired", expired, &root, "", unusable),
        signed("for servers", server, &root, "", unusable),
    ];
    (root.pem(), identities)
}

/// A server's side that demands a client certificate of an authority.
fn acceptor(tls: &Tls, anchor: &str) -> tokio_rustls::TlsAcceptor {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(anchor.as_bytes()).unwrap()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder(roots.into()).build().unwrap();
    let chain = vec![CertificateDer::from_pem_file(&tls.certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&tls.key).unwrap();
    let server = rustls::ServerConfig::builder().with_client_cert_verifier(verifier);
    std::sync::Arc::new(server.with_single_cert(chain, key).unwrap()).into()
}

#[tokio::test]
async fn certvigils_own_certificate_is_accepted_by_its_chain_or_the_error_names_the_cause() {
    let tls = Tls::new();
    let (anchor, identities) = identities();
    let sim = Sim::start(world()).await;
    let address = serve_tls(sim.api.router(), acceptor(&tls, &anchor)).await;
    let folder = tempfile::tempdir().unwrap();
    let text = |identity: &str| {
        let base = organization(address).replace("http://", "https://");
        format!(
            "{base}max_attempts = 2\nca_file = \"{}\"\n{identity}[notifiers.log.log]\n",
            tls.ca.display()
        )
    };
    let faults = async |text: &str| {
        let service = Service::start(text).await;
        let report = service.scan(start()).await;
        report.record.faults.first().cloned().unwrap_or_default()
    };
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    for identity in &identities {
        let (chain, key) =
            (write("client.pem", &identity.chain), write("client.key", &identity.key));
        let quoted = |path: &Path| format!("\"{}\"", path.display());
        let its = format!(
            "client_identity = {{ certificate = {}, key = {{ file = {} }} }}\n",
            quoted(&chain),
            quoted(&key)
        );
        let said = faults(&text(&its)).await;
        match identity.said {
            "" => assert_eq!(said, "", "{}", identity.title),
            expected => assert!(said.contains(expected), "{}: {said}", identity.title),
        }
    }
    let said = faults(&text("")).await;
    assert!(said.contains("the API requires a client certificate: set client_identity"), "{said}");
}
