//! `/metrics`, for a Prometheus to scrape, in OpenMetrics. It is made of the state at each scrape, so that a
//! restart loses nothing of it and nothing stale is left.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text::encode},
    metrics::{MetricType, info::Info},
    registry::{Registry, Unit},
};

use crate::store::Lateness;

/// What the answer is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The exposition.
///
/// # Errors
/// Never, as far as is known: a text is written to memory.
pub fn exposition(lateness: Lateness) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("certvigil");
    registry.register_collector(Box::new(lateness));
    let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "What runs", version);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Lateness {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut metric = encoder.encode_descriptor(
            "alert_lateness",
            "From when something was due to be told to its being accepted by the receiver",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        let count = self.counts.iter().map(|(_, count)| count).sum();
        metric.encode_histogram::<NoLabelSet>(self.seconds, count, &self.counts, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_is_a_histogram_of_seconds() {
        let counts = vec![(60.0, 2), (300.0, 0), (f64::INFINITY, 1)];
        let text = exposition(Lateness { seconds: 1_000.5, counts }).unwrap();
        for line in [
            "# TYPE certvigil_alert_lateness_seconds histogram",
            "# UNIT certvigil_alert_lateness_seconds seconds",
            "certvigil_alert_lateness_seconds_sum 1000.5",
            "certvigil_alert_lateness_seconds_count 3",
            "certvigil_alert_lateness_seconds_bucket{le=\"60.0\"} 2",
            "certvigil_alert_lateness_seconds_bucket{le=\"300.0\"} 2",
            "certvigil_alert_lateness_seconds_bucket{le=\"+Inf\"} 3",
            "# EOF",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
        assert!(text.contains("certvigil_build_info{version=\""), "{text}");
    }
}
