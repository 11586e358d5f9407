//! The request rate that an organization allows, learned from responses. Requests are unlimited
//! until the first 429. From then on they are evenly spaced, at a rate that grows with every
//! success and falls with every 429.
//!
//! The rate after a fall is measured. A 429 means that the burst allowance of the server is used
//! up. In the time between two 429s, the server therefore allowed at least the responses that it
//! gave; it allowed more if its allowance was full in between. The responses in any earlier time
//! are at most that number plus the burst allowance. The largest of these estimates never exceeds
//! the true rate. From just below it the rate grows again, the slower the better it is known
//! (additive increase, multiplicative decrease; Chiu and Jain 1989). Far above the measured rate
//! the limit must have changed: the rate doubles each second, as at the start.

use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// The rate after a fall, relative to the measured rate.
const FALL: f64 = 0.98;
/// The growth per second relative to the measured rate: this factor times the square of the last
/// relative error, within the bounds below. A small error means that the rate is well known.
const GROWTH: f64 = 0.5;
const MOST_GROWTH: f64 = 0.1;
const LEAST_GROWTH: f64 = 0.002;
/// Above this multiple of the measured rate, the limit must have changed.
const OTHER: f64 = 1.5;
/// The rate per second after the first 429 if almost no response came before, and the minimum rate.
const FIRST: f64 = 5.0;
const LEAST: f64 = 1.0;
/// The minimum number of responses for a measurement.
const FEW: f64 = 10.0;
/// Above this rate per second, requests are not delayed.
const MOST: f64 = 10_000.0;
/// After this time without a response, earlier responses are ignored.
const IDLE: Duration = Duration::from_secs(10);
/// Length and number of the time slices in which responses are counted.
const SLICE: Duration = Duration::from_millis(100);
const SLICES: usize = 600;

#[derive(Debug, Default)]
pub struct LearnedRate {
    /// Responses since the last fall or idle time, latest slice last.
    answers: VecDeque<(Instant, u32)>,
    /// `None` before the first 429.
    limit: Option<Limit>,
}

#[derive(Debug)]
struct Limit {
    /// Requests per second.
    rate: f64,
    /// The last measured rate and the growth per second relative to it; `None` before the first
    /// measurement.
    counted: Option<(f64, f64)>,
    /// The largest possible burst allowance: the responses before the first 429.
    saved: f64,
    /// The time of the next request.
    next: Instant,
    /// The time of the last fall, and the start of the count.
    fell: Instant,
    since: Instant,
}

impl LearnedRate {
    /// The time at which a request may be sent; counts it as sent then.
    pub fn next(&mut self, now: Instant) -> Instant {
        let Some(limit) = &mut self.limit else { return now };
        let interval = Duration::from_secs_f64(1.0 / limit.rate);
        let at = limit.next.max(now);
        limit.next = at + interval;
        at
    }

    /// Records a response other than 429.
    pub fn answered(&mut self, now: Instant) {
        let idle = self.answers.back().is_some_and(|(latest, _)| now - *latest > IDLE);
        if idle {
            self.answers.clear();
            if let Some(limit) = &mut self.limit {
                limit.since = now;
            }
        }
        match self.answers.back_mut() {
            Some((begun, count)) if now - *begun < SLICE => *count += 1,
            _ => self.answers.push_back((now, 1)),
        }
        if self.answers.len() > SLICES {
            self.answers.pop_front();
        }
        let Some(limit) = &mut self.limit else { return };
        // The growth of a second, spread over its responses.
        limit.rate += match limit.counted {
            Some((counted, growth)) => counted * growth / limit.rate,
            None => 1.0,
        };
        if limit.counted.is_some_and(|(counted, _)| limit.rate > OTHER * counted) {
            limit.counted = None;
        }
        if limit.rate > MOST {
            self.limit = None;
        }
    }

    /// Records a 429 for a request sent at `sent`. Ignores requests sent before the last fall, at
    /// the previous rate.
    pub fn refused(&mut self, sent: Instant, now: Instant) {
        let answers = std::mem::take(&mut self.answers);
        let answered = |within: Duration| -> f64 {
            let within = answers.iter().filter(|(begun, _)| now - *begun <= within);
            within.map(|(_, count)| f64::from(*count)).sum()
        };
        let Some(limit) = &mut self.limit else {
            // Half of the recent responses, because they may have used the burst allowance.
            let rate = (answered(Duration::from_secs(1)) / 2.0).max(FIRST);
            let saved = answered(SLICE * SLICES as u32);
            self.limit =
                Some(Limit { rate, counted: None, saved, next: now, fell: now, since: now });
            return;
        };
        if sent < limit.fell {
            self.answers = answers;
            return;
        }
        let since_fall = now - limit.since;
        let all = answered(since_fall);
        if all < FEW {
            // The 429 may concern one project, not the rate.
            limit.rate = (limit.rate / 2.0).max(LEAST);
            (limit.counted, limit.fell, limit.since, limit.next) = (None, now, now, now);
            return;
        }
        let whole = all / since_fall.as_secs_f64().max(0.001);
        let parts = answers.iter().map(|(begun, _)| now - *begun).filter(|time| *time >= SLICE);
        let parts = parts.map(|time| (answered(time) - limit.saved) / time.as_secs_f64());
        let counted = parts.fold(whole, f64::max).min(limit.rate).max(LEAST);
        let gap = 1.0 - counted / limit.rate;
        let growth = (GROWTH * gap * gap).clamp(LEAST_GROWTH, MOST_GROWTH);
        limit.counted = Some((counted, growth));
        limit.rate = counted * FALL;
        (limit.fell, limit.since, limit.next) = (now, now, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Simulates a server that allows `rate` requests per second with a burst of `burst` and
    /// requests pauses of one second, and a client with 16 concurrent requests. Returns the
    /// successes and 429s per second after the first ten seconds.
    fn after_ten_seconds(rate: f64, burst: f64, latency: f64, seconds: f64) -> (f64, f64) {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut learned = LearnedRate::default();
        let (mut saved, mut as_of) = (burst, 0.0);
        // The time at which each worker can send, and the end of the common pause.
        let (mut ready, mut pause): ([f64; 16], f64) = ([0.0; 16], 0.0);
        let (mut answered, mut refused) = (0.0, 0.0);
        let mut events: Vec<(f64, f64, bool)> = Vec::new();
        loop {
            let asks = (0..16).min_by(|a, b| ready[*a].total_cmp(&ready[*b])).unwrap();
            let wants = ready[asks].max(pause);
            if wants > seconds {
                break;
            }
            events.retain(|(when, sent, fine)| {
                let due = *when <= wants;
                match (due, fine) {
                    (true, true) => learned.answered(at(*when)),
                    (true, false) => learned.refused(at(*sent), at(*when)),
                    (false, _) => {}
                }
                !due
            });
            let sent = (learned.next(at(wants)) - start).as_secs_f64();
            if sent < pause {
                ready[asks] = pause;
                continue;
            }
            saved = (saved + (sent - as_of) * rate).min(burst);
            as_of = sent;
            let fine = saved >= 1.0;
            if fine {
                saved -= 1.0;
            } else {
                pause = pause.max(sent + latency + 1.0);
            }
            if sent >= 10.0 {
                answered += f64::from(fine);
                refused += f64::from(!fine);
            }
            ready[asks] = sent + latency;
            events.push((sent + latency, sent, fine));
        }
        (answered / (seconds - 10.0), refused / (seconds - 10.0))
    }

    #[test]
    fn the_learned_rate_uses_most_of_the_limit_with_few_429s() {
        let servers = [
            (100.0, 100.0),
            (100.0, 10.0),
            (100.0, 1.0),
            (100.0, 1_000.0),
            (20.0, 20.0),
            (300.0, 100.0),
        ];
        for (rate, burst) in servers {
            // Without a burst allowance, each requested pause is lost, and the first minute has
            // more of them.
            for (seconds, used) in [(20.0, 0.8), (60.0, 0.9), (300.0, 0.9)] {
                let (answered, refused) = after_ten_seconds(rate, burst, 0.02, seconds);
                let shown = format!(
                    "{rate} a second, {burst} saved, {seconds} s: {answered:.1}, {refused:.2}"
                );
                assert!(answered > used * rate, "{shown}");
                assert!(refused < 0.01 * answered, "{shown}");
            }
        }
    }

    #[test]
    fn requests_are_not_delayed_before_a_429_and_after_the_limit_is_lifted() {
        let start = Instant::now();
        let mut learned = LearnedRate::default();
        for n in 0..1_000 {
            assert_eq!(learned.next(start), start, "{n}");
        }
        learned.refused(start, start);
        let mut now = start;
        for _ in 0..40_000 {
            now = learned.next(now);
            learned.answered(now);
        }
        assert_eq!(learned.next(now), now);
        assert!(learned.limit.is_none() && now - start < Duration::from_secs(60));
    }

    proptest! {
        #[test]
        fn the_learned_rate_stays_within_its_bounds(
            what in proptest::collection::vec((0..5_000u64, 0..3u8), 0..200),
        ) {
            let mut learned = LearnedRate::default();
            let mut now = Instant::now();
            for (millis, kind) in what {
                let sent = now;
                now += Duration::from_millis(millis);
                match kind {
                    0 => learned.answered(now),
                    1 => learned.refused(sent, now),
                    _ => prop_assert!(learned.next(now) >= now),
                }
                if let Some(limit) = &learned.limit {
                    prop_assert!(limit.rate >= LEAST * FALL && limit.rate <= MOST + 1.0);
                }
            }
        }
    }
}
