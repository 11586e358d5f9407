//! The admin key as it is sent.

use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

/// The key, and the header that carries it (RFC 6750, section 2.1).
pub struct Key {
    pub secret: SecretString,
    /// Marked as sensitive, so that it is in no log.
    pub bearer: HeaderValue,
}

impl Key {
    /// # Errors
    /// Where it has characters that no header can carry.
    pub fn new(secret: SecretString) -> anyhow::Result<Key> {
        let header = HeaderValue::try_from(format!("Bearer {}", secret.expose_secret()));
        let header = header.map_err(|_| {
            anyhow::anyhow!(
                "the admin key has characters that no header can carry, a line break say"
            )
        });
        let mut bearer = header?;
        bearer.set_sensitive(true);
        Ok(Key { secret, bearer })
    }
}
