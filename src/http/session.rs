//! Session cookies and the secret in the calendar's URL. Both are derived from `http.token` or
//! `http.read_token`, and contain neither.
//!
//! Guarantees: without the random key in the database, nobody can forge a cookie or guess the token
//! from one offline; the key alone grants no access. Changing the token revokes all sessions.
//! Signing out revokes the session on the server. All comparisons take constant time.

use aws_lc_rs::hmac;
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use crate::signing::hexadecimal;

/// How long a browser stays signed in.
pub const SESSION_LENGTH: TimeDelta = TimeDelta::days(7);
/// The length of the calendar's secret, in hexadecimal digits.
const FEED: usize = 32;

/// The session of a signed-in browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: Uuid,
    pub until: DateTime<Utc>,
}

/// The key that signs cookies and compares secrets.
pub struct Key(hmac::Key);

impl Key {
    pub fn new(text: &str) -> Key {
        Key(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes()))
    }

    /// Compares a given text with a secret in constant time.
    pub fn fits(&self, given: &str, secret: &str) -> bool {
        let expected = hmac::sign(&self.0, secret.as_bytes());
        hmac::verify(&self.0, given.as_bytes(), expected.as_ref()).is_ok()
    }

    /// The signature of a text with the key and a token, in hexadecimal digits.
    fn signed(&self, token: &SecretString, what: &str) -> String {
        let of_token = hmac::sign(&self.0, token.expose_secret().as_bytes());
        let key = hmac::Key::new(hmac::HMAC_SHA256, of_token.as_ref());
        hexadecimal(hmac::sign(&key, what.as_bytes()).as_ref())
    }

    /// The secret in the calendar's URL, which grants no other access.
    pub fn feed(&self, token: &SecretString) -> String {
        let mut text = self.signed(token, "certvigil calendar");
        text.truncate(FEED);
        text
    }

    /// The cookie of a session.
    pub fn cookie(&self, token: &SecretString, session: Session) -> String {
        let what = format!("{}.{}", session.id, session.until.timestamp());
        format!("{what}.{}", self.signed(token, &format!("certvigil session {what}")))
    }

    /// The session of a valid, unexpired cookie of this token.
    pub fn session(
        &self,
        token: &SecretString,
        cookie: &str,
        now: DateTime<Utc>,
    ) -> Option<Session> {
        let (id, rest) = cookie.split_once('.')?;
        let (until, _) = rest.split_once('.')?;
        let id = Uuid::parse_str(id).ok()?;
        let until = DateTime::from_timestamp(until.parse().ok()?, 0)?;
        let session = Session { id, until };
        (self.fits(cookie, &self.cookie(token, session)) && until > now).then_some(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::random_key;

    #[test]
    fn a_session_is_valid_only_for_its_token_key_and_time_and_cannot_be_forged() {
        let key = Key::new(&random_key().unwrap());
        let token = SecretString::from("0123456789abcdef");
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let session = Session { id: Uuid::from_u128(1), until: now + SESSION_LENGTH };
        let cookie = key.cookie(&token, session);
        assert_eq!(key.session(&token, &cookie, now), Some(session));
        let other = SecretString::from("0123456789abcdeX");
        assert_eq!(key.session(&other, &cookie, now), None, "another token");
        assert_eq!(Key::new("x").session(&token, &cookie, now), None, "another key");
        assert_eq!(key.session(&token, &cookie, session.until), None, "expired session");
        let parts: Vec<_> = cookie.split('.').collect();
        let later = session.until.timestamp() + 1;
        for made in [
            format!("{}.{later}.{}", parts[0], parts[2]),
            format!("{}.{}.{}", Uuid::from_u128(2), parts[1], parts[2]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{}.99999999999999999999.{}", parts[0], parts[2]),
            key.feed(&token),
            String::new(),
            "..".to_owned(),
        ] {
            assert_eq!(key.session(&token, &made, now), None, "{made}");
        }
    }
}
