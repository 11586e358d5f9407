//! The jobs that one instance does for all from time to time: drills, summaries, and checks of the
//! notifiers.

use chrono::{DateTime, TimeDelta, Utc};
use std::{collections::BTreeSet, sync::Arc};

use super::{Failed, drill, summary, watch_notifiers};
use crate::{
    notify::Notifier,
    store::{Lease, Store},
};

#[derive(Clone, Debug)]
pub struct Jobs {
    /// `None` if drills are off.
    pub drill: Option<drill::Settings>,
    /// `None` if summaries are off.
    pub summary: Option<summary::Settings>,
    pub watched: summary::Watched,
    pub give_up_after: TimeDelta,
}

/// The results. A job that fails does not stop the others.
#[derive(Debug)]
pub struct Report {
    pub drill: Result<drill::Report, Failed>,
    /// Number of summaries in the outbox.
    pub summaries: Result<usize, Failed>,
    pub notifiers: Result<watch_notifiers::Report, Failed>,
}

impl Jobs {
    /// Runs the due jobs. `started_at` is the start of this process.
    pub async fn run_once(
        &self,
        store: &Store,
        notifiers: &[Arc<dyn Notifier>],
        started_at: DateTime<Utc>,
        lease: Lease,
        now: DateTime<Utc>,
    ) -> Report {
        let Jobs { drill, summary, watched, give_up_after } = self;
        let (drill, limit) = (drill.as_ref(), *give_up_after);
        let drilled = drill::run_once(store, notifiers, drill, limit, &lease, now).await;
        let summary = summary.as_ref();
        let summaries =
            summary::run_once(store, notifiers, summary, watched, limit, &lease, now).await;
        let with_drills = drill.map_or_else(BTreeSet::new, |drill| drill.notifiers.clone());
        let checked = watch_notifiers::run_once(
            store,
            notifiers,
            &with_drills,
            limit,
            started_at,
            lease,
            now,
        );
        Report { drill: drilled, summaries, notifiers: checked.await }
    }
}

impl Report {
    /// Whether there are new messages in the outbox.
    pub fn has_messages(&self) -> bool {
        self.drill.as_ref().is_ok_and(|report| *report != drill::Report::default())
            || self.summaries.as_ref().is_ok_and(|messages| *messages > 0)
            || self.notifiers.as_ref().is_ok_and(|report| report.notifications > 0)
    }
}
