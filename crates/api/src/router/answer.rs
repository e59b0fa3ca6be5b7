//! Answers over HTTP: JSON with its ETag, the way to the next page, problems in their own form.

use axum::Json;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::problem::{Code, Problem};

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(header::CONTENT_TYPE, Problem::MEDIA_TYPE)], Json(self)).into_response()
    }
}

/// JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(value)
        .map_err(|error| Problem::new(Code::Failed, "Answer cannot be written", error.to_string()))
}

/// What a read shows: with a tag of its content, and without the content when the asker has it already. Before the content's own
/// tag stands the `revision` of what is shown, where it has one.
pub(crate) fn tagged(parts: &Parts, media: &'static str, body: Vec<u8>, revision: Option<&str>) -> Response {
    let digest = blake3::hash(&body).to_hex();
    let own = &digest[..32];
    let tag = revision.map_or_else(|| format!("\"{own}\""), |revision| format!("\"{revision}.{own}\""));
    let headers = [
        (header::ETAG, HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"\""))),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    if has_already(&parts.headers, &tag) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, [(header::CONTENT_TYPE, media)], body).into_response()
}

fn has_already(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known
        .flat_map(|value| value.split(','))
        .map(|known| known.trim())
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// Says where a list goes on: the same request with another `after`.
pub(crate) fn with_next(parts: &Parts, next: Option<&str>, mut response: Response) -> Response {
    let Some(next) = next else { return response };
    let others = parts.uri.query().unwrap_or_default().split('&');
    let mut query: Vec<String> =
        others.filter(|pair| !pair.is_empty() && !pair.starts_with("after=")).map(str::to_owned).collect();
    query.push(format!("after={}", crate::client::escape(next)));
    let link = format!("</api/v1{}?{}>; rel=\"next\"", parts.uri.path(), query.join("&"));
    if let Ok(link) = HeaderValue::from_str(&link) {
        response.headers_mut().insert(HeaderName::from_static("link"), link);
    }
    response
}

/// What is asked for is not there at all.
pub(crate) async fn no_such_path() -> Problem {
    Problem::new(Code::NotFound, "No such path", "this daemon does not know the request")
        .with_cure("install the same version of virt-replica and virtreplicad: virt-replica --version")
}

/// The path is there, and something else can be done with it.
pub(crate) async fn no_such_method() -> Response {
    let problem = Problem::new(Code::Invalid, "No such method", "reads are GET, changes are POST");
    (StatusCode::METHOD_NOT_ALLOWED, [(header::CONTENT_TYPE, Problem::MEDIA_TYPE)], Json(problem))
        .into_response()
}
