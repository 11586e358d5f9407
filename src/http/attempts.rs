//! Client addresses, and the limit of wrong tokens from each.

use axum::http::HeaderMap;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// The number of wrong tokens that an address may send at once, and the time after which it may
/// send one more.
const AT_ONCE: u32 = 10;
const EACH: Duration = Duration::from_secs(6);
/// The number of remembered addresses; the one whose attempts are forgiven first is dropped.
const ADDRESSES: usize = 1_024;

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// The source of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    peer: IpAddr,
    /// The client address reported by a proxy on this machine. Other senders are not trusted:
    /// anyone can set the header.
    forwarded: Option<IpAddr>,
}

impl Origin {
    pub fn new(Peer(peer): Peer, headers: &HeaderMap) -> Origin {
        // The proxy itself has added the last address.
        let last = headers.get_all("x-forwarded-for").iter().next_back();
        let last = last.and_then(|value| value.to_str().ok()?.rsplit(',').next());
        let forwarded = last.and_then(|text| text.trim().parse().ok());
        Origin { peer, forwarded: forwarded.filter(|_| peer.is_loopback()) }
    }

    /// The address whose attempts are counted. For IPv6, it is the network, which one customer gets
    /// (RFC 6177).
    fn counted(self) -> IpAddr {
        match self.forwarded.unwrap_or(self.peer).to_canonical() {
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !(u128::MAX >> 64)).into(),
            ip => ip,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.forwarded {
            Some(forwarded) => write!(f, "{forwarded} (via proxy {})", self.peer),
            None => self.peer.fmt(f),
        }
    }
}

/// Recent wrong tokens.
#[derive(Default)]
pub struct LoginLimiter {
    /// The time at which all attempts of an address are forgiven.
    forgiven_at: Mutex<BTreeMap<IpAddr, Instant>>,
}

impl LoginLimiter {
    /// The time for which the source is still blocked, if it is; its tokens are not compared.
    pub fn blocked(&self, origin: Origin, now: Instant) -> Option<Duration> {
        let all = self.forgiven_at.lock();
        let wait = all.get(&origin.counted())?.checked_duration_since(now)?;
        wait.checked_sub(EACH * (AT_ONCE - 1)).filter(|wait| !wait.is_zero())
    }

    /// Counts a wrong token.
    pub fn failed(&self, origin: Origin, now: Instant) {
        let mut all = self.forgiven_at.lock();
        all.retain(|_, at| *at > now);
        if all.len() >= ADDRESSES
            && let Some(first) = all.iter().min_by_key(|(_, at)| **at).map(|(address, _)| *address)
        {
            all.remove(&first);
        }
        let at = all.entry(origin.counted()).or_insert(now);
        *at += EACH;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn from(peer: &str, forwarded: Option<&'static str>) -> Origin {
        let mut headers = HeaderMap::new();
        if let Some(text) = forwarded {
            headers.insert("x-forwarded-for", HeaderValue::from_static(text));
        }
        Origin::new(Peer(peer.parse().unwrap()), &headers)
    }

    #[test]
    fn ten_wrong_tokens_block_only_their_address_for_a_while() {
        let (attempts, now) = (LoginLimiter::default(), Instant::now());
        let (here, there) = (from("192.0.2.1", None), from("192.0.2.2", None));
        for n in 0..AT_ONCE {
            assert_eq!(attempts.blocked(here, now), None, "{n}");
            attempts.failed(here, now);
        }
        assert_eq!(attempts.blocked(here, now), Some(EACH));
        assert_eq!(attempts.blocked(there, now), None);
        assert_eq!(attempts.blocked(here, now + EACH), None, "one more attempt");
        attempts.failed(here, now + EACH);
        assert_eq!(attempts.blocked(here, now + EACH), Some(EACH));
        assert_eq!(attempts.blocked(here, now + EACH * AT_ONCE * 2), None);
    }

    #[test]
    fn the_number_of_remembered_addresses_is_limited() {
        let (attempts, now) = (LoginLimiter::default(), Instant::now());
        for n in 0..5_000_u32 {
            attempts.failed(from(&std::net::Ipv4Addr::from(n).to_string(), None), now);
        }
        assert_eq!(attempts.forgiven_at.lock().len(), ADDRESSES);
    }

    #[test]
    fn only_a_local_proxy_is_trusted_and_an_ipv6_network_counts_once() {
        assert_eq!(
            from("127.0.0.1", Some("6.6.6.6, 192.0.2.7")).to_string(),
            "192.0.2.7 (via proxy 127.0.0.1)"
        );
        assert_eq!(from("192.0.2.1", Some("192.0.2.7")).to_string(), "192.0.2.1");
        assert_eq!(from("127.0.0.1", Some("not an address")).to_string(), "127.0.0.1");
        let (one, other) = (from("2001:db8::1", None), from("2001:db8::2", None));
        assert_eq!(one.counted(), other.counted());
        assert_ne!(one.counted(), from("2001:db8:0:1::1", None).counted());
        assert_eq!(from("::ffff:192.0.2.1", None).counted(), from("192.0.2.1", None).counted());
    }
}
