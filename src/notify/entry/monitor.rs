//! What certvigil says of itself, in words: what it cannot see, what it reads with and when that ends, and who
//! cannot be told.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use super::{
    Entry, ProjectLine,
    facts::{capitalized, instant, told_because},
};
use crate::domain::{
    notification::{Alert, CredentialKind, CredentialView, FailingView, SightView},
    wording,
};

impl Entry {
    pub(super) fn tell_sight(
        &mut self,
        alert: &Alert,
        sight: &SightView,
        shown: usize,
        timezone: Tz,
    ) {
        if alert.event.is_end() {
            return;
        }
        self.consequence = Some(match sight.projects {
            0 => "certificates may expire unseen".to_owned(),
            n => format!("certificates of {} may expire unseen", wording::count(n, "project")),
        });
        if let Some(why) = told_because(alert) {
            self.facts.push(("Told because", why));
        }
        if let Some(longest) = sight.unseen.first() {
            self.facts.push(("Unseen since", instant(longest.since, timezone)));
            self.facts.push(("Last error", longest.why.clone()));
        }
        self.projects_label = format!("{} not read", wording::count(sight.total, "list"));
        for unseen in sight.unseen.iter().take(shown) {
            let state = format!("since {}: {}", wording::day(unseen.since), unseen.why);
            self.projects.push(ProjectLine { name: capitalized(&unseen.list), state });
        }
        self.more_projects = sight.total.saturating_sub(self.projects.len());
        let steps = [
            "Mend what the error says. A 401 means that the admin key is wrong or has expired, a 403 that it \
             may not read this; a timeout or a failed connection is about the network, or a proxy.",
            "Run certvigil check: it shows what can be read, and sends nothing.",
            "Until then, look at the certificates of these projects by hand.",
        ];
        self.advice = steps.map(str::to_owned).to_vec();
    }

    pub(super) fn tell_credential(
        &mut self,
        alert: &Alert,
        credential: &CredentialView,
        timezone: Tz,
        now: DateTime<Utc>,
    ) {
        let over = alert.event.is_end();
        let of_key = credential.kind == CredentialKind::AdminKey;
        if let Some(name) = &credential.name {
            self.facts.push(("Admin key", name.as_str().to_owned()));
        }
        if let Some(id) = &credential.id {
            self.facts.push(("Id", id.to_string()));
        }
        if let Some(expires_at) = credential.expires_at {
            let when = instant(expires_at, timezone);
            self.when = Some(when.clone());
            self.facts.push((if expires_at <= now { "Expired" } else { "Expires" }, when));
        }
        if let Some(why) = told_because(alert) {
            self.facts.push(("Told because", why));
        }
        if over {
            return;
        }
        let from = match credential.expires_at {
            Some(at) if at > now => format!("from {} on", wording::day(at)),
            Some(_) | None => "now".to_owned(),
        };
        self.consequence = Some(if credential.own {
            format!("certvigil is blind {from}: certificates may expire unseen")
        } else {
            format!("whatever uses this key is refused {from}")
        });
        let steps: &[&str] = match (of_key, credential.own) {
            (true, true) => &[
                "Make a new admin key that may read projects and certificates.",
                "Put it where admin_key of the organization is read from. From a file it is read again by \
                 itself once the old one is refused, and on a reload (SIGHUP); a credential of systemd on a restart.",
                "Run certvigil check, and delete the old key.",
            ],
            (true, false) => &[
                "Find out who uses it, and give them a new one. monitoring.admin_keys = \"own\" watches \
                 only what certvigil uses itself.",
            ],
            (false, _) => &[
                "Issue a new client certificate for certvigil, under a CA certificate that is active.",
                "Put it and its key where client_identity of the organization says.",
                "Reload certvigil (SIGHUP), and run certvigil check.",
            ],
        };
        self.advice = steps.iter().map(|step| (*step).to_owned()).collect();
    }

    pub(super) fn tell_failing(
        &mut self,
        alert: &Alert,
        failing: &FailingView,
        shown: usize,
        timezone: Tz,
    ) {
        self.facts.push(("Notifier", failing.notifier.clone()));
        if alert.event.is_end() {
            return;
        }
        self.consequence = Some("whoever it tells misses alerts".to_owned());
        if let Some(why) = told_because(alert) {
            self.facts.push(("Told because", why));
        }
        if let Some(longest) = failing.receivers.first() {
            self.facts.push(("Failing since", instant(longest.since, timezone)));
            self.facts.push(("Last error", longest.why.clone()));
        }
        self.projects_label = wording::count(failing.total, "receiver");
        for receiver in failing.receivers.iter().take(shown) {
            let how = if receiver.refused { "refused for good, " } else { "" };
            let state = format!("{how}since {}: {}", wording::day(receiver.since), receiver.why);
            self.projects.push(ProjectLine { name: receiver.receiver.clone(), state });
        }
        self.more_projects = failing.total.saturating_sub(self.projects.len());
        let steps = [
            format!("Mend what the error says, and try it: certvigil notify test {}", failing.notifier),
            "certvigil deliveries --failed lists what did not arrive. What waits is tried again by itself; \
             what was refused as a whole is told anew by the next scan, and what one of several recipients \
             refused by certvigil deliveries retry ID."
                .to_owned(),
        ];
        self.advice = steps.to_vec();
    }
}
