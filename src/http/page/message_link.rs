//! The page of a signed link in a message, which acknowledges an alert or confirms a drill. It needs
//! no token: the signature names the receiver. `GET` changes nothing, because mail scanners follow
//! links.

use axum::{
    Router,
    extract::{Extension, Form, Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::{
    super::{
        Shared,
        attempts::{Origin, Peer},
        changes,
        guard::Caller,
        problem::Problem,
    },
    frame::DisplayTime,
    html,
};
use crate::{
    domain::{acknowledgement::Acknowledgement, day::end_after, subject::Subject},
    message::wording,
    usecase::follow_link::{AlertLink, DrillLink, OpenedLink},
};

/// The offered durations, in days.
const DURATIONS: [u64; 3] = [7, 14, 30];
/// The offered reasons.
const REASONS: [&str; 3] = [
    "the replacement is under way",
    "it is no longer used when it expires",
    "known, and handled elsewhere",
];

pub fn router() -> Router<Shared> {
    Router::new().route("/link/{token}", get(show).post(answer))
}

/// The page of an alert.
#[derive(Serialize)]
struct AlertPage {
    headline: String,
    organization: String,
    by: String,
    sent: DisplayTime,
    /// The alerts that an acknowledgement does not silence.
    limits: &'static str,
    /// The result, if the link was used.
    used: Option<String>,
    /// The end and the author of another active acknowledgement.
    active: Option<String>,
    durations: Vec<Duration>,
    reasons: [&'static str; 3],
}

#[derive(Serialize)]
struct Duration {
    days: u64,
    until: String,
}

async fn show(State(shared): State<Shared>, Path(token): Path<String>) -> Response {
    let link = match changes::open_link(&shared, &token).await {
        Ok(link) => link,
        Err(problem) => return shared.pages.problem(&problem, Caller::Anybody),
    };
    let timezone = shared.service.configured.borrow().timezone;
    let now = shared.service.clock.now();
    let page = match link {
        OpenedLink::Acknowledge(link) => {
            shared.pages.render("link.html", alert_page(&link, now, timezone))
        }
        OpenedLink::Confirm(link) => {
            shared.pages.render("confirm.html", drill_page(link, now, timezone))
        }
    };
    html(StatusCode::OK, page)
}

/// The page of a drill.
#[derive(Serialize)]
struct DrillPage {
    notifier: String,
    by: String,
    sent: DisplayTime,
    confirm_by: Option<DisplayTime>,
    /// Set if the latest drill is confirmed.
    confirmed: Option<DisplayTime>,
}

fn drill_page(link: DrillLink, now: DateTime<Utc>, timezone: Tz) -> DrillPage {
    let moment = |at| DisplayTime::new(at, now, timezone);
    let DrillLink { by, drilled } = link;
    let is_open = drilled.unconfirmed.is_some();
    DrillPage {
        notifier: drilled.notifier,
        by,
        sent: moment(drilled.sent_at),
        confirm_by: drilled.unconfirmed.map(|one| moment(one.until)),
        confirmed: drilled.confirmed_at.filter(|_| !is_open).map(moment),
    }
}

fn alert_page(link: &AlertLink, now: DateTime<Utc>, timezone: Tz) -> AlertPage {
    let moment = |at| DisplayTime::new(at, now, timezone);
    let durations = DURATIONS.into_iter().filter_map(|days| {
        let until = end_after(now, days, timezone)?;
        Some(Duration { days, until: wording::day(until - chrono::TimeDelta::seconds(1)) })
    });
    AlertPage {
        headline: wording::headline(&link.alert, now),
        organization: link.organization.to_string(),
        by: link.by.clone(),
        sent: moment(link.sent_at),
        limits: match link.subject {
            Subject::Certificate(_) => {
                "The last threshold and the expiry still alert, unless every project has a \
                 successor."
            }
            _ => "",
        },
        used: link.used.as_ref().map(|one| used(one, now, timezone)),
        active: link.active.as_ref().map(|one| {
            let by = one.by.as_ref().map_or(String::new(), |by| format!(" by {by}"));
            format!("{}{by}: {}", moment(one.until).local, one.reason)
        }),
        durations: durations.collect(),
        reasons: REASONS,
    }
}

fn used(one: &Acknowledgement, now: DateTime<Utc>, timezone: Tz) -> String {
    let until = DisplayTime::new(one.until, now, timezone).local;
    match one.holds(now) {
        true => format!("Acknowledged until {until}: {}.", one.reason),
        false => "This link was used, and its acknowledgement has ended.".to_owned(),
    }
}

/// The fields of the form that acknowledges an alert; that of a drill has none.
#[derive(Deserialize)]
struct Chosen {
    days: Option<u64>,
    /// An index in [`REASONS`].
    reason: Option<usize>,
}

async fn answer(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Path(token): Path<String>,
    Form(chosen): Form<Chosen>,
) -> Response {
    let timezone = shared.service.configured.borrow().timezone;
    let origin = Origin::new(peer, &headers);
    let done = async {
        let link = match changes::open_link(&shared, &token).await? {
            OpenedLink::Acknowledge(link) => link,
            OpenedLink::Confirm(link) => {
                return changes::confirm_drill(&shared, link, origin).await;
            }
        };
        let days = DURATIONS.into_iter().find(|days| Some(*days) == chosen.days);
        let until = days.and_then(|days| end_after(shared.service.clock.now(), days, timezone));
        let until = until.ok_or_else(|| {
            Problem::bad_request("days: expected one of the offered durations: 7, 14 or 30")
        })?;
        let reason = chosen.reason.and_then(|index| REASONS.get(index)).ok_or_else(|| {
            Problem::bad_request("reason: expected the number of an offered reason, from 0 to 2")
        })?;
        // A second click: the page shows the result of the first one.
        if link.used.is_some() {
            return Ok(());
        }
        changes::use_link(&shared, *link, until, (*reason).to_owned(), origin).await
    };
    match done.await {
        Ok(()) => Redirect::to(&format!("/link/{token}")).into_response(),
        Err(problem) => shared.pages.problem(&problem, Caller::Anybody),
    }
}
