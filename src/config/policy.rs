//! `[[thresholds]]`, `[expired]` and `[[rules]]`.

use chrono::TimeDelta;
use chrono_tz::Tz;

use super::{
    Organization,
    check::Checker,
    problem::KeyPath,
    raw,
    value::{Text, Written, one_of, selected, unexpected},
};
use crate::{
    clock::Clock,
    domain::{
        certificate::OrganizationName,
        day::instant,
        owner::Owner,
        policy::{Effect, Ignore, Policy, Rule},
        selection::Globs,
        text::{MAX_REASON, one_line},
        threshold::{ExpiredStep, Ladder, LadderError, Severity, Threshold},
    },
    redact::quoted,
    schedule,
};

/// The policies of all organizations.
#[derive(Clone, Debug)]
pub struct Policies {
    /// The policy of an organization without rules.
    common: Policy,
    rules: Vec<(Globs, Rule)>,
    owners: Vec<(Globs, Owner)>,
}

impl Policies {
    pub fn with_owners(self, owners: Vec<(Globs, Owner)>) -> Policies {
        Policies { owners, ..self }
    }

    /// The policy of an organization.
    pub fn of(&self, organization: &Organization) -> Policy {
        Policy {
            include_inactive: organization.include_inactive,
            client_identity: organization.client_identity.clone(),
            protection: organization.protection.clone(),
            ..self.of_name(&organization.api.organization)
        }
    }

    /// The policy of an organization that may no longer be configured, by its name.
    pub fn of_name(&self, organization: &OrganizationName) -> Policy {
        let its = self
            .rules
            .iter()
            .filter(|(organizations, _)| organizations.matches(organization.as_str(), None));
        let rules = its.map(|(_, rule)| rule.clone()).collect();
        let owners = self.owners.iter();
        let owners = owners.filter(|(of, _)| of.matches(organization.as_str(), None));
        let owners = owners.map(|(_, owner)| owner.clone()).collect();
        Policy { rules, owners, ..self.common.clone() }
    }
}

pub fn check(
    checker: &mut Checker<'_>,
    raw: &raw::Raw,
    timezone: Tz,
    organizations: &[Organization],
    schedule: &schedule::Settings,
) -> Option<Policies> {
    let monitoring = &raw.monitoring;
    let blind_after = blind_after(checker, monitoring, schedule);
    let global = raw.thresholds.as_slice();
    let expired = expired(checker, &KeyPath::of("expired"), &raw.expired);
    let ladder = ladder(checker, &KeyPath::of("thresholds"), global, expired.clone());
    // An invalid global ladder is reported only once.
    let inherited = ladder.is_some().then_some(global);
    let parent = KeyPath::of("rules");
    if raw.rules.as_ref().is_some_and(Vec::is_empty) {
        checker.fault(
            &parent,
            "an empty list",
            "at least one rule; to have no rules, remove the key “rules”",
        );
    }
    let written = raw.rules.as_deref().unwrap_or_default();
    let mut rules = Vec::new();
    let mut hides_the_rest: Option<KeyPath> = None;
    for (index, one) in written.iter().enumerate() {
        let path = parent.index(index);
        let certificates = selected(&one.certificates);
        let projects = selected(&one.projects);
        let of = selected(&one.organizations);
        if !organizations.iter().any(|known| of.matches(known.api.organization.as_str(), None)) {
            checker.warnings.push(format!("{path}: matches no organization, so it has no effect"));
        }
        let effect = match &one.ignore {
            Some(ignore) => ignored(checker, &path, one, ignore, timezone).map(Effect::Ignore),
            None => {
                watched(checker, &path, one, inherited, (&raw.expired, &expired)).map(Effect::Watch)
            }
        };
        let of_all = of.is_all() && certificates.is_all() && projects.is_all();
        if let Some(first) = &hides_the_rest {
            checker
                .warnings
                .push(format!("{path}: never reached; {first} already matches every certificate"));
        } else if of_all && matches!(effect, Some(Effect::Watch(_))) {
            hides_the_rest = Some(path.clone());
        }
        if let Some(effect) = effect {
            rules.push((of, Rule { index, certificates, projects, effect }));
        }
    }
    let whole = rules.len() == written.len();
    let common = Policy {
        replaced_severity: *monitoring.replaced_severity,
        blind_after: Some(blind_after?),
        admin_keys: *monitoring.admin_keys,
        ..Policy::new(ladder?)
    };
    whole.then_some(Policies { common, rules, owners: Vec::new() })
}

/// The default of `blind_after`, unless the schedule has longer gaps.
const BLIND_AFTER: TimeDelta = TimeDelta::hours(24);

/// A value below the longest gap between scans would alert without any failed scan.
fn blind_after(
    checker: &mut Checker<'_>,
    monitoring: &raw::Monitoring,
    schedule: &schedule::Settings,
) -> Option<TimeDelta> {
    let late = TimeDelta::from_std(schedule.scan_timeout + schedule.jitter).ok()?;
    let least = schedule.cron.longest_gap(Clock::System.now()) + late;
    let Some(written) = &monitoring.blind_after else {
        return Some(BLIND_AFTER.max(least));
    };
    let given = written.delta();
    // A refused schedule was replaced by the default one.
    if given < least && !checker.is_rejected(&KeyPath::of("schedule")) {
        let least = humantime::format_duration(least.to_std().unwrap_or_default());
        let expected = format!(
            "at least {least}, the longest gap of the schedule plus jitter and scan_timeout"
        );
        let path = KeyPath::of("monitoring").key("blind_after");
        checker.fault(&path, quoted(&written.text), expected);
        return None;
    }
    Some(given)
}

/// The ladder of a rule; omitted parts are those of the global one.
fn watched(
    checker: &mut Checker<'_>,
    path: &KeyPath,
    rule: &raw::Rule,
    global: Option<&[raw::Threshold]>,
    global_expired: (&raw::Expired, &Option<ExpiredStep>),
) -> Option<Ladder> {
    let (written, global_expired) = global_expired;
    let expired = match (&rule.expired, global_expired) {
        (Some(own), Some(_)) => {
            let severity = own.severity.clone().or_else(|| written.severity.clone());
            let repeat = own.repeat.clone().or_else(|| written.repeat.clone());
            expired(checker, &path.key("expired"), &raw::Expired { severity, repeat })
        }
        // The global value is invalid, and is reported itself.
        (Some(_), None) => None,
        (None, global) => global.clone(),
    };
    match (&rule.thresholds, &rule.expired) {
        (None, None) => {
            checker.missing(path, "thresholds, expired or ignore");
            None
        }
        (Some(own), _) => ladder(checker, &path.key("thresholds"), own, expired),
        (None, Some(_)) => ladder(checker, &path.key("expired"), global?, expired),
    }
}

fn ignored(
    checker: &mut Checker<'_>,
    path: &KeyPath,
    rule: &raw::Rule,
    ignore: &raw::Ignore,
    timezone: Tz,
) -> Option<Ignore> {
    for (key, given) in
        [("thresholds", rule.thresholds.is_some()), ("expired", rule.expired.is_some())]
    {
        if given {
            let expected = "either ignore, or thresholds and expired";
            checker.fault(&path.key(key), format!("{key} and ignore in one rule"), expected);
        }
    }
    let path = path.key("ignore");
    let reason = one_line(ignore.reason.as_deref().unwrap_or_default(), MAX_REASON);
    if reason.is_empty() {
        let found = if ignore.reason.is_some() { "an empty text" } else { "nothing" };
        checker.fault(&path.key("reason"), found, "a text with the reason");
    }
    let Some(until) = &ignore.until else {
        checker.missing(&path.key("until"), DATE);
        return None;
    };
    let Some(until) = instant(&until.text, timezone) else {
        checker.fault(&path.key("until"), quoted(&until.text), DATE);
        return None;
    };
    if until <= Clock::System.now() {
        let when = until.format("%Y-%m-%d %H:%M UTC");
        checker.warnings.push(format!("{path}: ended on {when}, so it ignores nothing now"));
    }
    (!reason.is_empty()).then_some(Ignore { reason, until })
}

const DATE: &str = "a date such as 2027-03-01, or a time such as 2027-03-01T12:00:00Z";

/// A time, or the end of a day in the configured time zone.
#[derive(Clone, Debug)]
pub struct Until;

impl Text for Until {
    const KIND: &'static str = DATE;

    fn parse(text: &str) -> Result<Self, String> {
        instant(text, Tz::UTC).map_or_else(|| unexpected(text, DATE), |_| Ok(Until))
    }
}

fn expired(checker: &mut Checker<'_>, path: &KeyPath, raw: &raw::Expired) -> Option<ExpiredStep> {
    let severity = severity(checker, path, raw.severity.as_ref());
    let repeat = raw.repeat.as_ref().map(|repeat| repeat.delta());
    Some(ExpiredStep { severity: severity?, repeat })
}

fn severity(
    checker: &mut Checker<'_>,
    path: &KeyPath,
    written: Option<&Written<Severity>>,
) -> Option<Severity> {
    if written.is_none() {
        checker.missing(&path.key("severity"), one_of(Severity::ALL));
    }
    written.map(|severity| **severity)
}

/// The ladder of these thresholds. Problems of the whole ladder are reported at `path`.
fn ladder(
    checker: &mut Checker<'_>,
    path: &KeyPath,
    written: &[raw::Threshold],
    expired: Option<ExpiredStep>,
) -> Option<Ladder> {
    let mut thresholds: Vec<Threshold> = Vec::new();
    for (index, step) in written.iter().enumerate() {
        let path = path.index(index);
        if step.within.is_none() {
            checker.missing(
                &path.key("within"),
                "a duration such as \"90d\", or a share such as \"10%\"",
            );
        }
        let severity = severity(checker, &path, step.severity.as_ref());
        let repeat = step.repeat.as_ref().map(|repeat| repeat.delta());
        if let (Some(within), Some(severity)) = (&step.within, severity) {
            let (lead, label) = (**within, within.text.trim().to_owned());
            if thresholds.iter().any(|other| other.lead == lead) {
                checker.warnings.push(format!(
                    "{}: {} appears twice; only the threshold with the higher severity counts",
                    path.key("within"),
                    quoted(&label)
                ));
            }
            thresholds.push(Threshold { lead, label, severity, repeat });
        }
    }
    let whole = thresholds.len() == written.len();
    match Ladder::new(thresholds, expired?) {
        Ok(ladder) => whole.then_some(ladder),
        Err(LadderError::Empty) if !whole => None,
        Err(LadderError::Empty) => {
            checker.fault(path, "an empty list", "at least one threshold");
            None
        }
        Err(LadderError::SeverityFalls((wider, worse), (tighter, milder))) => {
            checker.problem(
                path,
                format!(
                    "severity must not decrease closer to expiry: {wider} is {worse}, {tighter} is \
                     {milder}"
                ),
            );
            None
        }
    }
}
