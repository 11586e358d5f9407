//! `certvigil explain`: why a certificate did or did not alert, and its upcoming alerts.

mod text;

use chrono::{DateTime, Utc};
use clap::Args;
use std::path::Path;

use super::{Failure, TextOutput, rfc3339, state};
use crate::{
    clock::Clock,
    config::{Config, Needs},
    domain::scan::ScanRecord,
    message::Alert,
    store::SentNotification,
    usecase::explain::{Explained, explain},
    view::{Candidate, CertificateDetails, Explanation, ProjectOfCertificate, Successor},
};

#[derive(Args)]
pub struct Arguments {
    /// The certificate's id, or its name if unique
    certificate: String,
    /// The organization, if several have this certificate
    #[arg(long, value_name = "NAME")]
    organization: Option<String>,
    #[arg(long, value_enum, default_value_t = TextOutput::Text)]
    output: TextOutput,
}

pub async fn main(file: Option<&Path>, arguments: &Arguments) -> Result<(), Failure> {
    let config = super::start(file, Needs::default())?.config;
    let now = Clock::System.now();
    let (store, known) = state::load(&config, now).await?;
    let name = arguments.organization.as_deref();
    let (of, certificate) = state::find(&known, &arguments.certificate, name)?;
    let (organization, id) = (of.organization.clone(), certificate.id.clone());
    let scan = store.latest_scan(&organization).await?;
    let explained = explain(&store, of.clone(), &config.schedule.cron, &id, now).await;
    let explained = explained.map_err(anyhow::Error::from)?;
    let Explained { explanation, notifications } =
        explained.ok_or_else(|| anyhow::anyhow!("the certificate is not in the inventory"))?;
    let page = Page { config: &config, now, explanation, notifications, scan };
    super::print(&match arguments.output {
        TextOutput::Text => page.text()?,
        TextOutput::Json => format!("{:#}\n", page.document()),
    })
}

struct Page<'a> {
    config: &'a Config,
    now: DateTime<Utc>,
    explanation: Explanation,
    notifications: Vec<SentNotification>,
    scan: Option<ScanRecord>,
}

impl Page<'_> {
    /// The alert about this certificate in a notification.
    fn alert<'a>(&self, sent: &'a SentNotification) -> Option<&'a Alert> {
        sent.notification.alerts.iter().find(|alert| {
            let certificate = alert.certificate();
            certificate.is_some_and(|one| one.id == self.explanation.certificate.id)
        })
    }

    fn document(&self) -> serde_json::Value {
        let notifications: Vec<_> = self
            .notifications
            .iter()
            .filter_map(|sent| {
                let alert = self.alert(sent)?;
                Some(serde_json::json!({
                    "at": rfc3339(sent.notification.created_at),
                    "notification_id": sent.notification.id,
                    "notifier": sent.notification.notifier,
                    "owners": sent.notification.audience.teams(),
                    "event": alert.event,
                    "reason": alert.reason,
                    "severity": alert.severity,
                    "stage": alert.stage,
                    "deliveries": sent.deliveries,
                }))
            })
            .collect();
        let scan = self.scan.as_ref().map(|scan| {
            serde_json::json!({
                "id": scan.id, "finished_at": rfc3339(scan.finished_at), "complete": scan.complete,
            })
        });
        let Explanation { certificate, .. } = &self.explanation;
        let (candidates, unprotected) =
            (&self.explanation.candidates, &self.explanation.unprotected);
        serde_json::json!({
            "schema": "certvigil.explain/1",
            "explained_at": rfc3339(self.now),
            "organization": self.explanation.organization,
            "scan": scan,
            "stale": self.explanation.stale,
            "certificate": CertificateDetails::of(certificate, self.now),
            "created_at": self.explanation.created_at.map(rfc3339),
            "content_error": self.explanation.content_failure,
            "successor": self.explanation.successor.as_ref().map(Successor::from),
            "candidates": candidates.iter().map(Candidate::from).collect::<Vec<_>>(),
            "unprotected_projects": unprotected.iter().map(ProjectOfCertificate::from).collect::<Vec<_>>(),
            "replaced": self.explanation.replaced,
            "stage": self.explanation.stage,
            "severity": self.explanation.severity,
            "ladder_of_rule": self.explanation.ladder_of_rule,
            "ignored_by_rule": self.explanation.ignored_by_rule,
            "lifetime": self.explanation.life.map(|(life, from)| {
                serde_json::json!({ "seconds": life.num_seconds(), "from": from })
            }),
            "ladder": self.explanation.ladder,
            "notifiers": self.explanation.notifiers,
            "notifications": notifications,
        })
    }
}
