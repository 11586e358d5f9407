//! The reasons of alerts.

use crate::domain::words::words;

words! {
    /// The reason for an alert.
    Reason {
        /// The first alert.
        Opened = "opened",
        /// A tighter stage was entered.
        Stage = "stage",
        /// A repeat is due.
        Repeat = "repeat",
        /// It was ignored until now.
        IgnoreEnded = "ignore_ended",
        /// It was acknowledged until now.
        AckEnded = "ack_ended",
        /// A refresh for a receiver that treats an alert without one as resolved.
        Refresh = "refresh",
        /// An end: another certificate covers every project it was in.
        Replaced = "replaced",
        /// An end: active nowhere now.
        Deactivated = "deactivated",
        /// An end: no list names it any more.
        Deleted = "deleted",
        /// An end: a certificate is active there again.
        Protected = "protected",
        /// Resolved: it expires later than it did at the alert.
        Renewed = "renewed",
        /// An end: all projects that it was active in are archived, or excluded now.
        Archived = "archived",
        /// Resolved: missing data is known now, and healthy.
        Corrected = "corrected",
        /// An end: the thresholds changed, and it is in none now.
        PolicyChanged = "policy_changed",
        /// An end: a rule ignores it now.
        Ignored = "ignored",
        /// An end: it is no longer what this notifier asks for, or the organization is not
        /// configured.
        Unwatched = "unwatched",
    }
}
