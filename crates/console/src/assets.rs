//! The pages, embedded in the program.

use axum::Router;
use axum::response::Html;
use axum::routing::get;

/// Serves the embedded files.
pub fn router() -> Router {
    Router::new().route("/", get(async || Html(include_str!("../assets/index.html"))))
}
