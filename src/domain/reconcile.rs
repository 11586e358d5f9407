//! Compares the findings with the ledger and decides what to send.
//!
//! The ledger is the only memory of alerts. This one comparison yields first alerts, escalation,
//! repeats, resolution, and the alerts of a new notifier. A second reconcile without a change
//! decides nothing. Stale data resolves nothing: while a list that contains a certificate is
//! unreadable, its end is not believed.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use std::{collections::BTreeSet, sync::OnceLock};

use super::{
    active::Active,
    blindness,
    certificate::{CertificateId, ProjectId, same_expiry},
    coverage,
    credential::WatchedKeys,
    evaluate::{Evaluation, WEEKLY},
    finding::{Finding, RECENT, findings},
    inventory::Inventory,
    ledger::{Ledger, Told},
    listener::{Grain, Listener},
    notification::Reason,
    routing::Routing,
    subject::{ProjectKind, Subject},
    threshold::{Reached, Stage},
};

/// An expired certificate repeats as configured for so long, and then weekly.
const INSISTENT: TimeDelta = TimeDelta::days(7);

/// The decision about one subject for one notifier.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Say it, and keep `told`.
    Tell { subject: Subject, reason: Reason, reached: Reached, told: Told },
    /// Send the resolution, and forget the alert.
    End { subject: Subject, reason: Reason, told: Told },
    /// Send nothing, and store `told`: the ledger had a time after now.
    Note { subject: Subject, told: Told },
    /// Send nothing, and forget nothing: the same alert opened again within a day (flapping).
    Damp { subject: Subject, reached: Reached },
}

impl Decision {
    pub fn subject(&self) -> &Subject {
        match self {
            Decision::Tell { subject, .. }
            | Decision::End { subject, .. }
            | Decision::Note { subject, .. }
            | Decision::Damp { subject, .. } => subject,
        }
    }

    /// Whether a notifier says it.
    pub fn is_said(&self, routing: &Routing) -> bool {
        match self {
            Decision::Tell { .. } => true,
            Decision::End { .. } => routing.send_resolved,
            Decision::Note { .. } | Decision::Damp { .. } => false,
        }
    }
}

/// When the scan is.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub now: DateTime<Utc>,
    /// The scheduled moment that this scan stands for, so that a repeat of six hours is due at each
    /// scan of a six-hourly schedule, however late one of them runs.
    pub tick: DateTime<Utc>,
    /// The zone of the schedule: a day from nine to nine is a day, on both sides of a change to
    /// daylight saving.
    pub timezone: Tz,
    /// When it was decided the last time; `None` where it never was.
    pub decided_at: Option<DateTime<Utc>>,
    /// Whether two clocks agree on `now`, or the system vouches for it. Only then was a later ledger entry wrong.
    pub clock_is_certain: bool,
}

impl Moment {
    /// Whether a repeat is due. Ticks are compared, so that a repeat of six hours is due at each
    /// scan of a six-hourly schedule, however late one of them ran; an alert of a start shortly
    /// before a tick is not repeated at the tick.
    fn is_due(&self, told: &Told, repeat: TimeDelta) -> bool {
        let local = |at: DateTime<Utc>| at.with_timezone(&self.timezone).naive_local();
        let by_the_wall = local(self.tick) - local(told.tick);
        let ticks = by_the_wall.max(self.tick - told.tick);
        let passed = self.now - told.at;
        passed >= repeat || (ticks >= repeat && passed >= repeat / 2)
    }
}

/// What there is to compare: the organization before this scan and after it.
pub enum World<'a> {
    Watched {
        before: &'a Inventory,
        /// The active certificates before the scan; computed only if something ended.
        was_active: OnceLock<Active<'a>>,
        after: &'a Evaluation<'a>,
    },
    /// The organization is no longer configured, which resolves all its alerts.
    Unwatched,
}

impl<'a> World<'a> {
    pub fn watched(before: &'a Inventory, after: &'a Evaluation<'a>) -> World<'a> {
        World::Watched { before, was_active: OnceLock::new(), after }
    }
}

/// Decides the alerts of one notifier.
pub fn reconcile(
    world: &World<'_>,
    routing: &Routing,
    ledger: &Ledger,
    moment: Moment,
) -> Vec<Decision> {
    let findings = match world {
        World::Watched { after, .. } => findings(after, routing),
        World::Unwatched => Vec::new(),
    };
    let ends = |subject: &Subject, told: &Told| end(subject, told, world);
    let mut decisions = compare_all(&findings, ends, ledger, moment);
    for kind in ProjectKind::ALL {
        tell_projects_together(kind, &mut decisions, &findings, ledger, moment);
    }
    decisions
}

/// Compares the findings with the ledger; `end` gives the reason of a resolution, or says that the
/// data is stale.
pub(super) fn compare_all(
    findings: &[Finding],
    end: impl Fn(&Subject, &Told) -> Option<Reason>,
    ledger: &Ledger,
    moment: Moment,
) -> Vec<Decision> {
    let open: BTreeSet<&Subject> = findings.iter().map(|finding| &finding.subject).collect();
    let news = findings.iter().flat_map(|finding| compare(finding, ledger, moment));
    let ends = ledger.open.iter().filter(|(subject, _)| !open.contains(subject)).filter_map(
        |(subject, told)| {
            let subject = subject.clone();
            let reason = end(&subject, told)?;
            let reason = match reason {
                // What a clock that was ahead opened never was. A clock that has gone back without a witness may be
                // wrong itself, and ends nothing.
                Reason::PolicyChanged | Reason::Corrected if told.at > moment.now => {
                    moment.clock_is_certain.then_some(Reason::Corrected)?
                }
                reason => reason,
            };
            Some(Decision::End { subject, reason, told: told.clone() })
        },
    );
    let mut decisions = Vec::with_capacity(findings.len());
    decisions.extend(news.chain(ends));
    decisions
}

/// All uncovered projects are one alert, and so are all unprotected ones: an alert about one of
/// them is sent for all, so that the list is complete and the repeats coincide.
fn tell_projects_together(
    kind: ProjectKind,
    decisions: &mut Vec<Decision>,
    findings: &[Finding],
    ledger: &Ledger,
    moment: Moment,
) {
    let of_project = |subject: &Subject| kind.of(subject).is_some();
    let told: BTreeSet<Subject> = decisions
        .iter()
        .filter(|one| matches!(one, Decision::Tell { .. }) && of_project(one.subject()))
        .map(|one| one.subject().clone())
        .collect();
    if told.is_empty() {
        return;
    }
    // Noted and held-back projects belong to the list, too.
    decisions.retain(|one| {
        let quiet = matches!(one, Decision::Note { .. } | Decision::Damp { .. });
        !(quiet && of_project(one.subject()))
    });
    let rest = findings
        .iter()
        .filter(|one| of_project(&one.subject) && !one.muted && !told.contains(&one.subject));
    decisions.extend(rest.map(|finding| tell(finding, ledger, Reason::Repeat, moment)));
}

/// All open alerts, for a new receiver: the ends of silences do not matter to it.
pub fn all_open(world: &World<'_>, routing: &Routing, moment: Moment) -> Vec<Decision> {
    let mut open = reconcile(world, routing, &Ledger::default(), moment);
    for decision in &mut open {
        if let Decision::Tell { reason, .. } = decision {
            *reason = Reason::Opened;
        }
    }
    open
}

/// Decides the alerts of a listener.
pub fn decide(world: &World<'_>, listener: &Listener, moment: Moment) -> Vec<Decision> {
    let decisions = reconcile(world, &listener.routing, &listener.ledger, moment);
    for_grain(decisions, listener, moment.now)
}

/// Adapts the decisions to the grouping of a listener.
pub(super) fn for_grain(
    decisions: Vec<Decision>,
    listener: &Listener,
    now: DateTime<Utc>,
) -> Vec<Decision> {
    match listener.grain {
        Grain::Digest => lasting(decisions, &listener.ledger, now),
        Grain::EachAlert | Grain::EachAlertKeptUp => {
            for_incidents(decisions, &listener.ledger, now)
        }
    }
}

/// A flapping alert is not resolved in between: it would count as resolved for a day, although its
/// reason is there.
fn lasting(decisions: Vec<Decision>, ledger: &Ledger, now: DateTime<Utc>) -> Vec<Decision> {
    let lasts = |decision: &Decision| match decision {
        Decision::End { subject, told, .. } => !ledger.is_flipping(subject, told, now),
        Decision::Tell { .. } | Decision::Note { .. } | Decision::Damp { .. } => true,
    };
    decisions.into_iter().filter(lasts).collect()
}

/// The same for a service that opens and closes an incident for each subject: an alert that takes the place of a
/// corrected one closes its incident, too.
fn for_incidents(
    mut decisions: Vec<Decision>,
    ledger: &Ledger,
    now: DateTime<Utc>,
) -> Vec<Decision> {
    let told = |one: &Decision| matches!(one, Decision::Tell { .. }).then(|| one.subject().clone());
    let told: BTreeSet<Subject> = decisions.iter().filter_map(told).collect();
    decisions.retain(|one| !matches!(one, Decision::End { subject, .. } if told.contains(subject)));
    lasting(decisions, ledger, now)
}

/// The refreshes: open alerts without a decision now, as they were sent, for receivers that treat
/// an alert without a refresh as resolved. They are sent, and not learnt. Acknowledged and stale
/// ones are among them, because neither is resolved. `ledger` is the one before the decisions.
pub fn keep_up(ledger: &Ledger, decisions: &[Decision]) -> Vec<Decision> {
    let mut after = ledger.clone();
    decisions.iter().for_each(|decision| after.learn(decision));
    let told_now: BTreeSet<&Subject> = decisions
        .iter()
        .filter(|one| matches!(one, Decision::Tell { .. }))
        .map(Decision::subject)
        .collect();
    let open = after.open.into_iter().filter(|(subject, _)| !told_now.contains(subject));
    open.map(|(subject, told)| Decision::Tell {
        subject,
        reason: Reason::Refresh,
        reached: told.reached(),
        told,
    })
    .collect()
}

fn tell(finding: &Finding, ledger: &Ledger, reason: Reason, moment: Moment) -> Decision {
    Decision::Tell {
        subject: finding.subject.clone(),
        reason,
        reached: finding.reached.clone(),
        told: Told::of(finding, ledger, moment),
    }
}

/// The decisions for one finding: at most one, or two where an alert takes the place of a false one.
fn compare(finding: &Finding, ledger: &Ledger, moment: Moment) -> Vec<Decision> {
    if finding.muted {
        return Vec::new();
    }
    let told = ledger.open.get(&finding.subject);
    let last = ledger.latest(&finding.subject);
    let silence = finding
        .silence_ended
        .filter(|(ended, _)| last.is_none_or(|last| last.at < *ended))
        // Where nothing is open, it may never have been silenced for this notifier.
        .filter(|(ended, _)| told.is_some() || moment.now - *ended < RECENT)
        .map(|(_, reason)| reason);
    let mut corrected = None;
    let reason = match told {
        None => silence.unwrap_or(Reason::Opened),
        Some(told) if !same_expiry(told.expires_at, finding.expires_at) => {
            silence.unwrap_or(Reason::Stage)
        }
        Some(told) if finding.reached.stage > told.stage => silence.unwrap_or(Reason::Stage),
        // Within a stage, too: a successor has disappeared, or a rule is stricter.
        Some(told) if finding.reached.severity > told.severity => silence.unwrap_or(Reason::Stage),
        // A clock that was ahead dated it.
        Some(told) if told.at > moment.now => {
            if !moment.clock_is_certain {
                return Vec::new();
            }
            let subject = finding.subject.clone();
            if told.stage == finding.reached.stage {
                let told = Told::of(finding, ledger, moment);
                return vec![Decision::Note { subject, told }];
            }
            let told = told.clone();
            corrected = Some(Decision::End { subject, reason: Reason::Corrected, told });
            Reason::Opened
        }
        Some(told) => match silence {
            Some(reason) => reason,
            None => {
                // What counts is the stage that it is in, also where a calmer ladder took it back there.
                let repeat = repeat(&finding.reached, finding.expires_at, moment.tick);
                let due = repeat.is_some_and(|repeat| moment.is_due(told, repeat));
                return due
                    .then(|| tell(finding, ledger, Reason::Repeat, moment))
                    .into_iter()
                    .collect();
            }
        },
    };
    if silence.is_none() && ledger.was_opened_again(finding, moment.now) {
        let (subject, reached) = (finding.subject.clone(), finding.reached.clone());
        return vec![Decision::Damp { subject, reached }];
    }
    let mut decision = tell(finding, ledger, reason, moment);
    if let Decision::Tell { told, .. } = &mut decision {
        // The end of a silence is not the same opening again.
        told.again = silence.is_none() && ledger.was_told(finding, moment.now);
        told.due_at = Some(ledger.due_at(finding, moment));
    }
    corrected.into_iter().chain([decision]).collect()
}

/// The repeat interval of a stage, for a scan of `tick`.
pub(super) fn repeat(
    reached: &Reached,
    expires_at: Option<DateTime<Utc>>,
    tick: DateTime<Utc>,
) -> Option<TimeDelta> {
    let long_over = reached.stage == Stage::Expired
        && expires_at.is_some_and(|expires_at| tick - expires_at > INSISTENT);
    reached.repeat.map(|repeat| if long_over { repeat.max(WEEKLY) } else { repeat })
}

/// Why an alert is resolved; `None` while its data is stale.
fn end(subject: &Subject, told: &Told, world: &World<'_>) -> Option<Reason> {
    let World::Watched { before, was_active, after } = world else {
        return Some(Reason::Unwatched);
    };
    match subject {
        Subject::Certificate(id) => {
            let was_active = was_active.get_or_init(|| Active::of(before));
            end_of_certificate(id, told, before, was_active, after)
        }
        Subject::Project(id) => end_of_project(id, before, after),
        Subject::Protection(id) => Some(end_of_protection(id, told, after)),
        Subject::Sight => Some(end_of_blindness(told, before, after)),
        Subject::AdminKey(_) | Subject::ClientIdentity => {
            Some(end_of_credential(subject, told, after))
        }
        // It is of no organization.
        Subject::Notifier(_) => Some(Reason::Unwatched),
    }
}

fn end_of_certificate(
    id: &CertificateId,
    told: &Told,
    before: &Inventory,
    was_active: &Active<'_>,
    after: &Evaluation<'_>,
) -> Option<Reason> {
    let assessment = after.assessment(id);
    let assessment = assessment.as_ref();
    let changed = |now| changed(told, now);
    if let Some(assessment) = assessment
        && let Some(reached) = &assessment.reached
    {
        // In a stage, and told no more: ignored, or not this notifier's business.
        let certificate = assessment.certificate;
        return Some(if assessment.ruling.ignored.is_some() {
            Reason::Ignored
        } else if let Some(reason) = changed(certificate.expires_at) {
            reason
        } else if told.stage == Stage::NotYetValid && certificate.has_started(after.now) {
            Reason::Corrected
        } else if reached.severity == told.severity {
            Reason::Unwatched
        } else if assessment.replaced && reached.severity < told.severity {
            // Calm now, and so less than this notifier asks for.
            Reason::Replaced
        } else {
            Reason::PolicyChanged
        });
    }
    if let Some(assessment) = assessment {
        // What only concerns active certificates ends with their being active.
        let of_active = matches!(told.stage, Stage::UnknownExpiry | Stage::NotYetValid);
        if assessment.is_active() || (after.policy.include_inactive && !of_active) {
            return Some(match changed(assessment.certificate.expires_at) {
                Some(reason) => reason,
                None if told.stage == Stage::NotYetValid => Reason::Corrected,
                None => Reason::PolicyChanged,
            });
        }
        if after.is_stale(id) {
            return None;
        }
    }

    let mut was_in = was_active.projects_of(id);
    if was_in.is_empty() {
        // It has been inactive since an earlier scan, that could not read all lists.
        was_in = before.projects_that_list(id).into();
    }
    let still_there: Vec<&ProjectId> = was_in
        .iter()
        .map(|project| &project.id)
        .filter(|project| after.inventory.projects.contains_key(project))
        .collect();
    if !was_in.is_empty() && still_there.is_empty() {
        return Some(Reason::Archived);
    }
    let replaced = !still_there.is_empty()
        && before.certificates.get(id).is_some_and(|gone| {
            let margin = after.policy.ruling(gone, &was_in, &[], after.now).steps.widest();
            still_there.iter().all(|project| {
                let active = after.active_in(project);
                coverage::successor(gone, active, margin, after.now).is_some()
            })
        });
    Some(match (replaced, assessment.is_some()) {
        (true, _) => Reason::Replaced,
        (false, true) => Reason::Deactivated,
        (false, false) => Reason::Deleted,
    })
}

/// The reason of a resolution if the expiry has changed since the alert.
fn changed(told: &Told, now: Option<DateTime<Utc>>) -> Option<Reason> {
    match (told.expires_at, now) {
        (told, now) if same_expiry(told, now) => None,
        (Some(told), Some(now)) if now > told => Some(Reason::Renewed),
        (Some(_) | None, _) => Some(Reason::Corrected),
    }
}

/// The reason of a resolution for an admin key or the client certificate.
fn end_of_credential(subject: &Subject, told: &Told, after: &Evaluation<'_>) -> Reason {
    if let Some(credential) = after.credential(subject) {
        let changed = changed(told, Some(credential.expires_at));
        return changed.unwrap_or(match &credential.reached {
            // It is, and less than this notifier asks for, or not this notifier's business.
            Some(reached) if reached.severity == told.severity => Reason::Unwatched,
            Some(_) | None => Reason::PolicyChanged,
        });
    }
    let keys = after.inventory.admin_keys.as_ref();
    match subject {
        Subject::AdminKey(id) => match keys.and_then(|listed| listed.keys.get(id)) {
            _ if after.policy.admin_keys == WatchedKeys::Off => Reason::Unwatched,
            Some(key) if key.expires_at.is_none() => Reason::Corrected,
            // certvigil uses another one.
            Some(_) => Reason::Replaced,
            None => Reason::Deleted,
        },
        Subject::ClientIdentity
        | Subject::Certificate(_)
        | Subject::Project(_)
        | Subject::Protection(_)
        | Subject::Sight
        | Subject::Notifier(_) => Reason::Unwatched,
    }
}

/// Why certvigil is no longer told to be blind.
fn end_of_blindness(told: &Told, before: &Inventory, after: &Evaluation<'_>) -> Reason {
    let still = |limit| blindness::blind(before, limit, after.now).is_some();
    match after.policy.blind_after {
        // It is, and this notifier does not ask for the organization any more.
        _ if after.blind.is_some() => Reason::Unwatched,
        // The previous inventory would still be in this stage: the list has been read since.
        Some(limit) if still(limit) => Reason::Corrected,
        // It was put off for a day, since it flips: it has been read meanwhile.
        Some(_) if told.again => Reason::Corrected,
        Some(_) | None => Reason::PolicyChanged,
    }
}

/// Why a project is no longer told to be without a valid certificate; `None` while it is not certain that nothing is
/// active there.
fn end_of_project(id: &ProjectId, before: &Inventory, after: &Evaluation<'_>) -> Option<Reason> {
    if !after.inventory.projects.contains_key(id) {
        return Some(Reason::Archived);
    }
    if let Some(uncovered) = after.uncovered(id) {
        return Some(if uncovered.ignored { Reason::Ignored } else { Reason::Unwatched });
    }
    let active = after.active_in(id);
    if active.is_empty() {
        let lost = after.inventory.protection_lost.get(id);
        return lost.is_none_or(|lost| lost.certain).then_some(Reason::Deactivated);
    }
    let was_active = before.active_in_project(id);
    let valid = || active.iter().filter(|certificate| certificate.is_valid(after.now));
    let known = |id: &CertificateId| was_active.iter().find(|was| was.id == *id);
    Some(if valid().any(|one| known(&one.id).is_none()) {
        Reason::Replaced
    } else if valid().any(|one| known(&one.id).is_some_and(|was| was.expires_at < one.expires_at)) {
        Reason::Renewed
    } else {
        Reason::Corrected
    })
}

/// Why a project is no longer told to enforce no mutual TLS.
fn end_of_protection(id: &ProjectId, told: &Told, after: &Evaluation<'_>) -> Reason {
    let Some(project) = after.inventory.projects.get(id) else {
        return Reason::Archived;
    };
    if !after.active_in(id).is_empty() {
        return Reason::Protected;
    }
    match after.unprotected(id) {
        // It is, and less than this notifier asks for.
        Some(one) if one.severity != told.severity => Reason::PolicyChanged,
        Some(_) => Reason::Unwatched,
        None if after.policy.protection.ignored.match_project(project) => Reason::Ignored,
        None => Reason::PolicyChanged,
    }
}

#[cfg(test)]
mod tests;
