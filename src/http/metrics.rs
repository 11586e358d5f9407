//! `/metrics` for Prometheus: gauges of the current state, and the counters since the start.
//!
//! The number of series is limited: by the configured organizations and notifiers, by closed sets
//! of words, and by [`MAX_CERTIFICATES`] for each organization. The certificates that expire first
//! have series; a metric counts the others. Projects have no series of their own.

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use prometheus_client::{
    encoding::text::encode,
    metrics::{family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};
use std::fmt::Write;

use super::{
    HttpError, Shared,
    counters::{Counters, Labels},
    problem::Problem,
    snapshot::Snapshot,
};
use crate::{
    domain::{notifier, punctuality::Punctuality, status::Status},
    view::{Coverage, Overview},
};

/// The maximum number of certificates of an organization with series of their own.
const MAX_CERTIFICATES: usize = 1_000;

/// OpenMetrics 1.0.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The Prometheus text format.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

type Gauges = Family<Labels, Gauge>;

pub async fn metrics(
    State(shared): State<Shared>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let snapshot = shared.keeper.snapshot().await?;
    let text = exposition(&snapshot, &shared.service.counters).map_err(HttpError::from)?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    let (kind, text) = match prefers_open_metrics(accept) {
        true => (OPEN_METRICS, text),
        false => (PROMETHEUS, prometheus(&text)),
    };
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

fn exposition(snapshot: &Snapshot, counters: &Counters) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("certvigil");
    certificates(&mut registry, &snapshot.organizations);
    organizations(&mut registry, snapshot);
    outbox(&mut registry, snapshot);
    instances(&mut registry, snapshot);
    counters.register(&mut registry);
    let build =
        Info::new([("version", env!("CARGO_PKG_VERSION")), ("commit", crate::build::COMMIT)]);
    registry.register("build", "Version and commit of the running certvigil", build);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// The instances, with PostgreSQL.
fn instances(registry: &mut Registry, snapshot: &Snapshot) {
    let all = &snapshot.status.instances;
    if all.is_empty() {
        return;
    }
    let instances = Gauges::default();
    for (state, in_force) in [("scanning", true), ("delivering", false)] {
        let count = all.iter().filter(|one| one.there && one.in_force == in_force).count();
        instances.get_or_create(&vec![("state", state.to_owned())]).set(number(count));
    }
    registry.register(
        "instances",
        "Running instances by state; a delivering one has an older configuration and does not scan",
        instances,
    );
}

fn of(overview: &Overview) -> (&'static str, String) {
    ("organization", overview.organization.to_string())
}

fn number(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn certificates(registry: &mut Registry, organizations: &[std::sync::Arc<Overview>]) {
    let (expiry, active, left_out) = (Gauges::default(), Gauges::default(), Gauges::default());
    let by_status = Gauges::default();
    for overview in organizations {
        for row in overview.certificates.iter().take(MAX_CERTIFICATES) {
            let name = row.view.name.as_ref().map_or("", |name| name.as_str());
            let labels = vec![
                of(overview),
                ("certificate", row.view.id.to_string()),
                ("name", name.to_owned()),
            ];
            if let Some(expires_at) = row.view.expires_at {
                expiry.get_or_create(&labels).set(expires_at.timestamp());
            }
            active.get_or_create(&labels).set(number(row.view.active_in.projects_total));
        }
        let more = overview.certificates.len().saturating_sub(MAX_CERTIFICATES);
        left_out.get_or_create(&vec![of(overview)]).set(number(more));
        for status in Status::ALL {
            let count = overview.certificates.iter().filter(|row| row.status == *status).count();
            let labels = vec![of(overview), ("status", status.to_string())];
            by_status.get_or_create(&labels).set(number(count));
        }
    }
    registry.register_with_unit(
        "certificate_expiry_timestamp",
        "Expiry of the certificate",
        Unit::Seconds,
        expiry,
    );
    registry.register(
        "certificate_active_projects",
        "Projects in which the certificate is active, directly or inherited",
        active,
    );
    registry.register("certificates", "Known certificates by state", by_status);
    registry.register(
        "certificates_left_out",
        "Certificates without their own series because there are too many; those that expire \
         first keep theirs",
        left_out,
    );
}

fn organizations(registry: &mut Registry, snapshot: &Snapshot) {
    let (projects, success, credentials) =
        (Gauges::default(), Gauges::default(), Gauges::default());
    for overview in &snapshot.organizations {
        let all = overview.projects.iter();
        let unreadable = all.clone().filter(|row| row.unreadable.is_some()).count();
        let of_coverage = |coverage| all.clone().filter(|row| row.coverage == coverage).count();
        for (state, count) in [
            ("read", overview.projects.len() - unreadable),
            ("unreadable", unreadable),
            ("uncovered", of_coverage(Coverage::Uncovered)),
            ("unprotected", of_coverage(Coverage::Unprotected)),
        ] {
            let labels = vec![of(overview), ("state", state.to_owned())];
            projects.get_or_create(&labels).set(number(count));
        }
        // 0 without a complete scan, so that an alert on its age fires.
        let at = overview.complete_at.map_or(0, |at| at.timestamp());
        success.get_or_create(&vec![of(overview)]).set(at);
        for row in overview.credentials.iter().take(MAX_CERTIFICATES) {
            let labels = vec![
                of(overview),
                ("kind", row.kind.to_string()),
                ("id", row.id.as_ref().map_or(row.kind.to_string(), ToString::to_string)),
                ("own", row.own.to_string()),
            ];
            credentials.get_or_create(&labels).set(row.expires_at.timestamp());
        }
    }
    let blind_after = Gauges::default();
    for (organization, policy) in &snapshot.configured.organizations {
        if let Some(after) = policy.blind_after {
            let labels = vec![("organization", organization.to_string())];
            blind_after.get_or_create(&labels).set(after.num_seconds());
        }
    }
    registry.register_with_unit(
        "monitor_blind_after",
        "Time without a complete scan after which an organization counts as blind \
         (monitoring.blind_after)",
        Unit::Seconds,
        blind_after,
    );
    registry.register(
        "projects",
        "Projects of the latest scan by state: read, unreadable, uncovered (no valid certificate), \
         unprotected (no active certificate)",
        projects,
    );
    registry.register_with_unit(
        "scan_last_success_timestamp",
        "End of the latest complete scan; 0 before the first",
        Unit::Seconds,
        success,
    );
    registry.register_with_unit(
        "credential_expiry_timestamp",
        "Expiry of the watched admin keys and of certvigil's client certificate; own is true for \
         those that certvigil uses",
        Unit::Seconds,
        credentials,
    );
}

fn outbox(registry: &mut Registry, snapshot: &Snapshot) {
    let (pending, oldest, failing) = (Gauges::default(), Gauges::default(), Gauges::default());
    // Removed notifiers have no pending deliveries.
    for notifier in notifier::names(&snapshot.configured.notifiers) {
        let waiting = snapshot.outbox.waiting.iter().find(|one| one.notifier == notifier);
        let age = |since: DateTime<Utc>| (snapshot.at - since).num_seconds().max(0);
        let labels = vec![("notifier", notifier.to_owned())];
        let count = waiting.map_or(0, |one| i64::try_from(one.count).unwrap_or(i64::MAX));
        pending.get_or_create(&labels).set(count);
        oldest.get_or_create(&labels).set(waiting.map_or(0, |one| age(one.since)));
        let failures = snapshot.outbox.failures.iter().filter(|one| one.notifier == notifier);
        failing.get_or_create(&labels).set(number(failures.count()));
    }
    registry.register("outbox_pending", "Pending deliveries", pending);
    registry.register_with_unit(
        "outbox_oldest",
        "Age of the oldest pending delivery",
        Unit::Seconds,
        oldest,
    );
    registry.register(
        "notifier_failing_receivers",
        "Receivers whose latest delivery failed, or that rejected a delivery in the last day",
        failing,
    );
    let confirmed = Gauges::default();
    for (notifier, receiver) in snapshot.configured.drilled.iter().flatten() {
        let mut drilled = snapshot.outbox.drilled.iter();
        let drilled = drilled.find(|one| one.notifier == *notifier && one.receiver == *receiver);
        let at = drilled.and_then(|one| one.confirmed_at).map_or(0, |at| at.timestamp());
        let labels = vec![("notifier", notifier.clone()), ("receiver", receiver.clone())];
        confirmed.get_or_create(&labels).set(at);
    }
    registry.register_with_unit(
        "receiver_last_confirmed_timestamp",
        "Latest confirmation of a drill by the receiver; 0 before the first",
        Unit::Seconds,
        confirmed,
    );
    let new_alerts = Gauges::default();
    let punctuality = snapshot.punctuality;
    for (window, of) in [("3d", punctuality.of_3_days), ("90d", punctuality.of_90_days)] {
        let Punctuality { on_time, total } = of;
        for (result, count) in [("on_time", on_time), ("missed", total - on_time)] {
            let labels = vec![("window", window.to_owned()), ("result", result.to_owned())];
            new_alerts.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
    registry.register(
        "new_alert_deliveries",
        "Deliveries of new alerts that became due in the window, by result: on_time, or missed \
         (late, failed, or still pending)",
        new_alerts,
    );
}

/// Whether the client prefers OpenMetrics (RFC 9110, section 12.5.1).
fn prefers_open_metrics(accept: &str) -> bool {
    let quality = |kind: &str| {
        let wanted = accept.split(',').filter(|one| {
            one.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(kind)
        });
        let q = |one: &str| {
            let given = one.split(';').skip(1).find_map(|parameter| {
                let (name, value) = parameter.split_once('=')?;
                name.trim().eq_ignore_ascii_case("q").then(|| value.trim().parse::<f64>().ok())
            });
            given.flatten().unwrap_or(1.0)
        };
        wanted.map(q).fold(0.0, f64::max)
    };
    let open = quality("application/openmetrics-text");
    open > 0.0 && open >= quality("text/plain")
}

/// Converts OpenMetrics to the older Prometheus format: without units and end marker, and with
/// counters and infos described under the names of their series.
fn prometheus(open_metrics: &str) -> String {
    let mut types: Vec<(&str, &str)> = Vec::new();
    for line in open_metrics.lines() {
        if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            types.push((name, kind));
        }
    }
    let renamed = |name: &str| match types.iter().find(|(known, _)| *known == name) {
        Some((_, "counter")) => format!("{name}_total"),
        Some((_, "info")) => format!("{name}_info"),
        Some(_) | None => name.to_owned(),
    };
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        let described = ["# HELP ", "# TYPE "].into_iter().find_map(|word| {
            let (name, rest) = line.strip_prefix(word)?.split_once(' ')?;
            Some((word, name, rest))
        });
        // Writing to a string cannot fail.
        let _ = match described {
            Some((word @ "# TYPE ", name, "info")) => {
                writeln!(text, "{word}{} gauge", renamed(name))
            }
            Some((word, name, rest)) => writeln!(text, "{word}{} {rest}", renamed(name)),
            None if line.starts_with("# ") => Ok(()),
            None => writeln!(text, "{line}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_format_follows_the_accept_header() {
        let newest = "application/openmetrics-text;version=1.0.0,\
                      application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert!(prefers_open_metrics(newest));
        assert!(prefers_open_metrics("application/openmetrics-text"));
        assert!(!prefers_open_metrics("*/*"));
        assert!(!prefers_open_metrics(""));
        assert!(!prefers_open_metrics("application/openmetrics-text;q=0"));
        assert!(!prefers_open_metrics("text/plain, application/openmetrics-text;q=0.5"));
    }

    #[test]
    fn the_prometheus_format_describes_series_by_their_own_names() {
        let text = prometheus(
            "# HELP a_b Help.\n# TYPE a_b counter\na_b_total{x=\"# y\"} 1\n# HELP c Help.\n# TYPE c info\n\
             c_info{v=\"1\"} 1\n# HELP d_seconds Help.\n# TYPE d_seconds gauge\n# UNIT d_seconds seconds\n\
             d_seconds 5\n# EOF\n",
        );
        assert_eq!(
            text,
            "# HELP a_b_total Help.\n# TYPE a_b_total counter\na_b_total{x=\"# y\"} 1\n# HELP c_info Help.\n\
             # TYPE c_info gauge\nc_info{v=\"1\"} 1\n# HELP d_seconds Help.\n# TYPE d_seconds gauge\nd_seconds 5\n"
        );
    }
}
