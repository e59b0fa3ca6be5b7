//! Sends one delta of frames over TLS on the loopback and prints the speed.
//!
//! `cargo run --release -p transport --example throughput [MEBIBYTES]`
//!
//! Both ends run in this process on two threads, as two hosts would share a machine of two cores. First the receiver only
//! counts bytes; then the sender digests every frame and the receiver takes the stream apart and verifies every digest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use domain::{HostId, Timestamp};
use futures_util::future::BoxFuture;
use futures_util::stream;
use transport::{
    BoxError, ClientOptions, DeltaBody, DeltaOptions, ErrorClass, Identity, Introduction, MemoryTrust,
    PeerClient, PeerHandler, PeerRecord, PeerServer, Refusal, ServerOptions, TrustStore,
};
use uuid::Uuid;
use wire::{FrameDecoder, Item, WireError};

const DISK_BYTES: u64 = 1 << 40;

#[derive(Default)]
struct Counter {
    verifies: AtomicBool,
}

fn verify(decoder: &mut Option<FrameDecoder>, piece: &[u8]) -> Result<(), WireError> {
    let Some(decoder) = decoder else { return Ok(()) };
    decoder.feed(piece);
    while let Some(item) = decoder.next()? {
        if let Item::Frame(frame) = item {
            frame.open()?;
        }
    }
    Ok(())
}

impl PeerHandler for Counter {
    fn command(&self, _: PeerRecord, message: Bytes) -> BoxFuture<'_, Result<Bytes, Refusal>> {
        Box::pin(async { Ok(message) })
    }

    fn delta(&self, _: PeerRecord, mut body: DeltaBody) -> BoxFuture<'_, Result<Bytes, Refusal>> {
        Box::pin(async move {
            let mut sum = 0_u64;
            let mut decoder = self.verifies.load(Ordering::SeqCst).then(|| {
                let mut decoder = FrameDecoder::new();
                decoder.expect_disks(vec![DISK_BYTES], (0, 0));
                decoder
            });
            loop {
                match body.next().await {
                    Ok(Some(piece)) => {
                        sum += piece.len() as u64;
                        verify(&mut decoder, &piece).map_err(|error| {
                            Refusal::new("damaged", ErrorClass::Transient, error.to_string())
                        })?;
                    }
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
    let counter = Arc::new(Counter::default());
    let server = PeerServer::bind(
        "127.0.0.1:0".parse()?,
        identity.clone(),
        trust.clone(),
        counter.clone(),
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
    for verifies in [false, false, true, true] {
        counter.verifies.store(verifies, Ordering::SeqCst);
        let (piece, made) = (piece.clone(), wire::frame::data_frame(0, 0, &piece, false).1);
        let frames = (0..mebibytes as u64).flat_map(move |number| {
            let head = if verifies {
                wire::frame::data_frame(0, number << 20, &piece, false).1
            } else {
                made.clone()
            };
            [Ok(head), Ok(piece.clone())]
        });
        let answer = client.send_delta(stream::iter(frames), DeltaOptions::default()).await?;
        let seconds = answer.elapsed.as_secs_f64();
        let rate = answer.sent_bytes as f64 / seconds / 1e6;
        let what = if verifies { "digested and verified" } else { "counted" };
        println!("{mebibytes} MiB {what} in {seconds:.3} s: {rate:.0} MB/s");
    }
    server.stop().await;
    Ok(())
}
