//! Whatever a server says, the client ends with a typed error: no panic, no wait for ever, no memory for a lie.

mod common;

use std::time::Duration;

use common::{CONTEXT_ID, DONE, Request, SIZE, chunk, chunk_head, data, greeting, listen, option_reply};
use common::{request, say, shake};
use extent::Extent;
use nbd::{ALLOCATION, Chunk, Client, Deadlines, NbdError};
use tokio::io::AsyncReadExt;

const LENGTH: u64 = 4096;
/// Honest answers come at once; only tests of silence wait this long.
const SHORT: Duration = Duration::from_millis(300);

fn range(offset: u64, length: u64) -> Extent {
    Extent::new(offset, length).expect("a range")
}

async fn connect(server: &common::Server, request: Duration) -> Result<Client, NbdError> {
    let deadlines = Deadlines { connect: Duration::from_secs(10), request };
    Client::connect_unix(&server.socket, "", &[ALLOCATION], deadlines).await
}

/// Shakes hands, answers every request by `answer`, then keeps the connection open.
fn answering(answer: impl Fn(Request) -> Vec<u8> + Send + Sync + 'static) -> common::Server {
    listen(|mut stream| async move {
        shake(&mut stream).await;
        while let Some(request) = request(&mut stream).await {
            say(&mut stream, &answer(request)).await;
        }
    })
}

/// What a read of [`LENGTH`] bytes at 8192 comes to when it is answered so.
async fn read(answer: impl Fn(Request) -> Vec<u8> + Send + Sync + 'static) -> Result<Vec<Chunk>, NbdError> {
    let server = answering(answer);
    let client = connect(&server, Duration::from_secs(10)).await.expect("an honest handshake");
    let result = client.read(range(8192, LENGTH)).await;
    if matches!(result, Err(NbdError::Protocol { .. })) {
        // A liar is not asked again, and who asks is told why.
        let again = client.read(range(0, 512)).await;
        assert!(matches!(again, Err(NbdError::Protocol { .. })), "{again:?}");
    }
    result
}

async fn check_lie(what: &str, answer: impl Fn(Request) -> Vec<u8> + Send + Sync + 'static) {
    let result = read(answer).await;
    let Err(NbdError::Protocol { what: found }) = &result else { panic!("{what}: {result:?}") };
    assert_eq!(*found, what);
}

fn hole(flags: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    chunk(flags, 2, cookie, &[&offset.to_be_bytes()[..], &length.to_be_bytes()].concat())
}

#[tokio::test]
async fn chunks_in_any_order_come_sorted() {
    let chunks = read(|it| {
        let late = data(0, it.cookie, it.offset + 2048, 2048);
        [late, hole(DONE, it.cookie, it.offset, 2048)].concat()
    })
    .await
    .expect("an honest answer");
    assert!(matches!(&chunks[..], [Chunk::Hole(hole), Chunk::Data { offset: 10240, bytes }]
        if *hole == range(8192, 2048) && bytes.len() == 2048));
}

#[tokio::test]
async fn lies_about_data_are_found() {
    check_lie("a reply without a magic number", |_| vec![1; 64]).await;
    check_lie("a reply to nothing", |it| data(DONE, it.cookie + 1, it.offset, 4096)).await;
    check_lie("a chunk outside the request", |it| data(DONE, it.cookie, it.offset - 1, 4096)).await;
    check_lie("a chunk outside the request", |it| data(DONE, it.cookie, u64::MAX, 4096)).await;
    check_lie("a chunk outside the request", |it| hole(DONE, it.cookie, it.offset, 4097)).await;
    check_lie("a chunk outside the request", |it| hole(DONE, it.cookie, it.offset, 0)).await;
    check_lie("an answer with a gap", |it| data(DONE, it.cookie, it.offset, 4095)).await;
    check_lie("an answer with a gap", |it| chunk(DONE, 0, it.cookie, &[])).await;
    check_lie("an answer without structure", |it| {
        [&0x6744_6698_u32.to_be_bytes()[..], &[0; 4], &it.cookie.to_be_bytes()].concat()
    })
    .await;
    let status = |it: Request| chunk(DONE, 5, it.cookie, &[0; 12]);
    check_lie("a chunk that does not answer the request", status).await;
}

#[tokio::test]
async fn overlaps_are_found_as_soon_as_they_come_and_at_the_end() {
    // Never DONE: the second chunk alone must end it.
    check_lie("an answer with an overlap", |it| data(0, it.cookie, it.offset, 4096).repeat(2)).await;
    check_lie("an answer with an overlap", |it| {
        let early = data(0, it.cookie, it.offset, 2048);
        [early, data(DONE, it.cookie, it.offset + 1024, 2048)].concat()
    })
    .await;
}

#[tokio::test]
async fn a_length_beyond_the_request_is_refused_before_it_is_read() {
    let too_long = "a chunk of a length that does not fit the request";
    for kind in [0, 1, 2, 1 << 15] {
        check_lie(too_long, move |it| chunk_head(DONE, kind, it.cookie, u32::MAX)).await;
    }
    check_lie(too_long, |it| chunk_head(DONE, 1, it.cookie, 8)).await;
}

#[tokio::test]
async fn an_answer_without_end_is_ended() {
    check_lie("an answer without end", |it| chunk(0, 0, it.cookie, &[]).repeat(1000)).await;
}

#[tokio::test]
async fn a_failed_read_leaves_the_connection_alive() {
    let server = answering(|it| {
        if it.offset == 0 {
            let error = [&5_u32.to_be_bytes()[..], &4_u16.to_be_bytes(), b"disk"].concat();
            chunk(DONE, 1 << 15 | 1, it.cookie, &error)
        } else {
            data(DONE, it.cookie, it.offset, it.length as usize)
        }
    });
    let client = connect(&server, Duration::from_secs(10)).await.expect("a connection");
    let failed = client.read(range(0, 512)).await;
    assert!(
        matches!(&failed, Err(NbdError::Server { errno: 5, message, .. }) if message == "disk"),
        "{failed:?}"
    );
    client.read(range(512, 512)).await.expect("the next read");
    let beyond = client.read(range(SIZE - 1, 2)).await;
    assert!(matches!(beyond, Err(NbdError::Beyond { size: SIZE, .. })), "{beyond:?}");
    client.read(range(512, 512)).await.expect("the next read");
}

#[tokio::test]
async fn lies_about_maps_are_found() {
    let cases: [(&str, Vec<u32>); 3] = [
        ("a status with an empty range", vec![CONTEXT_ID, 0, 0]),
        ("a status without a range", vec![CONTEXT_ID + 1, 4096, 0]),
        ("a status twice or in part", vec![CONTEXT_ID, 4096, 0, 1]),
    ];
    for (what, words) in cases {
        let payload: Vec<u8> = words.into_iter().flat_map(u32::to_be_bytes).collect();
        let server = answering(move |it| chunk(DONE, 5, it.cookie, &payload));
        let client = connect(&server, Duration::from_secs(10)).await.expect("a connection");
        let result = client.allocated().await;
        assert!(
            matches!(result, Err(NbdError::Protocol { what: found }) if found == what),
            "{what}: {result:?}"
        );
    }
}

#[tokio::test]
async fn a_map_in_short_or_overlong_answers_is_the_disk() {
    let server = answering(|it| {
        let zero = u32::from(it.offset.is_multiple_of(256 * 1024)) * 3;
        let length = if it.offset < SIZE / 2 { 128 * 1024 } else { u32::MAX };
        let words = [CONTEXT_ID, length, zero];
        chunk(DONE, 5, it.cookie, &words.map(u32::to_be_bytes).concat())
    });
    let client = connect(&server, Duration::from_secs(10)).await.expect("a connection");
    let data = [range(128 << 10, 128 << 10), range(384 << 10, 128 << 10)].into_iter().collect();
    assert_eq!(client.allocated().await.expect("a map"), data);
}

#[tokio::test]
async fn silence_ends_at_the_deadline_and_for_everyone() {
    let server = answering(|_| Vec::new());
    let client = connect(&server, SHORT).await.expect("a connection");
    let (first, second) = tokio::join!(client.read(range(0, 512)), client.allocated());
    assert!(matches!(first, Err(NbdError::Silent { .. })), "{first:?}");
    assert!(matches!(second, Err(NbdError::Silent { .. })), "{second:?}");
    let later = client.read(range(0, 512)).await;
    assert!(matches!(later, Err(NbdError::Silent { .. })), "{later:?}");
}

#[tokio::test]
async fn reads_that_were_given_up_do_no_harm() {
    let server = answering(|it| data(DONE, it.cookie, it.offset, it.length as usize));
    let client = connect(&server, Duration::from_secs(10)).await.expect("a connection");
    for _ in 0..100 {
        let read = client.read(range(0, SIZE));
        // Polled once, so it is on the way, then dropped: 100 MiB in all, more than may be on the way at once.
        let _ = tokio::time::timeout(Duration::ZERO, read).await;
    }
    client.read(range(0, SIZE)).await.expect("a read");
}

#[tokio::test]
async fn a_server_that_hangs_up_fails_those_who_wait() {
    let server = listen(|mut stream| async move {
        shake(&mut stream).await;
        request(&mut stream).await;
    });
    let client = connect(&server, Duration::from_secs(10)).await.expect("a connection");
    let read = client.read(range(0, 512)).await;
    assert!(matches!(read, Err(NbdError::Connection { .. })), "{read:?}");
    client.disconnect().await;
}

#[tokio::test]
async fn handshakes_that_lie_are_refused() {
    let structured = |kind, data: &[u8]| [greeting(), option_reply(8, kind, data)].concat();
    let overlong = {
        let mut reply = option_reply(8, 1, &[]);
        reply[16..].copy_from_slice(&u32::MAX.to_be_bytes());
        [greeting(), reply].concat()
    };
    let cases = [
        ("it does not greet like a newstyle server", vec![b'x'; 18]),
        ("it does not speak the fixed newstyle", b"NBDMAGICIHAVEOPT\0\0".to_vec()),
        ("an overlong reply to an option", overlong),
        ("a reply to an option that was not asked", [greeting(), option_reply(9, 1, &[])].concat()),
        ("too many replies to one option", [greeting(), option_reply(8, 3, &[]).repeat(100)].concat()),
    ];
    for (what, bytes) in cases {
        let result = greeted_with(bytes).await;
        assert!(matches!(result, Err(NbdError::Protocol { what: found }) if found == what), "{what}");
    }
    let refused = greeted_with(structured(1 << 31 | 1, b"no")).await;
    assert!(matches!(refused, Err(NbdError::Refused { message, .. }) if message == "no"));
}

async fn greeted_with(bytes: Vec<u8>) -> Result<Client, NbdError> {
    let server = listen(|mut stream| async move {
        say(&mut stream, &bytes).await;
        // Held open until the client hangs up.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    connect(&server, SHORT).await
}

#[tokio::test]
async fn a_server_that_never_greets_is_silent() {
    let server = listen(|stream| async move {
        let _ = stream.readable().await;
        std::future::pending::<()>().await;
    });
    let deadlines = Deadlines { connect: SHORT, request: SHORT };
    let result = Client::connect_unix(&server.socket, "", &[], deadlines).await;
    assert!(matches!(result, Err(NbdError::Silent { doing: "connecting", .. })));
}
