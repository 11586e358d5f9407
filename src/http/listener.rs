//! Connections and their limits: number, duration, size and priority.

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulConnection, GracefulShutdown},
    service::TowerToHyperService,
};
use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower_http::{catch_panic::CatchPanicLayer, timeout::TimeoutLayer};

use super::{
    attempts::Peer,
    page,
    problem::{self, Problem},
};
use crate::descriptors;

/// The time limit of the head of a request, and of waiting for the next request.
const HEAD: Duration = Duration::from_secs(10);
/// The time limit of a connection without traffic.
const SILENCE: Duration = Duration::from_secs(30);
/// The time limit of a response, with the body of its request.
const ANSWER: Duration = Duration::from_secs(20);
/// The largest head of a request, and the largest body, in bytes.
const MAX_HEAD: usize = 32 * 1024;
const MAX_BODY: usize = 64 * 1024;
/// How long requests in progress may continue at shutdown.
const ENDING: Duration = Duration::from_secs(2);
/// The niceness of the HTTP threads (`nice`, POSIX): a fifteenth of the CPU time if it is scarce.
const NICENESS: i32 = 12;

/// Lowers the priority of this thread and of threads that it starts, so that scans and deliveries
/// come first.
pub fn give_way() {
    // On Linux this affects only the calling thread (setpriority(2), "C library/kernel
    // differences").
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "cannot lower the priority of the HTTP threads");
    }
}

/// Adds the limits and headers of every response.
pub fn limits(router: Router) -> Router {
    router
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, ANSWER))
        .layer(CatchPanicLayer::custom(|_| {
            tracing::error!("cannot answer a request to the HTTP server: internal error");
            problem::internal()
        }))
        .layer(axum::middleware::map_response(headers))
}

/// Adds security headers (OWASP, HTTP Security Response Headers), and a body to errors without one.
async fn headers(mut response: Response) -> Response {
    let (status, has_type) =
        (response.status(), response.headers().contains_key(header::CONTENT_TYPE));
    if (status.is_client_error() || status.is_server_error()) && !has_type {
        let why = status.canonical_reason().unwrap_or("internal error");
        response = Problem::new(status, why).into_response();
    }
    let headers = response.headers_mut();
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert_with(page::policy);
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // With no-referrer, browsers send Origin: null with a form (Fetch, section 3.2).
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    for (name, value) in [
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Serves connections until `stop`. At the limit, a new connection replaces one of the address with
/// the most connections, so that no client can exclude others.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let most = descriptors::for_pages();
    let room = Arc::new(Semaphore::new(most));
    let open = GracefulShutdown::new();
    let accepting = async {
        let mut all: VecDeque<Connection> = VecDeque::with_capacity(most);
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    all.retain(|one| !one.end.is_cancelled());
                    if room.available_permits() == 0 {
                        make_room(&mut all);
                    }
                    let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
                    let (new, served) =
                        Connection::new(stream, address.ip().to_canonical(), &router);
                    let end = new.end.clone();
                    all.push_back(new);
                    let served = open.watch(served);
                    tokio::spawn(async move {
                        if let Some(Err(error)) = end.run_until_cancelled(served).await {
                            tracing::trace!(%error, "an HTTP connection ended early");
                        }
                        end.cancel();
                        drop(permit);
                    });
                }
                Err(error) => {
                    // For example, no file descriptor is left.
                    tracing::warn!(%error, "cannot accept an HTTP connection");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    };
    stop.run_until_cancelled(accepting).await;
    drop(tokio::time::timeout(ENDING, open.shutdown()).await);
}

/// Closes a connection of the address with the most connections: its oldest idle one, or else its
/// oldest one.
fn make_room(all: &mut VecDeque<Connection>) {
    let mut counts = BTreeMap::new();
    for one in &*all {
        *counts.entry(one.peer).or_insert(0) += 1;
    }
    let Some((peer, _)) = counts.into_iter().max_by_key(|(_, count)| *count) else { return };
    let is_idle = |one: &Connection| Arc::strong_count(&one.busy) == 1;
    let oldest = all
        .iter()
        .position(|one| one.peer == peer && is_idle(one))
        .or_else(|| all.iter().position(|one| one.peer == peer));
    if let Some(oldest) = oldest.and_then(|oldest| all.remove(oldest)) {
        oldest.end.cancel();
    }
}

/// An open connection.
struct Connection {
    /// Closes the connection; also cancelled after it has ended.
    end: CancellationToken,
    /// Cloned by each request in progress.
    busy: Arc<()>,
    peer: IpAddr,
}

impl Connection {
    fn new(
        stream: TcpStream,
        peer: IpAddr,
        router: &Router,
    ) -> (Connection, impl GracefulConnection<Error = hyper::Error> + use<>) {
        // Responses are written in one piece, so there is nothing to wait for.
        drop(stream.set_nodelay(true));
        let mut stream = TimeoutStream::new(stream);
        stream.set_read_timeout(Some(SILENCE));
        stream.set_write_timeout(Some(SILENCE));
        let connection = Connection { end: CancellationToken::new(), busy: Arc::new(()), peer };
        let busy = Arc::downgrade(&connection.busy);
        let router = TowerToHyperService::new(router.clone());
        let answer = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            let (answer, busy) = (router.call(request), busy.upgrade());
            async move {
                let answer = answer.await;
                drop(busy);
                answer
            }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(Box::pin(stream)), answer);
        (connection, served)
    }
}
