//! The simulated Admin API: responses, pages and errors are like those of the real one.

mod changes;

use axum::{
    Json, Router,
    extract::{Path, Query, RawQuery, Request, State},
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use parking_lot::{Mutex, MutexGuard};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{io, net::SocketAddr, sync::Arc};

use super::world::{AdminKey, Certificate, Project, World};

/// The key that the simulated organization accepts.
pub const KEY: &str = "sk-admin-simulated";

const LACKS_SCOPE: &str =
    "You have insufficient permissions for this operation. Missing scopes: api.mtls.read.";

/// The simulated organization and the received requests.
#[derive(Clone, Default)]
pub struct AdminApi {
    world: Arc<Mutex<World>>,
    requests: Arc<Mutex<Vec<String>>>,
}

#[derive(Deserialize)]
struct Paging {
    limit: Option<usize>,
    after: Option<String>,
    #[serde(default)]
    include_archived: bool,
}

impl AdminApi {
    pub fn new(world: World) -> AdminApi {
        AdminApi { world: Arc::new(Mutex::new(world)), requests: Arc::default() }
    }

    /// The simulated organization, to read or change.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock()
    }

    /// The requests since the last call, as path and query.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock())
    }

    /// The API below `/v1`.
    pub fn router(&self) -> Router {
        let organization = Router::new()
            .route("/projects", get(projects))
            .route("/projects/{id}", get(project))
            .route("/projects/{id}/certificates", get(project_certificates))
            .route("/certificates", get(organization_certificates))
            .route("/certificates/{id}", get(certificate))
            .route("/admin_api_keys", get(admin_keys))
            .route("/audit_logs", get(audit_logs))
            .merge(changes::router());
        Router::new()
            .nest("/v1/organization", organization)
            .layer(middleware::from_fn_with_state(self.clone(), admit))
            .with_state(self.clone())
    }

    /// Serves the API on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If no port is available.
    pub async fn serve(&self) -> io::Result<SocketAddr> {
        super::serve(self.router()).await
    }
}

/// Records the request, and rejects wrong keys.
async fn admit(
    State(api): State<AdminApi>,
    headers: HeaderMap,
    request: Request,
    next: Next,
) -> Response {
    let asked = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
    api.requests.lock().push(asked);
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if bearer != Some(&format!("Bearer {KEY}")) {
        return error(401, "Incorrect API key provided.");
    }
    next.run(request).await
}

fn error(status: u16, message: &str) -> Response {
    refusal(status, None, message)
}

fn refusal(status: u16, code: Option<&str>, message: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = json!({ "error": {
        "message": message, "type": "invalid_request_error", "param": null, "code": code,
    }});
    (status, Json(body)).into_response()
}

async fn projects(State(api): State<AdminApi>, Query(paging): Query<Paging>) -> Response {
    let world = api.world();
    let listed: Vec<&Project> = world
        .projects
        .iter()
        .filter(|project| paging.include_archived || !project.archived)
        .collect();
    page(&listed, &paging, |project| &project.id, project_json)
}

async fn project(State(api): State<AdminApi>, Path(id): Path<String>) -> Response {
    match api.world().projects.iter().find(|project| project.id == id) {
        Some(project) => Json(project_json(project)).into_response(),
        None => error(404, "No such project."),
    }
}

async fn project_certificates(
    State(api): State<AdminApi>,
    Path(id): Path<String>,
    Query(paging): Query<Paging>,
) -> Response {
    let world = api.world();
    let Some(project) = world.projects.iter().find(|project| project.id == id) else {
        return error(404, "No such project.");
    };
    if let Some(status) = project.broken {
        return match status {
            // The real API responds to a missing scope with a bare text.
            403 => (StatusCode::FORBIDDEN, Json(json!({ "error": LACKS_SCOPE }))).into_response(),
            _ => error(status, "The server had an error."),
        };
    }
    let listed: Vec<&Certificate> =
        world.certificates.iter().filter(|one| one.projects.contains_key(&id)).collect();
    page(
        &listed,
        &paging,
        |one| &one.id,
        |one| {
            let active = one.projects.get(&id) == Some(&true);
            certificate_json(one, "organization.project.certificate", active)
        },
    )
}

async fn organization_certificates(
    State(api): State<AdminApi>,
    Query(paging): Query<Paging>,
) -> Response {
    let world = api.world();
    let listed: Vec<&Certificate> = world.certificates.iter().collect();
    page(
        &listed,
        &paging,
        |one| &one.id,
        |one| certificate_json(one, "organization.certificate", one.organization_wide),
    )
}

async fn certificate(
    State(api): State<AdminApi>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let world = api.world();
    if let Some(status) = world.contents_broken {
        return error(status, "You have insufficient permissions for this operation.");
    }
    let found = world.certificates.iter().find(|one| one.id == id);
    let Some(certificate) = found.filter(|_| !world.without_content.contains(&id)) else {
        return error(404, "No such certificate.");
    };
    let mut body = certificate_json(certificate, "certificate", false);
    if let Some(body) = body.as_object_mut() {
        body.remove("active");
    }
    let asked = query.unwrap_or_default();
    let asked = url::form_urlencoded::parse(asked.as_bytes());
    if asked.into_iter().any(|(key, value)| key == "include[]" && value == "content") {
        body["certificate_details"]["content"] = certificate.pem.clone().into();
    }
    Json(body).into_response()
}

async fn admin_keys(State(api): State<AdminApi>, Query(paging): Query<Paging>) -> Response {
    let world = api.world();
    if let Some(status) = world.admin_keys_broken {
        return error(status, "You have insufficient permissions for this operation.");
    }
    let listed: Vec<&AdminKey> = world.admin_keys.iter().collect();
    page(&listed, &paging, |key| &key.id, admin_key_json)
}

async fn audit_logs(
    State(api): State<AdminApi>,
    Query(paging): Query<Paging>,
    RawQuery(query): RawQuery,
) -> Response {
    let world = api.world();
    if let Some(status) = world.audit_log_broken {
        return error(status, "You have insufficient permissions for this operation.");
    }
    let query = query.unwrap_or_default();
    let asked: Vec<(String, String)> =
        url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let after = asked.iter().find(|(key, _)| key == "effective_at[gt]");
    let after = after.and_then(|(_, at)| at.parse::<i64>().ok());
    let is_asked = |event: &&Value| {
        let kind = event["type"].as_str().unwrap_or_default();
        let at = event["effective_at"].as_i64();
        asked.iter().any(|(key, value)| key == "event_types[]" && value == kind)
            && after.is_none_or(|after| at.is_none_or(|at| at > after))
    };
    let listed: Vec<&Value> = world.audit_log.iter().filter(is_asked).collect();
    page(&listed, &paging, |event| event["id"].as_str().unwrap_or_default(), Value::clone)
}

fn page<T>(
    all: &[&T],
    paging: &Paging,
    id: impl Fn(&T) -> &str,
    shown: impl Fn(&T) -> Value,
) -> Response {
    let limit = paging.limit.unwrap_or(20);
    if !(1..=100).contains(&limit) {
        return error(400, "limit must be from 1 to 100.");
    }
    let start = match &paging.after {
        None => 0,
        Some(after) => match all.iter().position(|one| id(one) == after) {
            Some(position) => position + 1,
            None => return error(400, "after is no known id."),
        },
    };
    let data: Vec<&&T> = all.iter().skip(start).take(limit).collect();
    Json(json!({
        "object": "list",
        "first_id": data.first().map(|one| id(one)),
        "last_id": data.last().map(|one| id(one)),
        "has_more": start + data.len() < all.len(),
        "data": data.iter().map(|one| shown(one)).collect::<Vec<_>>(),
    }))
    .into_response()
}

fn project_json(project: &Project) -> Value {
    json!({
        "object": "organization.project",
        "id": project.id,
        "name": project.name,
        "created_at": 1_700_000_000,
        "archived_at": project.archived.then_some(1_750_000_000),
        "status": if project.archived { "archived" } else { "active" },
    })
}

fn admin_key_json(key: &AdminKey) -> Value {
    json!({
        "object": "organization.admin_api_key",
        "id": key.id,
        "name": key.name,
        "redacted_value": key.redacted_value,
        "created_at": 1_700_000_000,
        "expires_at": key.expires_at.map(|at| at.timestamp()),
        "last_used_at": 1_700_000_001,
        "owner": {
            "type": "user", "object": "organization.user", "id": key.owner.0, "name": key.owner.1,
            "created_at": 1_700_000_000, "role": "owner",
        },
    })
}

fn certificate_json(certificate: &Certificate, object: &str, active: bool) -> Value {
    let mut details = serde_json::Map::new();
    let times = [("valid_at", certificate.valid_at), ("expires_at", certificate.expires_at)];
    for (key, at) in times {
        if let Some(at) = at {
            details.insert(key.to_owned(), at.timestamp().into());
        }
    }
    json!({
        "object": object,
        "id": certificate.id,
        "name": certificate.name,
        "created_at": certificate.created_at.timestamp(),
        "certificate_details": details,
        "active": active,
    })
}
