//! One entry to etcd: a transaction that holds only if the leader is still seated and no other entry came between. It can
//! therefore be sent again when its answer is lost: it is done once or not at all, and etcd tells which.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use prism_store::{Revision, StoreError};
use prism_types::Fence;

use crate::client::Pause;
use crate::engine::{Engine, Held, Mode, Seat, unavailable};
use crate::error::{Fault, Kind};
use crate::json::{self, Done, Holds, Operations};
use crate::layout::Head;
use crate::load::one;
use crate::mirror::Entry;

/// How long a deposed leader looks for what became of a write that was under way.
const LOOK: Duration = Duration::from_secs(3);

impl Engine {
    /// What the next entry's head has in common with the last one's.
    pub(crate) fn next_head(&self) -> (i64, Head) {
        let (version, mut head) = self.mirror.head();
        head.stamp = self.stamp();
        head.what = crate::layout::What::Step;
        (version + 1, head)
    }

    /// Brings an entry to etcd and into the mirror.
    ///
    /// # Errors
    /// What became of it, when it is not there.
    pub(crate) async fn propose(
        &self,
        held: Held,
        operations: Operations,
        entry: Entry,
    ) -> Result<Revision, StoreError> {
        let number = self.sent.fetch_add(1, Ordering::AcqRel) + 1;
        let result = self.carry(held, operations, entry).await;
        self.settled.send_replace(number);
        result
    }

    async fn carry(
        &self,
        held: Held,
        operations: Operations,
        entry: Entry,
    ) -> Result<Revision, StoreError> {
        let Self { layout, .. } = self;
        let head = entry.head.encode();
        let holds = [
            Holds::Version(&layout.head, entry.version - 1),
            Holds::Changed(&layout.leader, held.seated),
        ];
        let last = Some((layout.head.as_slice(), head.as_slice()));
        let body = json::transaction(&holds, operations, last, &[&layout.head, &layout.leader]);
        let mut unsure = None;
        let mut pause = Pause::default();
        while self.held() == Some(held) {
            match self.client.call::<Done>("/v3/kv/txn", body.clone()).await {
                Ok(done) if done.succeeded => {
                    self.mirror.apply(done.header.revision, &entry);
                    return Ok(Revision(entry.head.revision));
                }
                Ok(mut done) => {
                    let found = done.found(0).filter(|pair| pair.value == head);
                    if let Some(earlier) = found {
                        // A try whose answer was lost.
                        self.mirror.apply(earlier.mod_revision, &entry);
                        return Ok(Revision(entry.head.revision));
                    }
                    self.unseated(held, done);
                    break;
                }
                Err(Fault::Lost(why)) => {
                    unsure = Some(why);
                    pause.wait().await;
                }
                Err(fault) if fault.passes() => pause.wait().await,
                Err(fault) => {
                    // Full, etcd may do what it refuses: it looks at its quota before and after. One read tells.
                    match one(&self.client, &layout.head).await {
                        Ok((_, Some(now))) if now.value == head => {
                            self.mirror.apply(now.mod_revision, &entry);
                            return Ok(Revision(entry.head.revision));
                        }
                        Ok(_) if unsure.is_none() => return Err(refused(&fault, &body)),
                        _ => unsure = Some(fault.why().to_owned()),
                    }
                    self.depose(held.fence, fault.why());
                    break;
                }
            }
        }
        self.depose(
            held.fence,
            "etcd was not reached until the lease could have ended",
        );
        match unsure {
            None => Err(self.not_ours(Fence(held.fence))),
            Some(why) => self.outcome(held, &entry, &why).await,
        }
    }

    /// Somebody else came between.
    fn unseated(&self, held: Held, mut done: Done) {
        let leader = done.found(1);
        let seat = leader.and_then(|pair| serde_json::from_slice::<Seat>(&pair.value).ok());
        let why = match &seat {
            Some(seat) if seat.writer != self.writer => format!("{} took it", seat.name),
            Some(_) => "something else wrote beneath its prefix in etcd".to_owned(),
            None => "its lease ended in etcd".to_owned(),
        };
        self.seat.send_replace(seat);
        self.depose(held.fence, &why);
    }

    /// Finds out, after the leadership has ended, whether a write was done of which no answer came.
    async fn outcome(&self, held: Held, entry: &Entry, why: &str) -> Result<Revision, StoreError> {
        debug_assert!(
            *self.mode.borrow() == Mode::Follow,
            "the feed reads what others write now"
        );
        let reached = self.mirror.reached(entry.version);
        let found = tokio::time::timeout(LOOK, reached).await;
        match self.mirror.author(entry.version) {
            Some(author) if author == entry.head.stamp => Ok(Revision(entry.head.revision)),
            Some(_) => Err(self.not_ours(Fence(held.fence))),
            None => {
                let seen = if found.is_ok() {
                    "and its history is gone"
                } else {
                    "and etcd cannot be asked"
                };
                Err(StoreError::Unanswered(format!("etcd: {why}, {seen}")))
            }
        }
    }
}

fn refused(fault: &Fault, body: &Bytes) -> StoreError {
    if fault.kind() == Some(Kind::TooLarge) {
        tracing::warn!(bytes = body.len(), %fault, "etcd refused a request for its size");
    }
    unavailable(fault)
}
