//! The one cookie. Its prefix makes the browser hold it to this host, to HTTPS and to all paths; scripts do not see it, and no other site's
//! page makes the browser send it.

use axum::http::{HeaderMap, HeaderValue, header};

use crate::token::Token;

const NAME: &str = "__Host-vr-session";
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Strict";

/// The token in the request's cookie. Of several of that name none is believed.
pub(crate) fn token(headers: &HeaderMap) -> Option<Token> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(name, _)| *name == NAME).map(|(_, value)| value);
    let value = values.next()?;
    if values.next().is_some() { None } else { Token::parse(value) }
}

/// Gives the browser a token. It lasts as long as the browser runs; how long it is good is decided here.
pub(crate) fn set(token: &Token) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("{NAME}={}; {ATTRIBUTES}", token.text())).ok()
}

/// Takes it back.
pub(crate) fn clear() -> Option<HeaderValue> {
    HeaderValue::try_from(format!("{NAME}=; {ATTRIBUTES}; Max-Age=0")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(lines: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::COOKIE, HeaderValue::from_str(line).expect("a header"));
        }
        token(&headers).is_some()
    }

    #[test]
    fn the_token_is_found_among_others_and_two_are_none() {
        let text = Token::random().expect("random").text();
        let ours = format!("{NAME}={text}");
        assert!(found(&[&ours]));
        assert!(found(&[&format!("a=b; {ours};c=d")]));
        assert!(found(&["a=b", &ours]));
        assert!(!found(&[&ours, &ours]));
        assert!(!found(&[&format!("{ours}; {ours}")]));
        assert!(!found(&[&format!("x{ours}")]));
        assert!(!found(&[&format!("{NAME}=\"{text}\"")]));
        assert!(!found(&[]));
    }
}
