//! The audit log of the simulated organization.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::world::World;

/// Who changes certificates.
#[derive(Clone, Copy, Debug)]
pub enum Actor<'a> {
    /// A user in the dashboard: id and address.
    Session(&'a str, &'a str),
    /// An admin key of a user: id and address.
    UserKey(&'a str, &'a str),
    /// An admin key of a service account.
    ServiceAccount(&'a str),
    /// An admin key without an owner: its tracking id.
    Key(&'a str),
    None,
}

/// The project under which the API books everything that admin keys do.
pub const DEFAULT_PROJECT: &str = "proj_default";

impl World {
    /// Logs an event as the API does: `kind` is its type, `project` the project in which it happened.
    pub fn log(
        &mut self,
        kind: &str,
        at: DateTime<Utc>,
        actor: Actor<'_>,
        project: Option<&str>,
        certificates: &[&str],
    ) {
        let booked = match actor {
            Actor::Session(..) | Actor::None => project,
            Actor::UserKey(..) | Actor::ServiceAccount(_) | Actor::Key(_) => Some(DEFAULT_PROJECT),
        };
        let user = |id: &str, email: &str| json!({ "id": id, "email": email });
        let key = |kind: &str, field: &str, owner: Value| {
            let api_key = json!({ "id": "key_tracking", "type": kind, field: owner });
            json!({ "type": "api_key", "api_key": api_key })
        };
        let named = |id: &&str| {
            let known = self.certificates.iter().find(|one| one.id == **id);
            json!({ "id": id, "name": known.and_then(|one| one.name.clone()) })
        };
        let named: Vec<Value> = certificates.iter().map(named).collect();
        let details = match kind.starts_with("certificates.") {
            true => json!({ "certificates": named }),
            false => named.into_iter().next().unwrap_or_default(),
        };
        self.logged += 1;
        let event = json!({
            "object": "organization.audit_log",
            "id": format!("audit_log-{:06}", self.logged),
            "type": kind,
            "effective_at": at.timestamp(),
            "project": booked.map(|id| json!({ "id": id, "name": id })),
            "actor": match actor {
                Actor::Session(id, email) => json!({
                    "type": "session",
                    "session": { "user": user(id, email), "ip_address": "203.0.113.7" },
                }),
                Actor::UserKey(id, email) => key("user", "user", user(id, email)),
                Actor::ServiceAccount(id) => {
                    key("service_account", "service_account", json!({ "id": id }))
                }
                Actor::Key(id) => json!({ "type": "api_key", "api_key": { "id": id } }),
                Actor::None => Value::Null,
            },
            kind: details,
        });
        self.audit_log.insert(0, event);
    }
}
