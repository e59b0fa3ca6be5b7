//! The bytes of a delta as they arrive.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, Stream, StreamExt};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::error::BoxError;

/// A refused delta is read on for so long, so that the refusal reaches a sender who is still sending.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// A delta that broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection broke before the end.
    #[error("the delta broke off in the middle; it goes on from the last durable position")]
    Broken(#[source] BoxError),
    /// Nothing came for too long.
    #[error("no byte of the delta came for {} s; it goes on from the last durable position", limit.as_secs())]
    Idle {
        /// How long we waited.
        limit: Duration,
    },
}

/// The stream of one delta. What it holds is read piece by piece; nothing is buffered beyond the connection's buffers.
pub struct DeltaBody {
    incoming: Option<Incoming>,
    /// Bytes that did not come over a connection.
    stream: Option<BoxStream<'static, std::io::Result<Bytes>>>,
    idle_max: Duration,
}

impl DeltaBody {
    pub(crate) fn new(incoming: Incoming, idle_max: Duration) -> DeltaBody {
        DeltaBody { incoming: Some(incoming), stream: None, idle_max }
    }

    /// A delta that was carried by other means, for example in a file.
    pub fn from_stream(stream: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static) -> DeltaBody {
        DeltaBody { incoming: None, stream: Some(stream.boxed()), idle_max: Duration::MAX }
    }

    /// The next piece; none at the proper end. After an error there is nothing more.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        if let Some(stream) = &mut self.stream {
            let piece = stream.next().await.transpose();
            return piece.map_err(|error| BodyError::Broken(error.into()));
        }
        // A body sends trailers at most once after its data, so this loop ends.
        while let Some(incoming) = self.incoming.as_mut() {
            match timeout(self.idle_max, incoming.frame()).await {
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) if piece.is_empty() => {}
                    Ok(piece) => return Ok(Some(piece)),
                    Err(_trailers) => {}
                },
                Ok(Some(Err(error))) => {
                    self.incoming = None;
                    return Err(BodyError::Broken(error.into()));
                }
                Ok(None) => self.incoming = None,
                Err(_) => {
                    self.incoming = None;
                    return Err(BodyError::Idle { limit: self.idle_max });
                }
            }
        }
        Ok(None)
    }
}

impl Drop for DeltaBody {
    fn drop(&mut self) {
        let (Some(mut incoming), Ok(runtime)) = (self.incoming.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        runtime
            .spawn(timeout(DRAIN_DEADLINE, async move { while let Some(Ok(_)) = incoming.frame().await {} }));
    }
}
