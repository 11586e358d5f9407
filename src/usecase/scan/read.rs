//! Reads every selected list of an organization, one request per page.
//!
//! The certificates of projects are read while the next page of projects is requested. Responses
//! that arrive before the time limit count.

use chrono::{DateTime, Utc};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Mutex, mpsc, watch};

use super::Target;
use crate::{
    admin_api::{AdminKeys, Certificates, Presence, Recent, UnreadableItems},
    domain::{
        certificate::{Project, ProjectId, Scope},
        content::{Failure, Knowledge},
        inventory::Inventory,
        reading::Reading,
        unreadable::{Cause, ReadError},
    },
};

/// Maximum number of listed projects that wait to be read; the listing pauses beyond that.
const WAITING_PROJECTS: usize = 1_000;

/// Maximum number of responses that wait to be recorded; the requests pause beyond that.
const WAITING_ANSWERS: usize = 8;

/// Maximum number of missing projects that one scan requests.
const MAX_MISSING: usize = 1_000;

/// How long a scan requests the contents of certificates.
const CONTENTS_TIME: Duration = Duration::from_secs(60);

/// The error of lists that were not read in time.
const TIME_UP: &str = "the scan reached schedule.scan_timeout";

/// The progress of a scan, for display.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    pub projects_listed: usize,
    pub projects_read: usize,
    pub certificates: usize,
}

/// A result of a request.
enum Arrival {
    Projects(Vec<Project>),
    ProjectListEnd(Result<(), ReadError>),
    /// A list; `None` if its project was archived after it was listed.
    List(Scope, Result<Option<Certificates>, ReadError>),
    /// A known project that the complete list of projects does not contain.
    Missing(Project, ReadError),
    AdminKeys(Result<AdminKeys, ReadError>),
}

/// Reads every selected list until the time limit. Lists that equal those in `before` are shared
/// with it.
pub async fn read(
    target: &Target,
    before: Arc<Inventory>,
    now: DateTime<Utc>,
    progress: &watch::Sender<Progress>,
) -> Reading {
    let mut reading = Reading::begin(Arc::clone(&before), TIME_UP, target.reads_admin_keys());
    reading.confirm_after = target.confirm_after;
    reading.contents = target.certificate_content.then(BTreeMap::new);
    let (arrive, mut arrivals) = mpsc::channel(WAITING_ANSWERS);
    let requests = request_all(target, &before, arrive);
    let mut doubtful = BTreeSet::new();
    let all = async {
        let record = async {
            let mut too_many = None;
            while let Some(arrival) = arrivals.recv().await {
                take(&mut reading, &mut too_many, arrival, progress);
            }
        };
        tokio::join!(requests, record);
        doubtful = reading.lists_that_lost_protection(&before);
        read_again(target, &mut reading, &mut doubtful, progress).await;
        read_contents(target, &mut reading, now).await;
    };
    // Responses before the time limit count.
    let in_time = tokio::time::timeout(target.timeout, all).await;
    for scope in doubtful {
        reading.fail(scope, TIME_UP.into());
    }
    if in_time.is_err() {
        let unread: Vec<Scope> = reading
            .projects
            .keys()
            .map(|id| Scope::Project(id.clone()))
            .chain([Scope::Organization])
            .filter(|scope| !reading.listings.contains_key(scope))
            .collect();
        let time_up = ReadError::from(TIME_UP);
        for scope in unread {
            reading.fail(scope, time_up.clone());
        }
    }
    reading
}

/// Reads lists again if projects lost their last active certificate: a certificate that moved
/// during the first reading may have been missed in all of them.
async fn read_again(
    target: &Target,
    reading: &mut Reading,
    doubtful: &mut BTreeSet<Scope>,
    progress: &watch::Sender<Progress>,
) {
    if !doubtful.remove(&Scope::Organization) {
        return;
    }
    let listed = target.api.organization_certificates().await.map(Some).map_err(ReadError::from);
    take(reading, &mut None, Arrival::List(Scope::Organization, listed), progress);
    if reading.is_active_for_all() {
        doubtful.clear();
        return;
    }
    let recent = Recent::default();
    let ids = doubtful.iter().filter_map(Scope::project).cloned().collect::<Vec<_>>();
    let requests = ids.into_iter().map(|id| {
        let recent = &recent;
        async move {
            let archived = target.selection.archived;
            let listed = target.api.project_certificates(&id, archived, recent).await;
            (Scope::Project(id), listed.map_err(ReadError::from))
        }
    });
    let mut answers =
        futures_util::stream::iter(requests).buffer_unordered(target.api.concurrency());
    while let Some((scope, listed)) = answers.next().await {
        doubtful.remove(&scope);
        take(reading, &mut None, Arrival::List(scope, listed), progress);
    }
}

/// Requests the contents of certificates that are not known yet, for a limited time: alerts wait
/// for them.
async fn read_contents(target: &Target, reading: &mut Reading, now: DateTime<Utc>) {
    let api = &target.api;
    let wanted = match &reading.contents {
        Some(_) => reading.wanted_contents(now),
        None => return,
    };
    let refused = AtomicBool::new(false);
    // After a refusal, no further request begins: the key has probably no permission for any.
    let wanted = wanted.into_iter().take_while(|_| !refused.load(Ordering::Relaxed));
    let requests = wanted.map(|id| async move {
        let content = api.content(&id).await;
        (id, content)
    });
    let answers = futures_util::stream::iter(requests).buffer_unordered(api.concurrency());
    let record = answers.for_each(|(id, content)| {
        let known = match content {
            Ok(content) => Knowledge::Read(Arc::new(content)),
            Err(error) => {
                refused.fetch_or(error.is_refusal(), Ordering::Relaxed);
                Knowledge::Unreadable(Failure {
                    at: now,
                    why: error.to_string(),
                    refused: error.is_refusal(),
                    transient: error.retryable,
                })
            }
        };
        reading.contents.get_or_insert_default().insert(id, known);
        std::future::ready(())
    });
    // Without an answer in time, the next scan requests them.
    drop(tokio::time::timeout(CONTENTS_TIME, record).await);
}

/// Boxed: the compiler cannot prove that a stream of borrowing futures is `Send`.
fn request_all<'a>(
    target: &'a Target,
    before: &'a Inventory,
    arrive: mpsc::Sender<Arrival>,
) -> BoxFuture<'a, ()> {
    async move {
        let (found, to_read) = mpsc::channel::<ProjectId>(WAITING_PROJECTS);
        let organization = async {
            let listed = target.api.organization_certificates().await;
            let listed = listed.map(Some).map_err(ReadError::from);
            send(&arrive, Arrival::List(Scope::Organization, listed)).await;
        };
        let admin_keys = async {
            if target.reads_admin_keys() {
                let keys = target.api.admin_keys().await.map_err(ReadError::from);
                send(&arrive, Arrival::AdminKeys(keys)).await;
            }
        };
        tokio::join!(
            list_projects(target, before, &arrive, found),
            read_projects(target, &arrive, to_read),
            organization,
            admin_keys
        );
    }
    .boxed()
}

/// The receiver is dropped only at the time limit, and then results do not matter.
async fn send(arrive: &mpsc::Sender<Arrival>, arrival: Arrival) {
    drop(arrive.send(arrival).await);
}

async fn list_projects(
    target: &Target,
    before: &Inventory,
    arrive: &mpsc::Sender<Arrival>,
    found: mpsc::Sender<ProjectId>,
) {
    let Target { api, selection, .. } = target;
    let mut pages = api.projects(selection.archived);
    // Every listed project, selected or not. A list that shifts during the reading has a project
    // twice.
    let mut seen = BTreeSet::new();
    let mut odd = UnreadableItems::default();
    let end = loop {
        match pages.next().await {
            Ok(Some(page)) => {
                odd.add(&page.odd);
                let selected: Vec<Project> = page
                    .data
                    .iter()
                    .filter(|listed| seen.insert(listed.project.id.clone()))
                    .filter(|listed| selection.archived || !listed.archived)
                    .map(|listed| listed.project.clone())
                    .filter(|project| selection.matches(project))
                    .collect();
                let ids: Vec<ProjectId> =
                    selected.iter().map(|project| project.id.clone()).collect();
                send(arrive, Arrival::Projects(selected)).await;
                for id in ids {
                    drop(found.send(id).await);
                }
            }
            Ok(None) if seen.is_empty() && odd.is_empty() => {
                let why = "GET /organization/projects: the list is empty, but an organization \
                           always has a default project";
                break Err(why.into());
            }
            Ok(None) => break read_missing(target, before, &seen, arrive, &found).await,
            Err(fault) => break Err(fault.into()),
        }
    };
    let end = match (end, odd.summary()) {
        (Ok(()), Some(why)) => Err(ReadError::from(format!("GET /organization/projects: {why}"))),
        (end, _) => end,
    };
    send(arrive, Arrival::ProjectListEnd(end)).await;
}

/// Requests known projects that the complete list does not contain. An archived one is gone; one
/// that is not found is gone once a later scan confirms it.
async fn read_missing(
    target: &Target,
    before: &Inventory,
    seen: &BTreeSet<ProjectId>,
    arrive: &mpsc::Sender<Arrival>,
    found: &mpsc::Sender<ProjectId>,
) -> Result<(), ReadError> {
    let known = before.projects.values();
    let missing =
        known.filter(|known| !seen.contains(&known.id) && target.selection.matches(known));
    let mut unlisted = None;
    for (number, project) in missing.enumerate() {
        let error = if number >= MAX_MISSING {
            ReadError::from(format!(
                "no longer in the list of projects; not checked in this scan, because more than \
                 {MAX_MISSING} projects are missing"
            ))
        } else {
            match target.api.project(&project.id).await {
                Ok(Presence::Archived) => continue,
                // It was never read, so nothing can resolve.
                Ok(Presence::NotFound) if !before.listings.contains_key(&project.id) => continue,
                Ok(Presence::NotFound) => ReadError {
                    why: "no longer in the list of projects, and GET returns 404; a scan five \
                          minutes later must confirm the removal"
                        .into(),
                    cause: Cause::Missing,
                },
                Ok(Presence::Active(project)) if !target.selection.matches(&project) => continue,
                Ok(Presence::Active(project)) => {
                    let id = project.id.clone();
                    unlisted.get_or_insert(id.clone());
                    send(arrive, Arrival::Projects(vec![project])).await;
                    drop(found.send(id).await);
                    continue;
                }
                Err(fault) => fault.into(),
            }
        };
        send(arrive, Arrival::Missing(project.clone(), error)).await;
    }
    match unlisted {
        None => Ok(()),
        Some(id) => Err(ReadError::from(format!(
            "GET /organization/projects: the list does not contain project {id}, which exists: \
             other projects may be missing"
        ))),
    }
}

/// Reads as many projects at a time as the concurrency of the organization allows.
async fn read_projects(
    target: &Target,
    arrive: &mpsc::Sender<Arrival>,
    to_read: mpsc::Receiver<ProjectId>,
) {
    let (to_read, recent) = (Mutex::new(to_read), Recent::default());
    let one_after_another = || async {
        loop {
            // The lock is held while waiting for a project, not while reading it.
            let Some(id) = to_read.lock().await.recv().await else { return };
            let archived = target.selection.archived;
            let listed = target.api.project_certificates(&id, archived, &recent).await;
            let listed = listed.map_err(ReadError::from);
            send(arrive, Arrival::List(Scope::Project(id), listed)).await;
        }
    };
    let readers = (0..target.api.concurrency()).map(|_| one_after_another());
    readers.collect::<FuturesUnordered<_>>().collect::<()>().await;
}

fn take(
    reading: &mut Reading,
    too_many: &mut Option<ReadError>,
    arrival: Arrival,
    progress: &watch::Sender<Progress>,
) {
    match arrival {
        Arrival::Projects(projects) => {
            progress.send_modify(|progress| progress.projects_listed += projects.len());
            if let Err(error) = reading.add_projects(projects) {
                *too_many = Some(error);
            }
        }
        Arrival::ProjectListEnd(end) => {
            reading.project_list = too_many.take().map_or(end, Err);
        }
        Arrival::AdminKeys(keys) => {
            reading.admin_keys = Some(keys.map(|listed| {
                reading.key_owners = listed.owners;
                listed.keys
            }));
        }
        Arrival::Missing(project, error) => {
            let scope = Scope::Project(project.id.clone());
            match reading.add_projects(vec![project]) {
                Ok(()) => reading.fail(scope, error),
                Err(error) => *too_many = Some(error),
            }
        }
        Arrival::List(scope, listed) => {
            progress.send_modify(|progress| {
                progress.projects_read += usize::from(matches!(scope, Scope::Project(_)));
                progress.certificates += match &listed {
                    Ok(Some(list)) => list.pages.iter().map(|page| page.len()).sum(),
                    Ok(None) | Err(_) => 0,
                };
            });
            match (scope, listed) {
                // The organization exceeds its limits.
                (Scope::Project(id), _) if !reading.projects.contains_key(&id) => {}
                // Archived between the listing and the reading.
                (Scope::Project(id), Ok(None)) => {
                    reading.projects.remove(&id);
                }
                (Scope::Organization, Ok(None)) => {}
                (scope, Ok(Some(list))) => {
                    if let Some(why) = list.odd.summary() {
                        let request = match &scope {
                            Scope::Organization => "GET /organization/certificates".to_owned(),
                            Scope::Project(id) => {
                                format!("GET /organization/projects/{id}/certificates")
                            }
                        };
                        reading.add_partial(scope.clone(), format!("{request}: {why}").into());
                    }
                    reading.take(scope, list.pages);
                }
                (scope, Err(error)) => reading.fail(scope, error),
            }
        }
    }
}
