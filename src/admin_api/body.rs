//! Reads response bodies with size limits, and parses them.

use bytes::{Bytes, BytesMut};
use reqwest::{Response, header::HeaderValue};
use secrecy::SecretString;
use serde_json::value::RawValue;
use std::sync::Arc;
use tokio::sync::Semaphore;

use super::{
    error::Kind,
    request::hidden,
    wire::{IdOnly, Item, Page, RawPage},
};
use crate::domain::text::one_line;

/// Only a few bodies larger than this are read at a time, to limit memory.
const LARGE_BODY: usize = 512 * 1024;

pub(super) struct Body {
    pub content_type: Option<HeaderValue>,
    pub bytes: Bytes,
}

impl Body {
    /// The content type, if it is not JSON.
    pub fn foreign_type(&self) -> Option<String> {
        let content_type = self.content_type.as_ref()?.to_str().ok()?;
        (!content_type.contains("json")).then(|| content_type.to_owned())
    }
}

pub(super) enum BodyError {
    TooLarge,
    Transport(reqwest::Error),
}

/// Reads a body of up to `most` bytes. `large` limits how many large bodies are read at once.
pub(super) async fn read_body(
    mut response: Response,
    most: usize,
    large: Option<&Semaphore>,
) -> Result<Body, BodyError> {
    let content_type = response.headers().get(reqwest::header::CONTENT_TYPE).cloned();
    let mut bytes = Bytes::new();
    let mut rest = BytesMut::new();
    let mut turn = None;
    while let Some(chunk) = response.chunk().await.map_err(BodyError::Transport)? {
        let length = bytes.len() + rest.len() + chunk.len();
        if length > most {
            return Err(BodyError::TooLarge);
        }
        if let Some(large) = large.filter(|_| length > LARGE_BODY && turn.is_none()) {
            turn = large.acquire().await.ok();
        }
        // Most bodies arrive in one chunk and are not copied.
        match bytes.is_empty() {
            true => bytes = chunk,
            false => rest.extend_from_slice(&chunk),
        }
    }
    if !rest.is_empty() {
        let mut all = BytesMut::with_capacity(bytes.len() + rest.len());
        all.extend_from_slice(&bytes);
        all.extend_from_slice(&rest);
        bytes = all.freeze();
    }
    Ok(Body { content_type, bytes })
}

/// Parses a body. Errors hide the key before they are shortened, so that no part of it remains.
pub(super) fn parse<T: serde::de::DeserializeOwned>(
    body: &Body,
    key: &SecretString,
) -> Result<T, Kind> {
    // Tracking the position of an error is slower than all other parsing, so only invalid bodies
    // are parsed with it.
    serde_json::from_slice(&body.bytes).or_else(|_| parse_with_care(body, key))
}

/// Parses a page; if that fails, item by item.
pub(super) fn page<T: Item>(body: &Body, key: &SecretString) -> Result<Page<T>, Kind> {
    if let Ok(page) = serde_json::from_slice::<RawPage<T>>(&body.bytes) {
        return Ok(page.into());
    }
    let raw: RawPage<Box<RawValue>> = parse(body, key)?;
    let (mut data, mut odd, mut last_id) = (Vec::new(), Vec::new(), None);
    for (place, item) in raw.data.iter().enumerate() {
        let id = serde_json::from_str::<IdOnly>(item.get()).ok().map(|only| only.id);
        let mut json = serde_json::Deserializer::from_str(item.get());
        match serde_path_to_error::deserialize::<_, T>(&mut json) {
            Ok(item) => data.push(item),
            Err(error) => {
                let field = match error.path().to_string().as_str() {
                    "." => String::new(),
                    field => format!(".{field}"),
                };
                let named = id.as_deref().map(|id| format!(" ({})", one_line(id, 60)));
                let why =
                    format!("data[{place}]{field}{}: {}", named.unwrap_or_default(), error.inner());
                odd.push(one_line(&hidden(&why, key), 300));
                data.extend(id.as_deref().and_then(T::with_id_only));
            }
        }
        last_id = id;
    }
    Ok(Page {
        is_empty: raw.data.is_empty(),
        data: Arc::new(data),
        odd: odd.into(),
        last_id: raw.last_id.or(last_id),
        has_more: raw.has_more,
    })
}

fn parse_with_care<T: serde::de::DeserializeOwned>(
    body: &Body,
    key: &SecretString,
) -> Result<T, Kind> {
    let content_type = || {
        let value = body.content_type.as_ref().and_then(|value| value.to_str().ok());
        one_line(&hidden(value.unwrap_or("missing"), key), 80)
    };
    let mut json = serde_json::Deserializer::from_slice(&body.bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        use serde_json::error::Category;
        let place = error.path().to_string();
        let inner = error.inner();
        match inner.classify() {
            Category::Data => {
                Kind::Shape(one_line(&hidden(&format!("{place}: {inner}"), key), 300))
            }
            Category::Eof if body.bytes.is_empty() => Kind::Shape("the body is empty".to_owned()),
            Category::Eof if content_type().contains("json") => {
                Kind::Shape("the JSON is incomplete".to_owned())
            }
            Category::Io | Category::Syntax | Category::Eof => Kind::NotJson(content_type()),
        }
    })?;
    json.end().map_err(|_| Kind::Shape("extra data after the JSON".to_owned()))?;
    Ok(value)
}

/// Parses a body as every type; returns the errors.
#[cfg(any(test, fuzzing))]
pub fn read_any(bytes: &[u8], key: &SecretString) -> Vec<String> {
    use super::{
        error::ApiError,
        wire::{ErrorBody, ListedAdminKey, ListedEvent, ListedProject},
    };
    use crate::domain::reading::Listed;
    fn body(bytes: &[u8]) -> Body {
        let content_type = Some(HeaderValue::from_static("application/json"));
        Body { content_type, bytes: Bytes::copy_from_slice(bytes) }
    }
    fn wrong<T: serde::de::DeserializeOwned>(bytes: &[u8], key: &SecretString) -> Option<String> {
        let fault = parse::<T>(&body(bytes), key).err();
        fault.map(|kind| ApiError::new(kind, "GET /x").to_string())
    }
    fn wrong_page<T: Item>(bytes: &[u8], key: &SecretString) -> Option<String> {
        match page::<T>(&body(bytes), key) {
            Ok(page) if page.odd.is_empty() => None,
            Ok(page) => Some(page.odd.join("; ")),
            Err(kind) => Some(ApiError::new(kind, "GET /x").to_string()),
        }
    }
    let all = [
        wrong_page::<ListedProject>(bytes, key),
        wrong_page::<Listed>(bytes, key),
        wrong_page::<ListedAdminKey>(bytes, key),
        wrong_page::<ListedEvent>(bytes, key),
        wrong::<ListedProject>(bytes, key),
        wrong::<ErrorBody>(bytes, key),
    ];
    all.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin_api::error::ApiError;
    use crate::domain::reading::Listed;
    use proptest::prelude::*;

    fn body(text: &str) -> Body {
        let content_type = Some(HeaderValue::from_static("application/json"));
        Body { content_type, bytes: Bytes::copy_from_slice(text.as_bytes()) }
    }

    fn read(text: &str) -> Result<Page<Listed>, String> {
        let parsed = page(&body(text), &SecretString::default());
        parsed.map_err(|kind| ApiError::new(kind, "GET /x").to_string())
    }

    #[test]
    fn missing_fields_are_unknown_and_invalid_items_are_reported_with_their_position() {
        let page = read(
            r#"{"data": [{"id": "c", "name": null, "certificate_details": {}, "active": true, "new": 1}],
                "has_more": false}"#,
        )
        .unwrap();
        let listed = &page.data[0];
        assert_eq!((listed.certificate.expires_at, &listed.certificate.name), (None, &None));

        let in_milliseconds = read(
            r#"{"data": [{"id": "c", "certificate_details": {"expires_at": 1800000000000}, "active": true}]}"#,
        )
        .unwrap();
        assert_eq!(in_milliseconds.data[0].certificate.expires_at, None);

        let odd = [
            (r#"{"id": "c"}"#, "data[1] (c): missing field `active`"),
            (r#"{"id": "a\nb", "active": true}"#, "data[1] (a b): id: an id has only visible"),
            (r#"{"id": "", "active": true}"#, "data[1] (): id: an id must not be empty"),
            (r#"{"id": 7, "active": true}"#, "data[1].id: invalid type: integer `7`"),
            (r#"{"id": "c", "active": "yes"}"#, "data[1].active (c): invalid type"),
            (
                r#"{"id": "c", "active": true, "certificate_details": {"expires_at": "soon"}}"#,
                "data[1].certificate_details.expires_at (c): invalid type",
            ),
            (r#"null"#, "data[1]: invalid type: null"),
            (r#"[[]]"#, "data[1]"),
        ];
        for (item, expected) in odd {
            let fine = |id| format!(r#"{{"id": "{id}", "active": true}}"#);
            let text = format!(r#"{{"data": [{}, {item}, {}]}}"#, fine("a"), fine("b"));
            let page = read(&text).unwrap();
            let ids: Vec<&str> = page.data.iter().map(|one| one.certificate.id.as_str()).collect();
            assert_eq!(ids, ["a", "b"], "the other items are kept");
            assert!(page.odd[0].starts_with(expected), "{}", page.odd[0]);
        }

        let many = vec![r#"{"id": "c", "active": true}"#; 101].join(",");
        let cases = [
            (&*format!(r#"{{"data": [{many}]}}"#), "more items than the 100"),
            (r#"{"data": null}"#, "data: invalid type: null"),
            (r#"{"error": {}}"#, "missing field `data`"),
            (r#"{"data": []"#, "the JSON is incomplete"),
            ("", "the body is empty"),
            ("<html>", "is not JSON"),
            (r#"{"data": []} tail"#, "extra data after the JSON"),
        ];
        for (text, expected) in cases {
            let message = read(text).err().unwrap_or_default();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn parsing_a_page_never_panics(text in "\\PC{0,200}", seconds in any::<i64>()) {
            drop(read(&text));
            let dated = format!(
                r#"{{"data": [{{"id": "c", "certificate_details": {{"expires_at": {seconds}}}, "active": true}}]}}"#
            );
            prop_assert!(read(&dated).is_ok());
        }
    }
}
