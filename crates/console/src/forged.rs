//! Whether a page of somebody else made the browser send a request.
//!
//! Two independent signs. The browser says where a request comes from (`Sec-Fetch-Site`, `Origin`), and no page can make it say otherwise. A
//! change carries a token in a header that only a page of ours has read. The cookie is `SameSite=Strict` besides.

use api::{Code, Problem};
use axum::http::{HeaderMap, Method, header};

use crate::token::Token;

const CSRF_HEADER: &str = "x-csrf-token";

/// Whether a request with this method may change anything.
pub(crate) fn changes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD)
}

/// A request that changes something comes from a page of this host, or from no page.
pub(crate) fn comes_from_here(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let site_fits = text("sec-fetch-site").is_none_or(|site| site == "same-origin");
    let host = text(header::HOST.as_str()).unwrap_or_default();
    let origin_fits =
        text(header::ORIGIN.as_str()).is_none_or(|origin| origin.strip_prefix("https://") == Some(host));
    if site_fits && origin_fits {
        return Ok(());
    }
    Err(Problem::new(
        Code::Forbidden,
        "Request of another site",
        "a page of another site made the browser send this request; nothing was changed",
    )
    .with_cure("use the console at its own address"))
}

/// A change carries the session's token.
pub(crate) fn carries_token(headers: &HeaderMap, token: &Token) -> Result<(), Problem> {
    let refused = |why: &str| {
        Problem::new(Code::Forbidden, "Not sent by the console", format!("{why}; nothing was changed"))
            .with_cure("load the page again; a program sends the header X-CSRF-Token with the `csrf` of GET /session")
    };
    match headers.get(CSRF_HEADER) {
        None => Err(refused("the request has no X-CSRF-Token")),
        Some(given) if token.csrf_is(given.as_bytes()) => Ok(()),
        Some(_) => Err(refused("the X-CSRF-Token is not this session's")),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn comes(headers: &[(&'static str, &'static str)]) -> bool {
        let pairs = headers
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut headers: HeaderMap = pairs.collect();
        headers.insert(header::HOST, HeaderValue::from_static("hvhost01:8444"));
        comes_from_here(&headers).is_ok()
    }

    #[test]
    fn only_our_own_pages_and_programs_without_a_page_get_through() {
        assert!(comes(&[]));
        assert!(comes(&[("origin", "https://hvhost01:8444"), ("sec-fetch-site", "same-origin")]));
        for site in ["cross-site", "same-site", "none", "", "SAME-ORIGIN"] {
            assert!(!comes(&[("sec-fetch-site", site)]), "{site}");
        }
        for origin in
            ["null", "", "http://hvhost01:8444", "https://hvhost01", "https://hvhost01:8445", "https://evil"]
        {
            assert!(!comes(&[("origin", origin)]), "{origin}");
        }
        assert!(!comes(&[("origin", "https://hvhost01:8444"), ("sec-fetch-site", "cross-site")]));
    }
}
