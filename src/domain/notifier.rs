//! A notifier as decisions see it: its filters, how it groups alerts, and its ledger.

use super::{alert::Ledger, routing::Routing};

/// How a notifier wants what a scan has to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grouping {
    /// All of it in one message.
    #[default]
    Digest,
    /// One message for each alert, for services that open and close an incident for each. It is for
    /// notifiers with a single receiver.
    EachAlert,
    /// One notification for each alert, and every scan refreshes the open ones: the receiver treats
    /// an alert that is not refreshed as resolved.
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

    /// The same with nothing told yet.
    pub fn afresh(&self) -> NotifierState {
        NotifierState { ledger: Ledger::default(), ..self.clone() }
    }
}
