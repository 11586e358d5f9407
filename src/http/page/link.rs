//! Links to pages, with external text encoded.

use std::fmt::Display;
use url::form_urlencoded::Serializer;

/// The page of one certificate.
pub fn certificate(organization: impl Display, id: impl Display) -> String {
    path(&["certificates", &organization.to_string(), &id.to_string()])
}

/// A path of these segments.
pub fn path(segments: &[&str]) -> String {
    // Only the path of this URL is used.
    let Ok(mut url) = url::Url::parse("http://localhost/") else { return String::new() };
    if let Ok(mut all) = url.path_segments_mut() {
        all.clear().extend(segments);
    }
    url.path().to_owned()
}

/// A path with its query; empty parameters are omitted.
pub fn asking(path: &str, pairs: &[(&str, &str)]) -> String {
    let mut query = Serializer::new(String::new());
    query.extend_pairs(pairs.iter().filter(|(_, value)| !value.is_empty()));
    let query = query.finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_encoded_in_paths_and_queries() {
        assert_eq!(certificate("acme", "cert_1"), "/certificates/acme/cert_1");
        assert_eq!(certificate("acme", "a/b?c#d…"), "/certificates/acme/a%2Fb%3Fc%23d%E2%80%A6");
        assert_eq!(asking("/x", &[("a", "1&2"), ("b", "")]), "/x?a=1%262");
        assert_eq!(asking("/x", &[("a", "")]), "/x");
    }
}
