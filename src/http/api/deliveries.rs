//! Deliveries: sent, pending and failed ones, and retries.

use axum::{Json, extract::State};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::{
    super::{Shared, changes, problem::Problem},
    page::Page,
    request::{NO_CURSOR, Named, Params, limit},
};
use crate::{domain::delivery::DeliveryState, store::Which, view::Delivery};

/// The filters of the list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// Of one organization
    organization: Option<String>,
    /// Of one notifier
    notifier: Option<String>,
    /// By state
    #[param(inline)]
    state: Option<DeliveryState>,
    /// Only rejected and given-up deliveries, and pending ones that failed
    failed: Option<bool>,
    /// Maximum number of entries
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u32>,
    /// `next_cursor` of the previous page
    cursor: Option<u64>,
}

/// Stored deliveries, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/deliveries",
    operation_id = "listDeliveries",
    tag = "deliveries",
    params(ListParams),
    responses(
        (status = 200, description = "A page of deliveries", body = Page<Delivery>),
        (status = "default", description = "The error", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn list(
    State(shared): State<Shared>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<Delivery>>, Problem> {
    let limit = limit(params.limit)?;
    if let Some(name) = &params.organization {
        changes::organization(&shared, name)?;
    }
    let before = params.cursor.map(i64::try_from).transpose();
    let before = before.map_err(|_| Problem::bad_request(NO_CURSOR))?;
    let which = Which {
        failed: params.failed.unwrap_or(false),
        state: params.state,
        notifier: params.notifier.as_deref(),
        organization: params.organization.as_deref(),
        before,
    };
    let rows = shared.reading.deliveries(&which, limit as u32 + 1).await?;
    let data = rows.into_iter().map(Into::into).collect();
    Ok(Json(Page::of(data, limit, |last: &Delivery| last.seq.to_string())))
}

/// Retries a failed or pending delivery now.
#[utoipa::path(
    post,
    path = "/api/v1/deliveries/{id}/retry",
    operation_id = "retryDelivery",
    tag = "deliveries",
    params(("id" = Uuid, Path, description = "The id of the delivery")),
    responses(
        (status = 200, description = "The delivery", body = Delivery),
        (status = "default", description = "The error", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = [])),
)]
pub async fn retry(
    State(shared): State<Shared>,
    Named(id): Named<Uuid>,
) -> Result<Json<Delivery>, Problem> {
    Ok(Json(changes::retry(&shared, id).await?.into()))
}
