//! The transport of the Admin API: HTTP/2 where offered, persistent connections, compression.

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderValue, Version, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use certvigil::demo::{admin_api::AdminApi, world::World};
use flate2::{Compression, write::GzEncoder};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    io::Write,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::net::TcpListener;

use super::support::{Service, Tls, organization, serve, start};

/// Serves HTTP/2 alone, over TLS, and counts the connections.
async fn serve_http2(router: Router, tls: &Tls) -> (SocketAddr, Arc<AtomicUsize>) {
    let chain = vec![CertificateDer::from_pem_file(&tls.certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&tls.key).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let mut config = config.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            counted.fetch_add(1, Ordering::SeqCst);
            let (acceptor, router) = (acceptor.clone(), router.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
                drop(served.await);
            });
        }
    });
    (address, connections)
}

fn world() -> World {
    World::with_projects(120, |n| format!("prod-{n}"))
}

#[tokio::test]
async fn a_scan_goes_over_a_few_connections_that_stay_and_over_http2_where_that_is_offered() {
    let versions: Arc<Mutex<Vec<Version>>> = Arc::default();
    let seen = Arc::clone(&versions);
    let note = middleware::from_fn(move |request: Request, next: Next| {
        seen.lock().unwrap().push(request.version());
        next.run(request)
    });
    let tls = Tls::new();
    let router = AdminApi::new(world()).router().layer(note);
    let (address, connections) = serve_http2(router, &tls).await;
    let of = format!(
        "[organizations.acme]\nadmin_key = \"{}\"\nbase_url = \"https://{address}/v1\"\nca_file = {:?}\n",
        certvigil::demo::admin_api::KEY,
        tls.ca
    );
    let service = Service::start(&of).await;
    let report = service.scan(start()).await;
    assert!(report.record.complete, "{:?}", report.record.faults);
    let versions = versions.lock().unwrap();
    assert_eq!(versions.len() as u64, report.record.requests);
    assert!(versions.iter().all(|version| *version == Version::HTTP_2));
    // Those that set out before the first one was there may have one of their own.
    let connections = connections.load(Ordering::SeqCst);
    assert!(connections <= 3, "{connections}");
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

async fn compressed(request: Request, next: Next) -> Response {
    let accepted = request.headers().get(header::ACCEPT_ENCODING).cloned();
    assert!(accepted.is_some_and(|value| value.to_str().unwrap().contains("gzip")));
    // A compressed body that exceeds the limit when decompressed.
    let bomb = request.uri().path().contains("proj_0007/");
    let (mut parts, body) = next.run(request).await.into_parts();
    let mut body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    if bomb {
        body = Bytes::from(vec![b' '; 64 << 20]);
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    (parts, Body::from(gzip(&body))).into_response()
}

#[tokio::test]
async fn compressed_answers_are_read_and_what_is_large_only_unpacked_is_not() {
    let router = AdminApi::new(world()).router().layer(middleware::from_fn(compressed));
    let service = Service::start(&organization(serve(router).await)).await;
    let report = service.scan(start()).await;
    assert_eq!((report.record.projects_read, report.record.projects_unreadable), (119, 1));
    let fault = &report.record.faults[0];
    assert!(fault.contains("prod-7") && fault.contains("larger than 8 MiB"), "{fault}");
}
