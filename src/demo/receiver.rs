//! A webhook receiver that records requests and returns configured responses.

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::post,
};
use parking_lot::Mutex;
use standardwebhooks::Webhook;
use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc};

/// The secret for the verification of signatures.
pub const SECRET: &str = "whsec_c2ltdWxhdGVkIHNpZ25pbmcgc2VjcmV0ISE=";

/// A received request.
#[derive(Clone, Debug)]
pub struct Post {
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    pub body: String,
    /// Whether the reference library accepts its signature.
    pub signed: bool,
}

/// A response other than 204.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
}

/// A running receiver. Clones share the received requests.
#[derive(Clone, Default)]
pub struct Receiver {
    posts: Arc<Mutex<Vec<Post>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
}

impl Receiver {
    /// The received requests, oldest first.
    pub fn posts(&self) -> Vec<Post> {
        self.posts.lock().clone()
    }

    /// Deletes the received requests.
    pub fn forget(&self) {
        self.posts.lock().clear();
    }

    /// Responds to the next requests with these, one each, and then with 204 again.
    pub fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.answers.lock().extend(answers);
    }

    /// Removes and returns the responses that were not sent yet.
    pub fn take_answers(&self) -> VecDeque<Answer> {
        std::mem::take(&mut self.answers.lock())
    }

    /// Accepts `POST` requests at `/hook` and below.
    pub fn router(&self) -> Router {
        let router = Router::new().route("/hook", post(take)).route("/hook/{*rest}", post(take));
        router.with_state(self.clone())
    }

    /// Serves the receiver on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If no port is available.
    pub async fn serve(&self) -> io::Result<SocketAddr> {
        super::serve(self.router()).await
    }
}

async fn take(
    State(receiver): State<Receiver>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let signed =
        Webhook::new(SECRET).is_ok_and(|reference| reference.verify(&body, &headers).is_ok());
    let body = String::from_utf8_lossy(&body).into_owned();
    let target = uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let post = Post { target, headers, body, signed };
    receiver.posts.lock().push(post);
    let answer = receiver.answers.lock().pop_front();
    let Some(answer) = answer else {
        return StatusCode::NO_CONTENT.into_response();
    };
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = status.into_response();
    for (name, value) in answer.headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
