//! The result of a delivery attempt: delivered, retried at a time, rejected, or given up.

use chrono::{DateTime, TimeDelta, Utc};

use super::{text::hide_secret, words::words};

words! {
    /// Why an attempt failed. Also a log field and a metric label, so the set is closed.
    FailureReason {
        /// No connection: refused, unreachable, or the name does not resolve.
        Connect = "connect",
        Timeout = "timeout",
        /// No trusted TLS connection.
        Tls = "tls",
        /// The receiver rejected the credentials.
        Login = "login",
        /// The mail server rejected the sender address.
        Sender = "sender",
        /// The mail server rejected the recipient address.
        Recipient = "recipient",
        /// The receiver rejected the message.
        Message = "message",
        RateLimited = "rate_limited",
        /// The receiver is temporarily unavailable.
        Unavailable = "unavailable",
        /// The webhook answered with a redirect, which is not followed.
        Redirect = "redirect",
        /// The webhook reports that it is permanently gone.
        Gone = "gone",
        /// The reply violates the protocol.
        Protocol = "protocol",
        /// The message was sent, but no reply came: it may have arrived.
        Unconfirmed = "unconfirmed",
        /// An internal error of certvigil.
        Internal = "internal",
    }
}

/// The result of an attempt. A receiver's failure is a value, never an `Err`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Accepted; `answer` is the receiver's reply.
    Delivered { answer: String },
    /// Failed temporarily; `after` is the delay that the receiver requested.
    Retry { reason: FailureReason, detail: String, after: Option<TimeDelta> },
    /// Failed permanently.
    Rejected { reason: FailureReason, detail: String },
}

impl Outcome {
    /// `delivered`, or the reason of the failure.
    pub fn as_str(&self) -> &'static str {
        match self {
            Outcome::Delivered { .. } => "delivered",
            Outcome::Retry { reason, .. } | Outcome::Rejected { reason, .. } => reason.as_str(),
        }
    }

    /// Hides a secret that the receiver may have repeated in its reply.
    pub fn without(self, secret: &str) -> Outcome {
        let hide = |text: String| hide_secret(&text, secret);
        match self {
            Outcome::Delivered { answer } => Outcome::Delivered { answer: hide(answer) },
            Outcome::Retry { reason, detail, after } => {
                Outcome::Retry { reason, detail: hide(detail), after }
            }
            Outcome::Rejected { reason, detail } => {
                Outcome::Rejected { reason, detail: hide(detail) }
            }
        }
    }

    /// A temporary failure without a requested delay.
    pub fn retry(reason: FailureReason, detail: impl Into<String>) -> Outcome {
        Outcome::Retry { reason, detail: detail.into(), after: None }
    }
}

/// The delays between attempts, and the time after which certvigil gives up.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    pub give_up_after: TimeDelta,
    pub initial: TimeDelta,
    pub max: TimeDelta,
}

/// The state of the delivery after an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Delivered,
    WaitUntil(DateTime<Utc>),
    Rejected,
    GivenUp,
}

/// The maximum delay that a receiver can request, so that it cannot stop deliveries for days.
pub const MAX_REQUESTED_DELAY: TimeDelta = TimeDelta::minutes(15);

/// The delays after attempts that may have arrived: each retry may be a duplicate for the reader.
const UNCONFIRMED_DELAYS: [TimeDelta; 3] =
    [TimeDelta::hours(1), TimeDelta::hours(6), TimeDelta::hours(24)];

/// Decides after attempt number `attempt` (from 1). The delay doubles from `initial` to `max`, less
/// a jitter of up to a quarter (`fraction`, 0 to 1), and is at least as long as the receiver
/// requested, up to [`MAX_REQUESTED_DELAY`]. The last attempt is at `give_up_at`.
pub fn verdict(
    outcome: &Outcome,
    attempt: u32,
    give_up_at: DateTime<Utc>,
    policy: &RetryPolicy,
    now: DateTime<Utc>,
    fraction: f64,
) -> Verdict {
    let (reason, after) = match outcome {
        Outcome::Delivered { .. } => return Verdict::Delivered,
        Outcome::Rejected { .. } => return Verdict::Rejected,
        Outcome::Retry { reason, after, .. } => (*reason, *after),
    };
    if now >= give_up_at {
        return Verdict::GivenUp;
    }
    let doubled = 1_i32.checked_shl(attempt.saturating_sub(1).min(30)).unwrap_or(i32::MAX);
    let pause = policy.initial.checked_mul(doubled).unwrap_or(policy.max).min(policy.max);
    let less = (pause.num_milliseconds() as f64 * 0.25 * fraction.clamp(0.0, 1.0)) as i64;
    let pause = pause - TimeDelta::milliseconds(less);
    let wait = if reason == FailureReason::Unconfirmed {
        let nth = usize::try_from(attempt.max(1) - 1).unwrap_or(usize::MAX);
        UNCONFIRMED_DELAYS
            .get(nth)
            .copied()
            .unwrap_or(UNCONFIRMED_DELAYS[UNCONFIRMED_DELAYS.len() - 1])
    } else {
        after.map_or(pause, |after| after.min(MAX_REQUESTED_DELAY).max(pause))
    };
    let next = now.checked_add_signed(wait).unwrap_or(give_up_at);
    Verdict::WaitUntil(next.min(give_up_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            give_up_after: TimeDelta::days(3),
            initial: TimeDelta::seconds(5),
            max: TimeDelta::minutes(15),
        }
    }

    fn after_attempt(attempt: u32, after: Option<TimeDelta>, fraction: f64) -> i64 {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let outcome =
            Outcome::Retry { reason: FailureReason::Connect, detail: String::new(), after };
        let give_up_at = now + TimeDelta::days(3);
        match verdict(&outcome, attempt, give_up_at, &policy(), now, fraction) {
            Verdict::WaitUntil(next) => (next - now).num_milliseconds(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_delay_doubles_up_to_its_limit_and_respects_the_receivers_request() {
        let minutes = |n| Some(TimeDelta::minutes(n));
        let cases = [
            (1, None, 0.0, 5_000, "the first delay"),
            (2, None, 0.0, 10_000, "doubled"),
            (2, None, 1.0, 7_500, "less a quarter"),
            (60, None, 0.0, 900_000, "the limit"),
            (u32::MAX, None, 0.0, 900_000, "the limit, after many attempts"),
            (1, minutes(2), 0.0, 120_000, "the receiver requests a longer delay"),
            (60, minutes(2), 0.0, 900_000, "the receiver requests a shorter delay"),
            (1, minutes(60 * 24 * 400), 0.0, 900_000, "a request for years is cut to 15 minutes"),
            (1, Some(TimeDelta::MAX), 0.0, 900_000, "the largest possible request"),
        ];
        for (attempt, after, fraction, expected, reason) in cases {
            assert_eq!(after_attempt(attempt, after, fraction), expected, "{reason}");
        }
    }

    #[test]
    fn a_message_that_may_have_arrived_is_rarely_retried() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let lost = Outcome::retry(FailureReason::Unconfirmed, "no reply");
        let pauses = [1, 2, 3, 4].map(|attempt| {
            match verdict(&lost, attempt, now + TimeDelta::days(3), &policy(), now, 0.5) {
                Verdict::WaitUntil(next) => (next - now).num_hours(),
                other => panic!("{other:?}"),
            }
        });
        assert_eq!(pauses, [1, 6, 24, 24]);
    }

    #[test]
    fn a_delivery_is_given_up_only_after_a_last_attempt_at_the_end() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let failed = Outcome::retry(FailureReason::Timeout, "no answer");
        let at = |give_up_at| verdict(&failed, 9, give_up_at, &policy(), now, 0.0);
        assert_eq!(at(now), Verdict::GivenUp);
        let soon = now + TimeDelta::seconds(1);
        assert_eq!(at(soon), Verdict::WaitUntil(soon));
    }
}
