//! Requests that change the simulated organization: upload, activate, deactivate and delete
//! certificates.

use axum::{
    Json, Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{delete, post},
};
use serde::Deserialize;
use serde_json::json;

use super::{AdminApi, certificate_json, error, refusal};
use crate::demo::{
    audit_log::Actor,
    world::{Certificate, World},
};

/// The maximum number of certificates in a request.
const MAX_IDS: usize = 10;

pub fn router() -> Router<AdminApi> {
    Router::new()
        .route("/certificates", post(upload))
        .route("/certificates/{id}", delete(remove))
        .route("/certificates/activate", post(activate))
        .route("/certificates/deactivate", post(deactivate))
        .route("/projects/{id}/certificates/activate", post(activate_in))
        .route("/projects/{id}/certificates/deactivate", post(deactivate_in))
}

#[derive(Deserialize)]
struct Upload {
    name: Option<String>,
    /// PEM.
    certificate: String,
}

#[derive(Deserialize)]
struct Ids {
    certificate_ids: Vec<String>,
}

async fn upload(State(api): State<AdminApi>, Json(upload): Json<Upload>) -> Response {
    let parsed = x509_parser::pem::parse_x509_pem(upload.certificate.as_bytes());
    let Ok((_, pem)) = parsed else { return error(400, "The certificate is not PEM.") };
    let Ok(certificate) = pem.parse_x509() else {
        return error(400, "The certificate is not X.509 (DER).");
    };
    let at =
        |time: x509_parser::time::ASN1Time| chrono::DateTime::from_timestamp(time.timestamp(), 0);
    let validity = certificate.validity();
    let mut world = api.world();
    let new = Certificate {
        id: format!("cert_upload_{}", world.certificates.len() + 1),
        name: upload.name,
        created_at: crate::clock::Clock::System.now(),
        valid_at: at(validity.not_before),
        expires_at: at(validity.not_after),
        organization_wide: false,
        projects: Default::default(),
        pem: Some(upload.certificate),
    };
    let body = certificate_json(&new, "certificate", false);
    let id = new.id.clone();
    world.certificates.push(new);
    log(&mut world, "certificate.created", &[id]);
    Json(body).into_response()
}

async fn remove(State(api): State<AdminApi>, Path(id): Path<String>) -> Response {
    let mut world = api.world();
    let Some(certificate) = world.certificate(&id) else {
        return error(404, "No such certificate.");
    };
    if certificate.organization_wide || certificate.projects.values().any(|active| *active) {
        let code = Some("certificate_in_use");
        return refusal(400, code, "The certificate is active: deactivate it first.");
    }
    log(&mut world, "certificate.deleted", std::slice::from_ref(&id));
    world.certificates.retain(|one| one.id != id);
    Json(json!({ "object": "certificate.deleted", "id": id })).into_response()
}

async fn activate(State(api): State<AdminApi>, Json(ids): Json<Ids>) -> Response {
    switch(&mut api.world(), None, &ids.certificate_ids, true)
}

async fn deactivate(State(api): State<AdminApi>, Json(ids): Json<Ids>) -> Response {
    switch(&mut api.world(), None, &ids.certificate_ids, false)
}

async fn activate_in(
    State(api): State<AdminApi>,
    Path(id): Path<String>,
    Json(ids): Json<Ids>,
) -> Response {
    switch(&mut api.world(), Some(&id), &ids.certificate_ids, true)
}

async fn deactivate_in(
    State(api): State<AdminApi>,
    Path(id): Path<String>,
    Json(ids): Json<Ids>,
) -> Response {
    switch(&mut api.world(), Some(&id), &ids.certificate_ids, false)
}

/// Logs an event of the simulated admin key.
fn log(world: &mut World, kind: &str, ids: &[String]) {
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let now = crate::clock::Clock::System.now();
    world.log(kind, now, Actor::ServiceAccount("sa_terraform"), None, &ids);
}

/// Activates or deactivates all of these certificates, in a project or for the organization; an
/// error changes nothing.
fn switch(world: &mut World, project: Option<&str>, ids: &[String], active: bool) -> Response {
    if !(1..=MAX_IDS).contains(&ids.len()) {
        return error(400, "certificate_ids must have 1 to 10 items.");
    }
    if project.is_some_and(|id| world.projects.iter().all(|one| one.id != id)) {
        return error(404, "No such project.");
    }
    if ids.iter().any(|id| world.certificate(id).is_none()) {
        return error(404, "No such certificate.");
    }
    for certificate in world.certificates.iter_mut().filter(|one| ids.contains(&one.id)) {
        match project {
            None => certificate.organization_wide = active,
            Some(project) => drop(certificate.projects.insert(project.to_owned(), active)),
        }
    }
    let kind = if active { "certificates.activated" } else { "certificates.deactivated" };
    log(world, kind, ids);
    let what = if project.is_some() {
        "organization.project.certificate"
    } else {
        "organization.certificate"
    };
    let switched = world.certificates.iter().filter(|one| ids.contains(&one.id));
    let data: Vec<_> = switched.map(|one| certificate_json(one, what, active)).collect();
    let action = if active { "activation" } else { "deactivation" };
    Json(json!({ "object": format!("{what}.{action}"), "data": data })).into_response()
}
