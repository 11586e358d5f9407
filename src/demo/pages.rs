//! The pages of the demo: an index of the received messages, each mail as a mail program shows it,
//! and each webhook body.

use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use mail_parser::MessageParser;
use minijinja::value::Serde;

use super::{
    mailbox::{Mail, Mailbox},
    receiver::Receiver,
};

/// The displayed messages.
#[derive(Clone)]
pub struct Shown {
    pub mailbox: Mailbox,
    pub receiver: Receiver,
}

impl Shown {
    /// The first mail with this text in its subject.
    pub fn mail(&self, subject: &str) -> Option<Mail> {
        let has =
            |mail: &Mail| parts(&mail.data).is_some_and(|parts| parts.subject.contains(subject));
        self.mailbox.mails().into_iter().find(has)
    }
}

/// The pages, below `/`.
pub fn router(shown: Shown) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/mails/{number}", get(mail))
        .route("/posts/{number}", get(post))
        .with_state(shown)
}

/// A mail's subject, its plain text and its HTML.
pub struct Parts {
    pub subject: String,
    pub text: String,
    pub html: String,
}

/// Parses a mail as a mail program does; `None` for an invalid one.
pub fn parts(data: &[u8]) -> Option<Parts> {
    let message = MessageParser::default().parse(data)?;
    Some(Parts {
        subject: message.subject()?.to_owned(),
        text: message.body_text(0)?.into_owned(),
        html: message.body_html(0)?.into_owned(),
    })
}

const INDEX: &str = r#"<!doctype html><html lang="en"><meta charset="utf-8"><title>certvigil demo</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta http-equiv="refresh" content="5">
<body style="font-family:system-ui,sans-serif;max-width:760px;margin:2em auto;padding:0 1em">
<h1>What certvigil has sent</h1>
<h2>Mails</h2><ol>{% for subject, to in mails %}
<li><a href="/mails/{{ loop.index }}">{{ subject }}</a> to {{ to }}</li>{% endfor %}</ol>
<h2>Webhook requests</h2><ol>{% for summary in posts %}
<li><a href="/posts/{{ loop.index }}">{{ summary }}</a></li>{% endfor %}</ol>"#;

async fn index(State(shown): State<Shown>) -> Response {
    let mails: Vec<(String, String)> = shown
        .mailbox
        .mails()
        .iter()
        .map(|mail| {
            let subject = parts(&mail.data).map(|parts| parts.subject).unwrap_or_default();
            (subject, mail.to.join(", "))
        })
        .collect();
    let posts: Vec<String> = shown
        .receiver
        .posts()
        .iter()
        .map(|post| {
            let body: Option<serde_json::Value> = serde_json::from_str(&post.body).ok();
            let summary = body.as_ref().and_then(|body| body["summary"].as_str());
            summary.unwrap_or("not JSON").to_owned()
        })
        .collect();
    let mut templates = minijinja::Environment::new();
    templates.set_auto_escape_callback(|_| minijinja::AutoEscape::Html);
    let model =
        minijinja::Value::from(Serde(serde_json::json!({ "mails": mails, "posts": posts })));
    match templates.render_str(INDEX, model) {
        Ok(page) => Html(page).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn mail(State(shown): State<Shown>, Path(number): Path<usize>) -> Response {
    let mails = shown.mailbox.mails();
    let mail = number.checked_sub(1).and_then(|index| mails.get(index));
    match mail.and_then(|mail| parts(&mail.data)) {
        // Like a mail program, run no scripts.
        Some(parts) => {
            let policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox";
            ([(header::CONTENT_SECURITY_POLICY, policy)], Html(parts.html)).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn post(State(shown): State<Shown>, Path(number): Path<usize>) -> Response {
    let posts = shown.receiver.posts();
    match number.checked_sub(1).and_then(|index| posts.get(index)) {
        Some(post) => {
            ([(header::CONTENT_TYPE, "application/json")], post.body.clone()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
