//! What is about the API itself: its document, and the stream of changes.

use std::sync::Arc;

use super::viewer;
use crate::dto::Changed;
use crate::openapi::{JSON, Operation};
use crate::router::answer::{json, tagged};
use crate::router::request::Nothing;
use crate::router::table::Table;
use crate::router::{live, openapi};

pub(super) fn rows(mut table: Table) -> Table {
    let changes = viewer(
        "/changes",
        "changes",
        "Server-sent events: `change` with data such as `{\"what\": \"operations\"}` when that list may show something else.",
    );
    let document = viewer("/openapi.json", "openapi", "This document.");
    table.document.add("get", &changes, Operation::stream::<Changed>());
    table.document.add("get", &document, Operation::read::<Nothing, serde_json::Value>());
    table.get(changes, Arc::new(|service, _| Box::pin(live::changes(service)))).get(
        document,
        Arc::new(|_, parts| Box::pin(async move { Ok(tagged(&parts, JSON, json(openapi())?, None)) })),
    )
}
