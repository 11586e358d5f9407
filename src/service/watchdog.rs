//! Liveness of the loops for a supervisor: the systemd watchdog is fed when every loop has reported
//! since the last time, by the last one to report. There is no separate timer.

use parking_lot::Mutex;
use std::{collections::BTreeMap, future::Future, pin::pin, sync::Arc, time::Duration};
use tokio::time::Instant;

use super::systemd;

/// How often a waiting loop reports.
const ROUND: Duration = Duration::from_secs(1);

/// The registered loops.
#[derive(Clone, Default)]
pub struct Watchdog(Arc<Mutex<Loops>>);

#[derive(Default)]
struct Loops {
    next: u64,
    /// Each loop, and whether it has reported since the watchdog was last fed.
    reported: BTreeMap<u64, bool>,
    /// The last report of each loop.
    last: BTreeMap<u64, Instant>,
}

/// A loop that has not reported for this long hangs.
const HANGS: Duration = Duration::from_secs(120);

/// A registered loop.
pub struct WatchedLoop {
    watchdog: Watchdog,
    id: u64,
}

impl Watchdog {
    /// Registers a loop.
    pub fn enter(&self) -> WatchedLoop {
        let mut loops = self.0.lock();
        let id = loops.next;
        loops.next += 1;
        loops.reported.insert(id, false);
        loops.last.insert(id, Instant::now());
        WatchedLoop { watchdog: self.clone(), id }
    }

    /// Whether no loop hangs.
    pub fn is_alive(&self) -> bool {
        self.0.lock().last.values().all(|last| last.elapsed() < HANGS)
    }
}

impl Loops {
    /// Records a report; returns whether all loops have reported.
    fn beat(&mut self, id: u64) -> bool {
        self.reported.insert(id, true);
        self.last.insert(id, Instant::now());
        let all = self.reported.values().all(|reported| *reported);
        if all {
            self.reported.values_mut().for_each(|reported| *reported = false);
        }
        all
    }
}

impl WatchedLoop {
    /// Reports that the loop is alive.
    pub fn beat(&self) {
        if self.watchdog.0.lock().beat(self.id) {
            systemd::alive();
        }
    }

    /// Runs `work` and reports in between, up to `limit`; afterwards the loop counts as hanging.
    pub async fn during<T>(&self, limit: Duration, work: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let mut work = pin!(work);
        loop {
            if started.elapsed() <= limit {
                self.beat();
            }
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(ROUND) => {}
            }
        }
    }
}

impl Drop for WatchedLoop {
    fn drop(&mut self) {
        let mut loops = self.watchdog.0.lock();
        loops.reported.remove(&self.id);
        loops.last.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_fed_after_every_loop_has_reported() {
        let watchdog = Watchdog::default();
        let (one, other) = (watchdog.enter(), watchdog.enter());
        let beat = |beat: &WatchedLoop| watchdog.0.lock().beat(beat.id);
        assert!(!beat(&one) && !beat(&one), "the other hangs");
        assert!(beat(&other));
        assert!(!beat(&other), "every loop must report again");
        drop(one);
        assert!(beat(&other), "ended loops do not count");
    }

    #[tokio::test(start_paused = true)]
    async fn work_beyond_its_limit_counts_as_hanging() {
        let watchdog = Watchdog::default();
        let beat = watchdog.enter();
        let work = tokio::time::sleep(Duration::from_secs(60));
        let other = watchdog.enter();
        let fed = async {
            let mut fed = 0;
            for _ in 0..50 {
                tokio::time::sleep(ROUND).await;
                fed += usize::from(watchdog.0.lock().beat(other.id));
            }
            fed
        };
        let ((), fed) = tokio::join!(beat.during(Duration::from_secs(10), work), fed);
        assert!((5..=15).contains(&fed), "{fed}");
    }
}
