//! `GET /changes`: server-sent events that say which list has changed. Whoever listens asks again for what it shows; a listener
//! that was away asks for everything once, since nothing is repeated.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;

use super::table::Shared;
use crate::dto::{Changed, What};
use crate::problem::Problem;

/// Proxies and browsers give a silent connection up after a minute, most of them later.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The stream for one listener.
pub(crate) async fn changes(service: Shared) -> Result<Response, Problem> {
    let told = |what: What| {
        let data = serde_json::to_string(&Changed { what }).unwrap_or_default(); // an enum in a struct can be written
        Ok::<_, Infallible>(Event::default().event("change").data(data))
    };
    // A comment at once: the listener knows that it is connected before anything has changed.
    let begun = futures_util::stream::once(async { Ok(Event::default().comment("listening")) });
    let events = begun.chain(service.changes().map(told));
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
