//! The certificate that browsers see: the site's own, or one that this host makes for itself.
//!
//! It is not the host's identity towards its peers: that one is pinned by them, names no address, and its key speaks TLS 1.3 only. What
//! browsers see may be replaced at any time, and is: a self-made one a month before its end and when the host's names change; the
//! site's when its files change.

use std::collections::HashSet;
use std::fmt;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use domain::Timestamp;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::sessions::BoxError;

/// How long a self-made certificate is valid; browsers distrust those that last much longer.
const VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);
/// How much earlier than now it begins, for browsers whose clocks are late.
const BACKDATE: Duration = Duration::from_secs(24 * 3600);
/// It is replaced so long before its end.
const RENEWED_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Largest file that can be a chain of certificates and a key.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// This host makes it.
    Own {
        /// Key and certificate, in one file that is root's alone.
        file: PathBuf,
        /// The names and addresses under which the host is known.
        names: Vec<String>,
    },
    /// The site gives it.
    Site {
        /// The certificate and those that lead to the site's authority, PEM.
        certificate: PathBuf,
        /// Its key, PEM.
        key: PathBuf,
    },
}

/// There is no certificate to show.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read or written.
    #[error("the console's certificate: {path} cannot be read or written")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The site's files are no certificate and key that belong together.
    #[error(
        "{certificate} and {key} are no certificate and key in PEM that belong together: see console_certificate and console_key in virtreplicad.toml"
    )]
    Unusable {
        /// One file.
        certificate: PathBuf,
        /// The other.
        key: PathBuf,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The library refused to make one.
    #[error("a certificate for the console cannot be made")]
    Make(#[source] BoxError),
}

/// What is shown, and since when it is so.
struct Shown {
    certified: Arc<CertifiedKey>,
    /// Of the site's files when they were read.
    changed: [Option<SystemTime>; 2],
}

/// The certificate that is shown at the moment of a handshake.
pub struct Certificate {
    source: Source,
    shown: RwLock<Shown>,
}

impl Certificate {
    /// Reads the certificate, or makes it.
    pub fn open(source: Source, now: Timestamp) -> Result<Certificate, CertificateError> {
        let shown = RwLock::new(read(&source, now)?);
        Ok(Certificate { source, shown })
    }

    /// Renews a self-made one that is due, reads a site's anew that was changed. On an error the one before stays.
    pub fn mind(&self, now: Timestamp) -> Result<(), CertificateError> {
        let due = match &self.source {
            Source::Own { names, .. } => !is_good(&self.der(), names, now),
            Source::Site { certificate, key } => {
                let changed = [certificate, key].map(|path| changed(path));
                changed != self.shown.read().unwrap_or_else(PoisonError::into_inner).changed
            }
        };
        if due {
            let fresh = read(&self.source, now)?;
            *self.shown.write().unwrap_or_else(PoisonError::into_inner) = fresh;
            tracing::info!("the console shows a new certificate");
        }
        Ok(())
    }

    /// The certificate, without those that lead to it.
    #[must_use]
    pub fn der(&self) -> Vec<u8> {
        self.certified().cert.first().map(|der| der.to_vec()).unwrap_or_default()
    }

    fn certified(&self) -> Arc<CertifiedKey> {
        self.shown.read().unwrap_or_else(PoisonError::into_inner).certified.clone()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("source", &self.source).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certified())
    }
}

fn read(source: &Source, now: Timestamp) -> Result<Shown, CertificateError> {
    match source {
        Source::Own { file, names } => own(file, names, now),
        Source::Site { certificate, key } => {
            // Instants first: a file that changes while it is read is read again.
            let changed = [certificate, key].map(|path| changed(path));
            let (chain, secret) = (bytes(certificate)?, bytes(key)?);
            let certified = parse(&chain, &secret).map_err(|source| CertificateError::Unusable {
                certificate: certificate.clone(),
                key: key.clone(),
                source,
            })?;
            Ok(Shown { certified: Arc::new(certified), changed })
        }
    }
}

/// The one that was made before, while it is good. Nobody pins it, so one that is damaged is replaced.
fn own(file: &Path, names: &[String], now: Timestamp) -> Result<Shown, CertificateError> {
    let kept = bytes(file).ok().and_then(|bytes| parse(&bytes, &bytes).ok());
    let kept = kept.filter(|kept| kept.cert.first().is_some_and(|der| is_good(der, names, now)));
    let certified = match kept {
        Some(kept) => kept,
        None => {
            let text = make(names, now).map_err(CertificateError::Make)?;
            write_private(file, text.as_bytes())
                .map_err(|source| CertificateError::File { path: file.to_owned(), source })?;
            parse(text.as_bytes(), text.as_bytes()).map_err(CertificateError::Make)?
        }
    };
    Ok(Shown { certified: Arc::new(certified), changed: [None, None] })
}

fn make(names: &[String], now: Timestamp) -> Result<String, BoxError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let known = names.iter().cloned().chain(["localhost".to_owned()]);
    let known = known.chain(addresses().into_iter().map(|address| address.to_string()));
    // A certificate names in ASCII; other names of the host can be had with the site's own.
    let known: HashSet<String> = known.filter(|name| !name.is_empty() && name.is_ascii()).collect();
    let mut params = CertificateParams::new(known.into_iter().collect::<Vec<_>>())?;
    let name = names.first().map(String::as_str).unwrap_or_default();
    params.distinguished_name.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    params.distinguished_name.push(DnType::OrganizationName, "virt-replica console");
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(now.millis());
    (params.not_before, params.not_after) = (now - BACKDATE, now + VALIDITY);
    let certificate = params.self_signed(&key)?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
}

/// Addresses of this host that another one may use.
fn addresses() -> Vec<IpAddr> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten().filter_map(|interface| interface.address);
    let addresses = all.filter_map(|address| {
        let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
    });
    addresses.filter(|address| !matches!(address, IpAddr::V6(it) if it.is_unicast_link_local())).collect()
}

/// Whether a self-made certificate lasts for a while, and names all of these.
fn is_good(der: &[u8], names: &[String], now: Timestamp) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return false };
    let end = certificate.validity().not_after.timestamp();
    let end = Timestamp(u64::try_from(end).unwrap_or(0).saturating_mul(1000));
    let named = certificate.subject_alternative_name().ok().flatten();
    let named = named.map(|it| it.value.general_names.iter().filter_map(text).collect::<HashSet<String>>());
    let named = named.unwrap_or_default();
    now.plus(RENEWED_BEFORE) < end
        && names.iter().filter(|name| name.is_ascii()).all(|name| named.contains(name))
}

fn text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).ok().map(IpAddr::from);
            v4.or_else(|| <[u8; 16]>::try_from(*bytes).ok().map(IpAddr::from))
                .map(|address| address.to_string())
        }
        _ => None,
    }
}

fn parse(chain: &[u8], key: &[u8]) -> Result<CertifiedKey, BoxError> {
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>()?;
    if chain.is_empty() {
        return Err("there is no certificate in it".into());
    }
    let key = PrivateKeyDer::from_pem_slice(key)?;
    let certified = CertifiedKey::new(chain, rustls::crypto::ring::sign::any_supported_type(&key)?);
    certified.keys_match()?;
    Ok(certified)
}

fn bytes(path: &Path) -> Result<Vec<u8>, CertificateError> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    read.map_err(|source| CertificateError::File { path: path.to_owned(), source })?;
    Ok(bytes)
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// Whole or not at all, and root's alone from its first byte on.
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut draft = tempfile::NamedTempFile::new_in(folder)?; // made with mode 0600
    draft.write_all(bytes)?;
    draft.as_file().sync_all()?;
    draft.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn own_source(folder: &Path, names: &[&str]) -> Source {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        Source::Own { file: folder.join("console.pem"), names }
    }

    #[test]
    fn a_self_made_one_is_kept_until_a_month_before_its_end_and_nobody_else_reads_its_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let source = own_source(folder.path(), &["hvhost01", "192.0.2.1"]);
        let first = Certificate::open(source.clone(), NOW).expect("made");
        let mode = std::fs::metadata(folder.path().join("console.pem")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let made = first.der();
        let late = NOW.plus(VALIDITY - RENEWED_BEFORE - Duration::from_secs(60));
        assert_eq!(Certificate::open(source, late).expect("read").der(), made);
        first.mind(late).expect("nothing to do");
        assert_eq!(first.der(), made);
        first.mind(late.plus(Duration::from_secs(120))).expect("renewed");
        assert_ne!(first.der(), made);
    }

    #[test]
    fn a_host_with_another_name_and_a_damaged_file_get_a_new_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let made = Certificate::open(own_source(folder.path(), &["hvhost01"]), NOW).expect("made").der();
        let other =
            Certificate::open(own_source(folder.path(), &["hvhost01", "dr.example"]), NOW).expect("made");
        assert_ne!(other.der(), made);
        std::fs::write(folder.path().join("console.pem"), "nonsense").expect("written");
        let again =
            Certificate::open(own_source(folder.path(), &["hvhost01", "dr.example"]), NOW).expect("made");
        assert_ne!(again.der(), other.der());
    }

    #[test]
    fn the_sites_files_are_read_when_they_change_and_nonsense_leaves_the_one_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| folder.path().join(name));
        let write = |age: u64| {
            let text = make(&["site.example".to_owned()], NOW).expect("made");
            let at = SystemTime::now() - Duration::from_secs(age);
            for path in [&certificate, &key] {
                std::fs::write(path, &text).expect("written");
                std::fs::File::options()
                    .write(true)
                    .open(path)
                    .and_then(|it| it.set_modified(at))
                    .expect("dated");
            }
        };
        write(30);
        let source = Source::Site { certificate: certificate.clone(), key: key.clone() };
        let shown = Certificate::open(source.clone(), NOW).expect("read");
        let first = shown.der();
        write(20);
        shown.mind(NOW).expect("read again");
        let second = shown.der();
        assert_ne!(second, first);
        std::fs::write(&key, make(&["another".to_owned()], NOW).expect("made")).expect("written");
        assert!(matches!(shown.mind(NOW), Err(CertificateError::Unusable { .. })));
        assert_eq!(shown.der(), second);
        assert!(matches!(Certificate::open(source, NOW), Err(CertificateError::Unusable { .. })));
    }
}
