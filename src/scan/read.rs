//! The reading of a scan: everything that is selected, with as few requests as there are pages.
//!
//! The projects' certificates are read while the next page of projects is on its way. What has arrived
//! when the time is up counts.

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{collections::BTreeSet, sync::Arc};
use tokio::sync::{Mutex, mpsc, watch};

use super::Target;
use crate::{
    admin_api::{Certificates, Recent},
    domain::{
        certificate::{Project, ProjectId, Scope},
        credential::AdminKey,
        inventory::Inventory,
        reading::Reading,
    },
};

/// How many listed projects may wait to be read; the listing waits for room beyond.
const WAITING_PROJECTS: usize = 1_000;

/// How many answers may wait to be taken: the requests wait for room beyond.
const WAITING_ANSWERS: usize = 64;

/// Why something was not read that was still to be.
const TIME_UP: &str = "the scan's time was up";

/// How far a scan has come, for who watches it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    pub projects_listed: usize,
    pub projects_read: usize,
    pub certificates: usize,
}

/// What the requests brought, as it comes in.
enum Arrival {
    Projects(Vec<Project>),
    ProjectListEnd(Result<(), String>),
    List(Scope, Result<Option<Certificates>, String>),
    AdminKeys(Result<Vec<AdminKey>, String>),
}

/// Reads everything that is selected, until the time is up; what is as it was `before` is not kept twice.
pub async fn read(
    target: &Target,
    before: Arc<Inventory>,
    progress: &watch::Sender<Progress>,
) -> Reading {
    let mut reading = Reading::begin(before, TIME_UP, target.reads_admin_keys());
    let (arrive, mut arrivals) = mpsc::channel(WAITING_ANSWERS);
    let requests = request_all(target, arrive);
    let record = async {
        while let Some(arrival) = arrivals.recv().await {
            take(&mut reading, arrival, progress);
        }
    };
    // What has arrived when the time is up counts.
    let in_time =
        tokio::time::timeout(target.timeout, async { tokio::join!(requests, record) }).await;
    if in_time.is_err() {
        let unread: Vec<Scope> = reading
            .projects
            .keys()
            .map(|id| Scope::Project(id.clone()))
            .chain([Scope::Organization])
            .filter(|scope| !reading.listings.contains_key(scope))
            .collect();
        for scope in unread {
            reading.listings.insert(scope, Err(TIME_UP.to_owned()));
        }
    }
    reading
}

/// Boxed: the compiler cannot see through a stream of borrowing futures that the whole may be sent to
/// another thread.
fn request_all(target: &Target, arrive: mpsc::Sender<Arrival>) -> BoxFuture<'_, ()> {
    async move {
        let (found, to_read) = mpsc::channel::<ProjectId>(WAITING_PROJECTS);
        let organization = async {
            let listed = target.api.organization_certificates().await;
            let listed = listed.map(Some).map_err(|fault| fault.to_string());
            tell(&arrive, Arrival::List(Scope::Organization, listed)).await;
        };
        let admin_keys = async {
            if target.reads_admin_keys() {
                let keys = target.api.admin_keys().await.map_err(|fault| fault.to_string());
                tell(&arrive, Arrival::AdminKeys(keys)).await;
            }
        };
        tokio::join!(
            list_projects(target, &arrive, found),
            read_projects(target, &arrive, to_read),
            organization,
            admin_keys
        );
    }
    .boxed()
}

/// Nobody listens any more only when the scan's time is up, and then nobody tells.
async fn tell(arrive: &mpsc::Sender<Arrival>, arrival: Arrival) {
    drop(arrive.send(arrival).await);
}

async fn list_projects(
    target: &Target,
    arrive: &mpsc::Sender<Arrival>,
    found: mpsc::Sender<ProjectId>,
) {
    let mut pages = target.api.projects(target.selection.archived);
    // A list that shifts while it is read names a project twice.
    let mut seen = BTreeSet::new();
    let end = loop {
        match pages.next().await {
            Ok(Some(page)) => {
                let selected: Vec<Project> = page
                    .into_iter()
                    .filter(|project| target.selection.matches(project))
                    .filter(|project| seen.insert(project.id.clone()))
                    .collect();
                let ids: Vec<ProjectId> =
                    selected.iter().map(|project| project.id.clone()).collect();
                tell(arrive, Arrival::Projects(selected)).await;
                for id in ids {
                    drop(found.send(id).await);
                }
            }
            Ok(None) => break Ok(()),
            Err(fault) => break Err(fault.to_string()),
        }
    };
    tell(arrive, Arrival::ProjectListEnd(end)).await;
}

/// As many at once as the organization is asked for.
async fn read_projects(
    target: &Target,
    arrive: &mpsc::Sender<Arrival>,
    to_read: mpsc::Receiver<ProjectId>,
) {
    let (to_read, recent) = (Mutex::new(to_read), Recent::default());
    let one_after_another = || async {
        loop {
            // Held until there is one, and not while it is read.
            let Some(id) = to_read.lock().await.recv().await else { return };
            let archived = target.selection.archived;
            let listed = target.api.project_certificates(&id, archived, &recent).await;
            let listed = listed.map_err(|fault| fault.to_string());
            tell(arrive, Arrival::List(Scope::Project(id), listed)).await;
        }
    };
    let readers = (0..target.api.concurrency()).map(|_| one_after_another());
    readers.collect::<FuturesUnordered<_>>().collect::<()>().await;
}

fn take(reading: &mut Reading, arrival: Arrival, progress: &watch::Sender<Progress>) {
    match arrival {
        Arrival::Projects(projects) => {
            progress.send_modify(|progress| progress.projects_listed += projects.len());
            let named = projects.into_iter().map(|project| (project.id.clone(), project));
            reading.projects.extend(named);
        }
        Arrival::ProjectListEnd(end) => reading.project_list = end,
        Arrival::AdminKeys(keys) => reading.admin_keys = Some(keys),
        Arrival::List(scope, listed) => {
            progress.send_modify(|progress| {
                progress.projects_read += usize::from(matches!(scope, Scope::Project(_)));
                progress.certificates += match &listed {
                    Ok(Some(pages)) => pages.iter().map(|page| page.len()).sum(),
                    Ok(None) | Err(_) => 0,
                };
            });
            match (scope, listed) {
                // It was archived between the listing and the reading.
                (Scope::Project(id), Ok(None)) => {
                    reading.projects.remove(&id);
                }
                (scope, Ok(listed)) => reading.take(scope, listed.unwrap_or_default()),
                (scope, Err(why)) => {
                    reading.listings.insert(scope, Err(why));
                }
            }
        }
    }
}
