//! Errors as problem details (RFC 9457).

use axum::{
    Json,
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use std::time::Duration;
use utoipa::ToSchema;

use super::HttpError;
use crate::{domain::text::one_line, net::error_chain, store::StoreError};

/// Problem details (RFC 9457).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// `about:blank`: the status is the kind of the problem.
    #[schema(example = "about:blank")]
    r#type: &'static str,
    /// The status in words.
    #[schema(example = "Not Found")]
    title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// The error, with the expected value.
    detail: String,
    #[serde(skip)]
    #[schema(ignore)]
    /// In seconds.
    retry_after: Option<u64>,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            retry_after: None,
        }
    }

    /// A 429 with `Retry-After` (RFC 6585, section 4).
    pub fn too_many(wait: Duration, detail: impl std::fmt::Display) -> Problem {
        let seconds = wait.as_secs() + 1;
        let detail = format!("{detail}: try again in {seconds} s");
        Problem {
            retry_after: Some(seconds),
            ..Problem::new(StatusCode::TOO_MANY_REQUESTS, detail)
        }
    }

    pub fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, detail)
    }

    pub fn detail(&self) -> &str {
        &self.detail
    }

    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// The database or certvigil itself has failed.
impl From<HttpError> for Problem {
    fn from(fault: HttpError) -> Problem {
        let error = error_chain(&fault);
        tracing::warn!(error, "cannot answer a request to the HTTP server");
        let detail = format!("the request failed: {}", one_line(&error, 300));
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }
}

impl From<StoreError> for Problem {
    fn from(fault: StoreError) -> Problem {
        HttpError::from(fault).into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status(), Json(&self)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// The response to an internal error.
pub fn internal() -> Response {
    let detail = "internal error (see the log of certvigil)";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into_response()
}

pub async fn not_found(uri: Uri) -> Problem {
    Problem::not_found(format!("no resource at {}", one_line(uri.path(), 200)))
}

pub async fn method_not_allowed(method: axum::http::Method, uri: Uri) -> Problem {
    let (method, path) = (one_line(method.as_str(), 20), one_line(uri.path(), 200));
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{path} does not support {method}"))
}
