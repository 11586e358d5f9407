//! The simulated Admin API and a webhook receiver, with minimal work per request and request
//! counts.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    convert::Infallible,
    io::Write,
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use crate::world::World;

/// Where the counts are.
pub const COUNTS: &str = "/counts";
/// The time over which a rate is counted.
const TENTH: Duration = Duration::from_millis(100);

/// The requests so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    pub answered: u64,
    /// Refused with 429.
    pub refused: u64,
    pub connections: u64,
    /// When the first request came, since the Unix epoch.
    pub first: Option<Duration>,
    /// From the first request to the latest answer.
    pub lasted: Duration,
    /// How many were answered, and how many refused, in each tenth of a second since the first
    /// request.
    pub tenths: Vec<(u32, u32)>,
}

struct Simulator {
    world: World,
    /// The one list of certificates that all projects share.
    shared: RefCell<HashMap<String, Bytes>>,
    counts: RefCell<Counts>,
    begun: Cell<Option<Instant>>,
    /// The tokens of the bucket, and the time of that count.
    bucket: Cell<(f64, Option<Instant>)>,
}

/// Serves until it is killed; says its address first.
pub async fn main(world: World) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", listener.local_addr()?)?;
    out.flush()?;
    let simulator = Rc::new(Simulator {
        world,
        shared: RefCell::default(),
        counts: RefCell::default(),
        begun: Cell::new(None),
        bucket: Cell::new((f64::from(world.allowed), None)),
    });
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async move {
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let simulator = Rc::clone(&simulator);
                tokio::task::spawn_local(async move {
                    let counted = Cell::new(false);
                    let answer = service_fn(|request| {
                        if !counted.replace(true) && request.uri().path() != COUNTS {
                            simulator.counts.borrow_mut().connections += 1;
                        }
                        answer(&simulator, request)
                    });
                    let served = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), answer);
                    drop(served.await);
                });
            }
        })
        .await
}

async fn answer(
    simulator: &Simulator,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let asked = request.uri().path_and_query().map_or("/", |asked| asked.as_str());
    if asked == COUNTS {
        let counts = serde_json::to_vec(&*simulator.counts.borrow()).unwrap_or_default();
        return Ok(Response::new(Full::new(Bytes::from(counts))));
    }
    let begun = simulator.begin();
    if !simulator.may() {
        simulator.note(begun, true);
        let mut refused = Response::new(Full::new(Bytes::from_static(
            br#"{"error":{"message":"Rate limit reached","type":"requests"}}"#,
        )));
        *refused.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        refused.headers_mut().insert("retry-after", "1".parse().unwrap_or_else(|_| unreachable!()));
        return Ok(refused);
    }
    if !simulator.world.latency.is_zero() {
        tokio::time::sleep(simulator.world.latency).await;
    }
    if request.method() == hyper::Method::POST {
        drop(request.into_body().collect().await);
        simulator.note(begun, false);
        return Ok(Response::new(Full::new(Bytes::from_static(b"ok"))));
    }
    let page = simulator.page(asked);
    simulator.note(begun, false);
    let mut response = Response::new(Full::new(page.clone().unwrap_or_default()));
    if page.is_none() {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    Ok(response)
}

impl Simulator {
    fn begin(&self) -> Instant {
        if let Some(begun) = self.begun.get() {
            return begun;
        }
        let now = Instant::now();
        self.begun.set(Some(now));
        self.counts.borrow_mut().first = SystemTime::UNIX_EPOCH.elapsed().ok();
        now
    }

    /// A token bucket.
    fn may(&self) -> bool {
        if self.world.allowed == 0 {
            return true;
        }
        let rate = f64::from(self.world.allowed);
        let (saved, as_of) = self.bucket.get();
        let now = Instant::now();
        let since = as_of.map_or(0.0, |as_of| (now - as_of).as_secs_f64());
        let saved = (saved + since * rate).min(rate);
        let may = saved >= 1.0;
        self.bucket.set((if may { saved - 1.0 } else { saved }, Some(now)));
        may
    }

    fn page(&self, asked: &str) -> Option<Bytes> {
        let of_project = asked.find("/certificates?").filter(|_| asked.contains("/projects/"));
        let Some(at) = of_project.filter(|_| self.world.is_shared()) else {
            return self.world.page(asked);
        };
        if let Some(page) = self.shared.borrow().get(&asked[at..]) {
            return Some(page.clone());
        }
        let page = self.world.page(asked)?;
        self.shared.borrow_mut().insert(asked[at..].to_owned(), page.clone());
        Some(page)
    }

    fn note(&self, begun: Instant, refused: bool) {
        let mut counts = self.counts.borrow_mut();
        counts.lasted = begun.elapsed();
        counts.answered += u64::from(!refused);
        counts.refused += u64::from(refused);
        let tenth = (counts.lasted.as_millis() / TENTH.as_millis()) as usize;
        if counts.tenths.len() <= tenth {
            counts.tenths.resize(tenth + 1, (0, 0));
        }
        let (answered, refusals) = &mut counts.tenths[tenth];
        *answered += u32::from(!refused);
        *refusals += u32::from(refused);
    }
}
