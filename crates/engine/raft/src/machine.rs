//! The state machine: applies committed entries to the shared table, in order, and answers whoever proposed them.
//! Deterministic: the same entries give the same table on every server. Called by consensus only.

use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::alias::SnapshotOf;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use prism_store::{SharedTable, Window};

use crate::command::{Answer, Command};
use crate::log::Log;
use crate::raft::{LogId, Membership, SnapshotMeta, Types};
use crate::snapshot::{Builder, SnapshotFile, Snapshots};

/// The state of the store and how far the log is applied to it.
pub(crate) struct Machine {
    pub(crate) table: Arc<SharedTable>,
    pub(crate) log: Log,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) window: Window,
    pub(crate) applied: Option<LogId>,
    pub(crate) membership: Membership,
}

impl Machine {
    pub(crate) fn run(&self, command: &Command) -> Answer {
        self.table.update(|table| match command {
            Command::Commit(writes) => {
                let apply = |write: &crate::command::Write| table.apply(write.fence, &write.batch);
                Answer::Commit(writes.iter().map(apply).collect())
            }
            Command::Grant => Answer::Grant(table.grant()),
            Command::Compact(to) => Answer::Compact(table.compact(*to)),
        })
    }

    fn builder(&self) -> Builder {
        let pin = self.table.pin();
        Builder::new(&self.snapshots, pin, self.applied, self.membership.clone())
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let answer = match &entry.payload {
                EntryPayload::Blank => Answer::None,
                EntryPayload::Normal(proposal) => self.run(&proposal.0),
                EntryPayload::Membership(membership) => {
                    self.membership = Membership::new(Some(entry.log_id), membership.clone());
                    Answer::None
                }
            };
            self.applied = Some(entry.log_id);
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        if let Some(applied) = self.applied {
            self.log.applied(applied.index);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.builder()
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> Result<(), io::Error> {
        let (snapshots, window) = (Arc::clone(&self.snapshots), self.window);
        let loaded = tokio::task::spawn_blocking(move || snapshots.install(&snapshot.0, window))
            .await
            .map_err(io::Error::other)??;
        self.applied = loaded.last;
        self.membership = loaded.membership;
        self.table.update(|table| *table = loaded.table);
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<Types, SnapshotFile>>, io::Error> {
        Ok(self.snapshots.current())
    }
}
