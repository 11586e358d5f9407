//! `[drill]` and `[summary]`: their schedules, and the notifiers that send them.

use chrono::TimeDelta;
use std::collections::BTreeSet;

use super::{Notifiers, check::Checker, problem::KeyPath, raw, value};
use crate::{
    clock::Clock,
    domain::{notifier::Grouping, text::Name},
    redact::quoted,
    usecase::{drill, summary},
};

/// The least and the most time to confirm a drill.
const CONFIRM_WITHIN: [TimeDelta; 2] = [TimeDelta::hours(1), TimeDelta::days(30)];

/// The notifiers that drills and summaries accept.
const KIND: &str = "a configured notifier";
const DIGESTS: &str = "a configured notifier of a service without incidents";

/// The settings of drills; `None` without a schedule, or after a problem.
pub fn drill(
    checker: &mut Checker<'_>,
    raw: &raw::Raw,
    notifiers: &Notifiers,
) -> Option<drill::Settings> {
    let section = KeyPath::of("drill");
    let within = section.key("confirm_within");
    let confirm_within = raw.drill.confirm_within.delta();
    let written = quoted(&raw.drill.confirm_within.text);
    if !(CONFIRM_WITHIN[0]..=CONFIRM_WITHIN[1]).contains(&confirm_within) {
        checker.fault(&within, &written, "a duration from 1h to 30d");
    }
    let all = notifiers.names();
    let named = named(checker, &section, raw.drill.notifiers.as_ref(), (KIND, &all));
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
    let has_links = raw.http.public_url.is_some();
    let notifiers_of_drills = named.unwrap_or_else(|| with_people(notifiers, has_links));
    if notifiers_of_drills.is_empty() && !checker.is_rejected(&KeyPath::of("notifiers")) {
        checker.fault(
            &path,
            "drills, but neither an email notifier nor a chat whose messages have links",
            "an email notifier, http.public_url for chats, or drill.notifiers",
        );
    }
    Some(drill::Settings {
        cron: schedule,
        written: cron.text.clone(),
        confirm_within,
        notifiers: notifiers_of_drills,
    })
}

/// The settings of summaries; `None` without a schedule, or after a problem.
pub fn summary(
    checker: &mut Checker<'_>,
    raw: &raw::Raw,
    notifiers: &Notifiers,
) -> Option<summary::Settings> {
    let section = KeyPath::of("summary");
    let names = notifiers.names();
    let is_digest = |name: &&str| notifiers.grouping(name) == Grouping::Digest;
    let all: Vec<&str> = names.into_iter().filter(is_digest).collect();
    let named = named(checker, &section, raw.summary.notifiers.as_ref(), (DIGESTS, &all));
    let cron = raw.summary.cron.as_ref()?;
    let path = section.key("cron");
    let schedule = cron.in_timezone(*raw.timezone);
    // An hour less, when daylight saving time begins.
    if schedule.has_shorter_gap(Clock::System.now(), TimeDelta::hours(23)) {
        checker.fault(&path, quoted(&cron.text), "at most one summary a day");
    }
    let senders = named.unwrap_or_else(|| with_people(notifiers, true));
    if senders.is_empty() && !checker.is_rejected(&KeyPath::of("notifiers")) {
        checker.fault(
            &path,
            "summaries, but neither an email notifier nor a chat",
            "an email notifier, a chat, or summary.notifiers",
        );
    }
    Some(summary::Settings { cron: schedule, written: cron.text.clone(), notifiers: senders })
}

/// The names in `notifiers`, each of which must be one of `all`; `None` if the key is omitted.
fn named(
    checker: &mut Checker<'_>,
    section: &KeyPath,
    names: Option<&value::List<Name>>,
    (kind, all): (&str, &[&str]),
) -> Option<BTreeSet<String>> {
    let path = section.key("notifiers");
    let names: BTreeSet<String> = names?.0.iter().map(|name| name.text.clone()).collect();
    if names.is_empty() {
        let expected = "at least one name; to have the default notifiers, remove the key";
        checker.fault(&path, "an empty list", expected);
    }
    for name in names.iter().filter(|name| !all.contains(&name.as_str())) {
        let expected = match all {
            [] => format!("the name of {kind}"),
            names => format!("{kind}: {}", names.join(", ")),
        };
        checker.fault(&path, quoted(name), expected);
    }
    Some(names)
}

/// The notifiers whose messages people read: email, and chats if `chats`.
fn with_people(notifiers: &Notifiers, chats: bool) -> BTreeSet<String> {
    let email = notifiers.email.iter().map(|one| &one.name);
    let chats = notifiers.webhook.iter().filter(|one| chats && one.format.is_chat());
    email.chain(chats.map(|one| &one.name)).cloned().collect()
}
