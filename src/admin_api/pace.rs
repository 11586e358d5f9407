//! The pace of requests to an organization: the configured rate, the learned rate, a limit of
//! concurrent requests, and a common pause.

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use std::{
    num::NonZeroU32,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

use super::learned::Learned;

/// The longest accepted `Retry-After`, as in the official clients: one response must not blind an
/// organization for a day.
pub const LONGEST_WAIT: Duration = Duration::from_secs(120);

pub struct Pace {
    limiter: Option<DefaultDirectRateLimiter>,
    learned: Mutex<Learned>,
    under_way: Semaphore,
    paused_until: Mutex<Option<Instant>>,
}

/// A permit to send a request, held until its response.
pub struct Turn<'a> {
    pace: &'a Pace,
    sent: Instant,
    _under_way: Option<SemaphorePermit<'a>>,
}

impl Turn<'_> {
    /// Records the response: a 429, or another one.
    pub fn answered(&self, refused: bool) {
        let now = Instant::now();
        let mut learned = lock(&self.pace.learned);
        match refused {
            true => learned.refused(self.sent, now),
            false => learned.answered(now),
        }
    }
}

impl Pace {
    /// `per_second` of 0 is no limit.
    pub fn new(per_second: u32, concurrency: usize) -> Pace {
        let limiter = NonZeroU32::new(per_second).map(|per_second| {
            // Bursts of at most a tenth of a second, so that the rate also holds over short times.
            let burst = NonZeroU32::new(per_second.get() / 10).unwrap_or(NonZeroU32::MIN);
            RateLimiter::direct(Quota::per_second(per_second).allow_burst(burst))
        });
        Pace {
            limiter,
            learned: Mutex::default(),
            under_way: Semaphore::new(concurrency),
            paused_until: Mutex::new(None),
        }
    }

    /// Waits until a request may be sent.
    pub async fn turn(&self) -> Turn<'_> {
        loop {
            self.wait_out_pause().await;
            // Never closed.
            let under_way = self.under_way.acquire().await.ok();
            if let Some(limiter) = &self.limiter {
                limiter.until_ready().await;
            }
            let now = Instant::now();
            let allowed = lock(&self.learned).next(now);
            if allowed > now {
                tokio::time::sleep_until(allowed).await;
            }
            // A 429 may have arrived during the wait.
            if self.left_of_pause().is_none() {
                return Turn { pace: self, sent: Instant::now(), _under_way: under_way };
            }
        }
    }

    /// Pauses every request, for two minutes at most.
    pub fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait.min(LONGEST_WAIT);
        let mut paused = lock(&self.paused_until);
        *paused = Some(paused.map_or(until, |paused| paused.max(until)));
    }

    async fn wait_out_pause(&self) {
        while let Some(left) = self.left_of_pause() {
            // Up to a tenth later, so that not all requests resume at once.
            tokio::time::sleep(left + left.mul_f64(0.1 * fastrand::f64())).await;
        }
    }

    fn left_of_pause(&self) -> Option<Duration> {
        let left = (*lock(&self.paused_until))?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_pause_holds_everybody_back() {
        let pace = Pace::new(0, 4);
        let start = Instant::now();
        pace.pause(Duration::from_secs(7));
        pace.pause(Duration::from_secs(3));
        drop(pace.turn().await);
        assert!(start.elapsed() >= Duration::from_secs(7), "the longer pause counts");
    }

    #[tokio::test(start_paused = true)]
    async fn no_wish_makes_everybody_wait_for_more_than_two_minutes() {
        let pace = Pace::new(0, 4);
        let start = Instant::now();
        pace.pause(Duration::MAX);
        drop(pace.turn().await);
        let waited = start.elapsed();
        assert!(waited >= LONGEST_WAIT && waited < LONGEST_WAIT * 2, "{waited:?}");
    }
}
