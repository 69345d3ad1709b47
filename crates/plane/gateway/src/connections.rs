//! Who is connected: a bound on connections that gives way at the end that does nothing. When it is reached, the
//! connection that has been without a request for the longest is closed, so that silent ones keep nobody out.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Every open connection.
#[derive(Debug)]
pub(crate) struct Connections {
    most: usize,
    open: Mutex<Open>,
    /// Told when one ends or has nothing more to do.
    room: Notify,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    all: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Requests that are being answered.
    busy: u32,
    idle_since: Instant,
    stop: CancellationToken,
}

/// One connection's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    connections: Arc<Connections>,
    number: u64,
    stop: CancellationToken,
}

/// A request of a connection that is being answered, to the last byte.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Place>);

impl Connections {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most: most.max(1),
            open: Mutex::default(),
            room: Notify::new(),
        })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection that was accepted; waits only while every other one is being answered.
    pub(crate) async fn enter(self: &Arc<Self>) -> Arc<Place> {
        loop {
            let room = self.room.notified();
            if let Some(place) = self.try_enter() {
                return Arc::new(place);
            }
            room.await;
        }
    }

    fn try_enter(self: &Arc<Self>) -> Option<Place> {
        let mut open = self.open();
        if open.all.len() >= self.most {
            let idle = open.all.iter().filter(|(_, e)| e.busy == 0);
            let longest = idle.min_by_key(|(_, e)| e.idle_since).map(|(n, _)| *n)?;
            if let Some(entry) = open.all.remove(&longest) {
                entry.stop.cancel();
            }
        }
        let number = open.next;
        open.next += 1;
        let stop = CancellationToken::new();
        let entry = Entry {
            busy: 0,
            idle_since: Instant::now(),
            stop: stop.clone(),
        };
        open.all.insert(number, entry);
        Some(Place {
            connections: self.clone(),
            number,
            stop,
        })
    }
}

impl Place {
    /// Waits until the connection is to give way to another.
    pub(crate) async fn given_away(&self) {
        self.stop.cancelled().await;
    }

    /// Notes that a request is being answered, until what this gives is dropped.
    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        if let Some(entry) = self.connections.open().all.get_mut(&self.number) {
            entry.busy += 1;
        }
        Busy(self.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().all.remove(&self.number);
        self.connections.room.notify_one();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(entry) = self.0.connections.open().all.get_mut(&self.0.number) {
            entry.busy = entry.busy.saturating_sub(1);
            entry.idle_since = Instant::now();
        }
        self.0.connections.room.notify_one();
    }
}

/// A body that keeps something until its last byte is handed over.
#[derive(Debug)]
struct Held<T> {
    body: Body,
    _kept: T,
}

/// The same body, with `kept` kept as long as it.
pub(crate) fn holding<T: Send + Unpin + 'static>(body: Body, kept: T) -> Body {
    Body::new(Held { body, _kept: kept })
}

impl<T: Unpin> HttpBody for Held<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
