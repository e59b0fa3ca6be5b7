//! TLS 1.3 between two hosts that know each other's certificates. No authority signs anything: a certificate is trusted
//! because it is pinned, and the handshake proves that the other side holds its key.

use std::fmt;
use std::sync::Arc;

use domain::Timestamp;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};

use crate::fingerprint::Fingerprint;
use crate::identity::{Identity, validity};
use crate::trust::{PeerRecord, TrustStore};

/// Which certificates a client accepts.
#[derive(Clone)]
pub(crate) enum Expected {
    /// Those of a peer.
    Peer(Box<PeerRecord>),
    /// The one that a token names.
    Fingerprint(Fingerprint),
}

impl Expected {
    fn accepts(&self, certificate: &[u8]) -> bool {
        match self {
            Expected::Peer(peer) => peer.pins(certificate),
            Expected::Fingerprint(fingerprint) => Fingerprint::of(certificate) == *fingerprint,
        }
    }
}

/// How a server speaks: it shows our certificate and asks for one that it knows.
pub(crate) fn server_config(
    identity: Arc<Identity>,
    trust: Arc<dyn TrustStore>,
) -> Result<ServerConfig, Error> {
    let provider = provider();
    let verifier = Arc::new(PinnedClients { trust, provider: provider.clone() });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Shown(identity)));
    // Each connection proves its key anew: a removed peer comes back by no ticket.
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// How a client speaks: it shows our certificate and accepts exactly what it expects.
pub(crate) fn client_config(identity: Arc<Identity>, expected: Expected) -> Result<ClientConfig, Error> {
    let provider = provider();
    let verifier = Arc::new(PinnedServer { expected, provider: provider.clone() });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(Shown(identity)));
    config.enable_sni = false;
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Shows the certificate that is current at the moment of the handshake.
#[derive(Debug)]
struct Shown(Arc<Identity>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.certified())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.certified())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn check_validity(certificate: &[u8], now: UnixTime) -> Result<(), Error> {
    let (begin, end) = validity(certificate).ok_or(CertificateError::BadEncoding)?;
    let now = Timestamp(now.as_secs().saturating_mul(1000));
    if now < begin {
        Err(CertificateError::NotValidYet.into())
    } else if now > end {
        Err(CertificateError::Expired.into())
    } else {
        Ok(())
    }
}

struct PinnedServer {
    expected: Expected,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for PinnedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PinnedServer")
    }
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.expected.accepts(certificate) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        check_validity(certificate, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Accepts pinned certificates; and any other as that of a stranger, who comes no further than the join door, while
/// invites are remembered.
struct PinnedClients {
    trust: Arc<dyn TrustStore>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for PinnedClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PinnedClients")
    }
}

impl ClientCertVerifier for PinnedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let refused = || Error::from(CertificateError::ApplicationVerificationFailure);
        let known = self.trust.peer_by_certificate(certificate).map_err(|_| refused())?.is_some();
        if !known && !self.trust.strangers_may_knock().map_err(|_| refused())? {
            return Err(refused());
        }
        check_validity(certificate, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
