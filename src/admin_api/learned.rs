//! The rate that an organization allows, learned from its answers: nothing holds requests back until the first 429,
//! and from then on they are sent evenly, at a rate that grows with every success and falls with a 429.
//!
//! To where it falls can be counted. At a 429 nothing is left of what the server had saved up, so that what it answered
//! from one to the next is what it allows in that time, less what it could not save; and what it answered in any time
//! before is what it allows in that, and at most what it had saved. The largest of these is never more than the truth.
//! From just below it the rate grows again, the slower the better it is known (additive increase, multiplicative
//! decrease; Chiu and Jain 1989). Far beyond what was counted the limit seems to be another, and the rate doubles each
//! second, as at the beginning.

use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// To what part of the counted rate it falls.
const FALL: f64 = 0.98;
/// By what part of the counted rate it grows in a second: the square of what the rate was above it, so often, within
/// these bounds. Where the two are close, it is known well.
const GROWTH: f64 = 0.5;
const MOST_GROWTH: f64 = 0.1;
const LEAST_GROWTH: f64 = 0.002;
/// Beyond so much of what was counted, the limit is not the same any more.
const OTHER: f64 = 1.5;
/// What is tried after the first 429, where next to nothing was answered before; and the least at all, in a second.
const FIRST: f64 = 5.0;
const LEAST: f64 = 1.0;
/// Of fewer answers than these nothing can be counted.
const FEW: f64 = 10.0;
/// Beyond this rate, in a second, nothing is held back.
const MOST: f64 = 10_000.0;
/// After so long without an answer, what came before says nothing of what comes now.
const IDLE: Duration = Duration::from_secs(10);
/// Answers are counted by slices of time, so many of them.
const SLICE: Duration = Duration::from_millis(100);
const SLICES: usize = 600;

/// What was learned so far.
#[derive(Debug, Default)]
pub struct Learned {
    /// The answers since the rate fell last, or nothing was asked for a while, the latest slice last.
    answers: VecDeque<(Instant, u32)>,
    /// `None` while nothing was ever refused.
    limit: Option<Limit>,
}

#[derive(Debug)]
struct Limit {
    /// Requests in a second.
    rate: f64,
    /// What was counted last, and by what part of it the rate grows in a second; `None` where nothing was yet.
    counted: Option<(f64, f64)>,
    /// How much the server may have saved up, at the most: what was answered before the first refusal.
    saved: f64,
    /// When the next request may be sent.
    next: Instant,
    /// When it fell last; and since when it counts what is answered.
    fell: Instant,
    since: Instant,
}

impl Learned {
    /// When a request may be sent that wants to be sent now. It is taken to be sent then.
    pub fn next(&mut self, now: Instant) -> Instant {
        let Some(limit) = &mut self.limit else { return now };
        let interval = Duration::from_secs_f64(1.0 / limit.rate);
        let at = limit.next.max(now);
        limit.next = at + interval;
        at
    }

    /// Notes an answer that was no refusal.
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
        // As much as in a second, spread over what is answered in it.
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

    /// Notes that a request was refused (429) that was sent at `sent`. What was sent before the rate fell says nothing
    /// about the rate now.
    pub fn refused(&mut self, sent: Instant, now: Instant) {
        let answers = std::mem::take(&mut self.answers);
        let answered = |within: Duration| -> f64 {
            let within = answers.iter().filter(|(begun, _)| now - *begun <= within);
            within.map(|(_, count)| f64::from(*count)).sum()
        };
        let Some(limit) = &mut self.limit else {
            // Half of what was answered just now, for that may have been saved up.
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
            // One project may be refused, and not the rate.
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

    /// A server that allows `rate` requests in a second, saves up `burst` of them, and asks for a second's pause, and a
    /// client that always has more to ask, 16 at once. Gives what was answered and refused from ten seconds on, in a
    /// second.
    fn after_ten_seconds(rate: f64, burst: f64, latency: f64, seconds: f64) -> (f64, f64) {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut learned = Learned::default();
        let (mut saved, mut as_of) = (burst, 0.0);
        // When each of those that ask is ready to ask, and until when all pause.
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
    fn what_is_allowed_is_used_and_hardly_anything_is_refused() {
        let servers = [
            (100.0, 100.0),
            (100.0, 10.0),
            (100.0, 1.0),
            (100.0, 1_000.0),
            (20.0, 20.0),
            (300.0, 100.0),
        ];
        for (rate, burst) in servers {
            // Where nothing is saved up, each pause that is asked for is lost, and the first minute has more of them.
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
    fn nothing_is_held_back_that_was_never_refused_and_a_limit_that_is_gone_is_forgotten() {
        let start = Instant::now();
        let mut learned = Learned::default();
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
        fn whatever_is_answered_there_is_a_next_time(
            what in proptest::collection::vec((0..5_000u64, 0..3u8), 0..200),
        ) {
            let mut learned = Learned::default();
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
