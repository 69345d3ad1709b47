//! Bodies that are written while they are sent: a bounded queue between the writer's task and the connection.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use bytes::Bytes;
use futures::stream;
use tokio::sync::mpsc;

use crate::answer;
use crate::app::App;

/// Pieces that wait for the connection; a full queue makes the writer wait.
const QUEUE: usize = 2;
/// Bytes that the pieces of all answers, one each, are to take together.
const PIECES: usize = 2 << 20;
/// Smallest and largest piece, bytes.
const PIECE: (usize, usize) = (4 << 10, 256 << 10);

/// How many answers are being written: the more there are, the smaller their pieces, so that readers that take nothing
/// hold little.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streams(Arc<()>);

impl Streams {
    /// Bytes that a writer is to put into one piece now.
    pub(crate) fn piece(&self) -> usize {
        (PIECES / Arc::strong_count(&self.0)).clamp(PIECE.0, PIECE.1)
    }
}

/// Where a writer puts its pieces.
#[derive(Clone, Debug)]
pub(crate) struct Sink {
    pieces: mpsc::Sender<Result<Bytes, std::io::Error>>,
    streams: Streams,
}

/// The reader is gone.
#[derive(Debug)]
pub(crate) struct Gone;

impl Sink {
    /// Sends a piece.
    pub(crate) async fn send(&self, piece: Bytes) -> Result<(), Gone> {
        self.pieces.send(Ok(piece)).await.map_err(|_| Gone)
    }

    /// Breaks the answer off, so that the reader sees that it is not complete.
    pub(crate) async fn break_off(&self, why: &str) {
        tracing::debug!(why, "a streamed answer broke off");
        // Nobody to tell when the reader has gone first.
        let _sent = self
            .pieces
            .send(Err(std::io::Error::other(why.to_owned())))
            .await;
    }

    /// Waits until the reader is gone.
    pub(crate) async fn gone(&self) {
        self.pieces.closed().await;
    }

    /// Bytes to put into one piece now.
    pub(crate) fn piece(&self) -> usize {
        self.streams.piece()
    }
}

/// An answer whose body is what `write` sends.
pub(crate) fn answer<W>(
    app: &App,
    kind: &'static str,
    write: impl FnOnce(Sink) -> W,
) -> Response<Body>
where
    W: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(QUEUE);
    let streams = app.streams.clone();
    tokio::spawn(write(Sink {
        pieces: sender,
        streams,
    }));
    let pieces = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    answer::of(kind, Body::from_stream(pieces))
}
