//! The consequence of an alert about a certificate, the steps to take, and how to silence it.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Answer, capitalized};
use crate::{
    domain::{certificate::OrganizationName, content::Defect, rotation::RotationStep},
    message::{
        ActiveIn, Alert, CandidateView, CertificateBody, CertificateView, Event, ProjectView,
        ProjectsView, wording,
    },
};

/// The duration of a proposed acknowledgement.
const PROPOSED_DURATION: TimeDelta = TimeDelta::days(7);
/// Maximum number of projects that a step names.
const NAMED: usize = 3;

/// The step if the key of the successor is unknown.
const NEW_CLIENTS: &str = "If the successor has a different key, issue client certificates that it \
                           signs and move the clients: this takes longest.";

/// The consequence of a project without an active certificate.
pub(super) const UNPROTECTED: &str = "mutual TLS is off: the API accepts every client that has \
                                      an API key, with or without a certificate";
/// The consequence of a project without a valid certificate.
pub(super) const UNCOVERED: &str = "every API call over mutual TLS fails now, and workload \
                                    identity federation issues no tokens";

/// The consequence, with its time; `None` if nothing breaks.
pub(super) fn consequence(
    alert: &Alert,
    body: &CertificateBody,
    now: DateTime<Utc>,
) -> Option<String> {
    let certificate = &body.certificate;
    let active = &certificate.active_in;
    match alert.event {
        Event::CertificateExpiring | Event::CertificateExpired => {}
        Event::CertificateResolved => {
            let left = body.left_behind.as_ref()?;
            return (left.unprotected > 0).then(|| UNPROTECTED.to_owned());
        }
        Event::CertificateNotYetValid => {
            return Some("clients whose certificates it signed are rejected until then".to_owned());
        }
        Event::CertificateUnfit => {
            return certificate.defects.iter().copied().find_map(effect).map(str::to_owned);
        }
        Event::CertificateMismatch => {
            let earlier = certificate.expires_at?;
            return Some(format!("alerts follow the earlier date, {}", wording::day(earlier)));
        }
        Event::CertificateUnknownExpiry
        | Event::ProjectUncovered
        | Event::ProjectCovered
        | Event::ProjectUnprotected
        | Event::ProjectProtected
        | Event::MonitorBlind
        | Event::MonitorRecovered
        | Event::AdminKeyExpiring
        | Event::AdminKeyExpired
        | Event::AdminKeyResolved
        | Event::ClientIdentityExpiring
        | Event::ClientIdentityExpired
        | Event::ClientIdentityResolved
        | Event::NotifierFailing
        | Event::NotifierRecovered
        | Event::NotifierUnproven
        | Event::NotifierProven
        | Event::Drill
        | Event::DrillEnded
        | Event::Summary
        | Event::CertificatesChanged
        | Event::Test => return None,
    }
    let first = active.projects.iter().filter_map(|project| project.uncovered_from).min();
    let here = active.projects_here();
    let Some(first) = first else { return without_outage(active, clients_pass(body)) };
    let loses = match first <= now {
        true => format!("has had no access over mutual TLS since {}", wording::day(first)),
        false => format!("loses all access over mutual TLS on {}", wording::day(first)),
    };
    // Another certificate keeps the projects running, but clients of this one are still rejected.
    let clients = match certificate.expires_at {
        Some(end) if first > end && end <= now => {
            "clients whose certificates it signed are rejected."
        }
        Some(end) if first > end => {
            "after it expires, clients whose certificates it signed are rejected."
        }
        Some(_) | None => "",
    };
    let rest = match (active.without_successor, here) {
        (1, 1) => format!("its project has no successor and {loses}"),
        (1, total) => format!("1 of its {total} projects has no successor and {loses}"),
        (n, total) if n == total => {
            format!("none of its {n} projects has a successor; the first of them {loses}")
        }
        (n, total) => {
            format!("{n} of its {total} projects have no successor; the first of them {loses}")
        }
    };
    Some(match clients {
        "" => rest,
        clients => format!("{clients} {}", capitalized(&rest)),
    })
}

/// The consequence for certvigil itself, if its own client certificate depends on this one.
pub(super) fn blindness(
    alert: &Alert,
    certificate: &CertificateView,
    now: DateTime<Utc>,
) -> Option<String> {
    let ends = matches!(alert.event, Event::CertificateExpiring | Event::CertificateExpired);
    let end = certificate.expires_at.filter(|_| ends && certificate.carries_certvigil)?;
    let from = if end > now { format!("from {} on", wording::day(end)) } else { "now".to_owned() };
    Some(format!(
        "certvigil itself cannot read the API {from}, and misses every later change: its own client \
         certificate depends on this one"
    ))
}

/// The consequence where no project is known to lose its last valid certificate.
fn without_outage(active: &ActiveIn, clients_pass: Option<bool>) -> Option<String> {
    let open = active.without_successor;
    let calm = match clients_pass {
        Some(true) => {
            "no client is affected unless a filter of the successor rejects it: the successor has \
             the same name and key"
        }
        Some(false) | None => "only clients not yet moved to it are affected",
    };
    match (active.projects_here(), open, active.elsewhere_without_successor) {
        (0, ..) => None,
        (1, 0, 0) => Some(format!("its project has a successor, so {calm}")),
        (n, 0, 0) => Some(format!("all of its {n} projects have a successor, so {calm}")),
        (_, 0, 1) => Some(format!(
            "your projects have a successor, so {calm}. 1 other project has no successor"
        )),
        (_, 0, n) => Some(format!(
            "your projects have a successor, so {calm}. {n} other projects have no successor"
        )),
        (_, n, _) => Some(format!(
            "the effect on {} is unknown: the API does not report when another certificate \
             active there expires",
            wording::count(n, "project")
        )),
    }
}

/// The consequence of a defect; `None` if nothing breaks.
fn effect(defect: Defect) -> Option<&'static str> {
    match defect {
        Defect::NotCa | Defect::NoCertSign => Some(
            "it cannot issue client certificates, and certvigil does not count it as a successor",
        ),
        Defect::WeakSignature | Defect::ShortKey => {
            Some("the API may reject the clients whose certificates it signed")
        }
        Defect::Bundle => Some("the other certificates of the file do not work as trust anchors"),
        Defect::Duplicate => None,
    }
}

/// The step against a defect.
fn remedy(defect: Defect) -> &'static str {
    match defect {
        Defect::NotCa | Defect::NoCertSign => {
            "Upload the CA certificate that signed the certificates of your clients, and activate \
             it {beside}. When the clients work, deactivate {title}."
        }
        Defect::WeakSignature | Defect::ShortKey => {
            "Test with a client certificate that {title} signed whether the API accepts it. If \
             not, replace {title} with a new CA certificate."
        }
        Defect::Bundle => {
            "Upload each other certificate of the file as its own object, and activate it \
             {beside}."
        }
        Defect::Duplicate => {
            "Choose which of the two objects to keep, and activate it wherever the other one is \
             active. Only then deactivate and delete the other one."
        }
    }
}

/// Whether the clients of a certificate pass the certificates that take over, too; `None` if that is
/// unknown.
fn clients_pass(body: &CertificateBody) -> Option<bool> {
    let successor = body.successor.as_ref();
    if body.candidates.is_empty() && !successor.is_some_and(|one| one.covers_every_project) {
        return None;
    }
    let candidates = body.candidates.iter().map(|one| one.same_key);
    let mut all = successor.map(|one| one.same_key).into_iter().chain(candidates);
    let first = all.next()?;
    all.all(|one| one == first).then_some(first)?
}

/// The steps to take.
#[derive(Default)]
pub(super) struct Advice {
    pub steps: Vec<String>,
    /// The last of the steps, worded for any certificate.
    pub general: Vec<String>,
}

pub(super) fn advice(alert: &Alert, body: &CertificateBody, now: DateTime<Utc>) -> Advice {
    let certificate = &body.certificate;
    let title = certificate.title();
    let everywhere = certificate.active_in.organization;
    let clients_pass = clients_pass(body);
    let others = certificate.active_in.elsewhere_without_successor;
    let whose = if others > 0 { "your" } else { "the" };
    let clients = match clients_pass {
        Some(true) => {
            "The clients need no new certificates: the successor has the same name and key as \
             {title}. If the successor has a filter (CEL), check that it accepts them."
        }
        Some(false) => {
            "Issue client certificates that the successor signs, and move the clients: its name or \
             key differs from that of {title}. This takes longest."
        }
        None => {
            "Move {whose} clients to certificates that the successor signed, unless the successor \
             has the same name and key as {title}."
        }
    };
    let mut remedies: Vec<&str> = certificate.defects.iter().copied().map(remedy).collect();
    remedies.dedup();
    let steps: &[&str] = match alert.event {
        Event::CertificateExpiring | Event::CertificateExpired => {
            let active = &certificate.active_in;
            let covered = active.without_successor == 0;
            match (covered, active.elsewhere_without_successor) {
                _ if active.projects_total == 0 && !active.organization => {
                    &["{title} is not active anywhere: delete it if nobody needs it."]
                }
                // Deactivating it would break other projects.
                (true, 1..) => {
                    &["{clients}", "Leave {title} active: other projects have no successor yet."]
                }
                (true, 0) if alert.event == Event::CertificateExpired => &[
                    "Deactivate {title} {where}, and delete it: each project has a successor.",
                    match clients_pass {
                        Some(true) => "{clients}",
                        Some(false) | None => {
                            "Clients with certificates that {title} signed are rejected: move them \
                             to the successor."
                        }
                    },
                ],
                (true, 0) => &["{clients}", "Deactivate {title} {where}, and delete it."],
                (false, _) if !body.candidates.is_empty() => &[
                    match clients_pass {
                        Some(_) => "{clients}",
                        None => NEW_CLIENTS,
                    },
                    "When every project has a successor and the clients have moved, deactivate \
                     {title} {where}, and delete it.",
                ],
                (false, _) => &[
                    "Upload the successor of {title}, a new CA certificate, to the organization.",
                    "Activate the successor {beside}. Keep {title} active.",
                    NEW_CLIENTS,
                    "When every project has a successor and the clients have moved, deactivate \
                     {title} {where}, and delete it.",
                ],
            }
        }
        Event::CertificateNotYetValid => {
            &["Until {title} is valid, keep another certificate active in its projects."]
        }
        Event::CertificateUnknownExpiry => {
            &["Read the expiry of {title} from the certificate file: certvigil cannot warn you \
             in time."]
        }
        Event::CertificateMismatch => &[
            "Compare the certificate file with the alert: openssl x509 -in FILE -noout -dates \
             -fingerprint -sha256.",
            "Plan the replacement of {title} for the earlier date, and report the difference to \
             OpenAI.",
        ],
        Event::CertificateUnfit => &remedies,
        Event::CertificateResolved if alert.loses_coverage() => {
            &["If that was not intended, activate a valid certificate in these projects."]
        }
        Event::CertificateResolved if certificate.next == Some(RotationStep::Delete) => {
            &["Delete {title}: another certificate has replaced it, and it is not active anywhere."]
        }
        Event::CertificateResolved
        | Event::ProjectUncovered
        | Event::ProjectCovered
        | Event::ProjectUnprotected
        | Event::ProjectProtected
        | Event::MonitorBlind
        | Event::MonitorRecovered
        | Event::AdminKeyExpiring
        | Event::AdminKeyExpired
        | Event::AdminKeyResolved
        | Event::ClientIdentityExpiring
        | Event::ClientIdentityExpired
        | Event::ClientIdentityResolved
        | Event::NotifierFailing
        | Event::NotifierRecovered
        | Event::NotifierUnproven
        | Event::NotifierProven
        | Event::Drill
        | Event::DrillEnded
        | Event::Summary
        | Event::CertificatesChanged
        | Event::Test => &[],
    };
    let (at, beside) = if everywhere {
        ("for the organization", "for the organization (all projects inherit it)")
    } else {
        ("in its projects", "in every project where {title} is active")
    };
    // The title is inserted last, so that a placeholder in it is not replaced.
    let filled = |step: &&str, title: &str| {
        let step = step.replace("{clients}", clients).replace("{whose}", whose);
        step.replace("{where}", at).replace("{beside}", beside).replace("{title}", title)
    };
    let title = format!("“{title}”");
    let open = &certificate.active_in.projects;
    let expires = matches!(alert.event, Event::CertificateExpiring | Event::CertificateExpired);
    let (mut first, any) = match expires {
        true => {
            let keep = Some(certificate.title());
            (activate(&body.candidates, open, everywhere, keep), "the old certificate")
        }
        false => (Vec::new(), "the certificate"),
    };
    first.extend(wait(body, now).filter(|_| expires));
    first.extend(steps.iter().map(|step| filled(step, &title)));
    let general = steps.iter().map(|step| filled(step, any)).collect();
    Advice { steps: first, general }
}

/// The step before clients can move, if the successor is not valid yet.
fn wait(body: &CertificateBody, now: DateTime<Utc>) -> Option<String> {
    let successor = body.successor.as_ref()?;
    let from = successor.valid_at.filter(|at| *at > now)?;
    let (title, day) = (successor.title(), wording::day(from));
    Some(format!(
        "Wait until “{title}” is valid, on {day}: before that, the API rejects the clients whose \
         certificates it signed."
    ))
}

/// The steps that activate uploaded certificates.
pub(super) fn activate(
    candidates: &[CandidateView],
    projects: &[ProjectView],
    for_organization: bool,
    keep: Option<&str>,
) -> Vec<String> {
    let and_keep = keep.map_or(String::new(), |title| format!(", and keep “{title}” active"));
    let step = |candidate: &CandidateView| {
        let here = projects
            .iter()
            .filter(|one| one.candidate.as_ref().is_some_and(|one| one.id == candidate.id));
        let here: Vec<&ProjectView> = here.collect();
        if here.is_empty() {
            return None;
        }
        let place = match for_organization {
            true => "for the organization".to_owned(),
            false => format!("in {}", named(&here)),
        };
        let expires = candidate.expires_at;
        let expires =
            expires.map_or(String::new(), |at| format!(" and expires {}", wording::day(at)));
        // The intended use of a certificate is unknown until it is active.
        let uploaded = "is uploaded".to_owned();
        let (known, action) = match (candidate.is_successor, keep) {
            (true, Some(title)) => (format!("replaces “{title}” in other projects"), "Activate"),
            (true, None) => ("is active in other projects".to_owned(), "Activate"),
            (false, Some(_)) => (uploaded, "If it is the successor, activate"),
            (false, None) => (uploaded, "If it is the right certificate, activate"),
        };
        let title = candidate.title();
        Some(format!("{title} {known}{expires}. {action} it {place}{and_keep}."))
    };
    candidates.iter().filter_map(step).collect()
}

/// `“chat”, “search” and 3 more`.
fn named(projects: &[&ProjectView]) -> String {
    let mut names: Vec<String> =
        projects.iter().take(NAMED).map(|one| format!("“{}”", one.title())).collect();
    let more = projects.len() - names.len();
    let last = match more {
        0 => names.pop().unwrap_or_default(),
        more => format!("{more} more"),
    };
    match names.is_empty() {
        true => last,
        false => format!("{} and {last}", names.join(", ")),
    }
}

/// How to silence an alert about a certificate; `None` for a resolution, or if it is acknowledged
/// already.
pub(super) fn quiet(
    organization: Option<&OrganizationName>,
    alert: &Alert,
    certificate: &CertificateView,
    now: DateTime<Utc>,
) -> Option<Answer> {
    if alert.event.is_resolution()
        || certificate.acknowledged.as_ref().is_some_and(|one| !one.ended)
    {
        return None;
    }
    if alert.last {
        return Some(Answer::Never(match alert.event {
            Event::CertificateExpired => {
                "the certificate has expired. Only a rule with ignore ([[rules]] in the \
                 configuration) can"
            }
            _ => "this is the last threshold",
        }));
    }
    if matches!(alert.event, Event::CertificateMismatch | Event::CertificateUnfit) {
        // Sent once.
        return None;
    }
    let id = plain(certificate.id.as_str());
    let week = now + PROPOSED_DURATION;
    let end = certificate.expires_at.filter(|end| *end > now);
    let until = wording::day(end.map_or(week, |end| end.min(week)));
    let active = &certificate.active_in;
    let is_replaced = active.projects_total > 0 && active.all_without_successor() == 0;
    let command = format!(
        "certvigil ack {id} --organization {} --until {until} --reason \"…\"",
        organization?
    );
    Some(Answer::Acknowledge { command, link: None, except_last: !is_replaced })
}

/// The command that acknowledges unprotected projects.
pub(super) fn quiet_projects(
    organization: Option<&OrganizationName>,
    projects: &ProjectsView,
    now: DateTime<Utc>,
) -> Option<Answer> {
    let id = match projects.listed.as_slice() {
        [only] if projects.total == 1 => plain(only.id.as_str()),
        _ => "ID",
    };
    let until = wording::day(now + PROPOSED_DURATION);
    let command = format!(
        "certvigil ack --project {id} --organization {} --until {until} --reason \"…\"",
        organization?
    );
    Some(Answer::Acknowledge { command, link: None, except_last: false })
}

/// The id, or `ID` if a shell could interpret its characters.
fn plain(id: &str) -> &str {
    let is_plain = id.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    if is_plain { id } else { "ID" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::entry::Entry;
    use crate::message::{Body, Notification, sample, style::Style};

    fn certificate(sample: &mut Notification) -> &mut CertificateView {
        match &mut sample.alerts[0].body {
            Body::Certificate(body) => &mut body.certificate,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_step_deactivates_a_certificate_that_other_projects_need() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        for event in [Event::CertificateExpiring, Event::CertificateExpired] {
            let mut sample = sample::of(event, "ops", now);
            let active = &mut certificate(&mut sample).active_in;
            (active.organization, active.without_successor) = (true, 0);
            (active.projects_total, active.projects_elsewhere) = (15, 12);
            active.elsewhere_without_successor = 12;
            let entry = Entry::new(&sample, &sample.alerts[0], 10, &Style::default(), now);
            let advice = entry.advice.join(" ");
            assert!(advice.contains("Leave") && !advice.contains("delete"), "{advice}");
        }
    }

    #[test]
    fn clients_wait_for_a_successor_that_is_not_valid_yet() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        for (days, waits) in [(-1, false), (2, true)] {
            let mut sample = sample::of(Event::CertificateExpiring, "ops", now);
            let Body::Certificate(body) = &mut sample.alerts[0].body else { panic!("{sample:?}") };
            let successor = body.successor.as_mut().unwrap();
            successor.valid_at = Some(now + TimeDelta::days(days));
            let entry = Entry::new(&sample, &sample.alerts[0], 10, &Style::default(), now);
            let place = |words: &str| entry.advice.iter().position(|step| step.contains(words));
            assert_eq!(place("Wait until").is_some(), waits, "{:?}", entry.advice);
            assert!(place("Wait until") < place("move the clients"), "{:?}", entry.advice);
            let facts = format!("{:?}", entry.facts);
            assert_eq!(facts.contains("valid from 2027-01-17 until"), waits, "{facts}");
        }
    }

    #[test]
    fn a_command_contains_no_characters_that_a_shell_interprets() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let mut sample = sample::of(Event::CertificateExpiring, "ops", now);
        let ids = [("cert_abc-1.x", "ack cert_abc-1.x --"), ("cert_$(reboot)", "ack ID --")];
        for (id, expected) in ids {
            certificate(&mut sample).id =
                crate::domain::certificate::CertificateId::parse(id).unwrap();
            let entry = Entry::new(&sample, &sample.alerts[0], 10, &Style::default(), now);
            let Some(Answer::Acknowledge { command, .. }) = entry.answer else {
                panic!("{entry:?}")
            };
            assert!(command.contains(expected), "{command}");
        }
    }
}
