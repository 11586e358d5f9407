//! What every message of every notifier is made with: the zone of its times, and where it leads to.

use chrono_tz::Tz;
use url::Url;

use super::Event;

#[derive(Clone, Debug, Default)]
pub struct Style {
    pub timezone: Tz,
    pub links: Links,
}

/// Where a message leads to. All of it is the operator's own: no text from outside is in it.
#[derive(Clone, Debug, Default)]
pub struct Links {
    /// The first of certvigil's pages.
    pub page: Option<Url>,
    /// What to do about each event.
    pub runbook: Option<Url>,
}

impl Links {
    /// What to do about an event: its part of the runbook, named as Markdown's headings are. Nothing, where there is
    /// nothing to do.
    pub fn runbook(&self, event: Event) -> Option<String> {
        let mut url = self.runbook.clone().filter(|_| !event.is_end() && event != Event::Test)?;
        url.set_fragment(Some(&event.to_string().replace(['.', '_'], "-")));
        Some(url.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_has_its_part_of_the_runbook_and_what_is_over_has_none() {
        let at = |url: &str| Links { page: None, runbook: Some(Url::parse(url).unwrap()) };
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
