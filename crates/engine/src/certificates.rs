//! Certificates that end: this host's own is replaced in time and by itself, and nobody is surprised by another's.
//!
//! The daemon calls [`Engine::mind_certificates`] every hour. What is decided is pure: [`Care::of`] over instants.

use std::time::Duration;

use domain::Timestamp;
use transport::Fingerprint;

use crate::events::Number;
use crate::{Code, Engine, Refusal, Result};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// This host's certificate is replaced so long before it ends: a day before the first warning would be raised.
const ROTATE: Duration = Duration::from_secs(31 * 24 * 3600);
/// Warnings come so many days before the end; the last one says that it is over.
const WARN_DAYS: [u32; 4] = [30, 7, 1, 0];
/// How often the daemon looks.
pub const CERTIFICATE_LOOK: Duration = Duration::from_secs(3600);

/// What a certificate needs now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Care {
    /// It is to be replaced, if it is this host's.
    rotate: bool,
    /// It ends so soon that it is replaced even if some peer cannot be told: that peer is lost either way.
    force: bool,
    /// The mark of [`WARN_DAYS`] that was passed.
    mark: Option<u32>,
}

impl Care {
    fn of(expires: Timestamp, now: Timestamp) -> Care {
        let left = Duration::from_millis(expires.millis().saturating_sub(now.millis()));
        let mark = WARN_DAYS.into_iter().rev().find(|days| left <= DAY * *days);
        Care { rotate: left <= ROTATE, force: left <= DAY, mark }
    }
}

/// What a warning says of the time that is left.
fn words(days: u32) -> String {
    match days {
        0 => "has expired".to_owned(),
        1 => "expires within a day".to_owned(),
        days => format!("expires within {days} days"),
    }
}

impl Engine {
    /// Replaces this host's certificate when it ends soon, and warns of each that does: once per mark.
    pub async fn mind_certificates(&self, now: Timestamp) -> Result<()> {
        let own = self.0.identity.certificate_der();
        if let Some(care) = transport::expires(&own).map(|end| Care::of(end, now)).filter(|care| care.rotate)
        {
            match self.rotate_certificate(now, care.force).await {
                Ok(()) => {
                    self.host_event(Number::CertificateReplaced, "this host's certificate was replaced")
                }
                Err(error) => {
                    let what = |mark| {
                        format!("this host's certificate {} and cannot be replaced: {error}", words(mark))
                    };
                    self.warn_of(&own, care.mark, what)?;
                }
            }
        }
        for peer in self.store().peers().map_err(Refusal::failed)? {
            let Some(end) = transport::expires(&peer.certificate_der) else { continue };
            let what = |mark| {
                format!(
                    "the certificate of {} {}; its daemon replaces it by itself when the hosts reach each other: \
                     virt-replica peer test {}; when it is over, pair again",
                    peer.name,
                    words(mark),
                    peer.name
                )
            };
            self.warn_of(&peer.certificate_der, Care::of(end, now).mark, what)?;
        }
        Ok(())
    }

    /// Makes a new certificate, tells every peer, and shows it from then on. `force`: also when a peer cannot be told.
    pub async fn rotate_certificate(&self, now: Timestamp, force: bool) -> Result<()> {
        let identity = &self.0.identity;
        let fresh = identity.prepare_next(now).map_err(Refusal::failed)?;
        for peer in self.store().peers().map_err(Refusal::failed)? {
            if let Err(error) = self.announce_certificate(peer.host, fresh.clone()).await
                && !force
            {
                let found = format!("{} could not be told of the new certificate: {error}", peer.name);
                let cure = "virt-replica peer rotate, when every peer can be reached";
                return Err(Refusal::new(Code::Unavailable, found, cure));
            }
        }
        identity.switch().map_err(Refusal::failed)
    }

    /// An event for a mark that was passed and not yet told of this certificate.
    fn warn_of(&self, certificate: &[u8], mark: Option<u32>, what: impl FnOnce(u32) -> String) -> Result<()> {
        let Some(mark) = mark else { return Ok(()) };
        let key = format!("certificate-warned {}", Fingerprint::of(certificate));
        let told = self.store().setting(&key).map_err(Refusal::failed)?;
        if told.and_then(|told| told.parse().ok()).is_none_or(|told: u32| mark < told) {
            self.host_event(Number::CertificateExpires, what(mark));
            self.store().set_setting(&key, &mark.to_string()).map_err(Refusal::failed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_replaced_before_the_first_warning_and_by_force_on_its_last_day() {
        let end = Timestamp(DAY.as_millis() as u64 * 1000);
        let care = |hours_left: i64| {
            let now = end.millis() as i64 - hours_left * 3_600_000;
            let Care { rotate, force, mark } = Care::of(end, Timestamp(now as u64));
            (rotate, force, mark)
        };
        assert_eq!(care(32 * 24), (false, false, None));
        assert_eq!(care(31 * 24), (true, false, None));
        assert_eq!(care(30 * 24), (true, false, Some(30)));
        assert_eq!(care(8 * 24), (true, false, Some(30)));
        assert_eq!(care(7 * 24), (true, false, Some(7)));
        assert_eq!(care(25), (true, false, Some(7)));
        assert_eq!(care(24), (true, true, Some(1)));
        assert_eq!(care(1), (true, true, Some(1)));
        assert_eq!(care(0), (true, true, Some(0)));
        assert_eq!(care(-24), (true, true, Some(0)));
    }
}
