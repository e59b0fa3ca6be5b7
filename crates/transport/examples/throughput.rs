//! Sends one delta of frames over TLS on the loopback and prints the speed.
//!
//! `cargo run --release -p transport --example throughput [MEBIBYTES]`
//!
//! Both ends run in this process on two threads, as two hosts would share a machine of two cores. The receiver only counts bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::{HostId, Timestamp};
use futures_util::future::BoxFuture;
use futures_util::stream;
use transport::{
    BoxError, ClientOptions, DeltaBody, DeltaOptions, ErrorClass, Identity, Introduction, MemoryTrust,
    PeerClient, PeerHandler, PeerRecord, PeerServer, Refusal, ServerOptions, TrustStore,
};
use uuid::Uuid;

struct Counter;

impl PeerHandler for Counter {
    fn command(&self, _: PeerRecord, message: Bytes) -> BoxFuture<'_, Result<Bytes, Refusal>> {
        Box::pin(async { Ok(message) })
    }

    fn delta(&self, _: PeerRecord, mut body: DeltaBody) -> BoxFuture<'_, Result<Bytes, Refusal>> {
        Box::pin(async move {
            let mut sum = 0_u64;
            loop {
                match body.next().await {
                    Ok(Some(piece)) => sum += piece.len() as u64,
                    Ok(None) => return Ok(sum.to_string().into()),
                    Err(error) => {
                        return Err(Refusal::new("broken", ErrorClass::Transient, error.to_string()));
                    }
                }
            }
        })
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), BoxError> {
    let mebibytes: usize = std::env::args().nth(1).map_or(Ok(1024), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH)?;
    let now = Timestamp(u64::try_from(now.as_millis())?);
    // One identity plays both hosts.
    let identity = Arc::new(Identity::open_or_create(dir.path(), "host", now)?);
    let trust = Arc::new(MemoryTrust::new());
    let host = HostId(Uuid::from_u128(1));
    let own = Introduction { host, name: "host".to_owned(), address: None, port: 0 };
    let server = PeerServer::bind(
        "127.0.0.1:0".parse()?,
        identity.clone(),
        trust.clone(),
        Arc::new(Counter),
        ServerOptions::new(own),
    );
    let server = server.await?;
    trust.add_peer(&PeerRecord {
        host,
        name: "host".to_owned(),
        address: "127.0.0.1".to_owned(),
        port: server.local_address().port(),
        certificate_der: identity.certificate_der(),
        next_certificate_der: None,
        paired_at: now,
    })?;
    let client = PeerClient::new(host, identity, trust, ClientOptions::default());
    let piece = Bytes::from((0..1 << 20).map(|number: u32| ((number * 31) >> 3) as u8).collect::<Vec<_>>());
    let head = Bytes::from(vec![0; 64]);
    for _ in 0..3 {
        let (head, piece) = (head.clone(), piece.clone());
        let frames = (0..mebibytes).flat_map(move |_| [Ok(head.clone()), Ok(piece.clone())]);
        let answer = client.send_delta(stream::iter(frames), DeltaOptions::default()).await?;
        let rate = |elapsed: Duration| answer.sent_bytes as f64 / elapsed.as_secs_f64() / 1e6;
        println!(
            "{mebibytes} MiB in {:.3} s: {:.0} MB/s",
            answer.elapsed.as_secs_f64(),
            rate(answer.elapsed)
        );
    }
    server.stop().await;
    Ok(())
}
