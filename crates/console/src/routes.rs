//! What is found behind the door, and what each request passes on its way.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use tower::{ServiceExt, service_fn};

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
    // Chosen by hand: a route `/api/{*rest}` would hand its own parameter down to those of the API, and a nest would cut the path.
    let pages = assets::router();
    let rest = service_fn(move |request: Request| {
        let served = if request.uri().path().starts_with("/api/") { &api } else { &pages };
        served.clone().oneshot(request)
    });
    Router::new().merge(session).fallback_service(rest).layer(from_fn(headers::add))
}
