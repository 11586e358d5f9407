//! The intervals and limits of the service's loops. Tests use shorter ones.

use chrono::TimeDelta;
use std::time::Duration;

use crate::store::LEASE;

#[derive(Clone, Debug)]
pub struct Timing {
    /// The pause before a scan that failed or was not saved, or a failed heartbeat, is repeated.
    pub repeat: Duration,
    /// Without a tick of the scheduler for this long, a scan loop checks the schedule itself.
    pub missing_tick: Duration,
    /// The pause before the scan of another instance is checked again.
    pub lease_held: Duration,
    /// The pause before a retry while the database is unavailable.
    pub database_away: Duration,
    /// The longest duration of acquiring a lease.
    pub taking: Duration,
    /// The longest duration of releasing a lease.
    pub releasing: Duration,
    /// The longest random pause that distributes scans among several instances.
    pub turn: Duration,
    /// How much longer than `scan_timeout` a scan may take, to decide and commit.
    pub saving: Duration,
    /// The longest wait for a receiver's rate limit at a time.
    pub rate: Duration,
    /// The longest duration of the query for due deliveries.
    pub query: Duration,
    /// How much longer than its attempts a pass over the outbox may take, to record their results.
    pub recording: Duration,
    /// The longest duration of a check of the notifiers, without its requests.
    pub check: Duration,
    /// How often an instance renews its registration.
    pub registration: Duration,
    /// How long a lease lasts without renewal.
    pub lease: TimeDelta,
    /// How long a command waits for a lease.
    pub lease_patience: Duration,
    /// How long a scan that a reload aborts may take to end, and the pause before a failed loop
    /// restarts.
    pub ending: Duration,
    /// The longest duration of a reload: another instance may hold the lease.
    pub reload: Duration,
    /// How long work in progress may continue after the signal to stop. The documented limit is 10
    /// s in total.
    pub grace: Duration,
    /// How often records older than `state.history` are deleted.
    pub prune: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        let seconds = Duration::from_secs;
        Timing {
            repeat: seconds(60),
            missing_tick: seconds(30),
            lease_held: seconds(2),
            database_away: seconds(5),
            taking: seconds(120),
            releasing: seconds(2),
            turn: Duration::from_millis(500),
            saving: seconds(300),
            rate: seconds(1),
            query: seconds(120),
            recording: seconds(120),
            check: seconds(60),
            registration: seconds(2),
            lease: LEASE,
            lease_patience: seconds(60),
            ending: seconds(5),
            reload: seconds(180),
            grace: seconds(8),
            prune: seconds(24 * 3_600),
        }
    }
}
