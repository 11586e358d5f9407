//! The schedule of scans: a cron expression in a time zone. The last saved scheduled time decides
//! which scan is due.
//!
//! Guarantees: scans keep their hour across daylight saving changes; missed scheduled times
//! (downtime, suspend, a long scan) cause one late scan; setting the clock back does not stop the
//! schedule. The scheduler only provides a tick each second; due scans are computed here.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds, Year};
use std::time::Duration;
use tokio::sync::watch;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use crate::domain::{punctuality::MARGIN, scan::ScanRecord};

#[derive(Clone, Debug)]
pub struct Settings {
    pub cron: Cron,
    pub run_on_start: bool,
    pub jitter: Duration,
    pub scan_timeout: Duration,
}

impl Settings {
    /// The time by which two more scans have run, even late ones. From then on, a refresh is
    /// obsolete.
    pub fn stale_after(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let next = self.cron.next_after(now).unwrap_or(now);
        let second = self.cron.next_after(next).unwrap_or(next);
        let late = TimeDelta::from_std(self.jitter + self.scan_timeout);
        second + late.unwrap_or(TimeDelta::hours(1))
    }

    /// The maximum delay of an alert that is on schedule: the interval before this scheduled time,
    /// the jitter and the scan timeout.
    pub fn max_delay(&self, tick: DateTime<Utc>) -> TimeDelta {
        let before = self.cron.latest(tick - TimeDelta::milliseconds(1));
        let late = TimeDelta::from_std(self.jitter + self.scan_timeout);
        tick - before + late.unwrap_or(TimeDelta::hours(1))
    }

    /// How long after becoming due a delivery is on time: the longest interval between two scans,
    /// the jitter, and the margin of the objective.
    pub fn on_time_within(&self, now: DateTime<Utc>) -> TimeDelta {
        let jitter = TimeDelta::from_std(self.jitter).unwrap_or(TimeDelta::hours(1));
        self.cron.longest_gap(now) + jitter + MARGIN
    }
}

/// A cron expression (5 fields, or 6 with seconds first) in its time zone.
#[derive(Clone, Debug)]
pub struct Cron {
    pattern: croner::Cron,
    timezone: Tz,
    /// The first field whose steps do not divide it evenly.
    uneven: Option<&'static Field>,
}

#[derive(Debug)]
struct Field {
    name: &'static str,
    /// The number of values.
    length: u32,
    /// The period after which its values, and so its steps, restart.
    restarts: &'static str,
}

/// The fields in order. The first is optional.
const FIELDS: [Field; 6] = [
    Field { name: "second", length: 60, restarts: "minute" },
    Field { name: "minute", length: 60, restarts: "hour" },
    Field { name: "hour", length: 24, restarts: "day" },
    Field { name: "day", length: 31, restarts: "month" },
    Field { name: "month", length: 12, restarts: "year" },
    Field { name: "weekday", length: 7, restarts: "week" },
];

/// The first field whose steps do not divide it evenly.
///
/// # Errors
/// If a step is out of range: it would match only one value.
fn uneven_step(text: &str) -> Result<Option<&'static Field>, String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let skipped = FIELDS.len().saturating_sub(fields.len());
    let mut uneven = None;
    for (text, field) in fields.into_iter().zip(&FIELDS[skipped..]) {
        let Field { name, length, restarts } = field;
        for step in text.split(',').filter_map(|part| part.split_once('/')?.1.parse::<u32>().ok()) {
            if step >= *length {
                return Err(format!(
                    "the step /{step} is out of range: the field “{name}” has {length} values, \
                     so scans would run once each {restarts}"
                ));
            }
            if step > 0 && length % step != 0 {
                uneven.get_or_insert(field);
            }
        }
    }
    Ok(uneven)
}

impl Cron {
    /// # Errors
    /// If it is invalid, or never matches a date.
    pub fn parse(text: &str, timezone: Tz) -> Result<Cron, String> {
        let uneven = uneven_step(text)?;
        let pattern = CronParser::builder()
            .seconds(Seconds::Optional)
            .year(Year::Disallowed)
            .build()
            .parse(text.trim())
            .map_err(|error| crate::domain::text::one_line(&error.to_string(), 200))?;
        let cron = Cron { pattern, timezone, uneven };
        match cron.next_after(crate::clock::Clock::System.now()) {
            Some(_) => Ok(cron),
            None => Err("it never matches a date".to_owned()),
        }
    }

    /// The first scheduled time after an instant.
    pub fn next_after(&self, instant: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let local = instant.with_timezone(&self.timezone);
        let next = self.pattern.find_next_occurrence(&local, false).ok()?;
        Some(next.with_timezone(&Utc))
    }

    /// The latest scheduled time up to `now`, if it is after `last`.
    pub fn due(&self, last: DateTime<Utc>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let first = self.next_after(last.min(now)).filter(|next| *next <= now)?;
        Some(self.latest(now).max(first))
    }

    /// The latest scheduled time up to an instant: the scheduled time of a scan at that instant.
    pub fn latest(&self, instant: DateTime<Utc>) -> DateTime<Utc> {
        let local = instant.with_timezone(&self.timezone);
        let before = self.pattern.find_previous_occurrence(&local, true).ok();
        before.map_or(instant, |before| before.with_timezone(&Utc))
    }

    /// Whether the data of the latest scan is old: the next scan, which may take up to `late`, has
    /// not ended. A scan dated in the future by a clock that was ahead is not recent either.
    pub fn is_old(&self, scan: &ScanRecord, late: TimeDelta, now: DateTime<Utc>) -> bool {
        let due = self.next_after(scan.tick.min(scan.finished_at));
        due.is_some_and(|due| due + late < now) || scan.finished_at > now
    }

    /// The longest time between two scheduled times within 400 days. Exact for gaps over twelve
    /// hours, and for gaps over one hour within 35 days.
    pub fn longest_gap(&self, from: DateTime<Utc>) -> TimeDelta {
        let within = |days: i64, step: TimeDelta| {
            let mut longest = TimeDelta::zero();
            let mut at = from;
            while at < from + TimeDelta::days(days) {
                let Some(next) = self.next_after(at) else { break };
                longest = longest.max(next - self.latest(at));
                at = next.max(at + step);
            }
            longest
        };
        within(35, TimeDelta::hours(1)).max(within(400, TimeDelta::hours(12)))
    }

    /// Whether two scheduled times within 400 days are closer than this.
    pub fn has_shorter_gap(&self, from: DateTime<Utc>, than: TimeDelta) -> bool {
        let times = std::iter::successors(Some(from), |at| self.next_after(*at));
        let times: Vec<_> =
            times.skip(1).take_while(|at| *at < from + TimeDelta::days(400)).take(1_000).collect();
        times.windows(2).any(|pair| pair[1] - pair[0] < than)
    }

    /// A description in English.
    pub fn describe(&self) -> String {
        let described = self.pattern.describe();
        match self.uneven {
            None => described,
            Some(field) => format!(
                "{} (the steps restart each {})",
                described.trim_end_matches('.'),
                field.restarts
            ),
        }
    }

    pub fn timezone(&self) -> Tz {
        self.timezone
    }

    pub fn in_timezone(&self, timezone: Tz) -> Cron {
        Cron { timezone, ..self.clone() }
    }
}

/// The time after which a tick counts as missed.
const MISSED: Duration = Duration::from_secs(3);
/// The time limit for the start of the scheduler; then a timer replaces it.
const STARTING: Duration = Duration::from_secs(5);

/// Ticks about once a second, shared by all loops so that the process wakes once.
#[derive(Clone)]
pub struct Ticks(watch::Receiver<()>);

impl Ticks {
    pub fn new(ticks: watch::Receiver<()>) -> Ticks {
        Ticks(ticks)
    }

    /// Waits for the next tick, or for a few seconds if the scheduler misses it.
    pub async fn next(&mut self) {
        let beat = tokio::time::timeout(MISSED, self.0.changed()).await;
        if let Ok(Err(_)) = beat {
            // The ticker has stopped.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Sends a tick every second.
pub struct Ticker {
    ticks: watch::Receiver<()>,
    source: Source,
}

enum Source {
    Scheduler(Box<JobScheduler>),
    /// Replaces a scheduler that fails to start.
    Timer(tokio::task::JoinHandle<()>),
}

impl Ticker {
    pub async fn start() -> Ticker {
        let (beat, ticks) = watch::channel(());
        let why = match tokio::time::timeout(STARTING, scheduler(beat.clone())).await {
            Ok(Ok(scheduler)) => {
                return Ticker { ticks, source: Source::Scheduler(Box::new(scheduler)) };
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("not started within {STARTING:?}"),
        };
        tracing::error!(error = why, "cannot start the internal scheduler: using a timer instead");
        let timer = tokio::spawn(async move {
            let mut seconds = tokio::time::interval(Duration::from_secs(1));
            loop {
                seconds.tick().await;
                beat.send_replace(());
            }
        });
        Ticker { ticks, source: Source::Timer(timer) }
    }

    pub fn ticks(&self) -> watch::Receiver<()> {
        self.ticks.clone()
    }

    pub async fn stop(self) {
        match self.source {
            Source::Timer(timer) => timer.abort(),
            Source::Scheduler(mut scheduler) => {
                if let Err(error) = scheduler.shutdown().await {
                    tracing::debug!(%error, "scheduler did not stop");
                }
            }
        }
    }
}

/// A scheduler with one job: a tick each second, in UTC. The library's own schedules fail at
/// daylight saving changes, overlap, and stall after the clock is set back.
async fn scheduler(beat: watch::Sender<()>) -> Result<JobScheduler, JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    let job = Job::new_async("* * * * * *", move |_, _| {
        beat.send_replace(());
        Box::pin(async {})
    })?;
    scheduler.add(job).await?;
    scheduler.start().await?;
    Ok(scheduler)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin(text: &str) -> Cron {
        Cron::parse(text, chrono_tz::Europe::Berlin).unwrap()
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn scans_keep_their_hour_across_daylight_saving_changes() {
        let nine = berlin("0 9 * * *");
        assert_eq!(nine.next_after(at("2027-03-27T12:00:00Z")), Some(at("2027-03-28T07:00:00Z")));
        assert_eq!(nine.next_after(at("2027-10-30T12:00:00Z")), Some(at("2027-10-31T08:00:00Z")));
    }

    #[test]
    fn missed_scans_run_once_and_a_clock_set_back_does_not_stop_the_schedule() {
        let hourly = berlin("0 * * * *");
        let now = at("2026-11-23T12:34:56Z");
        let noon = at("2026-11-23T12:00:00Z");
        let cases = [
            ("five scans were missed", at("2026-11-23T07:00:00Z"), Some(noon)),
            ("the last scan ran", noon, None),
            ("the last scan was saved by a clock one year ahead", at("2027-11-23T12:00:00Z"), None),
        ];
        for (reason, last, expected) in cases {
            assert_eq!(hourly.due(last, now), expected, "{reason}");
        }
        let later = at("2026-11-23T13:00:00Z");
        assert_eq!(hourly.due(now, later), Some(later), "due exactly at its scheduled time");
    }

    #[test]
    fn expressions_have_five_or_six_fields_and_match_some_date() {
        for good in ["0 */6 * * *", "*/5 * * * * *", "@hourly", "0 9 13 * FRI"] {
            assert!(Cron::parse(good, Tz::UTC).is_ok(), "{good}");
        }
        for bad in [
            "",
            "every day",
            "61 * * * *",
            "0 0 30 2 *",
            "* * * *",
            "*/90 * * * * *",
            "*/60 * * * *",
        ] {
            assert!(Cron::parse(bad, Tz::UTC).is_err(), "{bad}");
        }
    }

    #[test]
    fn descriptions_mention_uneven_steps() {
        let cases = [
            ("*/15 * * * *", "At every 15 minutes."),
            ("*/45 * * * *", "At every 45 minutes (the steps restart each hour)"),
            ("0 */6 * * *", "At minute 0, of every 6 hours."),
            ("0 */5 * * *", "At minute 0, of every 5 hours (the steps restart each day)"),
        ];
        for (text, expected) in cases {
            assert_eq!(Cron::parse(text, Tz::UTC).unwrap().describe(), expected);
        }
    }

    #[test]
    fn a_scan_has_the_latest_scheduled_time() {
        let six_hourly = Cron::parse("0 */6 * * *", Tz::UTC).unwrap();
        for (time, tick) in
            [("12:00:00", "12:00:00"), ("17:59:59", "12:00:00"), ("11:59:59", "06:00:00")]
        {
            let latest = six_hourly.latest(at(&format!("2026-11-23T{time}Z")));
            assert_eq!(latest, at(&format!("2026-11-23T{tick}Z")), "{time}");
        }
    }
}
