//! Secrets that a browser holds: the token of a session, and of a one-time link. This host keeps only their hashes, so
//! that nobody signs in with what is read from its memory or its database.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac};

const TOKEN_BYTES: usize = 32;
/// What is signed for the token against forged requests; another text would make other tokens.
const CSRF_PURPOSE: &[u8] = b"virt-replica console csrf";

/// SHA-256 of a token.
pub type TokenHash = [u8; 32];

/// 256 random bits. Never shown by `Debug`, never compared with another one: hashes are looked up.
pub(crate) struct Token([u8; TOKEN_BYTES]);

impl Token {
    /// A new one; none when the kernel gives no randomness.
    pub(crate) fn random() -> Option<Token> {
        let mut bytes = [0; TOKEN_BYTES];
        SystemRandom::new().fill(&mut bytes).ok()?;
        Some(Token(bytes))
    }

    /// As it stands in a cookie or a link.
    pub(crate) fn parse(text: &str) -> Option<Token> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Token)
    }

    pub(crate) fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    pub(crate) fn hash(&self) -> TokenHash {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, &self.0).as_ref());
        hash
    }

    /// The token against forged requests. It follows from the session's token, so it is kept nowhere and outlives a restart, and the
    /// session's does not follow from it.
    pub(crate) fn csrf(&self) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.csrf_key(), CSRF_PURPOSE))
    }

    /// Whether a text is that token; takes as long for a near miss as for a far one.
    pub(crate) fn csrf_is(&self, text: &[u8]) -> bool {
        let given = URL_SAFE_NO_PAD.decode(text);
        given.is_ok_and(|given| hmac::verify(&self.csrf_key(), CSRF_PURPOSE, &given).is_ok())
    }

    fn csrf_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_and_only_its_own_csrf_token_fits() {
        let (one, other) = (Token::random().expect("random"), Token::random().expect("random"));
        let again = Token::parse(&one.text()).expect("a token");
        assert_eq!(again.hash(), one.hash());
        assert_ne!(one.hash(), other.hash());
        assert!(again.csrf_is(one.csrf().as_bytes()));
        assert!(!one.csrf_is(other.csrf().as_bytes()));
        assert!(!one.csrf_is(one.text().as_bytes()));
        assert!(!one.csrf_is(b""));
    }

    #[test]
    fn what_is_no_token_is_none() {
        let text = Token::random().expect("random").text();
        for wrong in
            ["", "x", &text[1..], &format!("{text}A"), &format!("{text}="), &text.replace(&text[..1], "+")]
        {
            assert!(Token::parse(wrong).is_none(), "{wrong}");
        }
    }
}
