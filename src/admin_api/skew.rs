//! How far the API's clock is ahead of the local one, by the `Date` of successful responses (RFC
//! 9110, section 6.6.1). Errors do not count, because they may come from a proxy.

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use reqwest::header::HeaderMap;

use crate::net::header;

/// The smallest difference of the responses: a cache may return old ones, but one correct response
/// is enough.
#[derive(Default)]
pub struct Skew(Mutex<Option<TimeDelta>>);

impl Skew {
    /// Records a response that arrived at `now`.
    pub fn note(&self, headers: &HeaderMap, now: DateTime<Utc>) {
        // A cached response has the time at which it was cached.
        if headers.contains_key("age") {
            return;
        }
        let Some(date) = header(headers, "date") else { return };
        let Ok(date) = httpdate::parse_http_date(date) else { return };
        let skew = DateTime::<Utc>::from(date) - now;
        let mut least = self.0.lock();
        if least.is_none_or(|least| skew.abs() < least.abs()) {
            *least = Some(skew);
        }
    }

    /// The smallest difference since the last call; `None` without a response.
    pub fn take(&self) -> Option<TimeDelta> {
        self.0.lock().take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_skew_counts_and_is_unknown_without_a_valid_date() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let skew = Skew::default();
        let answer = |seconds: i64| {
            let date = httpdate::fmt_http_date((now + TimeDelta::seconds(seconds)).into());
            skew.note(
                &[("date".parse().unwrap(), date.parse().unwrap())].into_iter().collect(),
                now,
            );
        };
        assert_eq!(skew.take(), None);
        answer(-7_200);
        answer(-3);
        answer(600);
        assert_eq!(skew.take(), Some(TimeDelta::seconds(-3)));
        skew.note(&[("date".parse().unwrap(), "soon".parse().unwrap())].into_iter().collect(), now);
        assert_eq!(skew.take(), None);
        answer(400);
        assert_eq!(skew.take(), Some(TimeDelta::seconds(400)));
    }
}
