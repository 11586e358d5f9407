//! Entry points for external input, for the fuzzer (`tests/fuzz`) and its property tests on stable
//! Rust. No input panics, and errors have a limited length.

use reqwest::header::{HeaderMap, HeaderValue};
use secrecy::SecretString;
use std::path::Path;

use crate::{
    admin_api,
    clock::Clock,
    config::{Needs, from_text},
    domain::text::{Name, one_line, unlinked},
    net,
    notify::{header_value, webhook::template::Template},
};

/// The longest error that anything makes of one input, in bytes.
const LONG: usize = 4_096;

/// A body of the Admin API, as each list and as an error.
pub fn api_body(body: &[u8]) {
    for error in admin_api::read_any(body, &SecretString::default()) {
        assert!(error.len() <= LONG, "{error}");
    }
}

/// A configuration file. An accepted one can be shown; a refused one has a line for each problem.
pub fn configuration(text: &str) {
    match from_text(Path::new("c.toml"), text, Needs::default()) {
        Ok(loaded) => assert!(toml::to_string(&loaded.effective).is_ok()),
        Err(refused) => {
            assert!(!refused.0.is_empty());
            for fault in &refused.0 {
                assert!(!fault.to_string().contains('\n') || fault.path.is_empty(), "{fault}");
            }
        }
    }
}

/// An operator's template, rendered with a sample of every event.
pub fn template(source: &str) {
    for content_type in ["application/json", "text/html", "text/plain"] {
        if let Err(error) = Template::new(source.to_owned(), content_type.to_owned()) {
            assert!(error.len() <= LONG, "{error}");
        }
    }
}

/// The value of a header, of ours and of an answer.
pub fn header(value: &[u8]) {
    if let Ok(text) = std::str::from_utf8(value) {
        let taken = header_value(text).is_ok();
        assert!(!taken || !text.contains(['\r', '\n', '\0']), "{text:?}");
        let name = Name::clean(text);
        assert!(name.is_none_or(|name| !name.as_str().contains(['\r', '\n'])));
        assert!(!unlinked(&one_line(text, 200)).contains(['\r', '\n']));
    }
    let Ok(value) = HeaderValue::from_bytes(value) else { return };
    let mut headers = HeaderMap::new();
    for name in ["date", "x-request-id", "content-type", "x-should-retry"] {
        headers.insert(name, value.clone());
    }
    let skew = admin_api::Skew::default();
    skew.note(&headers, Clock::System.now());
    let _taken = skew.take();
}

/// A `Retry-After` header.
pub fn retry_after(value: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(value) else { return };
    for name in ["retry-after", "retry-after-ms"] {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.clone());
        let wait = net::retry_after(&headers, Clock::System.now());
        assert!(wait.is_none_or(|wait| !wait.is_zero()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The corpus that the fuzzer begins with, of one target.
    fn corpus(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().collect();
        assert!(files.len() > 3, "{target} has a corpus");
        files.into_iter().map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }

    #[test]
    fn the_corpus_makes_nothing_panic() {
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        corpus("api_body").iter().for_each(|input| api_body(input));
        corpus("header").iter().for_each(|input| header(input));
        corpus("retry_after").iter().for_each(|input| retry_after(input));
        for input in corpus("configuration") {
            configuration(&String::from_utf8(input).unwrap());
        }
        for input in corpus("template") {
            template(&String::from_utf8(input).unwrap());
        }
    }

    /// An input of the corpus with some bytes changed, cut or doubled.
    fn changed(target: &'static str) -> impl Strategy<Value = Vec<u8>> {
        let change = (any::<prop::sample::Index>(), any::<u8>(), 0..3_u8);
        let inputs = prop::sample::select(corpus(target));
        (inputs, prop::collection::vec(change, 0..8)).prop_map(|(mut input, changes)| {
            for (place, byte, how) in
                changes.into_iter().filter(|_| !input.is_empty()).collect::<Vec<_>>()
            {
                let place = place.index(input.len().max(1)).min(input.len().saturating_sub(1));
                match how {
                    0 if !input.is_empty() => input[place] = byte,
                    1 => input.truncate(place),
                    _ => input.insert(place, byte),
                }
            }
            input
        })
    }

    fn text(target: &'static str) -> impl Strategy<Value = String> {
        changed(target).prop_map(|input| String::from_utf8_lossy(&input).into_owned())
    }

    proptest! {
        #[test]
        fn no_body_of_the_api_panics(body in changed("api_body"), noise in any::<Vec<u8>>()) {
            api_body(&body);
            api_body(&noise);
        }

        #[test]
        fn no_configuration_panics(text in text("configuration")) {
            configuration(&text);
        }

        #[test]
        fn no_template_panics(text in text("template")) {
            template(&text);
        }

        #[test]
        fn no_header_panics(value in changed("header"), noise in any::<Vec<u8>>()) {
            header(&value);
            header(&noise);
            retry_after(&noise);
        }

        #[test]
        fn no_wish_to_wait_panics(value in changed("retry_after"), text in "[0-9eE.+-]{0,30}") {
            retry_after(&value);
            retry_after(text.as_bytes());
        }
    }
}
