//! What is, against what was told: what to say now.
//!
//! The ledger is the only memory of alerts. Comparing it with how things stand gives first alerts,
//! escalation, repeats, resolution and a notifier that was added later, without a special case. A
//! second reconcile with nothing new says nothing. Nothing is resolved on hearsay: while a list that
//! names a certificate could not be read, its end is not believed.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::{
    certificate::CertificateId,
    coverage,
    evaluate::{Assessment, Policy},
    inventory::Inventory,
    notification::Reason,
    text::Name,
    threshold::{Reached, Severity, Stage},
};

/// An expired certificate repeats as configured for so long, and then weekly.
const INSISTENT: TimeDelta = TimeDelta::days(7);
const WEEKLY: TimeDelta = TimeDelta::days(7);

/// The last thing that one notifier was told of one certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub stage: Stage,
    pub label: String,
    pub severity: Severity,
    pub expires_at: Option<DateTime<Utc>>,
    /// The name of that time, for the message that it is over.
    pub name: Option<Name>,
    pub at: DateTime<Utc>,
    /// The scheduled moment of the scan that told it; repeats are counted from there.
    pub tick: DateTime<Utc>,
}

/// What one notifier was told of the certificates of one organization and is not over.
pub type Ledger = BTreeMap<CertificateId, Told>;

/// What is to be done about one certificate, for one notifier.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Say it, and keep `told`.
    Tell { id: CertificateId, reason: Reason, reached: Reached, told: Told },
    /// Say that it is over, and forget it.
    End { id: CertificateId, reason: Reason, told: Told },
    /// Say nothing, and keep `told`: the ledger was dated after now.
    Note { id: CertificateId, told: Told },
    /// Say nothing, and forget what was told: the ledger was dated after now, and there is nothing now.
    Forget { id: CertificateId },
}

impl Decision {
    pub fn id(&self) -> &CertificateId {
        match self {
            Decision::Tell { id, .. }
            | Decision::End { id, .. }
            | Decision::Note { id, .. }
            | Decision::Forget { id } => id,
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
}

impl Moment {
    /// Whether something that was told is to be told again. Ticks are compared, so that a repeat of six
    /// hours is due at each scan of a six-hourly schedule, however late one of them ran; but what a
    /// start told shortly before a tick is not repeated at it.
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
        after: &'a Inventory,
        policy: &'a Policy,
    },
    /// The organization is no longer configured; that ends everything that was told of it.
    Unwatched,
}

/// Decides what one notifier is to be told.
pub fn reconcile(
    assessments: &[Assessment<'_>],
    ledger: &Ledger,
    world: &World<'_>,
    moment: Moment,
) -> Vec<Decision> {
    let open: BTreeMap<&CertificateId, (&Assessment<'_>, &Reached)> = assessments
        .iter()
        .filter_map(|one| one.reached.as_ref().map(|reached| (&one.certificate.id, (one, reached))))
        .collect();
    let news = open.iter().filter_map(|(id, (assessment, reached))| {
        compare(ledger.get(id), assessment, reached, moment)
    });
    let ends = ledger.iter().filter(|(id, _)| !open.contains_key(id)).filter_map(|(id, told)| {
        let reason = end(id, told, world)?;
        // It is not over: by a clock that was set back, or is right again, it never was.
        if told.at > moment.now && matches!(reason, Reason::PolicyChanged | Reason::Corrected) {
            return Some(Decision::Forget { id: id.clone() });
        }
        Some(Decision::End { id: id.clone(), reason, told: told.clone() })
    });
    news.chain(ends).collect()
}

fn compare(
    told: Option<&Told>,
    assessment: &Assessment<'_>,
    reached: &Reached,
    moment: Moment,
) -> Option<Decision> {
    let certificate = assessment.certificate;
    let id = certificate.id.clone();
    let now_told = Told {
        stage: reached.stage,
        label: reached.label.clone(),
        severity: reached.severity,
        expires_at: certificate.expires_at,
        name: certificate.name.clone(),
        at: moment.now,
        tick: moment.tick,
    };
    let tell = |reason| {
        let (reached, told) = (reached.clone(), now_told.clone());
        Some(Decision::Tell { id: id.clone(), reason, reached, told })
    };
    let Some(told) = told else {
        return tell(Reason::Opened);
    };
    if told.expires_at != certificate.expires_at || reached.stage > told.stage {
        return tell(Reason::Stage);
    }
    if told.at > moment.now {
        return Some(Decision::Note { id, told: now_told });
    }
    let due = reached.stage == told.stage
        && repeat(reached, certificate.expires_at, moment.now)
            .is_some_and(|repeat| moment.is_due(told, repeat));
    if due { tell(Reason::Repeat) } else { None }
}

fn repeat(
    reached: &Reached,
    expires_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Option<TimeDelta> {
    let long_over = expires_at.is_some_and(|expires_at| now - expires_at > INSISTENT);
    reached.repeat.map(|repeat| if long_over { repeat.max(WEEKLY) } else { repeat })
}

/// Why something that was told is over; `None` while that is only hearsay.
fn end(id: &CertificateId, told: &Told, world: &World<'_>) -> Option<Reason> {
    let World::Watched { before, after, policy } = world else {
        return Some(Reason::Unwatched);
    };
    if let Some(certificate) = after.certificates.get(id) {
        let active = after.active_in_organization(id) || !after.projects_of(id).is_empty();
        // What only concerns active certificates ends with their being active.
        let of_active = matches!(told.stage, Stage::UnknownExpiry | Stage::NotYetValid);
        if active || (policy.include_inactive && !of_active) {
            let reason = match (told.expires_at, certificate.expires_at) {
                (Some(told), Some(now)) if now > told => Reason::Renewed,
                (told, now) if told != now => Reason::Corrected,
                _ if told.stage == Stage::NotYetValid => Reason::Corrected,
                _ => Reason::PolicyChanged,
            };
            return Some(reason);
        }
        if after.is_hearsay(id) {
            return None;
        }
    }

    let was_in: Vec<_> = before.projects_of(id).into_iter().map(|project| &project.id).collect();
    let mut still_there =
        was_in.iter().filter(|project| after.projects.contains_key(project)).peekable();
    if !was_in.is_empty() && still_there.peek().is_none() {
        return Some(Reason::Archived);
    }
    let replaced = still_there.peek().is_some()
        && before.certificates.get(id).is_some_and(|gone| {
            still_there.all(|project| {
                let active = after.active_in_project(project);
                coverage::successor(gone, &active, policy.ladder.widest()).is_some()
            })
        });
    Some(match (replaced, after.certificates.contains_key(id)) {
        (true, _) => Reason::Replaced,
        (false, true) => Reason::Deactivated,
        (false, false) => Reason::Deleted,
    })
}

#[cfg(test)]
mod tests;
