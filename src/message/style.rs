//! The settings of every message: its time zone and links.

use chrono_tz::Tz;
use url::Url;

use super::{Alert, Event};

#[derive(Clone, Debug, Default)]
pub struct Style {
    pub timezone: Tz,
    pub links: Links,
}

/// The links in messages. All are configured by the operator, never taken from untrusted text.
#[derive(Clone, Debug, Default)]
pub struct Links {
    /// The start page of certvigil.
    pub page: Option<Url>,
    /// The runbook, with a section for each event.
    pub runbook: Option<Url>,
    /// Whether alerts link to the page that acknowledges them.
    pub acknowledge: bool,
}

impl Links {
    /// The page that acknowledges an alert or confirms a drill, for the receiver that its link was
    /// signed for.
    pub fn answer(&self, alert: &Alert) -> Option<String> {
        let path = format!("/link/{}", alert.link.as_ref()?);
        self.page.as_ref()?.join(&path).ok().map(String::from)
    }

    /// The section of the runbook for an event, by the anchor of its Markdown heading. `None` for a
    /// resolution, a summary or a test.
    pub fn runbook(&self, event: Event) -> Option<String> {
        let has_none = matches!(event, Event::Summary | Event::Test);
        let mut url = self.runbook.clone().filter(|_| !event.is_resolution() && !has_none)?;
        url.set_fragment(Some(&event.to_string().replace(['.', '_'], "-")));
        Some(url.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_has_a_runbook_section_and_a_resolution_has_none() {
        let at = |url: &str| Links {
            page: None,
            runbook: Some(Url::parse(url).unwrap()),
            acknowledge: false,
        };
        let own = at("https://wiki.acme.example/certvigil?v=2");
        let cases = [
            (Event::CertificateNotYetValid, Some("certificate-not-yet-valid")),
            (Event::ProjectUncovered, Some("project-uncovered")),
            (Event::ProjectCovered, None),
            (Event::Test, None),
        ];
        for (event, part) in cases {
            let expected =
                part.map(|part| format!("https://wiki.acme.example/certvigil?v=2#{part}"));
            assert_eq!(own.runbook(event), expected, "{event}");
        }
        assert_eq!(Links::default().runbook(Event::ProjectUncovered), None);
    }
}
