//! HTTP under `/api/v1`: reads are GET, changes are POST with `?dry_run=true` for a plan only. Each route is a row in one of the
//! rooms below; what all routes have in common (roles, audit, ETags, pages) is in `table`. Decides nothing about VMs.

mod answer;
mod live;
mod request;
mod rows;
mod schema;
mod table;

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use serde_json::Value;
use tokio::net::UnixListener;

use crate::caller::Caller;
use crate::service::Service;
use answer::{no_such_method, no_such_path};
pub use request::BODY_BYTES_MAX;
pub(crate) use request::{DryRun, Nothing};
pub(crate) use table::Row;

/// The whole API over `service`. Whoever serves it puts a [`Caller`] into the extensions of each request.
pub fn router(service: Arc<dyn Service>) -> Router {
    let v1 = rows::table()
        .router
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(service);
    Router::new().nest("/api/v1", v1).fallback(no_such_path)
}

/// The OpenAPI document of this version: what `/api/v1/openapi.json` answers.
#[must_use]
pub fn openapi() -> &'static Value {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(|| rows::table().document.finish());
    &DOCUMENT
}

/// Serves the API on `listener` until the future is dropped; the kernel's word on who asks reaches the service.
pub async fn serve(listener: UnixListener, service: Arc<dyn Service>) -> std::io::Result<()> {
    axum::serve(listener, router(service).into_make_service_with_connect_info::<Caller>()).await
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Caller::of_socket(stream.io().peer_cred().ok().map(|credentials| credentials.uid()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_that_travels_both_ways_is_described_once() {
        assert_eq!(crate::openapi::contradictions(rows::table().document), Vec::<String>::new());
    }
}
