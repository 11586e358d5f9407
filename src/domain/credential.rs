//! The credentials of certvigil and their expiry: the organization's admin keys, and the client
//! certificate of certvigil.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::{
    certificate::{AdminKeyId, UNKNOWN_LIFE},
    content::Content,
    inventory::Inventory,
    policy::Policy,
    subject::Subject,
    text::Name,
    threshold::{Reached, Steps},
    words::words,
};

words! {
    CredentialKind {
        AdminKey = "admin_key",
        ClientIdentity = "client_identity",
    }
}

words! {
    /// The admin keys whose expiry is watched.
    WatchedKeys {
        /// The keys that certvigil uses.
        Own = "own",
        All = "all",
        Off = "off",
    }
}

/// An admin key, as the API lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminKey {
    pub id: AdminKeyId,
    pub name: Option<Name>,
    pub created_at: Option<DateTime<Utc>>,
    /// `None` if the key does not expire, or if the expiry is unknown.
    pub expires_at: Option<DateTime<Utc>>,
    /// Whether its redacted value matches the key that certvigil uses.
    pub own: bool,
}

/// The organization's list of admin keys, as last read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminKeys {
    pub read_at: DateTime<Utc>,
    pub keys: BTreeMap<AdminKeyId, AdminKey>,
}

/// The client certificate that certvigil presents to the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    pub valid_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    /// The issuers of this certificate and of the intermediates that certvigil presents with it.
    pub issuers: Vec<IssuerId>,
}

/// The issuer of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerId {
    /// The distinguished name, as in [`Content`].
    pub name: String,
    pub key_id: Option<String>,
}

impl ClientIdentity {
    /// Whether it can chain to this trust anchor (RFC 5280, sections 4.2.1.1 and 6.1).
    pub fn chains_to(&self, anchor: &Content) -> bool {
        let own = &anchor.subject_key_id;
        self.issuers.iter().any(|issuer| {
            issuer.name == anchor.subject
                && (issuer.key_id == *own || issuer.key_id.is_none() || own.is_none())
        })
    }
}

/// An admin key or the client certificate, with its current stage.
#[derive(Clone, Debug)]
pub struct Credential<'a> {
    pub which: Which<'a>,
    pub expires_at: DateTime<Utc>,
    pub steps: Steps,
    pub reached: Option<Reached>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which<'a> {
    AdminKey(&'a AdminKey),
    ClientIdentity,
}

impl Credential<'_> {
    pub fn subject(&self) -> Subject {
        match self.which {
            Which::AdminKey(key) => Subject::AdminKey(key.id.clone()),
            Which::ClientIdentity => Subject::ClientIdentity,
        }
    }

    pub fn kind(&self) -> CredentialKind {
        match self.which {
            Which::AdminKey(_) => CredentialKind::AdminKey,
            Which::ClientIdentity => CredentialKind::ClientIdentity,
        }
    }

    /// Whether certvigil uses it.
    pub fn is_own(&self) -> bool {
        match self.which {
            Which::AdminKey(key) => key.own,
            Which::ClientIdentity => true,
        }
    }

    /// `None` for the client certificate.
    pub fn id(&self) -> Option<AdminKeyId> {
        match self.which {
            Which::AdminKey(key) => Some(key.id.clone()),
            Which::ClientIdentity => None,
        }
    }

    pub fn name(&self) -> Option<&Name> {
        match self.which {
            Which::AdminKey(key) => key.name.as_ref(),
            Which::ClientIdentity => None,
        }
    }
}

/// The watched credentials with an expiry. They use the global ladder, because rules apply to
/// certificates only.
pub fn credentials<'a>(
    inventory: &'a Inventory,
    policy: &Policy,
    now: DateTime<Utc>,
) -> Vec<Credential<'a>> {
    let credential = |which, from: Option<DateTime<Utc>>, expires_at: DateTime<Utc>| {
        let life = from.map_or(UNKNOWN_LIFE, |from| (expires_at - from).max(TimeDelta::zero()));
        let steps = policy.ladder.steps(life);
        let reached = steps.reached(expires_at, now);
        Credential { which, expires_at, steps, reached }
    };
    let keys = inventory.admin_keys.iter().flat_map(|listed| listed.keys.values());
    let watched = keys.filter(|key| match policy.admin_keys {
        WatchedKeys::Own => key.own,
        WatchedKeys::All => true,
        WatchedKeys::Off => false,
    });
    let keys = watched
        .filter_map(|key| Some(credential(Which::AdminKey(key), key.created_at, key.expires_at?)));
    let identity = policy.client_identity.as_ref().map(|identity| {
        credential(Which::ClientIdentity, Some(identity.valid_at), identity.expires_at)
    });
    keys.chain(identity).collect()
}
