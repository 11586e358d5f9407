//! Reads the audit log of an organization: the events since the last reading, in a request for each
//! page.

use std::time::Duration;

use super::Target;
use crate::domain::{
    change::{Audit, AuditReading},
    inventory::Inventory,
    unreadable::ReadError,
};

/// How long a scan reads the audit log: alerts wait for it.
const TIME: Duration = Duration::from_secs(60);

pub(super) async fn read_audit_log(target: &Target, before: &Inventory) -> Audit {
    let Some(settings) = &target.audit_log else { return Audit::Off };
    let mut events = Vec::new();
    let known = before.changes.audit_log.as_ref();
    let after = known.and_then(|known| known.read_after(settings.addresses));
    let read = tokio::time::timeout(TIME, target.api.audit_events(after, &mut events)).await;
    let (error, is_usable) = match read {
        Ok(Ok(missing)) => (missing.map(ReadError::from), true),
        Ok(Err(error)) => (Some(error.into()), false),
        Err(_) => {
            let why = "GET /organization/audit_logs: not read to its end within 60 seconds";
            (Some(why.into()), true)
        }
    };
    let addresses = settings.addresses;
    Audit::Read(AuditReading { events, error, is_usable, addresses, ..AuditReading::default() })
}
