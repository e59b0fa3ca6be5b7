//! Sends one delta: at the limited pace, noticing a stand-still, and measuring what the link takes.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::Method;
use hyper::body::Frame;
use tokio::time::Instant;
use tokio::time::{MissedTickBehavior, interval};

use crate::client::Line;
use crate::error::{BoxError, TransportError};
use crate::limiter::{PIECE_BYTES, RateLimiter};
use crate::server::DELTA_PATH;

/// How often a stand-still is looked for; a fraction of every sensible limit.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// How a delta is sent.
#[derive(Clone, Debug)]
pub struct DeltaOptions {
    /// Limits that it shares, for example one of the VM and one of the host.
    pub limiters: Vec<RateLimiter>,
    /// Longest time in which the link takes nothing although there is something to send.
    pub stall_max: Duration,
    /// Longest wait for the answer after the last byte has left: sealing waits for the peer's disk.
    pub answer_max: Duration,
    /// Tells how far it is; shared with whoever shows it.
    pub progress: Arc<TransferProgress>,
}

impl Default for DeltaOptions {
    fn default() -> Self {
        DeltaOptions {
            limiters: Vec::new(),
            stall_max: Duration::from_secs(15),
            answer_max: Duration::from_secs(300),
            progress: Arc::default(),
        }
    }
}

/// How far a transfer is; written by one sender at a time, read by anybody. Begins anew with each transfer.
#[derive(Debug, Default)]
pub struct TransferProgress {
    sent_bytes: AtomicU64,
    clock: Mutex<Clock>,
}

/// Who waits for whom.
#[derive(Debug, Default)]
struct Clock {
    /// The link took its last piece then, and has not asked for another since; none while the source is what is waited for.
    busy_since: Option<Instant>,
    /// Time in which the link was what was waited for, up to `busy_since`.
    busy: Duration,
    /// The last byte was handed over.
    ended: Option<Instant>,
}

impl TransferProgress {
    /// Bytes that were handed to the link; a few hundred KiB of them may be in its buffers.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// What the link takes, in bytes per second: of the time in which it was waited for. None when that was too short to say.
    #[must_use]
    pub fn link_bytes_per_second(&self) -> Option<f64> {
        let clock = self.clock();
        let busy = clock.busy + clock.busy_since.map_or(Duration::ZERO, |since| since.elapsed());
        (busy > Duration::from_millis(20)).then(|| self.sent_bytes() as f64 / busy.as_secs_f64())
    }

    fn clock(&self) -> std::sync::MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new transfer begins; what an earlier one left is forgotten.
    fn begin(&self) {
        self.sent_bytes.store(0, Ordering::Relaxed);
        *self.clock() = Clock::default();
    }

    fn link_asks(&self) {
        let mut clock = self.clock();
        if let Some(since) = clock.busy_since.take() {
            clock.busy += since.elapsed();
        }
    }

    fn link_takes(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.clock().busy_since = Some(Instant::now());
    }

    fn link_has_all(&self) {
        self.clock().ended = Some(Instant::now());
    }
}

/// What the peer said to a delta.
#[derive(Clone, Debug)]
pub struct DeltaAnswer {
    /// Its words.
    pub body: Bytes,
    /// Bytes of the stream.
    pub sent_bytes: u64,
    /// From the first byte to the answer.
    pub elapsed: Duration,
    /// See [`TransferProgress::link_bytes_per_second`].
    pub link_bytes_per_second: Option<f64>,
}

pub(crate) async fn send<S>(
    mut line: Line,
    delta: S,
    options: DeltaOptions,
) -> Result<DeltaAnswer, TransportError>
where
    S: Stream<Item = Result<Bytes, BoxError>> + Send + 'static,
{
    let begin = Instant::now();
    let peer = line.peer().to_owned();
    let progress = options.progress.clone();
    progress.begin();
    let failure = Arc::new(Mutex::new(None));
    let observed = Observed {
        inner: Box::pin(limited(delta, options.limiters.clone())),
        progress: progress.clone(),
        failure: failure.clone(),
    };
    let body = BodyExt::boxed_unsync(StreamBody::new(observed));
    let exchange = async {
        let response = line.request(Method::PUT, DELTA_PATH, body).await?;
        line.read_answer(response).await
    };
    let answer = tokio::select! {
        answer = exchange => answer,
        error = watch(&peer, &options) => Err(error),
    };
    if let Some(source) = failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(TransportError::Source(source));
    }
    Ok(DeltaAnswer {
        body: answer?,
        sent_bytes: progress.sent_bytes(),
        elapsed: begin.elapsed(),
        link_bytes_per_second: progress.link_bytes_per_second(),
    })
}

/// Returns when the transfer stands still.
async fn watch(peer: &str, options: &DeltaOptions) -> TransportError {
    let mut ticks = interval(WATCH_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (busy_since, ended) = {
            let clock = options.progress.clock();
            (clock.busy_since, clock.ended)
        };
        let peer = || peer.to_owned();
        if let Some(ended) = ended {
            if ended.elapsed() > options.answer_max {
                let limit = options.answer_max;
                return TransportError::Deadline { peer: peer(), what: "sealing the delta", limit };
            }
        } else if busy_since.is_some_and(|since| since.elapsed() > options.stall_max) {
            let (limit, sent_bytes) = (options.stall_max, options.progress.sent_bytes());
            return TransportError::Stalled { peer: peer(), limit, sent_bytes };
        }
    }
}

/// Cuts what is limited into small pieces and lets each pass when its time has come.
fn limited<S>(
    delta: S,
    limiters: Vec<RateLimiter>,
) -> impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static
where
    S: Stream<Item = Result<Bytes, BoxError>> + Send + 'static,
{
    stream::unfold((Box::pin(delta), Bytes::new(), limiters), |(mut delta, mut rest, limiters)| async move {
        while rest.is_empty() {
            match delta.next().await? {
                Ok(piece) => rest = piece,
                Err(error) => return Some((Err(error), (delta, rest, limiters))),
            }
        }
        let is_limited = limiters.iter().any(RateLimiter::is_limited);
        let length = if is_limited { rest.len().min(PIECE_BYTES) } else { rest.len() };
        let piece = rest.split_to(length);
        for limiter in &limiters {
            limiter.pass(length as u64).await;
        }
        Some((Ok(piece), (delta, rest, limiters)))
    })
}

/// The body: tells the progress when the link asks and takes, and keeps an error of the source for the caller.
struct Observed<S> {
    inner: Pin<Box<S>>,
    progress: Arc<TransferProgress>,
    failure: Arc<Mutex<Option<BoxError>>>,
}

impl<S: Stream<Item = Result<Bytes, BoxError>>> Stream for Observed<S> {
    type Item = Result<Frame<Bytes>, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.progress.link_asks();
        match self.inner.as_mut().poll_next(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(piece))) => {
                self.progress.link_takes(piece.len());
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Poll::Ready(Some(Err(error))) => {
                let told = error.to_string().into();
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Poll::Ready(Some(Err(told)))
            }
            Poll::Ready(None) => {
                self.progress.link_has_all();
                Poll::Ready(None)
            }
        }
    }
}
