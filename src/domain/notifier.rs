//! A notifier as decisions see it: its filters, how it groups alerts, and its ledger.

use super::{alert::Ledger, routing::Routing};

/// How the alerts of a scan become notifications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grouping {
    /// One notification for all alerts.
    #[default]
    Digest,
    /// One notification for each alert, for services that open and close an incident for each. Such
    /// a notifier has a single receiver.
    EachAlert,
    /// One notification for each alert. Every scan refreshes the open ones, because the receiver
    /// treats silence as resolved.
    EachAlertRefreshed,
}

#[derive(Clone, Debug)]
pub struct NotifierState {
    pub name: String,
    pub routing: Routing,
    pub grouping: Grouping,
    pub ledger: Ledger,
}

impl NotifierState {
    /// A notifier with an empty ledger.
    pub fn new(name: &str, routing: &Routing, grouping: Grouping) -> NotifierState {
        let (name, routing) = (name.to_owned(), routing.clone());
        NotifierState { name, routing, grouping, ledger: Ledger::default() }
    }

    /// This notifier with an empty ledger.
    pub fn with_empty_ledger(&self) -> NotifierState {
        NotifierState { ledger: Ledger::default(), ..self.clone() }
    }
}
