//! The admin key and its header.

use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

use super::error::SetupError;

/// Prefixes of the keys of projects and service accounts, which cannot read certificates.
const OF_PROJECTS: [&str; 2] = ["sk-proj-", "sk-svcacct-"];

/// The key and its header (RFC 6750, section 2.1).
pub struct Key {
    /// Without the characters that editors and copying add.
    pub secret: SecretString,
    /// Marked as sensitive, so that no log contains it.
    pub bearer: HeaderValue,
}

impl Key {
    /// # Errors
    /// As [`fits_admin_key`].
    pub fn new(secret: SecretString) -> Result<Key, SetupError> {
        let key = clean(secret.expose_secret());
        fits_admin_key(key).map_err(SetupError::Key)?;
        let bearer = HeaderValue::try_from(format!("Bearer {key}"));
        let mut bearer = bearer.map_err(|_| SetupError::Key("an HTTP header value".to_owned()))?;
        bearer.set_sensitive(true);
        Ok(Key { secret: SecretString::from(key), bearer })
    }
}

/// The key without a byte order mark, spaces and quotes around it.
fn clean(key: &str) -> &str {
    key.trim_matches(|c: char| c.is_whitespace() || matches!(c, '\u{feff}' | '"' | '\''))
}

/// Checks that a text can be an admin key.
///
/// # Errors
/// The expected form.
pub fn fits_admin_key(key: &str) -> Result<(), String> {
    let key = clean(key);
    if OF_PROJECTS.iter().any(|prefix| key.starts_with(prefix)) {
        return Err(
            "an admin key (sk-admin-…), not a project's key, which cannot read certificates"
                .to_owned(),
        );
    }
    let is_plain = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
    is_plain.then_some(()).ok_or("visible ASCII characters without spaces".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_spaces_and_byte_order_marks_around_a_key_are_removed() {
        for text in ["sk-admin-x", "\u{feff}sk-admin-x\r\n", " \"sk-admin-x\" ", "'sk-admin-x'"] {
            let key = Key::new(SecretString::from(text.to_owned())).unwrap();
            assert_eq!(key.secret.expose_secret(), "sk-admin-x");
            assert_eq!(key.bearer, "Bearer sk-admin-x");
        }
        for (text, expected) in [
            ("sk-proj-x", "a project's key"),
            ("\u{feff}sk-svcacct-x", "a project's key"),
            ("sk-admin\nx", "without spaces"),
            ("schlüssel", "visible ASCII"),
            ("\"\"", "visible ASCII"),
        ] {
            let error = fits_admin_key(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
