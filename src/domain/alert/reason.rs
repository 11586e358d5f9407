//! The reasons of alerts.

use crate::domain::words::words;

words! {
    /// The reason for an alert or a resolution.
    Reason {
        /// The first alert.
        Opened = "opened",
        /// A tighter stage, a higher severity or another expiry.
        Stage = "stage",
        /// A repeat is due.
        Repeat = "repeat",
        /// An ignore rule ended.
        IgnoreEnded = "ignore_ended",
        /// An acknowledgement ended.
        AckEnded = "ack_ended",
        /// A refresh for a receiver that treats silence as resolved.
        Refresh = "refresh",
        /// Resolved: another certificate covers every project.
        Replaced = "replaced",
        /// Resolved: no longer active anywhere, or in no project that the notifier selects.
        Deactivated = "deactivated",
        /// Resolved: no list contains it.
        Deleted = "deleted",
        /// Resolved: a certificate is active again.
        Protected = "protected",
        /// Resolved: it expires later than at the time of the alert.
        Renewed = "renewed",
        /// Resolved: all its projects are archived or excluded.
        Archived = "archived",
        /// Resolved: the data was wrong or missing, and is known now.
        Corrected = "corrected",
        /// Resolved: the configured thresholds or severities changed.
        PolicyChanged = "policy_changed",
        /// Resolved: a rule ignores it.
        Ignored = "ignored",
        /// Resolved: no longer assigned to this owner.
        Reassigned = "reassigned",
        /// Resolved: the notifier no longer selects it, or the organization is not configured.
        Unwatched = "unwatched",
    }
}
