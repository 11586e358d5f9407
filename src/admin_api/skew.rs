//! How far the API's clock is ahead of this machine's, by the `Date` of its good answers (RFC 9110, section 6.6.1):
//! an error may be a proxy's.

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::header::HeaderMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::net::header;

/// The smallest difference of the answers since it was taken: one right answer is enough, if a cache in between gives
/// old ones.
#[derive(Default)]
pub struct Skew(Mutex<Option<TimeDelta>>);

impl Skew {
    /// Notes an answer that came now.
    pub fn note(&self, headers: &HeaderMap) {
        self.note_at(headers, crate::clock::now());
    }

    fn note_at(&self, headers: &HeaderMap, now: DateTime<Utc>) {
        // What a cache in between has kept says what time it was then.
        if headers.contains_key("age") {
            return;
        }
        let Some(date) = header(headers, "date") else { return };
        let Ok(date) = httpdate::parse_http_date(date) else { return };
        let skew = DateTime::<Utc>::from(date) - now;
        let mut least = self.lock();
        if least.is_none_or(|least| skew.abs() < least.abs()) {
            *least = Some(skew);
        }
    }

    /// The difference by the answers since the last time; an earlier one is no witness of the clock as it is now.
    pub fn take(&self) -> Option<TimeDelta> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<TimeDelta>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_right_answer_is_enough_and_without_any_nothing_is_known() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let skew = Skew::default();
        let answer = |seconds: i64| {
            let date = httpdate::fmt_http_date((now + TimeDelta::seconds(seconds)).into());
            skew.note_at(
                &[("date".parse().unwrap(), date.parse().unwrap())].into_iter().collect(),
                now,
            );
        };
        assert_eq!(skew.take(), None);
        answer(-7_200);
        answer(-3);
        answer(600);
        assert_eq!(skew.take(), Some(TimeDelta::seconds(-3)));
        skew.note_at(
            &[("date".parse().unwrap(), "soon".parse().unwrap())].into_iter().collect(),
            now,
        );
        assert_eq!(skew.take(), None);
        answer(400);
        assert_eq!(skew.take(), Some(TimeDelta::seconds(400)));
    }
}
