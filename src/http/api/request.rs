//! Strict parsing of requests: an unknown parameter or a value out of range is an error that names
//! it.

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::JsonRejection},
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;

use super::super::problem::Problem;
use crate::domain::text::one_line;

/// The default and the maximum number of entries of a page; the OpenAPI document repeats them.
const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 500;

/// Query parameters.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Params<T>, Problem> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(asked)| Params(asked))
            .map_err(|error| Problem::bad_request(plain(&error.body_text())))
    }
}

/// Path parameters.
pub struct Named<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Named<T>, Problem> {
        let Path(named) = Path::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::bad_request(plain(&error.body_text())))?;
        Ok(Named(named))
    }
}

/// A JSON body.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Body<T>, Problem> {
        let read = axum::Json::from_request(request, state).await;
        read.map(|axum::Json(body)| Body(body)).map_err(|error: JsonRejection| {
            // JSON of the wrong type is reported like invalid JSON.
            let status = match error.status() {
                StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
                other => other,
            };
            Problem::new(status, plain(&error.body_text()))
        })
    }
}

fn plain(text: &str) -> String {
    one_line(text, 300)
}

/// The number of entries of a page.
pub fn limit(asked: Option<u32>) -> Result<usize, Problem> {
    let limit = asked.unwrap_or(DEFAULT_LIMIT);
    if (1..=MAX_LIMIT).contains(&limit) {
        Ok(limit as usize)
    } else {
        Err(Problem::bad_request(format!("limit: found {limit}, expected 1 to {MAX_LIMIT}")))
    }
}

/// The error for a cursor that no response contained.
pub const NO_CURSOR: &str = "cursor: found an unknown cursor, expected next_cursor of a response";

/// Parses the cursor of a list that is ordered by organization and id.
pub fn place(cursor: &str) -> Result<(&str, &str), Problem> {
    cursor.split_once(':').ok_or_else(|| Problem::bad_request(NO_CURSOR))
}
