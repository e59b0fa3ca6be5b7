//! A request, taken apart: who asks, what is named in its path and query, its body, and what its caller saw before. Whatever is
//! wrong with it is a [`Problem`] like any other.

use axum::RequestPartsExt;
use axum::body::Body;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::{Path, Query};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::schema::Schema;
use crate::caller::{Caller, Role};
use crate::problem::{Code, Problem};
use crate::service::Service;

/// Largest request body, bytes: the longest one lists disks and networks of a VM.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// A query or a body in which nothing may stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// The query of every change.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DryRun {
    /// Change nothing and answer with the plan: what would happen, and every prerequisite with its cure.
    #[serde(default)]
    pub(crate) dry_run: bool,
}

/// What the path of a row names, in order.
pub(crate) trait Named: Sized + Send + 'static {
    fn named(names: Vec<String>) -> Result<Self, Problem>;
}

impl Named for () {
    fn named(_: Vec<String>) -> Result<Self, Problem> {
        Ok(())
    }
}

impl Named for String {
    fn named(names: Vec<String>) -> Result<Self, Problem> {
        <[String; 1]>::try_from(names).map(|[name]| name).map_err(|_| not_understood(&"one name is meant"))
    }
}

impl Named for (String, String) {
    fn named(names: Vec<String>) -> Result<Self, Problem> {
        <[String; 2]>::try_from(names).map(Into::into).map_err(|_| not_understood(&"two names are meant"))
    }
}

/// The names in the path, decoded.
pub(crate) async fn names(parts: &mut Parts) -> Result<Vec<String>, Problem> {
    let Path(names): Path<Vec<(String, String)>> =
        parts.extract().await.map_err(|error| not_understood(&error))?;
    Ok(names.into_iter().map(|(_, name)| name).collect())
}

/// The caller, as the listener knows it: of each request after a sign-in, or of the whole connection.
pub(crate) fn caller(parts: &Parts) -> Result<Caller, Problem> {
    let signed_in = parts.extensions.get::<Caller>();
    let known = signed_in.or_else(|| parts.extensions.get::<ConnectInfo<Caller>>().map(|info| &info.0));
    known.cloned().ok_or_else(|| {
        Problem::new(Code::NotSignedIn, "Not signed in", "nobody said who asks")
            .with_cure("sign in: POST /session")
    })
}

/// Whether the caller may do what needs this role.
pub(crate) fn allow(caller: &Caller, needed: Role, because: &str) -> Result<(), Problem> {
    if caller.role >= needed {
        return Ok(());
    }
    let (has, needs) = (caller.role.words(), needed.words());
    Err(Problem::new(Code::Forbidden, "Not allowed", format!("{caller} is {has}, and {because} needs the role {needs}"))
        .with_cure(format!("an administrator of this host puts the account into a group with the role {needs}; then sign in again")))
}

pub(crate) fn query<Q: DeserializeOwned>(parts: &Parts) -> Result<Q, Problem> {
    let Query(query) = Query::try_from_uri(&parts.uri).map_err(|error| not_understood(&error))?;
    Ok(query)
}

/// The whole body; longer than any of ours is refused while it comes.
pub(crate) async fn body(parts: &Parts, body: Body) -> Result<Bytes, Problem> {
    let kind = parts.headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default());
    let is_json = |kind: &str| {
        kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
    };
    let read = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            let most = format!("a request has at most {BODY_BYTES_MAX} bytes");
            return Problem::new(Code::TooLarge, "Request too large", most)
                .with_cure("send only the fields of the request");
        }
        not_understood(&error)
    })?;
    let bytes = read.to_bytes();
    match kind {
        Some(kind) if !bytes.is_empty() && !is_json(kind) => Err(Problem::new(
            Code::Invalid,
            "Request not understood",
            format!("a request is JSON, not {kind:?}"),
        )
        .with_cure("send the header Content-Type: application/json")),
        _ => Ok(bytes),
    }
}

/// What a body asks for. No body asks for what has no fields, or for the defaults of all of them.
pub(crate) fn form<B: DeserializeOwned>(bytes: &Bytes, schema: &Schema) -> Result<B, Problem> {
    let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { bytes };
    let form = serde_json::from_slice(bytes).map_err(|error| not_understood(&error))?;
    match schema.broken_by(bytes) {
        None => Ok(form),
        Some(why) => Err(Problem::new(Code::Invalid, "Not accepted", why)
            .with_cure("ask for a value within these limits; nothing was changed")),
    }
}

fn not_understood(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(Code::Invalid, "Request not understood", error.to_string()).with_cure(
        "compare with /api/v1/openapi.json of this daemon; a virt-replica command is of the daemon's version: virt-replica --version",
    )
}

/// As what the caller saw the relationship (`If-Match`, with an ETag of it), if it says so, and which one that is.
pub(crate) struct Seen {
    pub(crate) tags: Option<HeaderValue>,
    pub(crate) vm: Option<String>,
}

/// When it is no longer as it was seen, nothing is changed.
pub(crate) async fn still_as_seen(seen: &Seen, service: &dyn Service) -> Result<(), Problem> {
    let Some(tags) = &seen.tags else { return Ok(()) };
    let Some(vm) = &seen.vm else {
        let why = "only a relationship can be compared with what was seen of it";
        return Err(
            Problem::new(Code::Invalid, "If-Match means nothing here", why).with_cure("leave the header out")
        );
    };
    let now = service.revision(vm.clone()).await?;
    let tags = tags.to_str().unwrap_or_default().split(',').map(revision_of);
    if tags.into_iter().any(|tag| tag == "*" || tag == now) {
        return Ok(());
    }
    let why =
        format!("{vm} has changed since it was looked at: its state, its settings, its role or an operation");
    Err(Problem::new(Code::Stale, "State changed", why).with_cure("look again, then decide again"))
}

/// The part of an ETag that says as what a relationship was seen: `"REVISION.…"`, weak or not.
fn revision_of(tag: &str) -> &str {
    let tag = tag.trim();
    let tag = tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"');
    tag.split('.').next().unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_is_read_from_whatever_tag_a_client_has() {
        for tag in ["\"abc\"", "\"abc.0123\"", " W/\"abc.0123\"", "abc"] {
            assert_eq!(revision_of(tag), "abc", "{tag}");
        }
        assert_eq!(revision_of("*"), "*");
    }
}
