//! `/api/v1`: the API for programs.
//!
//! Responses change only by additions. Lists are paginated: `next_cursor` is the `cursor` of the
//! next page and null on the last one; their order is stable during pagination. Errors are problem
//! details (RFC 9457). The OpenAPI document ([`document`]) is generated from the code.

mod acknowledgements;
mod certificates;
mod deliveries;
mod page;
mod projects;
mod request;
mod scans;

use axum::{Json, Router};
use utoipa::{
    OpenApi,
    openapi::{
        self,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Shared;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "certvigil",
        description = "The mutual TLS certificates of the watched OpenAI organizations, the \
                       alerts sent for them, and acknowledgements. If http.token is configured, every request needs it as a bearer token; writing always needs it.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "certificates", description = "Every certificate once"),
        (name = "projects", description = "Each project, and how long it has a valid certificate"),
        (name = "scans", description = "When each organization was read, and whether completely"),
        (name = "deliveries", description = "Sent, pending and failed deliveries"),
        (name = "acknowledgements", description = "Silences of a certificate or project, with a \
                 reason and an end"),
    ),
    security((), ("token" = [])),
)]
struct Description;

/// The routes, and their OpenAPI document.
pub fn router() -> Router<Shared> {
    // The document has half a megabyte and is rarely requested, so each request builds it.
    let document = axum::routing::get(|| std::future::ready(Json(document())));
    operations().0.route("/api/v1/openapi.json", document)
}

fn operations() -> (Router<Shared>, openapi::OpenApi) {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(certificates::list))
        .routes(routes!(certificates::show))
        .routes(routes!(projects::list))
        .routes(routes!(scans::list, scans::begin))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::retry))
        .routes(routes!(acknowledgements::list, acknowledgements::acknowledge))
        .routes(routes!(acknowledgements::withdraw))
        .split_for_parts()
}

/// The OpenAPI 3.1 document, as served at `/api/v1/openapi.json`.
pub fn document() -> openapi::OpenApi {
    let (_, mut described) = operations();
    let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("http.token"));
    described
        .components
        .get_or_insert_default()
        .add_security_scheme("token", SecurityScheme::Http(token.build()));
    described
}
