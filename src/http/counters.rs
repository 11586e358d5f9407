//! Counters since the start, for `/metrics`: Prometheus handles restarts.

use chrono::TimeDelta;
use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::time::Duration;

use crate::domain::{certificate::OrganizationName, retry::FailureReason};

/// The buckets for the lateness of alerts, in seconds: from a minute to three days.
const LATENESS: [f64; 8] = [60.0, 300.0, 900.0, 3_600.0, 21_600.0, 43_200.0, 86_400.0, 259_200.0];
/// The buckets for the durations of scans, in seconds.
const DURATIONS: [f64; 10] = [0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1_800.0];

/// Labels and their values.
pub(super) type Labels = Vec<(&'static str, String)>;

/// All counters. Cheap to clone: clones share the counts.
#[derive(Clone, Debug)]
pub struct Counters {
    requests: Family<Labels, Counter>,
    deliveries: Family<Labels, Counter>,
    log_lines_dropped: Counter,
    scans: Histogram,
    lateness: Histogram,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            requests: Family::default(),
            deliveries: Family::default(),
            log_lines_dropped: Counter::default(),
            scans: Histogram::new(DURATIONS),
            lateness: Histogram::new(LATENESS),
        }
    }
}

impl Counters {
    /// Counts requests to the Admin API with the same result.
    pub fn requested(&self, organization: &OrganizationName, code: &str, count: u64) {
        let labels = vec![("organization", organization.to_string()), ("code", code.to_owned())];
        self.requests.get_or_create(&labels).inc_by(count);
    }

    /// Counts log lines that were dropped because stderr was blocked.
    pub fn dropped(&self, lines: u64) {
        self.log_lines_dropped.inc_by(lines);
    }

    /// Records the duration of a saved scan.
    pub fn scanned(&self, took: TimeDelta) {
        self.scans.observe(seconds(took));
    }

    /// Counts delivery attempts with the same result.
    pub fn attempted(&self, notifier: &str, outcome: &str, count: u64) {
        let labels = vec![("notifier", notifier.to_owned()), ("outcome", outcome.to_owned())];
        self.deliveries.get_or_create(&labels).inc_by(count);
    }

    /// Starts the counters of a notifier at zero, one for each possible result, so that the first
    /// attempt with a result is an increase.
    pub fn expect(&self, notifier: &str, failures: &[FailureReason]) {
        let reasons = failures.iter().map(|reason| reason.as_str());
        for outcome in ["delivered"].into_iter().chain(reasons) {
            self.attempted(notifier, outcome, 0);
        }
    }

    /// Records the lateness of a first alert.
    pub fn arrived(&self, late: TimeDelta) {
        self.lateness.observe(seconds(late));
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "api_requests",
            "Requests to the Admin API including retries, by HTTP status or failure",
            self.requests.clone(),
        );
        registry.register(
            "deliveries",
            "Delivery attempts by result: delivered, or the reason of the failure",
            self.deliveries.clone(),
        );
        registry.register(
            "log_lines_dropped",
            "Log lines dropped because nobody reads stderr",
            self.log_lines_dropped.clone(),
        );
        registry.register_with_unit(
            "scan_duration",
            "Time to read an organization",
            Unit::Seconds,
            self.scans.clone(),
        );
        registry.register_with_unit(
            "alert_lateness",
            "Time from an alert being due to its acceptance by the receiver",
            Unit::Seconds,
            self.lateness.clone(),
        );
    }
}

fn seconds(span: TimeDelta) -> f64 {
    span.to_std().unwrap_or(Duration::ZERO).as_secs_f64()
}
