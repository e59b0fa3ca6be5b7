//! The token that pairs two hosts: printed on one, typed or pasted on the other.
//!
//! ```text
//! "vr1" + base32( expires_s u64 | port u16 | fingerprint 32 | secret 16 | count u8 | count × (length u8, address) | checksum 4 )
//! ```
//! Numbers are little-endian; base32 is Crockford's, without regard to case, spaces and dashes. The checksum tells a typing error from a
//! wrong token before anything is sent. The secret is stored only as a hash, and works once.

use std::time::Duration;

use domain::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};

use crate::fingerprint::Fingerprint;
use crate::identity::Identity;
use crate::trust::{TrustError, TrustStore};

/// How long an invite is good unless said otherwise.
pub const LIFETIME_DEFAULT: Duration = Duration::from_secs(3600);
/// Most addresses in a token; a host with more names its best ones.
pub const ADDRESSES_MAX: usize = 8;
/// Longest address: a full domain name.
pub const ADDRESS_BYTES_MAX: usize = 253;
/// Longest text that is looked at.
const TEXT_BYTES_MAX: usize = 8192;

const PREFIX: &str = "vr1";
const CHECKSUM_BYTES: usize = 4;
pub(crate) const SECRET_BYTES: usize = 16;
/// Crockford's digits: no I, L, O, U.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Why a text is no token.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    /// It does not begin like one.
    #[error(
        "this is no token of virt-replica: tokens begin with \"vr1\"; copy the whole line that `virt-replica peer invite` printed"
    )]
    NotAToken,
    /// A character or more is wrong or missing.
    #[error(
        "the token has a typing error or was not copied whole; copy the whole line that `virt-replica peer invite` printed"
    )]
    Mistyped,
    /// It cannot be made.
    #[error(
        "a token names 1 to {ADDRESSES_MAX} addresses of at most {ADDRESS_BYTES_MAX} bytes; say which with `virt-replica peer invite --address`"
    )]
    Addresses,
}

/// What a token says.
#[derive(Clone, PartialEq, Eq)]
pub struct InviteToken {
    /// Until when, by the inviting host's clock.
    pub expires: Timestamp,
    /// Where the inviting host listens.
    pub addresses: Vec<String>,
    /// The port there.
    pub port: u16,
    /// Of the inviting host's certificate.
    pub fingerprint: Fingerprint,
    pub(crate) secret: [u8; SECRET_BYTES],
}

impl std::fmt::Debug for InviteToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InviteToken").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// An open invite.
#[derive(Clone, Debug)]
pub struct Invite {
    /// What the other host's operator types; a secret.
    pub token: String,
    /// When it closes.
    pub expires: Timestamp,
}

/// An invite that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    /// A token cannot say this.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// It could not be stored.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The kernel gave no random numbers.
    #[error("the kernel gave no random numbers")]
    Random,
}

impl Invite {
    /// Opens an invite to this host, which listens at `addresses`, the best first.
    pub fn create(
        trust: &dyn TrustStore,
        identity: &Identity,
        addresses: &[String],
        port: u16,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Invite, InviteError> {
        let mut secret = [0; SECRET_BYTES];
        SystemRandom::new().fill(&mut secret).map_err(|_| InviteError::Random)?;
        let expires = Timestamp(now.plus(lifetime).millis() / 1000 * 1000);
        let fingerprint = identity.fingerprint();
        let token = InviteToken { expires, addresses: addresses.to_vec(), port, fingerprint, secret };
        let text = token.to_text()?;
        trust.add_invite(token.secret_hash(), expires)?;
        Ok(Invite { token: text, expires })
    }
}

impl InviteToken {
    /// Reads what somebody typed.
    pub fn parse(text: &str) -> Result<InviteToken, TokenError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(TokenError::NotAToken);
        }
        let ignored = |c: &char| !c.is_whitespace() && *c != '-';
        let text: String = text.chars().filter(ignored).map(|c| c.to_ascii_lowercase()).collect();
        let digits = text.strip_prefix(PREFIX).ok_or(TokenError::NotAToken)?;
        let bytes = from_base32(digits).ok_or(TokenError::Mistyped)?;
        let at = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(TokenError::Mistyped)?;
        let (body, sum) = bytes.split_at(at);
        if checksum(body) != sum {
            return Err(TokenError::Mistyped);
        }
        read_body(body).ok_or(TokenError::Mistyped)
    }

    /// The text to print.
    pub(crate) fn to_text(&self) -> Result<String, TokenError> {
        let fits = |address: &String| !address.is_empty() && address.len() <= ADDRESS_BYTES_MAX;
        if self.addresses.is_empty()
            || self.addresses.len() > ADDRESSES_MAX
            || !self.addresses.iter().all(fits)
        {
            return Err(TokenError::Addresses);
        }
        let mut body = Vec::new();
        body.extend_from_slice(&(self.expires.millis() / 1000).to_le_bytes());
        body.extend_from_slice(&self.port.to_le_bytes());
        body.extend_from_slice(&self.fingerprint.0);
        body.extend_from_slice(&self.secret);
        body.push(self.addresses.len() as u8);
        for address in &self.addresses {
            body.push(address.len() as u8);
            body.extend_from_slice(address.as_bytes());
        }
        let sum = checksum(&body);
        body.extend_from_slice(&sum);
        Ok(format!("{PREFIX}{}", to_base32(&body)))
    }

    /// What is stored of the secret. It has 128 random bits, so a plain hash cannot be guessed back.
    pub(crate) fn secret_hash(&self) -> [u8; 32] {
        secret_hash(&self.secret)
    }
}

pub(crate) fn secret_hash(secret: &[u8]) -> [u8; 32] {
    Fingerprint::of(&[b"virt-replica invite\0", secret].concat()).0
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = Fingerprint::of(body).0;
    [digest[0], digest[1], digest[2], digest[3]]
}

fn read_body(body: &[u8]) -> Option<InviteToken> {
    let (expires, rest) = body.split_first_chunk::<8>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let (fingerprint, rest) = rest.split_first_chunk::<32>()?;
    let (secret, rest) = rest.split_first_chunk::<SECRET_BYTES>()?;
    let (&count, mut rest) = rest.split_first()?;
    let mut addresses = Vec::new();
    for _ in 0..usize::from(count).min(ADDRESSES_MAX) {
        let (&length, after) = rest.split_first()?;
        let (address, after) = after.split_at_checked(usize::from(length))?;
        addresses.push(String::from_utf8(address.to_vec()).ok()?);
        rest = after;
    }
    let whole = rest.is_empty() && !addresses.is_empty();
    whole.then_some(InviteToken {
        expires: Timestamp(u64::from_le_bytes(*expires).checked_mul(1000)?),
        addresses,
        port: u16::from_le_bytes(*port),
        fingerprint: Fingerprint(*fingerprint),
        secret: *secret,
    })
}

fn to_base32(bytes: &[u8]) -> String {
    let digit = |value: u32| char::from(DIGITS[(value & 31) as usize]);
    let mut text = String::new();
    let (mut held, mut bits) = (0_u32, 0);
    for byte in bytes {
        held = (held << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(digit(held >> bits));
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        text.push(digit(held << (5 - bits)));
    }
    text
}

fn from_base32(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut held, mut bits) = (0_u32, 0);
    for digit in text.bytes() {
        let digit = match digit {
            b'o' => b'0',
            b'i' | b'l' => b'1',
            other => other,
        };
        let value = DIGITS.iter().position(|known| *known == digit)?;
        held = (held << 5) | u32::try_from(value).ok()?;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    (bits < 5 && held == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> InviteToken {
        InviteToken {
            expires: Timestamp(1_800_000_000_000),
            addresses: vec!["hvhost01".to_owned(), "10.0.0.1".to_owned(), "fd00::1".to_owned()],
            port: 7443,
            fingerprint: Fingerprint([7; 32]),
            secret: [9; 16],
        }
    }

    #[test]
    fn a_token_survives_shouting_spaces_and_dashes() {
        let text = token().to_text().expect("a text");
        assert_eq!(InviteToken::parse(&text), Ok(token()));
        let spoiled = format!(" {}-\n{} ", text[..20].to_uppercase(), &text[20..]);
        assert_eq!(InviteToken::parse(&spoiled), Ok(token()));
    }

    #[test]
    fn every_single_typing_error_is_noticed() {
        let text = token().to_text().expect("a text");
        for at in PREFIX.len()..text.len() {
            let mut typed = text.clone().into_bytes();
            typed[at] = if typed[at] == b'x' { b'y' } else { b'x' };
            let typed = String::from_utf8(typed).expect("ascii");
            assert_eq!(InviteToken::parse(&typed), Err(TokenError::Mistyped), "at {at}");
            assert!(InviteToken::parse(&text[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn other_texts_are_no_tokens() {
        for text in ["", "hello", "vr2abc", &"vr1".repeat(10_000)] {
            assert_eq!(InviteToken::parse(text), Err(TokenError::NotAToken));
        }
        assert_eq!(InviteToken::parse("vr1é"), Err(TokenError::Mistyped));
    }

    #[test]
    fn a_token_without_a_usable_address_is_not_made() {
        for addresses in [vec![], vec![String::new()], vec!["a".repeat(300)], vec!["a".to_owned(); 9]] {
            assert_eq!(InviteToken { addresses, ..token() }.to_text(), Err(TokenError::Addresses));
        }
    }
}
