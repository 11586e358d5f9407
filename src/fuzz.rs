//! Entry points for the fuzzer (`tests/fuzz`) and for its property tests on stable Rust. They check
//! that no external input panics, and that errors have a limited length.

use base64::{Engine, engine::general_purpose::STANDARD};
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
    x509,
};

/// The longest error message, in bytes.
const LONG: usize = 4_096;

/// Parses a body of the Admin API as each list and as an error.
pub fn api_body(body: &[u8]) {
    for error in admin_api::read_any(body, &SecretString::default()) {
        assert!(error.len() <= LONG, "{error}");
    }
}

/// Reads the content of a certificate. Each text is one line.
pub fn certificate(pem: &[u8]) {
    for read in [x509::read_pem(pem), x509::read_pem(&as_pem(pem))] {
        match read {
            Ok(content) => {
                let texts =
                    [&content.subject, &content.issuer, &content.serial, &content.signature];
                assert!(texts.iter().all(|text| one_line(text, LONG) == **text), "{content:?}");
                let _defects = content.defects();
            }
            Err(error) => assert!(error.to_string().len() <= LONG, "{error}"),
        }
    }
}

/// The bytes as the DER of a certificate, in PEM.
fn as_pem(der: &[u8]) -> Vec<u8> {
    let body = STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n").into_bytes()
}

/// Parses a configuration. If valid, it can be serialized; otherwise each problem of a key has one
/// line.
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

/// Compiles an operator's template and renders it with a sample of each event.
pub fn template(source: &str) {
    for content_type in ["application/json", "text/html", "text/plain"] {
        if let Err(error) = Template::new(source.to_owned(), content_type.to_owned()) {
            assert!(error.len() <= LONG, "{error}");
        }
    }
}

/// A header value, as sent by certvigil and as received.
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

    /// The seed corpus of a fuzz target.
    fn corpus(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().collect();
        assert!(files.len() > 3, "the corpus of {target} is missing");
        files.into_iter().map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }

    #[test]
    fn no_input_of_the_corpus_panics() {
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        corpus("api_body").iter().for_each(|input| api_body(input));
        corpus("certificate").iter().for_each(|input| certificate(input));
        corpus("header").iter().for_each(|input| header(input));
        corpus("retry_after").iter().for_each(|input| retry_after(input));
        for input in corpus("configuration") {
            configuration(&String::from_utf8(input).unwrap());
        }
        for input in corpus("template") {
            template(&String::from_utf8(input).unwrap());
        }
    }

    /// An input of the corpus with some bytes replaced, inserted or cut off.
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
        fn no_api_body_panics(body in changed("api_body"), noise in any::<Vec<u8>>()) {
            api_body(&body);
            api_body(&noise);
        }

        #[test]
        fn no_certificate_panics(pem in changed("certificate"), noise in any::<Vec<u8>>()) {
            certificate(&pem);
            certificate(&noise);
        }

        #[test]
        fn no_certificate_panics_where_its_der_is_changed(
            file in prop::sample::select(corpus("certificate")),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        ) {
            use rustls::pki_types::{CertificateDer, pem::PemObject};
            let Ok(der) = CertificateDer::from_pem_slice(&file) else { return Ok(()) };
            let mut der = der.to_vec();
            for (place, byte) in changes {
                let place = place.index(der.len());
                der[place] = byte;
            }
            certificate(&der);
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
        fn no_retry_after_panics(value in changed("retry_after"), text in "[0-9eE.+-]{0,30}") {
            retry_after(&value);
            retry_after(text.as_bytes());
        }
    }
}
