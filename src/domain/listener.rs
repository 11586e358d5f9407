//! A notifier as decisions see it: its filters, how it groups alerts, and its ledger.

use super::{alert::Ledger, routing::Routing};

/// How a notifier wants what a scan has to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grain {
    /// All of it in one message.
    #[default]
    Digest,
    /// One message for each alert, for services that open and close an incident for each. It is for
    /// notifiers with a single receiver.
    EachAlert,
    /// One notification for each alert, and every scan refreshes the open ones: the receiver treats
    /// an alert that is not refreshed as resolved.
    EachAlertKeptUp,
}

#[derive(Clone, Debug)]
pub struct Listener {
    pub name: String,
    pub routing: Routing,
    pub grain: Grain,
    pub ledger: Ledger,
}

impl Listener {
    /// A listener with an empty ledger.
    pub fn new(name: &str, routing: &Routing, grain: Grain) -> Listener {
        let (name, routing) = (name.to_owned(), routing.clone());
        Listener { name, routing, grain, ledger: Ledger::default() }
    }

    /// The same with nothing told yet.
    pub fn afresh(&self) -> Listener {
        Listener { ledger: Ledger::default(), ..self.clone() }
    }
}
