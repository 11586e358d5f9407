//! Follows a signed link of a message: acknowledges an alert once, or confirms a drill.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::acknowledge::{AcknowledgeError, Acknowledged, Target, acknowledge};
use crate::{
    domain::{
        acknowledgement::{Acknowledgement, NewAcknowledgement},
        certificate::{OrganizationName, same_expiry},
        drill::Drilled,
        inventory::Inventory,
        policy::Policy,
        subject::Subject,
    },
    message::{Alert, Event},
    signing::{LINKS, LinkKey, Token, random_key},
    store::{LINK_LIFETIME, Store, StoreError},
};

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(
        "This link is unknown here. It is incomplete, too old, or from another installation of \
         certvigil."
    )]
    Unknown,
    #[error("This link has expired: links are valid for 30 days. Use that of a newer message.")]
    Expired,
    #[error("This link was used before: each link works once. Use that of a newer message.")]
    Used,
    #[error(
        "A newer drill was sent on {}. Confirm that one. If it has not arrived, alerts may not arrive \
         either.", .0.format("%Y-%m-%d %H:%M UTC")
    )]
    NewerDrill(DateTime<Utc>),
    #[error("The state has changed since this message. Use the link of a newer message.")]
    Changed,
    #[error("This alert is already acknowledged for longer, until {}.", .0.format("%Y-%m-%d %H:%M UTC"))]
    Silenced(DateTime<Utc>),
    #[error("The organization {0} is no longer watched.")]
    NotWatched(OrganizationName),
    #[error(transparent)]
    Acknowledge(#[from] AcknowledgeError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A valid link.
#[derive(Clone, Debug)]
pub enum OpenedLink {
    Acknowledge(Box<AlertLink>),
    Confirm(DrillLink),
}

/// The link of the latest drill of a receiver.
#[derive(Clone, Debug)]
pub struct DrillLink {
    /// The receiver of the message, who confirms.
    pub by: String,
    pub drilled: Drilled,
}

/// The link of an alert, as it was sent.
#[derive(Clone, Debug)]
pub struct AlertLink {
    pub organization: OrganizationName,
    pub alert: Alert,
    pub subject: Subject,
    pub sent_at: DateTime<Utc>,
    /// The receiver of the message, who acknowledges.
    pub by: String,
    pub notifier: String,
    /// The acknowledgement of this link, if it was used.
    pub used: Option<Acknowledgement>,
    /// The acknowledgement that silences the alert now.
    pub active: Option<Acknowledgement>,
    /// The id of its acknowledgement, derived from the link so that it works once.
    id: Uuid,
}

/// The key of links, made at the first use. All instances share it, and it outlives restarts.
///
/// # Errors
/// If the database fails. `None` if the system has no random numbers.
pub async fn key(store: &Store) -> Result<Option<LinkKey>, StoreError> {
    if let Some(known) = store.known_key(LINKS).await? {
        return Ok(Some(LinkKey::new(&known)));
    }
    let Some(new) = random_key() else { return Ok(None) };
    Ok(Some(LinkKey::new(&store.key(LINKS, &new).await?)))
}

/// Checks a link. Only reads.
///
/// # Errors
/// If the link is not valid, or the database fails.
pub async fn open(store: &Store, token: &str, now: DateTime<Utc>) -> Result<OpenedLink, LinkError> {
    let parsed = Token::parse(token).ok_or(LinkError::Unknown)?;
    let key = store.known_key(LINKS).await?.ok_or(LinkError::Unknown)?;
    let key = LinkKey::new(&key);
    let drilled = store.drilled().await?;
    let mut confirmable = drilled.iter();
    // A link of the latest drill is valid until the next one, even if its message was deleted.
    let latest = confirmable.find(|one| {
        one.notification == parsed.of.notification
            && key.fits(&parsed, &one.notifier, &one.receiver)
    });
    if let Some(one) = latest {
        let by = author(&one.notifier, &one.receiver);
        return Ok(OpenedLink::Confirm(DrillLink { by, drilled: one.clone() }));
    }
    let sent = store.sent_to(parsed.of.notification).await?;
    let (notification, receivers) = sent.ok_or(LinkError::Unknown)?;
    let notifier = &notification.notifier;
    let receiver = receivers.iter().find(|receiver| key.fits(&parsed, notifier, receiver));
    let receiver = receiver.ok_or(LinkError::Unknown)?;
    let alert = notification.alerts.get(usize::from(parsed.of.alert));
    let alert = alert.ok_or(LinkError::Unknown)?.clone();
    if alert.event == Event::Drill {
        let mut newer = drilled.iter();
        let newer = newer.find(|one| one.notifier == *notifier && one.receiver == *receiver);
        return Err(newer.map_or(LinkError::Unknown, |one| LinkError::NewerDrill(one.sent_at)));
    }
    let subject = alert.acknowledgeable().ok_or(LinkError::Unknown)?;
    let organization = notification.organization.clone().ok_or(LinkError::Unknown)?;
    let sent_at = notification.created_at;
    if now - sent_at > LINK_LIFETIME {
        return Err(LinkError::Expired);
    }
    let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, token.as_bytes());
    let known = store.all_acknowledgements(&organization).await?;
    let used = known.iter().find(|one| one.id == id).cloned();
    let active = known.into_iter().find(|one| one.subject == subject && one.holds(now));
    if used.is_none() && has_changed(&store.inventory(&organization).await?, &alert, sent_at) {
        return Err(LinkError::Changed);
    }
    Ok(OpenedLink::Acknowledge(Box::new(AlertLink {
        organization,
        alert,
        subject,
        sent_at,
        by: author(notifier, receiver),
        notifier: notification.notifier.clone(),
        used,
        active,
        id,
    })))
}

/// The author of an answer: the receiver, or the notifier if it has no address.
fn author(notifier: &str, receiver: &str) -> String {
    match receiver.contains('@') {
        true => receiver.to_owned(),
        false => format!("notifier {notifier}"),
    }
}

/// Confirms the drill of a link. A second confirmation changes nothing.
///
/// # Errors
/// If a newer drill was sent meanwhile, or the database fails.
pub async fn confirm(store: &Store, link: DrillLink, now: DateTime<Utc>) -> Result<(), LinkError> {
    if link.drilled.unconfirmed.is_none() || store.confirm(&link.drilled, now).await? {
        return Ok(());
    }
    // Another confirmation, or another drill, came first.
    let DrillLink { drilled: Drilled { notifier, receiver, notification, .. }, .. } = link;
    let drilled = store.drilled().await?;
    let mut same =
        drilled.iter().filter(|one| one.notifier == notifier && one.receiver == receiver);
    match same.next() {
        None => Err(LinkError::Unknown),
        Some(one) if one.notification == notification => Ok(()),
        Some(one) => Err(LinkError::NewerDrill(one.sent_at)),
    }
}

/// Acknowledges the alert of a link.
///
/// # Errors
/// If the link was used before, the alert can no longer be acknowledged, or the database fails.
pub async fn use_link(
    store: &Store,
    policy: &Policy,
    link: AlertLink,
    until: DateTime<Utc>,
    reason: String,
    now: DateTime<Utc>,
) -> Result<Acknowledged, LinkError> {
    if link.used.is_some() {
        return Err(LinkError::Used);
    }
    if let Some(active) = link.active.filter(|one| one.until >= until) {
        return Err(LinkError::Silenced(active.until));
    }
    let target = match &link.subject {
        Subject::Certificate(id) => Target::Certificate(id.to_string()),
        Subject::Protection(id) => Target::Project(id.to_string()),
        _ => return Err(LinkError::Unknown),
    };
    let new = NewAcknowledgement { id: Some(link.id), until, reason, by: Some(link.by) };
    Ok(acknowledge(store, &link.organization, policy, &target, &new, now).await?)
}

/// Whether a message is about another state: an expiry that has changed since, or a project that
/// lost its last active certificate again.
fn has_changed(inventory: &Inventory, alert: &Alert, sent_at: DateTime<Utc>) -> bool {
    if let Some(sent) = alert.certificate() {
        let present = inventory.certificates.get(&sent.id);
        return present.is_some_and(|one| !same_expiry(one.expires_at, sent.expires_at));
    }
    let mut projects = alert.projects().into_iter().flat_map(|projects| &projects.listed);
    projects.any(|project| {
        inventory.protection_lost.get(&project.id).is_some_and(|lost| lost.at > sent_at)
    })
}
