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
    let date: NaiveDate = text.parse().ok()?;
    let midnight = date.checked_add_days(Days::new(1))?.and_time(NaiveTime::MIN);
    // If a daylight-saving change skips midnight, the day ends at the change.
    (0..=2).find_map(|hours| {
        let local = midnight + TimeDelta::hours(hours);
        local.and_local_timezone(timezone).earliest().map(|end| end.to_utc())
    })
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
