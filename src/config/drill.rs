//! `[drill]`: the schedule of drills, and the notifiers that have them.

use chrono::TimeDelta;
use std::collections::BTreeSet;

use super::{Notifiers, check::Checker, problem::KeyPath, raw};
use crate::{clock::Clock, redact::quoted, usecase::drill::Settings};

/// The least and the most time to confirm a drill.
const CONFIRM_WITHIN: [TimeDelta; 2] = [TimeDelta::hours(1), TimeDelta::days(30)];

/// The settings of drills; `None` without a schedule, or after a problem.
pub fn check(checker: &mut Checker<'_>, raw: &raw::Raw, notifiers: &Notifiers) -> Option<Settings> {
    let section = KeyPath::of("drill");
    let within = section.key("confirm_within");
    let confirm_within = raw.drill.confirm_within.delta();
    let written = quoted(&raw.drill.confirm_within.text);
    if !(CONFIRM_WITHIN[0]..=CONFIRM_WITHIN[1]).contains(&confirm_within) {
        checker.fault(&within, &written, "a duration from 1h to 30d");
    }
    let named = raw.drill.notifiers.as_ref();
    let named: Option<BTreeSet<String>> =
        named.map(|names| names.0.iter().map(|name| name.text.clone()).collect());
    let path = section.key("notifiers");
    if named.as_ref().is_some_and(BTreeSet::is_empty) {
        let expected = "at least one name; to have the default notifiers, remove the key";
        checker.fault(&path, "an empty list", expected);
    }
    let all = notifiers.names();
    for name in named.iter().flatten().filter(|name| !all.contains(&name.as_str())) {
        let expected = match all.as_slice() {
            [] => "the name of a notifier".to_owned(),
            names => format!("a configured notifier: {}", names.join(", ")),
        };
        checker.fault(&path, quoted(name), expected);
    }
    let cron = raw.drill.cron.as_ref()?;
    let path = section.key("cron");
    let schedule = cron.in_timezone(*raw.timezone);
    // A week or a day can be an hour shorter when daylight saving time begins.
    if schedule.has_shorter_gap(Clock::System.now(), confirm_within - TimeDelta::hours(1)) {
        let expected = format!(
            "drills at least {} apart (drill.confirm_within): each must be confirmed before the next",
            raw.drill.confirm_within.text
        );
        checker.fault(&path, quoted(&cron.text), expected);
    }
    let notifiers = named.unwrap_or_else(|| with_people(notifiers, raw.http.public_url.is_some()));
    if notifiers.is_empty() && !checker.is_rejected(&KeyPath::of("notifiers")) {
        checker.fault(
            &path,
            "drills, but neither an email notifier nor a chat whose messages have links",
            "an email notifier, http.public_url for chats, or drill.notifiers",
        );
    }
    Some(Settings { cron: schedule, written: cron.text.clone(), confirm_within, notifiers })
}

/// The notifiers whose messages people read: email, and chats if their messages have links.
fn with_people(notifiers: &Notifiers, has_links: bool) -> BTreeSet<String> {
    let email = notifiers.email.iter().map(|one| &one.name);
    let chats = notifiers.webhook.iter().filter(|one| has_links && one.format.is_chat());
    email.chain(chats.map(|one| &one.name)).cloned().collect()
}
