//! Dates and times as people write them.

use chrono::{DateTime, Days, NaiveDate, NaiveTime, SecondsFormat, TimeDelta, Utc};
use chrono_tz::Tz;

/// The last midnight of the year 9999, in Unix seconds. Later times of others are reduced to it,
/// because they would print with a year of five digits in time zones ahead of UTC.
pub const LAST_DAY: i64 = 253_402_214_400;

/// Parses an RFC 3339 time, or a date: the end of that day in the time zone.
pub fn instant(text: &str, timezone: Tz) -> Option<DateTime<Utc>> {
    let text = text.trim();
    if let Ok(instant) = DateTime::parse_from_rfc3339(text) {
        return Some(instant.to_utc());
    }
    end_of(text.parse().ok()?, timezone)
}

fn end_of(date: NaiveDate, timezone: Tz) -> Option<DateTime<Utc>> {
    let midnight = date.checked_add_days(Days::new(1))?.and_time(NaiveTime::MIN);
    // If a daylight-saving change skips midnight, the day ends at the change.
    (0..=2).find_map(|hours| {
        let local = midnight + TimeDelta::hours(hours);
        local.and_local_timezone(timezone).earliest().map(|end| end.to_utc())
    })
}

/// The end of the day, in the time zone, after a number of days.
pub fn end_after(now: DateTime<Utc>, days: u64, timezone: Tz) -> Option<DateTime<Utc>> {
    let today = now.with_timezone(&timezone).date_naive();
    let end = end_of(today.checked_add_days(Days::new(days))?, timezone);
    end.filter(|end| end.timestamp() <= LAST_DAY)
}

/// Parses `today`, `tomorrow`, a duration, or what [`instant`] parses. A duration in whole days is
/// the end of that day; another one counts from now.
pub fn until(text: &str, now: DateTime<Utc>, timezone: Tz) -> Option<DateTime<Utc>> {
    const DAY: u64 = 86_400;
    match text.trim() {
        "today" => end_after(now, 0, timezone),
        "tomorrow" => end_after(now, 1, timezone),
        text => match humantime::parse_duration(text) {
            Ok(duration) if duration.as_secs() % DAY == 0 => {
                end_after(now, duration.as_secs() / DAY, timezone)
            }
            Ok(duration) => {
                let end = now.checked_add_signed(TimeDelta::from_std(duration).ok()?);
                end.filter(|end| end.timestamp() <= LAST_DAY)
            }
            Err(_) => instant(text, timezone),
        },
    }
}

/// The end of a day as `the end of 2027-03-01`, and any other instant as [`local`].
pub fn end(at: DateTime<Utc>, timezone: Tz) -> String {
    let day = (at - TimeDelta::seconds(1)).with_timezone(&timezone).date_naive();
    match end_of(day, timezone) == Some(at) {
        true => format!("the end of {day} ({})", local(at, timezone)),
        false => local(at, timezone),
    }
}

/// An instant in whole seconds of UTC (RFC 3339).
pub fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// An instant in a time zone, with the abbreviation of the zone.
pub fn local(at: DateTime<Utc>, timezone: Tz) -> String {
    at.with_timezone(&timezone).format("%Y-%m-%d %H:%M %Z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_day_a_duration_or_a_time() {
        use chrono_tz::{Europe::Berlin, UTC};
        // In Berlin, it is already the next day.
        let now: DateTime<Utc> = "2027-03-26T23:30:00Z".parse().unwrap();
        let cases = [
            ("today", UTC, Some("2027-03-27T00:00:00Z"), "the end of 2027-03-26"),
            ("today", Berlin, Some("2027-03-27T23:00:00Z"), "the end of 2027-03-27"),
            // A day of 23 hours.
            ("tomorrow", Berlin, Some("2027-03-28T22:00:00Z"), "the end of 2027-03-28"),
            ("30d", UTC, Some("2027-04-26T00:00:00Z"), "the end of 2027-04-25"),
            (" 2weeks ", Berlin, Some("2027-04-10T22:00:00Z"), "the end of 2027-04-10"),
            ("12h", UTC, Some("2027-03-27T11:30:00Z"), "2027-03-27 11:30 UTC"),
            ("36h", UTC, Some("2027-03-28T11:30:00Z"), "2027-03-28 11:30 UTC"),
            ("2027-04-01", UTC, Some("2027-04-02T00:00:00Z"), "the end of 2027-04-01"),
            ("2027-04-01T12:00:00Z", UTC, Some("2027-04-01T12:00:00Z"), "2027-04-01 12:00 UTC"),
            ("soon", UTC, None, ""),
            ("-30d", UTC, None, ""),
            ("9000000y", UTC, None, ""),
            ("99999999999999999999d", UTC, None, ""),
            ("", UTC, None, ""),
        ];
        for (text, zone, expected, words) in cases {
            let expected: Option<DateTime<Utc>> = expected.map(|at| at.parse().unwrap());
            let found = until(text, now, zone);
            assert_eq!(found, expected, "{text} in {zone}");
            let found = found.map_or(String::new(), |at| end(at, zone));
            assert!(found.starts_with(words), "{text} in {zone}: {found}");
        }
    }

    #[test]
    fn a_date_is_the_end_of_that_day_in_the_zone() {
        use chrono_tz::{Africa::Cairo, Europe::Berlin, UTC};
        let cases = [
            ("2027-03-01", UTC, Some("2027-03-02T00:00:00Z")),
            ("2027-03-01", Berlin, Some("2027-03-01T23:00:00Z")),
            ("2027-03-28", Berlin, Some("2027-03-28T22:00:00Z")),
            // Clocks go from 00:00 to 01:00 on the 30th of April.
            ("2027-04-29", Cairo, Some("2027-04-29T22:00:00Z")),
            ("2028-02-29", UTC, Some("2028-03-01T00:00:00Z")),
            ("2027-02-29", UTC, None),
            ("2027-03-01T12:00:00+02:00", Berlin, Some("2027-03-01T10:00:00Z")),
            ("2027-03-01T12:00:00", Berlin, None),
            ("tomorrow", UTC, None),
            ("", UTC, None),
        ];
        for (text, zone, expected) in cases {
            let expected: Option<DateTime<Utc>> = expected.map(|at| at.parse().unwrap());
            assert_eq!(instant(text, zone), expected, "{text} in {zone}");
        }
    }
}
