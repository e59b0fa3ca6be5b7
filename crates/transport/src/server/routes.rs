//! What each request may do, and who may make it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::timeout;

use crate::error::{ErrorClass, Refusal};
use crate::pairing;
use crate::server::{DeltaBody, Shared};
use crate::trust::PeerRecord;
use crate::version::{HEADER_NAME, VersionRange};

/// Most bytes of a command; a survey of a large VM has some ten thousand.
pub(crate) const COMMAND_BYTES_MAX: usize = 8 << 20;
/// Most bytes of a join request or a certificate.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// A small body that takes longer is not serious.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

pub(crate) const COMMAND_PATH: &str = "/v1/command";
pub(crate) const DELTA_PATH: &str = "/v1/delta";
pub(crate) const CERTIFICATE_PATH: &str = "/v1/certificate";
pub(crate) const JOIN_PATH: &str = "/v1/join";

/// Answers the requests of one connection.
pub(crate) struct Routes {
    pub(crate) shared: Arc<Shared>,
    pub(crate) certificate: Vec<u8>,
    pub(crate) from: SocketAddr,
}

impl Routes {
    pub(crate) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let (status, body) = match self.route(request).await {
            Ok(body) => (StatusCode::OK, body),
            Err(refusal) => {
                tracing::debug!(from = %self.from, code = refusal.code, "request refused");
                (status_of(&refusal), serde_json::to_vec(&refusal).unwrap_or_default().into())
            }
        };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        if let Ok(versions) = HeaderValue::from_str(&self.shared.options.versions.to_string()) {
            response.headers_mut().insert(HEADER_NAME, versions);
        }
        Ok(response)
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Bytes, Refusal> {
        check_version(self.shared.options.versions, &request)?;
        let joins = (request.method(), request.uri().path()) == (&Method::POST, JOIN_PATH);
        if joins {
            let body = small_body(request, SMALL_BYTES_MAX).await?;
            return pairing::admit(&self.shared, &self.certificate, self.from, &body).await;
        }
        let peer = self.peer()?;
        match (request.method(), request.uri().path()) {
            (&Method::POST, COMMAND_PATH) => {
                let message = small_body(request, COMMAND_BYTES_MAX).await?;
                self.shared.handler.command(peer, message).await
            }
            (&Method::PUT, DELTA_PATH) => {
                let body = DeltaBody::new(request.into_body(), self.shared.options.delta_idle_max);
                self.shared.handler.delta(peer, body).await
            }
            (&Method::POST, CERTIFICATE_PATH) => {
                let certificate = small_body(request, SMALL_BYTES_MAX).await?;
                self.take_next_certificate(&peer, &certificate)
            }
            _ => Err(Refusal::new("no-such-door", ErrorClass::Permanent, "there is no such door here")),
        }
    }

    /// Looked up for each request, so that a peer that is removed is a stranger at once.
    fn peer(&self) -> Result<PeerRecord, Refusal> {
        let peer = self.shared.trust.peer_by_certificate(&self.certificate).map_err(store_failed)?;
        peer.ok_or_else(|| {
            Refusal::new(NOT_PAIRED, ErrorClass::NeedsOperator, "this host does not know your certificate")
        })
    }

    fn take_next_certificate(&self, peer: &PeerRecord, certificate: &[u8]) -> Result<Bytes, Refusal> {
        let bad = |why: &str| Err(Refusal::new("bad-certificate", ErrorClass::Permanent, why));
        if crate::identity::validity(certificate).is_none() {
            return bad("the announced certificate cannot be read");
        }
        let owner = self.shared.trust.peer_by_certificate(certificate).map_err(store_failed)?;
        match owner {
            Some(owner) if owner.host != peer.host => {
                return bad("the announced certificate is another host's");
            }
            // Announced before, or in use already.
            Some(_) => {}
            None => {
                self.shared.trust.set_next_certificate(peer.host, certificate).map_err(store_failed)?;
                tracing::info!(peer = %peer.name, "the peer announced its next certificate");
            }
        }
        Ok(Bytes::from_static(b"{}"))
    }
}

pub(crate) const NOT_PAIRED: &str = "not-paired";
pub(crate) const VERSION: &str = "version";

pub(crate) fn store_failed(error: crate::trust::TrustError) -> Refusal {
    tracing::error!(error = &error as &dyn std::error::Error, "the store of trusted hosts failed");
    Refusal::new("store-failed", ErrorClass::Transient, error.to_string())
}

fn check_version(ours: VersionRange, request: &Request<Incoming>) -> Result<(), Refusal> {
    let theirs = request.headers().get(HEADER_NAME).and_then(|value| value.to_str().ok());
    let theirs = theirs.and_then(|text| text.parse::<VersionRange>().ok()).ok_or_else(|| {
        Refusal::new(VERSION, ErrorClass::Permanent, "the request names no protocol version")
    })?;
    match ours.in_common(theirs) {
        Ok(_) => Ok(()),
        Err(error) => Err(Refusal::new(VERSION, ErrorClass::NeedsOperator, error.to_string())),
    }
}

async fn small_body(request: Request<Incoming>, limit: usize) -> Result<Bytes, Refusal> {
    let too_large = || {
        let message = format!("the message has more than {limit} bytes");
        Refusal::new("too-large", ErrorClass::Permanent, message)
    };
    if request.body().size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    match timeout(BODY_DEADLINE, Limited::new(request.into_body(), limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) | Err(_) => {
            Err(Refusal::new("broken-off", ErrorClass::Transient, "the message did not come to its end"))
        }
    }
}

fn status_of(refusal: &Refusal) -> StatusCode {
    match refusal.code.as_str() {
        NOT_PAIRED => StatusCode::FORBIDDEN,
        VERSION => StatusCode::UPGRADE_REQUIRED,
        "too-large" => StatusCode::PAYLOAD_TOO_LARGE,
        "no-such-door" => StatusCode::NOT_FOUND,
        _ => StatusCode::CONFLICT,
    }
}
