//! A notifier as decisions see it: its filters, how it groups alerts, and its ledger. A notifier
//! with owners has one such state for each route.

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

/// The receivers of a notifier that get the same alerts. Each receiver is in one route of a
/// notifier, so that it gets one notification for each organization and scan.
#[derive(Clone, Debug)]
pub struct Route {
    pub routing: Routing,
    pub receivers: Vec<String>,
}

impl Route {
    /// Whether it is the route of a receiver.
    pub fn has(&self, receiver: &str) -> bool {
        self.receivers.iter().any(|one| one == receiver)
    }
}

#[derive(Clone, Debug)]
pub struct NotifierState {
    pub name: String,
    pub routing: Routing,
    pub grouping: Grouping,
    pub ledger: Ledger,
}

/// The names of notifiers, each once; the routes of a notifier are neighbours.
pub fn names(states: &[NotifierState]) -> Vec<&str> {
    let mut names: Vec<&str> = states.iter().map(|state| state.name.as_str()).collect();
    names.dedup();
    names
}

impl NotifierState {
    /// A notifier with an empty ledger.
    pub fn new(name: &str, routing: &Routing, grouping: Grouping) -> NotifierState {
        let (name, routing) = (name.to_owned(), routing.clone());
        NotifierState { name, routing, grouping, ledger: Ledger::default() }
    }

    /// The name of its ledger.
    pub fn ledger_name(&self) -> String {
        self.routing.audience.ledger_of(&self.name)
    }

    /// Its name, with the owners of this route.
    pub fn title(&self) -> String {
        self.routing.audience.title_of(&self.name)
    }

    /// This notifier with an empty ledger.
    pub fn with_empty_ledger(&self) -> NotifierState {
        NotifierState { ledger: Ledger::default(), ..self.clone() }
    }
}
