//! The pages, embedded in the program.
//!
//! Every file is served under a folder that is named by the hash of all of them, and may be kept for ever: `/assets/HASH/js/app.js`.
//! Modules name each other by relative paths, so they stay in that folder. The document itself, which names the folder, is asked for anew
//! each time; every address of a page is answered with it, and the script shows the page that the address names.
//! What is *not* here: anything about a person or a VM. The pages hold no secret, and are served to whoever asks.

use std::fmt::Write;
use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use include_dir::{Dir, File, include_dir};
use ring::digest;

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/assets");
static DOCUMENT: LazyLock<Document> = LazyLock::new(Document::assemble);

/// A year: the longest that browsers honour.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const ASKED_ANEW: HeaderValue = HeaderValue::from_static("no-cache");
/// Digits of the hash in the folder's name: enough that no two versions share it.
const HASH_DIGITS: usize = 20;

/// `index.html` with the names that it has in this version.
struct Document {
    hash: String,
    tag: HeaderValue,
    html: String,
}

impl Document {
    fn assemble() -> Document {
        let files = files();
        let mut context = digest::Context::new(&digest::SHA256);
        for file in &files {
            for part in [file.path().as_os_str().as_encoded_bytes(), file.contents()] {
                context.update(&part.len().to_be_bytes());
                context.update(part);
            }
        }
        let mut hash = String::new();
        for byte in context.finish().as_ref() {
            let _ = write!(hash, "{byte:02x}");
        }
        hash.truncate(HASH_DIGITS);
        let folder = format!("/assets/{hash}");
        // What every page is made of, all at once instead of one behind the other. Pages, tabs and windows come when they are shown.
        let common = files.iter().filter(|file| file.path().parent() == Some(std::path::Path::new("js")));
        let preload = |file: &&File<'_>| {
            format!("<link rel=\"modulepreload\" href=\"{folder}/{}\">", file.path().display())
        };
        let preload: Vec<String> = common.map(preload).collect();
        let html = FILES.get_file("index.html").and_then(File::contents_utf8).unwrap_or_default();
        let html = html.replace("{{assets}}", &folder).replace("{{preload}}", &preload.join("\n"));
        let tag = HeaderValue::try_from(format!("\"{hash}\"")).unwrap_or(ASKED_ANEW);
        Document { hash, tag, html }
    }
}

/// Every embedded file, in the order of their paths.
fn files() -> Vec<&'static File<'static>> {
    fn within(dir: &'static Dir<'static>, found: &mut Vec<&'static File<'static>>) {
        found.extend(dir.files());
        for dir in dir.dirs() {
            within(dir, found);
        }
    }
    let mut found = Vec::new();
    within(&FILES, &mut found);
    found.sort_by_key(|file| file.path());
    found
}

/// Serves the embedded files, and the document at every address of a page.
pub fn router() -> Router {
    let page = || get(document);
    Router::new()
        .route("/assets/{hash}/{*path}", get(asset))
        .route("/", page())
        .route("/hosts/{*page}", page())
        .route("/settings", page())
        .route("/settings/{*page}", page())
}

async fn document(headers: HeaderMap) -> Response {
    let own = [(header::ETAG, DOCUMENT.tag.clone()), (header::CACHE_CONTROL, ASKED_ANEW)];
    if headers.get(header::IF_NONE_MATCH) == Some(&DOCUMENT.tag) {
        return (StatusCode::NOT_MODIFIED, own).into_response();
    }
    (own, [(header::CONTENT_TYPE, kind("html"))], DOCUMENT.html.as_str()).into_response()
}

/// A file of this version. A page of another one asks in vain, and loads itself anew.
async fn asset(Path((hash, path)): Path<(String, String)>) -> Response {
    let file = FILES.get_file(&path).filter(|_| hash == DOCUMENT.hash);
    let Some(file) = file else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let extension = file.path().extension().and_then(|it| it.to_str()).unwrap_or_default();
    ([(header::CONTENT_TYPE, kind(extension)), (header::CACHE_CONTROL, KEPT)], file.contents())
        .into_response()
}

fn kind(extension: &str) -> HeaderValue {
    HeaderValue::from_static(match extension {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => "application/octet-stream",
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Component, PathBuf};

    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn ask(path: &str, tag: Option<&HeaderValue>) -> (StatusCode, HeaderMap, String) {
        let mut request = Request::get(path);
        if let Some(tag) = tag {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        let response = router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    fn texts() -> impl Iterator<Item = (PathBuf, &'static str)> {
        files().into_iter().map(|file| (file.path().to_owned(), file.contents_utf8().unwrap()))
    }

    /// What stands between quotes behind `mark`, wherever that is.
    fn quoted<'a>(text: &'a str, mark: &'a str) -> impl Iterator<Item = &'a str> {
        text.split(mark).skip(1).filter_map(|rest| rest.split('"').next())
    }

    #[tokio::test]
    async fn every_address_of_a_page_is_the_document_and_an_unchanged_one_is_not_sent_again() {
        for path in ["/", "/hosts/hvhost01", "/hosts/a%20host/6a1c/summary", "/settings", "/settings/peers"] {
            let (status, headers, body) = ask(path, None).await;
            assert_eq!((status, body.as_str()), (StatusCode::OK, DOCUMENT.html.as_str()), "{path}");
            assert_eq!(headers[header::CACHE_CONTROL], ASKED_ANEW);
            let (status, _, body) = ask(path, Some(&headers[header::ETAG])).await;
            assert_eq!((status, body.as_str()), (StatusCode::NOT_MODIFIED, ""), "{path}");
        }
        assert_eq!(ask("/no-such-page", None).await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn every_file_that_the_document_names_is_there_for_ever_and_only_in_this_version() {
        let named: Vec<&str> =
            quoted(&DOCUMENT.html, "href=\"").chain(quoted(&DOCUMENT.html, "src=\"")).collect();
        assert!(named.len() > 10, "{named:?}");
        for path in named {
            let (status, headers, _) = ask(path, None).await;
            assert_eq!(status, StatusCode::OK, "{path}");
            assert_eq!(headers[header::CACHE_CONTROL], KEPT, "{path}");
            assert_ne!(headers[header::CONTENT_TYPE], "application/octet-stream", "{path}");
            let other = path.replace(&DOCUMENT.hash, "00000000000000000000");
            assert_eq!(ask(&other, None).await.0, StatusCode::NOT_FOUND);
        }
    }

    #[test]
    fn every_module_that_a_module_names_is_embedded() {
        for (path, text) in texts().filter(|(path, _)| path.starts_with("js")) {
            let named = quoted(text, " from \"").chain(quoted(text, "import(\""));
            for named in named.filter(|named| named.starts_with('.')) {
                let mut whole = path.parent().unwrap().to_owned();
                for part in std::path::Path::new(named).components() {
                    match part {
                        Component::ParentDir => assert!(whole.pop()),
                        Component::CurDir => {}
                        part => whole.push(part),
                    }
                }
                assert!(FILES.get_file(&whole).is_some(), "{} names {named}", path.display());
            }
        }
    }

    #[test]
    fn nothing_is_asked_of_another_host_and_no_text_becomes_markup() {
        for (path, text) in texts() {
            let outside = text.replace("http://www.w3.org/2000/svg", "");
            for forbidden in [
                "http://",
                "https://",
                "innerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                " style=\"",
            ] {
                assert!(!outside.contains(forbidden), "{} has {forbidden}", path.display());
            }
        }
    }
}
