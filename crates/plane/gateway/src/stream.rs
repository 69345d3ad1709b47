//! Bodies that are written while they are sent: a bounded queue between the writer's task and the connection.

use axum::body::Body;
use axum::http::Response;
use bytes::Bytes;
use futures::stream;
use tokio::sync::mpsc;

use crate::answer;

/// Pieces that wait for the connection; a full queue makes the writer wait.
const QUEUE: usize = 16;

/// Where a writer puts its pieces.
#[derive(Clone, Debug)]
pub(crate) struct Sink(mpsc::Sender<Result<Bytes, std::io::Error>>);

/// The reader is gone.
#[derive(Debug)]
pub(crate) struct Gone;

impl Sink {
    /// Sends a piece.
    pub(crate) async fn send(&self, piece: Bytes) -> Result<(), Gone> {
        self.0.send(Ok(piece)).await.map_err(|_| Gone)
    }

    /// Breaks the answer off, so that the reader sees that it is not complete.
    pub(crate) async fn break_off(&self, why: &str) {
        tracing::debug!(why, "a streamed answer broke off");
        // Nobody to tell when the reader has gone first.
        let _sent = self
            .0
            .send(Err(std::io::Error::other(why.to_owned())))
            .await;
    }

    /// Waits until the reader is gone.
    pub(crate) async fn gone(&self) {
        self.0.closed().await;
    }
}

/// An answer whose body is what `write` sends.
pub(crate) fn answer<W>(kind: &'static str, write: impl FnOnce(Sink) -> W) -> Response<Body>
where
    W: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(write(Sink(sender)));
    let pieces = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    answer::of(kind, Body::from_stream(pieces))
}
