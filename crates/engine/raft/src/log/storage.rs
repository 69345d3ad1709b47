//! The log as consensus sees it: appends go to the log thread, reads come from memory or from disk.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader};
use tokio::sync::{Notify, mpsc, oneshot};

use super::frame::{self, FRAME_HEADER};
use super::index::{Found, Index, Place};
use super::writer::{Active, Length, Order, Writer, lock};
use crate::disk::{Disk, TailFile, Vital};
use crate::raft::{Entry, LogId, Types, Vote};
use crate::{Config, OpenError};

/// Orders that may wait for the log thread; consensus keeps far fewer under way.
const ORDERS: usize = 256;
/// Bytes of entries that are sent to another server at once, about; one entry may be larger.
const SENT_BYTES: usize = 4 << 20;
/// Entries that are read for that at once.
const SENT_STEP: u64 = 16;

/// The log of an open store. Clones share it.
#[derive(Clone)]
pub(crate) struct Log {
    orders: mpsc::Sender<Order>,
    index: Arc<Mutex<Index>>,
    length: Arc<Length>,
}

impl Log {
    /// Starts the log thread.
    pub(super) fn start(
        config: &Config,
        disk: &Disk,
        index: Index,
        active: Active,
        tail: TailFile,
    ) -> Result<Self, OpenError> {
        let (orders, inbox) = mpsc::channel(ORDERS);
        let last = index.last;
        let index = Arc::new(Mutex::new(index));
        let length = Arc::new(Length {
            limit: AtomicU64::new(u64::MAX),
            long: Notify::new(),
        });
        let writer = Writer {
            disk: disk.clone(),
            index: Arc::clone(&index),
            active,
            last,
            tail,
            segment_bytes: config.segment_bytes,
            length: Arc::clone(&length),
            buffer: Vec::new(),
        };
        std::thread::Builder::new()
            .name("prism-log".to_owned())
            .spawn(move || {
                let _vital = Vital("the log");
                writer.run(inbox);
            })
            .map_err(OpenError::io("start the log thread of", &config.dir))?;
        Ok(Self {
            orders,
            index,
            length,
        })
    }

    async fn order(&self, order: impl FnOnce(oneshot::Sender<()>) -> Order) -> io::Result<()> {
        let stopped = || io::Error::other("the log has stopped");
        let (done, answer) = oneshot::channel();
        self.orders.send(order(done)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())
    }

    /// Ends the log thread, after all it was asked to do before.
    pub(crate) async fn stop(&self) {
        // An error means that it has ended already.
        let _ended = self.order(Order::Stop).await;
    }

    /// Says that entries up to `index` are applied, and need not be in memory.
    pub(crate) fn applied(&self, index: u64) {
        let gone = lock(&self.index).applied(index);
        drop(gone);
    }

    /// Sets the length, in bytes, from which on [`Log::long`] returns.
    pub(crate) fn set_limit(&self, bytes: u64) {
        self.length.limit.store(bytes, Ordering::Relaxed);
    }

    /// Waits until the log is longer than its limit.
    pub(crate) async fn long(&self) {
        self.length.long.notified().await;
    }

    /// Bytes of the log on disk.
    pub(crate) fn bytes(&self) -> u64 {
        lock(&self.index).bytes()
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> std::ops::Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end + 1,
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

fn read_entry(file: &File, place: Place) -> io::Result<Entry> {
    let offset = u64::from(place.offset);
    let mut bytes = vec![0; FRAME_HEADER];
    file.read_exact_at(&mut bytes, offset)?;
    let len = frame::peek(&bytes).map_or(0, |frame| frame.len);
    bytes.resize(FRAME_HEADER + len, 0);
    file.read_exact_at(&mut bytes[FRAME_HEADER..], offset + FRAME_HEADER as u64)?;
    let named = |why: &str| {
        let why = format!("log segment {} at offset {offset}: {why}", place.segment);
        io::Error::new(io::ErrorKind::InvalidData, why)
    };
    let (frame, body) = frame::decode(&bytes).map_err(named)?;
    frame::entry(&frame, body).map_err(|why| named(&why))
}

fn read_all(found: Vec<Found>) -> io::Result<Vec<Entry>> {
    found
        .into_iter()
        .map(|found| match found {
            Found::Entry(entry) => Ok(entry),
            Found::Place(file, place) => read_entry(&file, place),
        })
        .collect()
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let found = lock(&self.index).find(bounds(&range));
        if found.iter().all(|found| matches!(found, Found::Entry(_))) {
            return read_all(found);
        }
        tokio::task::spawn_blocking(move || read_all(found))
            .await
            .map_err(io::Error::other)?
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut next = start;
        while next < end && bytes < SENT_BYTES {
            let step = end.min(next.saturating_add(SENT_STEP));
            let read = self.try_get_log_entries(next..step).await?;
            if read.is_empty() {
                break;
            }
            bytes += read.iter().map(size).sum::<usize>();
            next += read.len() as u64;
            entries.extend(read);
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(lock(&self.index).vote)
    }
}

/// Roughly the bytes of an entry.
fn size(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.0.bytes(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 256,
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let index = lock(&self.index);
        Ok(LogState {
            last_purged_log_id: index.purged,
            last_log_id: index.last,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = *vote;
        self.order(|done| Order::Vote(vote, done)).await?;
        lock(&self.index).vote = Some(vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Goes to disk with the next write; an older one is true as well.
        lock(&self.index).committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(lock(&self.index).committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        lock(&self.index).push(&entries);
        let order = Order::Append(entries, callback);
        let sent = self.orders.send(order).await;
        sent.map_err(|_| io::Error::other("the log has stopped"))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.order(|done| Order::Cut(last, done)).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.order(|done| Order::Purge(upto, done)).await
    }
}
