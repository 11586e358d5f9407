//! One notifier, as far as it decides what there is to say: its filters, how it wants to be told, and what
//! it was told so far.

use super::{ledger::Ledger, routing::Routing};

/// How a notifier wants what a scan has to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grain {
    /// All of it in one message.
    #[default]
    Digest,
    /// One message for each alert, for services that open and close an incident for each. It is for
    /// notifiers with a single receiver.
    EachAlert,
    /// The same; and what is still open is said again by every scan, since what is not counts as over.
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
    /// One that has been told nothing yet.
    pub fn new(name: &str, routing: &Routing, grain: Grain) -> Listener {
        let (name, routing) = (name.to_owned(), routing.clone());
        Listener { name, routing, grain, ledger: Ledger::default() }
    }

    /// The same with nothing told yet.
    pub fn afresh(&self) -> Listener {
        Listener { ledger: Ledger::default(), ..self.clone() }
    }
}
