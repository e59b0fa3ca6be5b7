//! One connection to another host: TCP, TLS, HTTP/1.1.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::error::{BoxError, Refusal, TransportError};
use crate::identity::Identity;
use crate::server::{COMMAND_BYTES_MAX, NOT_PAIRED};
use crate::socket::{self, TLS_BUFFER_BYTES};
use crate::tls::{self, Expected};
use crate::version::{HEADER_NAME, VersionRange};

/// Longest wait for a TCP connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Longest wait for the TLS handshake after it.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// How soon a connection that broke has ended, so that what it ended with is known.
const ENDS_WITHIN: Duration = Duration::from_secs(1);
/// Bytes that HTTP buffers; a frame goes out without being cut.
const HTTP_BUFFER_BYTES: usize = 1 << 20;

/// The body of any request.
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// One connection.
pub(crate) struct Line {
    sender: SendRequest<Body>,
    certificate_der: Vec<u8>,
    peer: String,
    versions: VersionRange,
    /// Ends the connection when the line is dropped, whatever is under way; none: it has ended, and told how.
    driver: Option<JoinHandle<hyper::Result<()>>>,
}

/// What a connection ended with.
type Told = Result<hyper::Result<()>, JoinError>;

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(driver) = &self.driver {
            driver.abort();
        }
    }
}

impl Line {
    /// Connects and checks the certificate; `peer` is a name for messages.
    pub(crate) async fn connect(
        identity: Arc<Identity>,
        expected: Expected,
        peer: &str,
        address: &str,
        port: u16,
    ) -> Result<Line, TransportError> {
        let unreachable = |source| TransportError::Unreachable {
            peer: peer.to_owned(),
            address: format!("{address} port {port}"),
            source,
        };
        let broken = |error: BoxError| TransportError::of_connection(peer, error);
        let connecting = timeout(CONNECT_DEADLINE, TcpStream::connect((address, port))).await;
        let stream =
            connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(unreachable)?;
        let wire = socket::prepare(stream).map_err(unreachable)?;
        let config = tls::client_config(identity, expected).map_err(|error| broken(error.into()))?;
        // No name is checked or sent: the certificate itself is known.
        let name = ServerName::try_from("virt-replica").map_err(|error| broken(error.into()))?;
        let handshake = TlsConnector::from(Arc::new(config))
            .connect_with(name, wire, |tls| tls.set_buffer_limit(Some(TLS_BUFFER_BYTES)));
        let tls = match timeout(HANDSHAKE_DEADLINE, handshake).await {
            Ok(tls) => tls.map_err(|error| broken(error.into()))?,
            Err(_) => {
                let (peer, limit) = (peer.to_owned(), HANDSHAKE_DEADLINE);
                return Err(TransportError::Deadline { peer, what: "the TLS handshake", limit });
            }
        };
        let certificates = tls.get_ref().1.peer_certificates();
        let certificate_der = certificates.and_then(<[_]>::first).map(|der| der.to_vec()).unwrap_or_default();
        let (sender, connection) = Builder::new()
            .max_buf_size(HTTP_BUFFER_BYTES)
            .handshake(TokioIo::new(tls))
            .await
            .map_err(|error| broken(error.into()))?;
        let driver = Some(tokio::spawn(connection));
        Ok(Line { sender, certificate_der, peer: peer.to_owned(), versions: VersionRange::OURS, driver })
    }

    /// The same connection for a client of these versions.
    pub(crate) fn speaking(mut self, versions: VersionRange) -> Line {
        self.versions = versions;
        self
    }

    /// The certificate that the other side showed.
    pub(crate) fn certificate_der(&self) -> &[u8] {
        &self.certificate_der
    }

    /// The name of the other side, for messages.
    pub(crate) fn peer(&self) -> &str {
        &self.peer
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends a small message and returns the answer.
    pub(crate) async fn post(
        &mut self,
        path: &str,
        message: Bytes,
        limit: Duration,
    ) -> Result<Bytes, TransportError> {
        let body = Full::new(message).map_err(|never| match never {}).boxed_unsync();
        let exchange = async {
            if let Err(error) = self.sender.ready().await {
                return Err(self.broken(error.into()).await);
            }
            let response = self.request(Method::POST, path, body).await?;
            self.read_answer(response).await
        };
        match timeout(limit, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(TransportError::Deadline { peer: self.peer.clone(), what: "a command", limit }),
        }
    }

    /// Sends a request; returns when the head of the answer is there, which may be before the body has left.
    pub(crate) async fn request(
        &mut self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<Response<Incoming>, TransportError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "virt-replica")
            .header(HEADER_NAME, self.versions.to_string())
            .body(body)
            .map_err(|error| TransportError::of_connection(&self.peer, error.into()))?;
        let answer = pin!(self.sender.send_request(request));
        let Some(driver) = &mut self.driver else {
            return Err(TransportError::of_connection(&self.peer, "it has ended".into()));
        };
        // Both, for hyper may wait for ever: nobody looks at a request that was handed over in the moment in which the connection ended.
        match select(answer, driver).await {
            Either::Left((Ok(response), _)) => Ok(response),
            Either::Left((Err(error), _)) => Err(self.broken(error.into()).await),
            Either::Right((told, answer)) => {
                self.driver = None;
                match answer.now_or_never() {
                    Some(Ok(response)) => Ok(response),
                    Some(Err(error)) => Err(self.meaning(error.into(), told)),
                    None => Err(self.meaning("it ended".into(), told)),
                }
            }
        }
    }

    /// Reads an answer: the versions first, then whether it is a refusal.
    pub(crate) async fn read_answer(
        &mut self,
        response: Response<Incoming>,
    ) -> Result<Bytes, TransportError> {
        let versions = response.headers().get(HEADER_NAME).and_then(|value| value.to_str().ok());
        let theirs = versions
            .and_then(|text| text.parse::<VersionRange>().ok())
            .ok_or_else(|| self.confused("the answer names no protocol version"))?;
        self.versions.in_common(theirs)?;
        let status = response.status();
        let body = match Limited::new(response.into_body(), COMMAND_BYTES_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                return Err(self.confused("the answer is too long"));
            }
            Err(error) => return Err(self.broken(error).await),
        };
        if status == StatusCode::OK {
            return Ok(body);
        }
        let refusal: Refusal =
            serde_json::from_slice(&body).map_err(|_| self.confused(&format!("status {status}")))?;
        if refusal.code == NOT_PAIRED {
            return Err(TransportError::NotAccepted { peer: self.peer.clone() });
        }
        Err(TransportError::Refused(refusal))
    }

    /// What the end means that a request has met.
    async fn broken(&mut self, met: BoxError) -> TransportError {
        let Some(mut driver) = self.driver.take() else {
            return TransportError::of_connection(&self.peer, met);
        };
        match timeout(ENDS_WITHIN, &mut driver).await {
            Ok(told) => self.meaning(met, told),
            Err(_) => {
                driver.abort();
                TransportError::of_connection(&self.peer, met)
            }
        }
    }

    /// A request that meets the end of the connection may know only that; the connection itself was told why: a peer that does not accept
    /// our certificate says so when the handshake is done here already.
    fn meaning(&self, met: BoxError, told: Told) -> TransportError {
        let meant = |error| TransportError::of_connection(&self.peer, error);
        match (meant(met), told) {
            (broken @ TransportError::Broken { .. }, Ok(Err(told))) => match meant(told.into()) {
                TransportError::Broken { .. } => broken,
                told => told,
            },
            (met, _) => met,
        }
    }

    fn confused(&self, what: &str) -> TransportError {
        TransportError::Protocol { peer: self.peer.clone(), what: what.to_owned() }
    }
}
