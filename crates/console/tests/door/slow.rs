//! Clients that take their time, a byte now and then, to hold what others need: each is cut off when its time is over, however busy it
//! looks, and nothing of what it sent has happened. The clock jumps from timer to timer here; the connections are real.

use std::time::Duration;

use axum::http::StatusCode;
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, pause, timeout};

use crate::world::{Browser, World, password};

/// A byte so often looks alive to whatever only waits for the next one.
const EVERY: Duration = Duration::from_secs(2);
/// More than one of those, and less than two.
const GRACE: Duration = Duration::from_secs(3);

/// Sends `begin`, then a byte every two seconds, until the other side has closed. Gives how long that took, and what was answered.
async fn drip(stream: impl AsyncRead + AsyncWrite, begin: &[u8], byte: u8) -> (Duration, String) {
    let (mut read, mut write) = tokio::io::split(stream);
    write.write_all(begin).await.unwrap();
    pause();
    let begun = Instant::now();
    let mut answered = Vec::new();
    let closed = async {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = read.read(&mut bytes).await {
            answered.extend_from_slice(&bytes[..count]);
        }
    };
    let dripping = async {
        loop {
            tokio::time::sleep(EVERY).await;
            let _ = write.write_all(&[byte]).await; // what is closed is seen by reading
        }
    };
    tokio::select! {
        () = closed => {}
        () = dripping => {}
    }
    let took = begun.elapsed();
    tokio::time::resume();
    (took, String::from_utf8_lossy(&answered).into_owned())
}

fn is_about(took: Duration, deadline: Duration) -> bool {
    (deadline..deadline + GRACE).contains(&took)
}

#[tokio::test]
async fn a_handshake_that_goes_on_and_on_is_cut_off() {
    let world = World::new().await;
    // A record of TLS that announces 512 bytes, of which one comes now and then; and one whose own head comes so.
    for begin in [&[0x16, 0x03, 0x01, 0x02, 0x00][..], &[0x16, 0x03][..]] {
        let stream = TcpStream::connect(world.address()).await.unwrap();
        let (took, answered) = drip(stream, begin, 0x01).await;
        assert!(is_about(took, Duration::from_secs(10)), "{took:?}");
        assert_eq!(answered, "");
    }
    let mut silent = TcpStream::connect(world.address()).await.unwrap();
    pause();
    let begun = Instant::now();
    assert_eq!(timeout(Duration::from_secs(60), silent.read(&mut [0])).await.unwrap().unwrap_or(0), 0);
    assert!(is_about(begun.elapsed(), Duration::from_secs(10)), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_head_that_goes_on_and_on_is_cut_off() {
    let world = World::new().await;
    let tls = world.connect(&[&TLS13]).await.unwrap();
    let (took, answered) = drip(tls, b"GET /session HTTP/1.1\r\nHost: hvhost01\r\nX-Long: ", b'a').await;
    assert!(is_about(took, Duration::from_secs(30)), "{took:?}");
    assert!(!answered.contains("200 OK"), "{answered}");
    // A connection that asks for nothing any more is not kept either.
    let tls = world.connect(&[&TLS13]).await.unwrap();
    let begin = b"GET /session HTTP/1.1\r\nHost: hvhost01\r\n\r\n";
    let (took, answered) = drip(tls, begin, b'\n').await;
    assert!(is_about(took, Duration::from_secs(30)), "{took:?}");
    assert!(answered.starts_with("HTTP/1.1 401"), "{answered}");
}

#[tokio::test]
async fn a_body_that_goes_on_and_on_is_refused_and_does_nothing() {
    let world = World::new().await;
    let browser = Browser::of_alice(&world).await;
    let (cookie, csrf, port) = (&browser.cookie, &browser.csrf, world.address().port());
    for (path, begin) in [
        ("/session", password("alice", "right").to_string()), // whole as it stands, but for the bytes that are announced
        ("/api/v1/thing", "{}".to_owned()),
    ] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: hvhost01:{port}\r\nOrigin: https://hvhost01:{port}\r\nSec-Fetch-Site: same-origin\r\n\
             Cookie: {cookie}\r\nX-CSRF-Token: {csrf}\r\nContent-Type: application/json\r\nContent-Length: 2000\r\n\r\n{begin}"
        );
        let tls = world.connect(&[&TLS13]).await.unwrap();
        let (took, answered) = drip(tls, head.as_bytes(), b' ').await;
        assert!(is_about(took, Duration::from_secs(10)), "{took:?}");
        assert!(
            answered.starts_with("HTTP/1.1 400") && answered.contains("not whole within 10 s"),
            "{answered}"
        );
    }
    assert_eq!((world.reached().len(), world.sessions()), (0, 1));
}

#[tokio::test]
async fn whoever_holds_all_places_with_nothing_is_out_in_time_and_others_are_let_in() {
    let world = World::new().await;
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(TcpStream::connect(world.address()).await.unwrap());
    }
    assert!(world.connect(&[&TLS13]).await.is_err(), "one more of this address");
    pause();
    for stream in &mut open {
        let read = timeout(Duration::from_secs(20), stream.read(&mut [0])).await;
        assert_eq!(read.expect("closed in time").unwrap_or(0), 0);
    }
    tokio::time::resume();
    assert_eq!(Browser::default().get(&world, "/").await.status, StatusCode::OK);
}
