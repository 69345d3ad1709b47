//! Who is connected, so that whoever is not let in any more can be sent away; and who was refused, counted.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use prism_identity::{NotTrusted, Peer, Role, Trust};
use tokio_util::sync::CancellationToken;

/// How many came and how many were refused, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connected now.
    pub connected: usize,
    /// Refused since the start, by a word for why.
    pub refused: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Default)]
struct Book {
    guests: HashMap<u64, (Peer, CancellationToken, Instant)>,
    refused: BTreeMap<&'static str, u64>,
}

/// The members that are connected.
#[derive(Debug, Default)]
pub(crate) struct Guests {
    book: Mutex<Book>,
    next: AtomicU64,
}

/// One of them; gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    guests: Arc<Guests>,
    number: u64,
    /// Cancelled when it is to go.
    pub(crate) leave: CancellationToken,
}

impl Guests {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody was not let in.
    pub(crate) fn refuse(&self, why: &'static str) {
        *self.book().refused.entry(why).or_default() += 1;
    }

    pub(crate) fn counts(&self) -> Counts {
        let book = self.book();
        Counts {
            connected: book.guests.len(),
            refused: book.refused.clone(),
        }
    }

    /// Enters one that was judged. It is judged again, for whoever was denied in between is in no list yet.
    pub(crate) fn enter(self: &Arc<Self>, peer: Peer, trust: &Trust) -> Result<Guest, NotTrusted> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let leave = CancellationToken::new();
        let mut book = self.book();
        trust.still(&peer)?;
        book.guests
            .insert(number, (peer, leave.clone(), Instant::now()));
        Ok(Guest {
            guests: Arc::clone(self),
            number,
            leave,
        })
    }

    /// Closes the connections of those whom `whom` means, by when they came: of workers at most so many. Says how many it were.
    pub(crate) fn recall(&self, most: usize, whom: impl Fn(&Peer, Instant) -> bool) -> usize {
        let book = self.book();
        let (mut workers, mut all) = (0, 0);
        for (peer, leave, entered) in book.guests.values() {
            if leave.is_cancelled() || !whom(peer, *entered) {
                continue;
            }
            let worker = peer.holder.role == Role::Worker;
            if worker && workers == most {
                continue;
            }
            workers += usize::from(worker);
            all += 1;
            leave.cancel();
        }
        all
    }

    /// Sends those away who are not let in any more.
    pub(crate) fn judge_again(&self, trust: &Trust) {
        let mut book = self.book();
        let Book { guests, refused } = &mut *book;
        for (peer, leave, _) in guests.values() {
            if let Err(why) = trust.still(peer)
                && !leave.is_cancelled()
            {
                tracing::warn!(member = %peer.holder, %why, "a connection is closed");
                *refused.entry(why.kind()).or_default() += 1;
                leave.cancel();
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.guests.book().guests.remove(&self.number);
    }
}
