//! The log thread: the only one that writes to the log and the vote. Takes what has piled up, writes it with one call
//! and one sync, then reports. Orders are carried out in the order they were given.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use openraft::storage::IOFlushed;
use prism_faults::point;
use tokio::sync::{Notify, mpsc, oneshot};

use super::frame;
use super::index::{Held, Index, Place};
use super::recover::place;
use super::segment::{self, Header};
use crate::disk::{Disk, Tail, TailFile, fatal, write_vote};
use crate::raft::{Entry, LogId, Types, Vote};

/// Bytes of entries that one write takes at most, unless a single entry is larger.
const WRITE_BYTES: usize = 8 * 1024 * 1024;
/// The buffer is given back when it has grown beyond this.
const KEEP_BUFFER: usize = 1024 * 1024;

/// What the log thread is asked to do.
pub(super) enum Order {
    Append(Vec<Entry>, IOFlushed<Types>),
    Vote(Vote, oneshot::Sender<()>),
    Cut(Option<LogId>, oneshot::Sender<()>),
    Purge(LogId, oneshot::Sender<()>),
    Stop(oneshot::Sender<()>),
}

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) number: u64,
    pub(super) file: Arc<File>,
    pub(super) path: PathBuf,
    pub(super) offset: u64,
}

/// When the log counts as long.
#[derive(Debug)]
pub(super) struct Length {
    pub(super) limit: std::sync::atomic::AtomicU64,
    pub(super) long: Notify,
}

pub(super) struct Writer {
    pub(super) disk: Disk,
    pub(super) index: Arc<Mutex<Index>>,
    pub(super) active: Active,
    /// The last entry that was written.
    pub(super) last: Option<LogId>,
    pub(super) tail: TailFile,
    pub(super) segment_bytes: u64,
    pub(super) length: Arc<Length>,
    pub(super) buffer: Vec<u8>,
}

impl Writer {
    /// Carries out orders until there can be no more.
    pub(super) fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut next = None;
        while let Some(order) = next.take().or_else(|| orders.blocking_recv()) {
            match order {
                Order::Append(entries, done) => next = self.append(entries, done, &mut orders),
                Order::Vote(vote, done) => {
                    write_vote(&self.disk, &vote);
                    answer(done);
                }
                Order::Cut(last, done) => {
                    self.cut(last);
                    answer(done);
                }
                Order::Purge(upto, done) => {
                    self.purge(upto);
                    answer(done);
                }
                Order::Stop(done) => {
                    answer(done);
                    return;
                }
            }
        }
    }

    /// Writes these entries and those that wait behind them; returns the first order of another kind.
    fn append(
        &mut self,
        entries: Vec<Entry>,
        done: IOFlushed<Types>,
        orders: &mut mpsc::Receiver<Order>,
    ) -> Option<Order> {
        if self.active.offset >= self.segment_bytes {
            self.rotate();
        }
        let mut places = Vec::with_capacity(entries.len());
        let mut waiting = vec![done];
        self.encode(&entries, &mut places);
        let mut other = None;
        while self.buffer.len() < WRITE_BYTES {
            match orders.try_recv() {
                Ok(Order::Append(entries, done)) => {
                    self.encode(&entries, &mut places);
                    waiting.push(done);
                }
                Ok(order) => {
                    other = Some(order);
                    break;
                }
                Err(_) => break,
            }
        }
        self.flush(&places);
        for done in waiting {
            done.io_completed(Ok(()));
        }
        other
    }

    fn encode(&mut self, entries: &[Entry], places: &mut Vec<Place>) {
        let start = self.active.offset;
        for entry in entries {
            let at = start + self.buffer.len() as u64;
            places.push(place(self.active.number, at));
            frame::encode(entry, start, &mut self.buffer);
            self.last = Some(entry.log_id);
        }
    }

    fn flush(&mut self, places: &[Place]) {
        let Active { file, path, .. } = &self.active;
        let end = self.active.offset + self.buffer.len() as u64;
        segment::reserve(&self.disk, file, path, self.active.offset, end);
        point!("raft.log.before_write")
            .and_then(|()| file.write_all_at(&self.buffer, self.active.offset))
            .unwrap_or_else(|error| fatal("write", path, &error));
        self.disk
            .sync_after(point!("raft.log.before_sync"), file, path);
        point!("raft.log.after_sync").unwrap_or_else(|error| fatal("sync", path, &error));
        self.active.offset += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffer.shrink_to(KEEP_BUFFER);
        let (committed, bytes) = {
            let mut index = lock(&self.index);
            index.written(places, self.active.number, self.active.offset);
            (index.committed, index.bytes())
        };
        // Before anyone is told: what is acknowledged lies below the noted tail.
        self.tail.note(&self.tail_here(committed));
        let limit = self.length.limit.load(std::sync::atomic::Ordering::Relaxed);
        if bytes > limit {
            self.length.long.notify_one();
        }
    }

    fn tail_here(&self, committed: Option<LogId>) -> Tail {
        Tail {
            segment: self.active.number,
            offset: self.active.offset,
            committed,
        }
    }

    /// Ends the current segment and begins the next.
    fn rotate(&mut self) {
        let Active {
            file, path, offset, ..
        } = &self.active;
        point!("raft.rotate.before_truncate")
            .and_then(|()| file.set_len(*offset))
            .unwrap_or_else(|error| fatal("truncate", path, &error));
        self.disk
            .sync_after(point!("raft.rotate.before_sync"), file, path);
        point!("raft.rotate.after_sync").unwrap_or_else(|error| fatal("sync", path, &error));
        self.begin(Header {
            number: self.active.number + 1,
            before: self.last,
            reset: false,
        });
    }

    fn begin(&mut self, header: Header) {
        let (file, path) = segment::create(&self.disk, &header);
        let offset = segment::SEGMENT_HEADER as u64;
        self.active = Active {
            number: header.number,
            file: Arc::new(file),
            path,
            offset,
        };
        let held = Held {
            file: Arc::clone(&self.active.file),
            before: header.before,
            end: offset,
        };
        let committed = {
            let mut index = lock(&self.index);
            index.segments.insert(header.number, held);
            index.committed
        };
        self.tail.note(&self.tail_here(committed));
    }

    /// Removes all entries after `last`: another leader wrote others in their place.
    fn cut(&mut self, last: Option<LogId>) {
        let from = last.map_or(0, |id| id.index + 1);
        let (place, later, committed) = {
            let index = lock(&self.index);
            let Some(place) = index.place(from) else {
                return;
            };
            let later: Vec<u64> = index
                .segments
                .keys()
                .copied()
                .filter(|n| *n > u64::from(place.segment))
                .collect();
            (place, later, index.committed)
        };
        let number = u64::from(place.segment);
        let path = segment::path(&self.disk, number);
        self.active = Active {
            number,
            file: Arc::new(segment::open(&path)),
            path,
            offset: u64::from(place.offset),
        };
        // The tail goes back first, and durably: it must never be ahead of the log.
        self.tail.retreat(&self.disk, &self.tail_here(committed));
        self.remove(later.into_iter().rev());
        let Active {
            file, path, offset, ..
        } = &self.active;
        file.set_len(*offset)
            .and_then(|()| segment::set_room(&self.disk, file, *offset))
            .unwrap_or_else(|error| fatal("truncate", path, &error));
        self.disk.sync(file, path);
        self.last = last;
        let mut index = lock(&self.index);
        index.segments.split_off(&(number + 1));
        index.written(&[], number, self.active.offset);
        index.cut(from, last);
    }

    /// Drops entries up to `upto`, as far as whole segments go.
    fn purge(&mut self, upto: LogId) {
        let ahead = lock(&self.index)
            .last
            .is_none_or(|last| last.index < upto.index);
        let gone = if ahead {
            // The entries come from a snapshot of the leader: the log begins anew behind it.
            let gone = lock(&self.index).reset(upto);
            self.last = Some(upto);
            self.begin(Header {
                number: self.active.number + 1,
                before: Some(upto),
                reset: true,
            });
            gone
        } else {
            lock(&self.index).purge(upto)
        };
        self.remove(gone.into_iter());
    }

    fn remove(&self, numbers: impl Iterator<Item = u64>) {
        let mut any = false;
        for number in numbers {
            let path = segment::path(&self.disk, number);
            point!("raft.purge.before_remove")
                .and_then(|()| fs::remove_file(&path))
                .unwrap_or_else(|error| fatal("remove", &path, &error));
            any = true;
        }
        if any {
            let dir = self.disk.log_dir();
            self.disk.sync_dir(&dir);
            let after = point!("raft.purge.after_remove");
            after.unwrap_or_else(|error| fatal("sync", &dir, &error));
        }
    }
}

fn answer(done: oneshot::Sender<()>) {
    // Nobody waits any more when the store is closing.
    let _gone = done.send(());
}

pub(super) fn lock(index: &Mutex<Index>) -> std::sync::MutexGuard<'_, Index> {
    index
        .lock()
        .expect("nothing panics while it holds the index, so it cannot be poisoned")
}
