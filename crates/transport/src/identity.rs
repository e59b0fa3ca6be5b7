//! This host's own key and certificate: made at first start, kept for a year, then replaced without pairing again.
//!
//! ```text
//! <state>/identity/current.pem   key and certificate in one file, 0600, replaced by rename
//! <state>/identity/next.pem      the next pair, once it is prepared and until it is switched to
//! ```
//! Replacing: [`Identity::prepare_next`], announce it to every peer (`PeerClient::announce_certificate`), then
//! [`Identity::switch`]. Peers accept both until they see the new one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock, RwLockReadGuard};
use std::time::Duration;

use domain::Timestamp;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::fingerprint::Fingerprint;

/// How long a certificate is valid.
pub const VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);
/// How much earlier than now it begins, for hosts whose clocks are apart.
const BACKDATE: Duration = Duration::from_secs(24 * 3600);
/// Largest file that can be a key and a certificate; ours have below 2 KiB.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// This host cannot show who it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("this host's key {path} cannot be read or written")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds no key and certificate.
    #[error(
        "{path} holds no usable key and certificate: restore it from a backup, or move it away and pair with all peers again"
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: crate::error::BoxError,
    },
    /// The library refused to make one.
    #[error("a new certificate cannot be made")]
    Generate(#[source] rcgen::Error),
    /// There is none to switch to.
    #[error("no next certificate is prepared; prepare and announce it first")]
    NoNext,
}

struct Pair {
    certified: Arc<CertifiedKey>,
    der: CertificateDer<'static>,
}

struct Keys {
    current: Pair,
    next: Option<Pair>,
}

/// Key and certificate of this host. Shared: a switch is seen by the next handshake of server and clients.
pub struct Identity {
    directory: PathBuf,
    name: String,
    keys: RwLock<Keys>,
}

impl Identity {
    /// Opens the identity under the state directory, or makes it. `name` is this host's, written into new certificates.
    pub fn open_or_create(state_dir: &Path, name: &str, now: Timestamp) -> Result<Identity, IdentityError> {
        let directory = state_dir.join("identity");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|source| IdentityError::File { path: directory.clone(), source })?;
        let current = match read_pair(&directory.join("current.pem"))? {
            Some(pair) => pair,
            None => make_pair(&directory, "current.pem", name, now)?,
        };
        let next = read_pair(&directory.join("next.pem"))?;
        Ok(Identity { directory, name: name.to_owned(), keys: RwLock::new(Keys { current, next }) })
    }

    /// The certificate that this host shows.
    #[must_use]
    pub fn certificate_der(&self) -> Vec<u8> {
        self.keys().current.der.to_vec()
    }

    /// The certificate that it will show, when one is prepared.
    #[must_use]
    pub fn next_certificate_der(&self) -> Option<Vec<u8>> {
        self.keys().next.as_ref().map(|pair| pair.der.to_vec())
    }

    /// Of the certificate that this host shows.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.keys().current.der)
    }

    /// Until when the certificate that this host shows is valid; none when it cannot be read.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        expires(&self.keys().current.der)
    }

    /// Makes the next key and certificate; the one that is prepared already is kept. Returns the certificate to announce.
    pub fn prepare_next(&self, now: Timestamp) -> Result<Vec<u8>, IdentityError> {
        let mut keys = self.keys.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if keys.next.is_none() {
            keys.next = Some(make_pair(&self.directory, "next.pem", &self.name, now)?);
        }
        keys.next.as_ref().map(|pair| pair.der.to_vec()).ok_or(IdentityError::NoNext)
    }

    /// From now on the next certificate is shown. Peers that have not heard of it must pair again, so announce first.
    pub fn switch(&self) -> Result<(), IdentityError> {
        let mut keys = self.keys.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let next = keys.next.take().ok_or(IdentityError::NoNext)?;
        let path = self.directory.join("next.pem");
        let renamed = fs::rename(&path, self.directory.join("current.pem"));
        match renamed.and_then(|()| File::open(&self.directory)?.sync_all()) {
            Ok(()) => {
                keys.current = next;
                Ok(())
            }
            Err(source) => {
                keys.next = Some(next);
                Err(IdentityError::File { path, source })
            }
        }
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.keys().current.certified.clone()
    }

    fn keys(&self) -> RwLockReadGuard<'_, Keys> {
        self.keys.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

/// Until when a certificate is valid; none when it cannot be read.
#[must_use]
pub fn expires(certificate_der: &[u8]) -> Option<Timestamp> {
    validity(certificate_der).map(|(_, end)| end)
}

/// First and last instant at which a certificate is valid.
pub(crate) fn validity(certificate_der: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate_der).ok()?;
    let millis = |seconds: i64| Some(Timestamp(u64::try_from(seconds).ok()?.checked_mul(1000)?));
    let validity = certificate.validity();
    Some((millis(validity.not_before.timestamp())?, millis(validity.not_after.timestamp())?))
}

fn make_pair(directory: &Path, file_name: &str, name: &str, now: Timestamp) -> Result<Pair, IdentityError> {
    let path = directory.join(file_name);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IdentityError::Generate)?;
    let mut params = CertificateParams::new(Vec::new()).map_err(IdentityError::Generate)?;
    params.distinguished_name.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(now.millis());
    params.not_before = now - BACKDATE;
    params.not_after = now + VALIDITY;
    let certificate = params.self_signed(&key).map_err(IdentityError::Generate)?;
    let text = format!("{}{}", key.serialize_pem(), certificate.pem());
    write_private(directory, &path, text.as_bytes())
        .map_err(|source| IdentityError::File { path: path.clone(), source })?;
    // Read back what will be used after a restart, so that a file that cannot be used is noticed now.
    read_pair(&path)?.ok_or(IdentityError::NoNext)
}

/// Whole or not at all, and readable by root alone from its first byte on.
fn write_private(directory: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("draft");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(directory)?.sync_all()
}

fn read_pair(path: &Path) -> Result<Option<Pair>, IdentityError> {
    let file_error = |source| IdentityError::File { path: path.to_owned(), source };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(file_error)?,
    };
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(file_error)?;
    parse_pair(&text).map(Some).map_err(|source| IdentityError::Damaged { path: path.to_owned(), source })
}

fn parse_pair(text: &[u8]) -> Result<Pair, crate::error::BoxError> {
    let der = CertificateDer::from_pem_slice(text)?;
    let key = PrivateKeyDer::from_pem_slice(text)?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
    let certified = CertifiedKey::new(vec![der.clone()], key);
    certified.keys_match()?;
    Ok(Pair { certified: Arc::new(certified), der })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    #[test]
    fn an_identity_outlives_its_process_and_nobody_else_reads_its_key() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Identity::open_or_create(dir.path(), "hvhost01", NOW).expect("made");
        let second = Identity::open_or_create(dir.path(), "hvhost01", NOW).expect("opened");
        assert_eq!(first.fingerprint(), second.fingerprint());
        let mode = fs::metadata(dir.path().join("identity/current.pem")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(first.expires(), Some(NOW.plus(VALIDITY)));
    }

    #[test]
    fn a_switch_shows_the_prepared_certificate_also_after_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let identity = Identity::open_or_create(dir.path(), "hvhost01", NOW).expect("made");
        assert!(matches!(identity.switch(), Err(IdentityError::NoNext)));
        let next = identity.prepare_next(NOW).expect("prepared");
        assert_eq!(identity.prepare_next(NOW).expect("repeated"), next);
        assert_ne!(identity.certificate_der(), next);
        let reopened = Identity::open_or_create(dir.path(), "hvhost01", NOW).expect("opened");
        assert_eq!(reopened.next_certificate_der(), Some(next.clone()));
        identity.switch().expect("switched");
        assert_eq!(identity.certificate_der(), next);
        let reopened = Identity::open_or_create(dir.path(), "hvhost01", NOW).expect("opened");
        assert_eq!((reopened.certificate_der(), reopened.next_certificate_der()), (next, None));
    }

    #[test]
    fn a_damaged_key_is_said_and_not_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        Identity::open_or_create(dir.path(), "hvhost01", NOW).expect("made");
        fs::write(dir.path().join("identity/current.pem"), "nonsense").expect("written");
        let error = Identity::open_or_create(dir.path(), "hvhost01", NOW).expect_err("refused");
        assert!(matches!(error, IdentityError::Damaged { .. }));
    }
}
