//! The log lines of a scan.

use crate::usecase::scan::{self, PartError, Report};

pub fn log_scan(report: &Report) {
    /// The number of logged errors; the first ones show the cause.
    const LOGGED: usize = 3;
    let record = &report.record;
    let seconds = (record.finished_at - record.started_at).as_seconds_f64();
    let (organization, scan) = (&record.organization, record.id);
    tracing::info!(
        %organization, %scan, complete = record.complete, projects_read = record.projects_read,
        projects_unreadable = record.projects_unreadable, certificates = record.certificates,
        requests = record.requests, seconds, notifications = report.notifications, "scan finished"
    );
    for fault in record.faults.iter().take(LOGGED) {
        tracing::warn!(%organization, %scan, error = %fault, "list unreadable");
    }
    if record.faults.len() > LOGGED {
        tracing::warn!(
            %organization, %scan, projects = record.projects_unreadable,
            "more lists unreadable: certificates in them may expire unnoticed"
        );
    }
    let parts = [
        (&report.admin_keys_fault, "cannot watch the expiry of the admin key in use"),
        (
            &report.audit_log_error,
            "cannot read the audit log completely: some changes are shown without the person or \
             key behind them",
        ),
    ];
    for (error, what) in parts {
        // Logged once. A key without the permission is normal; any other error is a warning.
        match error {
            Some(PartError { why, refused: true }) => {
                tracing::info!(%organization, error = %why, "{what}");
            }
            Some(PartError { why, refused: false }) => {
                tracing::warn!(%organization, error = %why, "{what}");
            }
            None => {}
        }
    }
    if let Some(why) = &report.content_refused {
        tracing::info!(
            %organization, error = %why,
            "the admin key cannot read the content of certificates: their own dates, keys and \
             issuers are not checked (disable with api.certificate_content = false)"
        );
    }
    if let Some(skew) = report.ignored_skew {
        tracing::warn!(
            %organization, %scan, skew_seconds = skew.num_seconds(),
            "implausible clock skew: using the clock of this host, not the API's"
        );
    }
    if let Some(skew) = record.clock_skew {
        scan::log_clock_skew(organization, skew);
    }
}
