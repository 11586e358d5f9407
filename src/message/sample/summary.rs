//! The sample of a summary.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use std::collections::BTreeSet;

use crate::{
    domain::{
        certificate::{AdminKeyId, CertificateId, OrganizationName, ProjectId},
        credential::CredentialKind,
        summary::{AHEAD, ProjectState, SummaryState},
        text::Name,
    },
    message::{
        CredentialView, Listed, SilenceView, SummaryCertificate, SummaryCredential,
        SummaryDeliveries, SummaryExpiry, SummaryProject, SummaryScans, SummaryView,
    },
};

/// A summary of one organization with an entry of most kinds. `None` never happens.
pub fn sample(now: DateTime<Utc>) -> Option<SummaryView> {
    let now = now.trunc_subsecs(0);
    let organization = OrganizationName::parse("acme").ok()?;
    let certificate = |id: &str, name: &str, days: i64, projects: &[&str]| {
        Some(SummaryCertificate {
            organization: organization.clone(),
            id: CertificateId::parse(id).ok()?,
            name: Name::clean(name),
            expires_at: Some(now + TimeDelta::days(days)),
            projects_total: projects.len(),
            projects_waiting: projects.len(),
            projects: projects.iter().take(3).map(|name| (*name).to_owned()).collect(),
            owners: BTreeSet::from([Some("payments".to_owned())]),
            acknowledged: None,
            ignored: None,
        })
    };
    let silence = |reason: &str, days: i64| SilenceView {
        reason: reason.to_owned(),
        by: Some("dana".to_owned()),
        until: now + TimeDelta::days(days),
        ended: false,
    };
    let one = |state, listed: SummaryCertificate| Listed { state, total: 1, listed: vec![listed] };
    let activate = SummaryCertificate {
        projects_waiting: 2,
        ..certificate("cert_sample1", "prod-ca", 6, &["chat", "search", "batch", "files", "evals"])?
    };
    let acknowledged = SummaryCertificate {
        acknowledged: Some(silence("the client is switched off in January", 20)),
        ..certificate("cert_sample3", "legacy-ca", 34, &["legacy"])?
    };
    let project = SummaryProject {
        organization: organization.clone(),
        id: ProjectId::parse("proj_sample2").ok()?,
        name: Name::clean("search"),
        since: Some(now - TimeDelta::days(1)),
        acknowledged: None,
    };
    Some(SummaryView {
        since: now - TimeDelta::days(7),
        until: now + AHEAD,
        organizations: vec![SummaryScans {
            organization: organization.clone(),
            scans: 14,
            incomplete: 1,
            latest_at: Some(now - TimeDelta::hours(2)),
            complete: true,
            overdue: false,
            unreadable_lists: 0,
            admin_keys_unreadable: false,
            clock_skew: None,
        }],
        certificates: vec![
            one(SummaryState::Upload, certificate("cert_sample4", "billing-ca", 13, &["billing"])?),
            one(SummaryState::Activate, activate),
            one(SummaryState::Delete, certificate("cert_sample6", "old-ca", -40, &[])?),
            one(SummaryState::Later, certificate("cert_sample5", "eu-ca", 80, &["eu"])?),
            one(SummaryState::Acknowledged, acknowledged),
        ],
        projects: vec![Listed {
            state: ProjectState::Unprotected,
            total: 1,
            listed: vec![project],
        }],
        credentials: vec![SummaryCredential {
            organization: organization.clone(),
            credential: CredentialView {
                kind: CredentialKind::AdminKey,
                id: AdminKeyId::parse("key_sample1").ok(),
                name: Name::clean("certvigil"),
                expires_at: Some(now + TimeDelta::days(50)),
                own: true,
            },
            due: true,
        }],
        credentials_total: 1,
        next_expiry: Some(SummaryExpiry {
            organization,
            id: CertificateId::parse("cert_sample2").ok()?,
            name: Name::clean(super::SUCCESSOR),
            expires_at: now + TimeDelta::days(400),
        }),
        deliveries: Some(SummaryDeliveries {
            alerts_due: 12,
            alerts_on_time: 11,
            failed: 1,
            retrying: 0,
            failing: Vec::new(),
            failing_total: 0,
        }),
    })
}
