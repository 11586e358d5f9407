//! Alerts about certvigil itself: unreadable lists, expiring credentials, failing notifiers,
//! drills, and receivers that do not confirm them.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use super::{
    Answer, Entry, List, ListItem,
    facts::{capitalized, instant, reason},
};
use crate::{
    domain::credential::CredentialKind,
    message::{
        Alert, CredentialView, DrillView, FailingView, ReceiverView, SightView,
        UnprovenReceiverView, UnprovenView, UnseenView, wording,
    },
};

impl Entry {
    pub(super) fn describe_sight(
        &mut self,
        alert: &Alert,
        sight: &SightView,
        shown: usize,
        timezone: Tz,
    ) {
        if alert.event.is_resolution() {
            return;
        }
        self.consequence = Some(match sight.projects {
            0 => "certificates may expire unnoticed".to_owned(),
            n => format!("certificates in {} may expire unnoticed", wording::count(n, "project")),
        });
        if let Some(why) = reason(alert) {
            self.facts.push(("Reason", why));
        }
        if let Some(longest) = sight.unseen.first() {
            self.facts.push(("Unreadable since", instant(longest.since, timezone)));
            self.facts.push(("Last error", longest.why.clone()));
        }
        let item = |unseen: &UnseenView| ListItem {
            name: capitalized(&unseen.list),
            state: format!("since {}: {}", wording::day(unseen.since), unseen.why),
        };
        let title = wording::count(sight.total, "unreadable list");
        self.lists.push(List::new(title, sight.total, shown, sight.unseen.iter().map(item)));
        let steps = [
            "Fix the cause that the error names. A timeout or a failed connection points to the network or a proxy.",
            "Run certvigil check: it reads everything once and sends nothing.",
            "Until the lists can be read again, check their certificates by hand.",
        ];
        self.advice = steps.map(str::to_owned).to_vec();
    }

    pub(super) fn describe_credential(
        &mut self,
        alert: &Alert,
        credential: &CredentialView,
        timezone: Tz,
        now: DateTime<Utc>,
    ) {
        let over = alert.event.is_resolution();
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
        if let Some(why) = reason(alert) {
            self.facts.push(("Reason", why));
        }
        if over {
            return;
        }
        let from = match credential.expires_at {
            Some(at) if at > now => format!("from {} on", wording::day(at)),
            Some(_) | None => "now".to_owned(),
        };
        self.consequence = Some(if credential.own {
            format!("certvigil cannot read the API {from}: certificates may expire unnoticed")
        } else {
            format!("the API rejects this key {from}")
        });
        let steps: &[&str] = match (of_key, credential.own) {
            (true, true) => &[
                "Create an admin key with the scopes api.mtls.read and api.management.read.",
                "Store the new key where admin_key in the configuration points. Reload certvigil \
                 (SIGHUP), or restart it if the key is an environment variable or a systemd \
                 credential.",
                "Run certvigil check, and delete the old key.",
            ],
            (true, false) => {
                &["Find out who uses this key, and replace it. With monitoring.admin_keys = \
                 \"own\", certvigil watches only its \
                 own key."]
            }
            (false, _) => &[
                "Issue a new client certificate for certvigil that chains to an active trust \
                 anchor.",
                "Store the new certificate and its private key where client_identity in the \
                 configuration points.",
                "Reload certvigil (SIGHUP), and run certvigil check.",
            ],
        };
        self.advice = steps.iter().map(|step| (*step).to_owned()).collect();
    }

    pub(super) fn describe_failing(
        &mut self,
        alert: &Alert,
        failing: &FailingView,
        shown: usize,
        timezone: Tz,
    ) {
        self.facts.push(("Notifier", failing.notifier.clone()));
        if alert.event.is_resolution() {
            return;
        }
        self.consequence = Some("alerts do not reach its receivers".to_owned());
        if let Some(why) = reason(alert) {
            self.facts.push(("Reason", why));
        }
        if let Some(longest) = failing.receivers.first() {
            self.facts.push(("Failing since", instant(longest.since, timezone)));
            self.facts.push(("Last error", longest.why.clone()));
        }
        let item = |one: &ReceiverView| {
            let how = if one.refused { "rejected, " } else { "" };
            let state = format!("{how}since {}: {}", wording::day(one.since), one.why);
            ListItem { name: one.receiver.clone(), state }
        };
        let title = wording::count(failing.total, "receiver");
        self.lists.push(List::new(title, failing.total, shown, failing.receivers.iter().map(item)));
        let steps = [
            format!(
                "Fix the cause that the error names, then run certvigil notify test {}.",
                failing.notifier
            ),
            "To list failed deliveries, run certvigil deliveries --failed. certvigil retries \
             pending deliveries, and the next scan sends rejected alerts again. If only some \
             recipients were rejected, run certvigil deliveries retry ID."
                .to_owned(),
        ];
        self.advice = steps.to_vec();
    }

    pub(super) fn describe_unproven(
        &mut self,
        alert: &Alert,
        unproven: &UnprovenView,
        shown: usize,
        timezone: Tz,
    ) {
        self.facts.push(("Notifier", unproven.notifier.clone()));
        if alert.event.is_resolution() {
            return;
        }
        self.consequence = Some("alerts to them may not reach a person".to_owned());
        if let Some(why) = reason(alert) {
            self.facts.push(("Reason", why));
        }
        if let Some(longest) = unproven.receivers.first() {
            self.facts.push(("Drill", instant(longest.drill_at, timezone)));
            self.facts.push(("Confirm by", instant(longest.confirm_by, timezone)));
        }
        let item = |one: &UnprovenReceiverView| {
            let confirmed = match one.confirmed_at {
                Some(at) => format!("last confirmed on {}", wording::day(at)),
                None => "never confirmed".to_owned(),
            };
            let state = format!("{confirmed}, drill of {}", wording::day(one.drill_at));
            ListItem { name: one.receiver.clone(), state }
        };
        let (title, total) = (wording::count(unproven.total, "receiver"), unproven.total);
        self.lists.push(List::new(title, total, shown, unproven.receivers.iter().map(item)));
        let steps = [
            "Ask the people behind these receivers whether the drill arrived. If it did, they \
             confirm it with its link or command, even now.",
            "If it did not arrive, look in spam folders and filters, and check that somebody reads \
             this mailbox or channel.",
            "After a correction, run certvigil drill start to send another drill.",
        ];
        self.advice = steps.map(str::to_owned).to_vec();
    }

    pub(super) fn describe_drill(&mut self, alert: &Alert, drill: &DrillView, timezone: Tz) {
        if alert.event.is_resolution() {
            return;
        }
        self.consequence = Some("this is a drill: no certificate is affected".to_owned());
        self.facts.push(("Confirm by", instant(drill.confirm_by, timezone)));
        self.advice = vec![
            "Confirm, to show that alerts reach a person here. One confirmation is enough. If \
             nobody confirms in time, other receivers get an alert about this one."
                .to_owned(),
        ];
        let id = alert.link.as_deref().unwrap_or("ID");
        let command = format!("certvigil drill confirm {id}");
        self.answer = Some(Answer::Confirm { command, link: None });
    }
}
