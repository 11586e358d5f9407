//! The pace of requests to an organization: the configured rate, the learned rate, a limit of
//! concurrent requests, and a common pause.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

use super::learned::LearnedRate;

/// The longest accepted `Retry-After`, as in the official clients: one response must not blind an
/// organization for a day.
pub const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// The unused time that a late request can make up for: the rate also holds over short times.
const CATCH_UP: Duration = Duration::from_millis(100);

pub struct Pace {
    configured: Option<Mutex<Spacing>>,
    learned: Mutex<LearnedRate>,
    under_way: Semaphore,
    paused_until: Mutex<Option<Instant>>,
}

/// The configured rate: requests at even intervals.
struct Spacing {
    interval: Duration,
    next: Instant,
}

impl Spacing {
    /// The time at which a request may be sent; counts it as sent then.
    fn next(&mut self, now: Instant) -> Instant {
        let at = self.next.max(now.checked_sub(CATCH_UP).unwrap_or(now));
        self.next = at + self.interval;
        at.max(now)
    }
}

/// A permit to send a request, held until its response.
pub struct RequestPermit<'a> {
    pace: &'a Pace,
    sent: Instant,
    _under_way: Option<SemaphorePermit<'a>>,
}

impl RequestPermit<'_> {
    /// Records the response: a 429, or another one.
    pub fn answered(&self, refused: bool) {
        let now = Instant::now();
        let mut learned = self.pace.learned.lock();
        match refused {
            true => learned.refused(self.sent, now),
            false => learned.answered(now),
        }
    }
}

impl Pace {
    /// `per_second` 0 means no limit.
    pub fn new(per_second: u32, concurrency: usize) -> Pace {
        let spacing = |per_second: u32| Spacing {
            interval: Duration::from_secs(1) / per_second,
            next: Instant::now(),
        };
        Pace {
            configured: (per_second > 0).then(|| Mutex::new(spacing(per_second))),
            learned: Mutex::default(),
            under_way: Semaphore::new(concurrency),
            paused_until: Mutex::new(None),
        }
    }

    /// Waits until a request may be sent.
    pub async fn turn(&self) -> RequestPermit<'_> {
        loop {
            self.wait_out_pause().await;
            // The semaphore is never closed.
            let under_way = self.under_way.acquire().await.ok();
            if let Some(configured) = &self.configured {
                let allowed = configured.lock().next(Instant::now());
                tokio::time::sleep_until(allowed).await;
            }
            let now = Instant::now();
            let allowed = self.learned.lock().next(now);
            if allowed > now {
                tokio::time::sleep_until(allowed).await;
            }
            // A 429 may have arrived during the wait.
            if self.left_of_pause().is_none() {
                return RequestPermit { pace: self, sent: Instant::now(), _under_way: under_way };
            }
        }
    }

    /// Pauses every request, for two minutes at most.
    pub fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait.min(LONGEST_WAIT);
        let mut paused = self.paused_until.lock();
        *paused = Some(paused.map_or(until, |paused| paused.max(until)));
    }

    async fn wait_out_pause(&self) {
        while let Some(left) = self.left_of_pause() {
            // Up to a tenth later, so that not all requests resume at once.
            tokio::time::sleep(left + left.mul_f64(0.1 * fastrand::f64())).await;
        }
    }

    fn left_of_pause(&self) -> Option<Duration> {
        let left = (*self.paused_until.lock())?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_longest_pause_delays_every_request() {
        let pace = Pace::new(0, 4);
        let start = Instant::now();
        pace.pause(Duration::from_secs(7));
        pace.pause(Duration::from_secs(3));
        drop(pace.turn().await);
        assert!(start.elapsed() >= Duration::from_secs(7), "the longer pause applies");
    }

    #[tokio::test(start_paused = true)]
    async fn the_configured_rate_holds_over_short_times_too() {
        let pace = Pace::new(50, 4);
        // An idle time saves up no more than a tenth of a second.
        tokio::time::advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        for _ in 0..55 {
            drop(pace.turn().await);
        }
        let took = start.elapsed();
        assert!(
            took >= Duration::from_millis(970) && took < Duration::from_millis(1_100),
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_requested_pause_is_limited_to_two_minutes() {
        let pace = Pace::new(0, 4);
        let start = Instant::now();
        pace.pause(Duration::MAX);
        drop(pace.turn().await);
        let waited = start.elapsed();
        assert!(waited >= LONGEST_WAIT && waited < LONGEST_WAIT * 2, "{waited:?}");
    }
}
