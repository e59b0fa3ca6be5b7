//! What is found behind the door, and what each request passes on its way.

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use tower::util::BoxCloneSyncService;

use crate::door::Door;
use crate::{assets, body, guard, headers, session};

/// Everything that the console's listener serves: `api` is the whole of the API, under its own path.
pub fn routes(door: Arc<Door>, api: Router) -> Router {
    let session = Router::new()
        .route("/session", get(session::get).post(session::post).delete(session::delete))
        .with_state(door.clone())
        .layer(from_fn(body::take_whole))
        .layer(from_fn(headers::keep_nowhere));
    let api = api
        .layer(from_fn(body::take_whole))
        .layer(from_fn_with_state(door, guard::check))
        .layer(from_fn(headers::keep_nowhere));
    // The API's routes begin with /api themselves, so nothing is cut off the path.
    Router::new()
        .merge(session)
        .route_service("/api/{*rest}", BoxCloneSyncService::new(api))
        .fallback_service(assets::router())
        .layer(from_fn(headers::add))
}
