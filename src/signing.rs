//! Random keys, and the signed links in messages that acknowledge an alert without signing in.
//!
//! Guarantees: a link is bound to one alert of one notification and to one receiver. Without the
//! random key in the database, nobody can make or change one. Signatures are compared in constant
//! time.

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac, rand};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

/// The name of the key of links in the database.
pub const LINKS: &str = "links";
/// The length of a shortened signature (RFC 2104, section 5), in bytes.
const SIGNATURE: usize = 16;

/// A new random key, in hexadecimal digits; `None` if the system has no random numbers.
pub fn random_key() -> Option<String> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).ok()?;
    Some(hexadecimal(&bytes))
}

pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An alert of a notification: its index among at most 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlertOf {
    pub notification: Uuid,
    pub alert: u8,
}

/// The token of a link, before its signature is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub of: AlertOf,
    signature: [u8; SIGNATURE],
}

impl Token {
    /// Parses the token in a URL.
    pub fn parse(text: &str) -> Option<Token> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (notification, rest) = bytes.split_at_checked(16)?;
        let (alert, signature) = rest.split_first()?;
        let notification = Uuid::from_slice(notification).ok()?;
        let of = AlertOf { notification, alert: *alert };
        Some(Token { of, signature: signature.try_into().ok()? })
    }
}

/// The key that signs links.
pub struct LinkKey(hmac::Key);

impl LinkKey {
    pub fn new(text: &str) -> LinkKey {
        LinkKey(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes()))
    }

    /// The token that acknowledges an alert for a receiver of a notifier.
    pub fn token(&self, of: AlertOf, notifier: &str, receiver: &str) -> String {
        let mut bytes = of.notification.as_bytes().to_vec();
        bytes.push(of.alert);
        bytes.extend(self.signature(of, notifier, receiver));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whether a token was made for this receiver.
    pub fn fits(&self, token: &Token, notifier: &str, receiver: &str) -> bool {
        let expected = self.signature(token.of, notifier, receiver);
        verify_slices_are_equal(&token.signature, &expected).is_ok()
    }

    fn signature(&self, of: AlertOf, notifier: &str, receiver: &str) -> [u8; SIGNATURE] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(b"certvigil acknowledge\0");
        context.update(of.notification.as_bytes());
        context.update(&[of.alert]);
        // Names of notifiers contain no NUL.
        context.update(notifier.as_bytes());
        context.update(b"\0");
        context.update(receiver.as_bytes());
        let mut short = [0; SIGNATURE];
        short.copy_from_slice(&context.sign().as_ref()[..SIGNATURE]);
        short
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_valid_only_for_its_alert_receiver_and_key() {
        let key = LinkKey::new(&random_key().unwrap());
        let of = AlertOf { notification: Uuid::from_u128(7), alert: 3 };
        let text = key.token(of, "mail", "a@acme.example");
        let token = Token::parse(&text).unwrap();
        assert_eq!(token.of, of);
        assert!(key.fits(&token, "mail", "a@acme.example"));
        assert!(!key.fits(&token, "mail", "b@acme.example"), "another receiver");
        assert!(!key.fits(&token, "mai", "la@acme.example"), "another notifier");
        assert!(!LinkKey::new("x").fits(&token, "mail", "a@acme.example"), "another key");
        for other in
            [AlertOf { alert: 4, ..of }, AlertOf { notification: Uuid::from_u128(8), ..of }]
        {
            let forged = Token { of: other, ..token.clone() };
            assert!(!key.fits(&forged, "mail", "a@acme.example"), "{other:?}");
        }
        for cut in [&text[1..], &text[..text.len() - 1], "", "%%%", &format!("{text}AAAA")] {
            let read = Token::parse(cut);
            let fits = read.is_some_and(|token| key.fits(&token, "mail", "a@acme.example"));
            assert!(!fits, "{cut}");
        }
    }
}
