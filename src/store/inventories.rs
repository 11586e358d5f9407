//! The stored inventory. Parts of limited size keep only one part in memory in addition to the
//! inventory. Shared lists are stored once, and unchanged parts are not written again.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    Result, StoreError,
    sql::{Transaction, query},
};
use crate::domain::{
    certificate::{Certificate, CertificateId, Certificates, OrganizationName, Project, ProjectId},
    change::{AuditLog, CertificateChange, Changes},
    content::Knowledge,
    credential::AdminKeys,
    inventory::{Inventory, Listing, ProtectionLost},
    reading::List,
    text::Name,
    unreadable::Unreadable,
};

/// The size of a part, in bytes, from which the next one starts.
const PART: usize = 128 * 1024;
/// The current format. In the first one, the inventory was one JSON document.
const FORM: u32 = 2;

/// The kinds of parts, in the order in which they are read.
const CERTIFICATES: &str = "certificates";
const LISTS: &str = "lists";
const PROJECTS: &str = "projects";
const CONTENTS: &str = "contents";
const CHANGES: &str = "changes";

/// The data outside the parts.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    form: u32,
    /// The distinct times at which lists were read; usually there is one.
    read_at: Vec<DateTime<Utc>>,
    /// The organization's list: its index among the lists, and the index of its time in `read_at`.
    organization: Option<(usize, usize)>,
    unreadable_projects: Cow<'a, BTreeMap<ProjectId, Unreadable>>,
    unreadable_organization: Option<Unreadable>,
    unreadable_project_list: Option<Unreadable>,
    admin_keys: Option<Cow<'a, AdminKeys>>,
    unreadable_admin_keys: Option<Unreadable>,
    #[serde(default)]
    protection_lost: Cow<'a, BTreeMap<ProjectId, ProtectionLost>>,
    #[serde(default)]
    audit_log: Option<Cow<'a, AuditLog>>,
}

/// A certificate; times are Unix seconds, as in the API.
type CertificateRow<'a> =
    (Text<'a>, Option<Text<'a>>, Option<i64>, Option<i64>, Option<i64>, Option<i64>);
/// A list: the ids of active and of inactive certificates.
type ListRow<'a> = (Vec<Text<'a>>, Vec<Text<'a>>);
/// A project: its id, its name, and its list as in [`Head::organization`].
type ProjectRow<'a> = (Text<'a>, Option<Text<'a>>, Option<(usize, usize)>);
/// The content of a certificate.
type ContentRow<'a> = (Text<'a>, Cow<'a, Knowledge>);
type Text<'a> = Cow<'a, str>;

/// Assigns indexes to distinct lists and to the times at which they were read.
#[derive(Default)]
struct ListIndex<'a> {
    lists: Vec<&'a List>,
    /// Indexes by memory address: clones of a list share it.
    known: HashMap<usize, usize>,
    times: Vec<DateTime<Utc>>,
}

impl<'a> ListIndex<'a> {
    fn of(&mut self, listing: &'a Listing) -> (usize, usize) {
        let list = *self.known.entry(listing.list.address()).or_insert(self.lists.len());
        if list == self.lists.len() {
            self.lists.push(&listing.list);
        }
        // There are few distinct times: the latest scan read nearly all lists.
        let time = self.times.iter().position(|time| *time == listing.read_at);
        let time = time.unwrap_or(self.times.len());
        if time == self.times.len() {
            self.times.push(listing.read_at);
        }
        (list, time)
    }
}

/// Stores the inventory of an organization with the scan that it comes from.
pub async fn keep(
    tx: &mut Transaction,
    organization: &str,
    inventory: &Inventory,
    updated_at: i64,
    scan_id: &str,
) -> Result<()> {
    let mut places = ListIndex::default();
    let own = inventory.organization.as_ref().map(|listing| places.of(listing));
    let of_projects: Vec<Option<(usize, usize)>> = {
        let listings = inventory.projects.keys().map(|id| inventory.listings.get(id));
        listings.map(|listing| listing.map(|listing| places.of(listing))).collect()
    };
    let head = Head {
        form: FORM,
        read_at: places.times,
        organization: own,
        unreadable_projects: Cow::Borrowed(&inventory.unreadable_projects),
        unreadable_organization: inventory.unreadable_organization.clone(),
        unreadable_project_list: inventory.unreadable_project_list.clone(),
        admin_keys: inventory.admin_keys.as_ref().map(Cow::Borrowed),
        unreadable_admin_keys: inventory.unreadable_admin_keys.clone(),
        protection_lost: Cow::Borrowed(&inventory.protection_lost),
        audit_log: inventory.changes.audit_log.as_ref().map(Cow::Borrowed),
    };
    query(
        "INSERT INTO organizations (name, inventory, updated_at, scan_id) VALUES ($1, $2, $3, $4)
         ON CONFLICT (name) DO UPDATE
         SET inventory = excluded.inventory, updated_at = excluded.updated_at, scan_id = excluded.scan_id",
    )
    .bind(organization)
    .bind(serde_json::to_string(&head)?)
    .bind(updated_at)
    .bind(scan_id)
    .execute(&mut *tx)
    .await?;

    let mut parts = Parts::new(organization, CERTIFICATES);
    for one in inventory.certificates.values() {
        let seconds = |at: Option<DateTime<Utc>>| at.map(|at| at.timestamp());
        let reported = one.reported();
        let row: CertificateRow<'_> = (
            one.id.as_str().into(),
            one.name.as_ref().map(|name| name.as_str().into()),
            seconds(one.created_at),
            seconds(reported.valid_at),
            seconds(reported.expires_at),
            one.strange_expiry,
        );
        parts.add(&row, tx).await?;
    }
    parts.end(tx).await?;
    let mut parts = Parts::new(organization, LISTS);
    for list in places.lists {
        let ids = |active: bool| {
            let some = list.iter().filter(move |(_, is_active)| *is_active == active);
            some.map(|(id, _)| id.as_str().into()).collect()
        };
        let row: ListRow<'_> = (ids(true), ids(false));
        parts.add(&row, tx).await?;
    }
    parts.end(tx).await?;
    let mut parts = Parts::new(organization, PROJECTS);
    for (project, place) in inventory.projects.values().zip(of_projects) {
        let name = project.name.as_ref().map(|name| name.as_str().into());
        let row: ProjectRow<'_> = (project.id.as_str().into(), name, place);
        parts.add(&row, tx).await?;
    }
    parts.end(tx).await?;
    let mut parts = Parts::new(organization, CONTENTS);
    for (id, content) in &inventory.contents {
        let row: ContentRow<'_> = (id.as_str().into(), Cow::Borrowed(content));
        parts.add(&row, tx).await?;
    }
    parts.end(tx).await?;
    let mut parts = Parts::new(organization, CHANGES);
    for change in &inventory.changes.all {
        parts.add(change, tx).await?;
    }
    parts.end(tx).await
}

/// Writes the parts of one kind.
struct Parts<'a> {
    organization: &'a str,
    kind: &'static str,
    number: i64,
    content: Vec<u8>,
}

impl Parts<'_> {
    fn new<'a>(organization: &'a str, kind: &'static str) -> Parts<'a> {
        Parts { organization, kind, number: 0, content: Vec::new() }
    }

    async fn add(&mut self, row: &impl Serialize, tx: &mut Transaction) -> Result<()> {
        self.content.push(if self.content.is_empty() { b'[' } else { b',' });
        serde_json::to_writer(&mut self.content, row)?;
        if self.content.len() >= PART { self.write(tx).await } else { Ok(()) }
    }

    async fn write(&mut self, tx: &mut Transaction) -> Result<()> {
        self.content.push(b']');
        let content = String::from_utf8(std::mem::take(&mut self.content));
        query(
            "INSERT INTO inventory_parts (organization, kind, part, content) VALUES ($1, $2, $3, $4)
             ON CONFLICT (organization, kind, part) DO UPDATE SET content = excluded.content
             WHERE inventory_parts.content <> excluded.content",
        )
        .bind(self.organization)
        .bind(self.kind)
        .bind(self.number)
        .bind(content.map_err(|error| sqlx::Error::Encode(error.into()))?)
        .execute(tx)
        .await?;
        self.number += 1;
        Ok(())
    }

    /// Writes the last part, and deletes surplus parts of an earlier inventory.
    async fn end(mut self, tx: &mut Transaction) -> Result<()> {
        if !self.content.is_empty() {
            self.write(tx).await?;
        }
        query("DELETE FROM inventory_parts WHERE organization = $1 AND kind = $2 AND part >= $3")
            .bind(self.organization)
            .bind(self.kind)
            .bind(self.number)
            .execute(tx)
            .await?;
        Ok(())
    }
}

/// The inventory of an organization; empty before the first scan.
pub async fn read(tx: &mut Transaction, organization: &OrganizationName) -> Result<Inventory> {
    let head: Option<String> = query("SELECT inventory FROM organizations WHERE name = $1")
        .bind(organization.as_str())
        .scalar(&mut *tx)
        .await?;
    let Some(head) = head else { return Ok(Inventory::default()) };
    let head: Head<'_> = match serde_json::from_str::<Form>(&head)?.form {
        Some(FORM) => serde_json::from_str(&head)?,
        Some(other) => return Err(decode(format!("unknown format {other} of an inventory"))),
        None => return Ok(serde_json::from_str::<FirstFormat>(&head)?.into()),
    };

    let mut certificates = Certificates::new();
    let mut number = 0;
    while let Some(part) = part(tx, organization, CERTIFICATES, &mut number).await? {
        for row in serde_json::from_str::<Vec<CertificateRow<'_>>>(&part)? {
            let (id, named, created_at, valid_at, expires_at, strange_expiry) = row;
            let instant =
                |seconds: Option<i64>| seconds.and_then(|at| DateTime::from_timestamp(at, 0));
            let certificate = Certificate {
                id: CertificateId::parse(&id).map_err(decode)?,
                name: name(named),
                created_at: instant(created_at),
                valid_at: instant(valid_at),
                expires_at: instant(expires_at),
                strange_expiry,
                content: None,
                reported: None,
            };
            certificates.insert(certificate.id.clone(), Arc::new(certificate));
        }
    }
    let mut lists: Vec<List> = Vec::new();
    let mut number = 0;
    while let Some(part) = part(tx, organization, LISTS, &mut number).await? {
        for (active, inactive) in serde_json::from_str::<Vec<ListRow<'_>>>(&part)? {
            let active = active.into_iter().map(|id| (id, true));
            let all = active.chain(inactive.into_iter().map(|id| (id, false)));
            let id = |text: Text<'_>| {
                let id = CertificateId::parse(&text).map_err(decode)?;
                // Share one string for each id.
                Ok::<_, StoreError>(
                    certificates.get_key_value(&id).map_or(id, |(id, _)| id.clone()),
                )
            };
            let all = all.map(|(text, active)| Ok((id(text)?, active)));
            lists.push(List::new(all.collect::<Result<_>>()?));
        }
    }
    let listing = |(list, time): (usize, usize)| match (lists.get(list), head.read_at.get(time)) {
        (Some(list), Some(read_at)) => Ok(Listing { read_at: *read_at, list: list.clone() }),
        (None, _) | (_, None) => Err(decode(format!(
            "an inventory refers to list {list} or time {time}, which is missing"
        ))),
    };
    let (mut projects, mut listings) = (BTreeMap::new(), BTreeMap::new());
    let mut number = 0;
    while let Some(part) = part(tx, organization, PROJECTS, &mut number).await? {
        for (id, named, place) in serde_json::from_str::<Vec<ProjectRow<'_>>>(&part)? {
            let id = ProjectId::parse(&id).map_err(decode)?;
            if let Some(place) = place {
                listings.insert(id.clone(), listing(place)?);
            }
            projects.insert(id.clone(), Project { id, name: name(named) });
        }
    }
    let mut contents = BTreeMap::new();
    let mut number = 0;
    while let Some(part) = part(tx, organization, CONTENTS, &mut number).await? {
        for (id, content) in serde_json::from_str::<Vec<ContentRow<'_>>>(&part)? {
            contents.insert(CertificateId::parse(&id).map_err(decode)?, content.into_owned());
        }
    }
    let mut changes = Vec::new();
    let mut number = 0;
    while let Some(part) = part(tx, organization, CHANGES, &mut number).await? {
        changes.append(&mut serde_json::from_str::<Vec<CertificateChange>>(&part)?);
    }
    let audit_log = head.audit_log.map(Cow::into_owned);
    let mut inventory = Inventory {
        projects,
        certificates,
        organization: head.organization.map(listing).transpose()?,
        listings,
        unreadable_projects: head.unreadable_projects.into_owned(),
        unreadable_organization: head.unreadable_organization,
        unreadable_project_list: head.unreadable_project_list,
        admin_keys: head.admin_keys.map(Cow::into_owned),
        unreadable_admin_keys: head.unreadable_admin_keys,
        protection_lost: head.protection_lost.into_owned(),
        contents,
        changes: Changes { all: changes, audit_log },
    };
    inventory.apply_contents();
    Ok(inventory)
}

/// Reads the part with this number, and increments the number.
async fn part(
    tx: &mut Transaction,
    organization: &OrganizationName,
    kind: &str,
    number: &mut i64,
) -> Result<Option<String>> {
    let part = query(
        "SELECT content FROM inventory_parts WHERE organization = $1 AND kind = $2 AND part = $3",
    );
    let part = part.bind(organization.as_str()).bind(kind).bind(*number).scalar(tx).await?;
    *number += 1;
    Ok(part)
}

fn name(kept: Option<Text<'_>>) -> Option<Name> {
    kept.as_deref().and_then(Name::clean)
}

fn decode(what: impl std::fmt::Display) -> StoreError {
    sqlx::Error::Decode(what.to_string().into()).into()
}

/// The format; the first one has no such field.
#[derive(Deserialize)]
struct Form {
    form: Option<u32>,
}

/// The first format: the whole inventory in one document.
#[derive(Deserialize)]
struct FirstFormat {
    projects: BTreeMap<ProjectId, Project>,
    certificates: BTreeMap<CertificateId, Certificate>,
    organization: Option<WholeListing>,
    listings: BTreeMap<ProjectId, WholeListing>,
    unreadable_projects: BTreeMap<ProjectId, Unreadable>,
    unreadable_organization: Option<Unreadable>,
    unreadable_project_list: Option<Unreadable>,
    #[serde(default)]
    admin_keys: Option<AdminKeys>,
    #[serde(default)]
    unreadable_admin_keys: Option<Unreadable>,
}

#[derive(Deserialize)]
struct WholeListing {
    read_at: DateTime<Utc>,
    certificates: BTreeMap<CertificateId, bool>,
}

impl From<WholeListing> for Listing {
    fn from(whole: WholeListing) -> Listing {
        let WholeListing { read_at, certificates } = whole;
        Listing { read_at, list: List::new(certificates.into_iter().collect()) }
    }
}

impl From<FirstFormat> for Inventory {
    fn from(whole: FirstFormat) -> Inventory {
        let certificates = whole.certificates.into_iter();
        let listings = whole.listings.into_iter();
        Inventory {
            projects: whole.projects,
            certificates: certificates.map(|(id, one)| (id, Arc::new(one))).collect(),
            organization: whole.organization.map(Listing::from),
            listings: listings.map(|(id, one)| (id, one.into())).collect(),
            unreadable_projects: whole.unreadable_projects,
            unreadable_organization: whole.unreadable_organization,
            unreadable_project_list: whole.unreadable_project_list,
            admin_keys: whole.admin_keys,
            unreadable_admin_keys: whole.unreadable_admin_keys,
            protection_lost: BTreeMap::new(),
            contents: BTreeMap::new(),
            changes: Changes::default(),
        }
    }
}
