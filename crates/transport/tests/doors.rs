//! What a client of another make meets: old TLS, no certificate, too much, too old, too many.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Host, paired};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A client that believes everybody.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// A connection as `host`, or without a certificate.
async fn connect(
    to: SocketAddr,
    host: Option<&Host>,
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<TlsStream<TcpStream>> {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[version])
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous));
    let config = match host {
        None => config.with_no_client_auth(),
        Some(host) => {
            let pem = std::fs::read(host.dir.path().join("identity/current.pem")).expect("a key");
            let certificate = CertificateDer::from_pem_slice(&pem).expect("a certificate");
            let key = PrivateKeyDer::from_pem_slice(&pem).expect("a key");
            config.with_client_auth_cert(vec![certificate], key).expect("they match")
        }
    };
    let name = ServerName::try_from("anything").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(to).await?).await
}

/// Sends `request` as it is and returns whatever comes back.
async fn speak(
    to: SocketAddr,
    host: Option<&Host>,
    version: &'static SupportedProtocolVersion,
    request: &[u8],
) -> std::io::Result<String> {
    let mut tls = connect(to, host, version).await?;
    tls.write_all(request).await?;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(common::SOON, tls.read_to_end(&mut answer)).await.expect("in time");
    if answer.is_empty() {
        read?;
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn request(first_line: &str, versions: &str, body_bytes: usize) -> Vec<u8> {
    let head = format!(
        "{first_line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nvirt-replica-protocol: {versions}\r\ncontent-length: {body_bytes}\r\n\r\n"
    );
    head.into_bytes()
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let (first, second) = paired().await;
    let to = first.server.local_address();
    let old = speak(to, Some(&second), &rustls::version::TLS12, &request("POST /v1/command", "1-1", 0)).await;
    assert!(old.expect_err("refused").to_string().contains("ProtocolVersion"));
    let new = speak(to, Some(&second), &rustls::version::TLS13, &request("POST /v1/command", "1-1", 0)).await;
    assert!(new.expect("answered").starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_though_an_invite_is_open() {
    let (first, _second) = paired().await;
    first.invite(common::SOON);
    let to = first.server.local_address();
    let answer = speak(to, None, &rustls::version::TLS13, &request("POST /v1/join", "1-1", 0)).await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.is_empty()));
}

#[tokio::test]
async fn a_version_that_is_not_spoken_is_refused_by_name() {
    let (first, second) = paired().await;
    let to = first.server.local_address();
    let ask = async |versions: &str| {
        let request = request("POST /v1/command", versions, 0);
        speak(to, Some(&second), &rustls::version::TLS13, &request).await.expect("answered")
    };
    let newer = ask("7-9").await;
    assert!(newer.starts_with("HTTP/1.1 426") && newer.contains("7-9") && newer.contains("1-1"), "{newer}");
    assert!(ask("rubbish").await.starts_with("HTTP/1.1 426"));
}

#[tokio::test]
async fn a_command_that_announces_too_much_is_refused_before_it_comes() {
    let (first, second) = paired().await;
    let to = first.server.local_address();
    let request = request("POST /v1/command", "1-1", (8 << 20) + 1);
    let answer = speak(to, Some(&second), &rustls::version::TLS13, &request).await.expect("answered");
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn other_doors_do_not_exist() {
    let (first, second) = paired().await;
    let to = first.server.local_address();
    for line in ["GET /", "GET /v1/command", "POST /v1/delta", "DELETE /v1/certificate"] {
        let request = request(line, "1-1", 0);
        let answer = speak(to, Some(&second), &rustls::version::TLS13, &request).await.expect("answered");
        assert!(answer.starts_with("HTTP/1.1 404"), "{line}: {answer}");
    }
}

/// How many of these the server leaves open: one that is too many is at its end, the others wait for our next word.
async fn left_open(connections: &mut [impl AsyncRead + Unpin]) -> usize {
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut open = 0;
    for connection in connections {
        open += usize::from(timeout(Duration::from_millis(5), connection.read(&mut [0])).await.is_err());
    }
    open
}

#[tokio::test]
async fn no_host_takes_all_connections_and_those_it_has_work_on() {
    let (first, second) = paired().await;
    let stranger = Host::start("stranger").await;
    first.invite(common::SOON);
    let to = first.server.local_address();
    let mut open = Vec::new();
    for (host, most, answer) in [(&stranger, 8, "HTTP/1.1 403"), (&second, 64, "HTTP/1.1 200")] {
        let mut all = Vec::new();
        for _ in 0..most + 3 {
            all.push(connect(to, Some(host), &rustls::version::TLS13).await.expect("a handshake"));
        }
        assert_eq!(left_open(&mut all).await, most);
        all[0].write_all(&request("POST /v1/command", "1-1", 0)).await.expect("sent");
        let mut answered = Vec::new();
        let _ = timeout(common::SOON, all[0].read_to_end(&mut answered)).await.expect("in time");
        let answered = String::from_utf8_lossy(&answered);
        assert!(answered.starts_with(answer), "{answered}");
        open.push(all);
    }
}

#[tokio::test]
async fn who_says_nothing_is_shut_out_in_time_and_shuts_nobody_out_meanwhile() {
    let (first, second) = paired().await;
    let to = first.server.local_address();
    let mut silent = Vec::new();
    // More than all the connections that there are, from an address where no peer is.
    for _ in 0..300 {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.2:0".parse().expect("an address")).expect("bound");
        silent.push(socket.connect(to).await.expect("connected"));
    }
    let begun = Instant::now();
    assert_eq!(left_open(&mut silent).await, 64);
    let answer =
        second.client_of(&first).command("who".into(), common::SOON).await.expect("a peer is served");
    assert_eq!(answer, "hvhost02");
    for stream in &mut silent {
        let read = timeout(2 * common::SOON, stream.read(&mut [0])).await.expect("a handshake has an end");
        assert!(!read.is_ok_and(|bytes| bytes > 0), "nothing is told");
    }
    assert!(begun.elapsed() < 2 * common::SOON, "{:?}", begun.elapsed());
}
