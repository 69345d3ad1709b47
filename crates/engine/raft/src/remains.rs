//! Lost quorum: what is left on one server whose store is stopped, and making that server the only voter with it.
//!
//! Nothing here runs consensus. All entries of the log are read, those included that were never known to be committed: after the
//! recovery they are. What the other servers have committed without this one is not here, and stays lost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::SystemTime;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::vote::RaftLeaderId;
use openraft::{BasicNode, EntryPayload, RaftLogReader};
use prism_store::{Batch, BoxFuture, Item, KeyRange, StoreError};
use prism_types::Fence;

use crate::command::{Command, Proposal, Write};
use crate::peers::Server;
use crate::raft::{Entry, LeaderId, LogId, Membership, Vote};
use crate::store::Opened;
use crate::{Config, OpenError, disk};

/// Entries read at once.
const STEP: u64 = 64;
/// Items read at once.
const PAGE: usize = 1024;

/// A stopped store. Its directory is locked until this is dropped or [`Remains::recover`] returns.
pub struct Remains {
    opened: Opened,
    membership: Membership,
    server: u64,
    vote: Vote,
    last: LogId,
    /// The last entry that is known to be committed.
    committed: u64,
    written: Option<SystemTime>,
    path: std::path::PathBuf,
}

impl std::fmt::Debug for Remains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remains")
            .field("server", &self.server)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

/// Reads what a stopped store of this server holds. Changes nothing, but for a torn end that is cut off. Must be called on a Tokio
/// runtime.
///
/// # Errors
/// When there is no store, it is in use, of another server or of a newer version, or damaged.
pub fn remains(dir: &Path, server: u64) -> BoxFuture<'_, Result<Remains, OpenError>> {
    Box::pin(async move {
        let format = dir.join("format");
        if !format.exists() {
            let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(OpenError::io("find the store's file", &format)(missing));
        }
        let mut config = Config::new(dir);
        config.server = server;
        let config = config.fitted();
        let reading = config.clone();
        let opened = tokio::task::spawn_blocking(move || Opened::read(&reading, disk::sync_file));
        let opened = opened.await.map_err(|e| consensus(dir, &e))??;
        let path = config.dir.clone();
        let written = newest(&path.join("log"));
        let nothing = LogId {
            leader_id: LeaderId::new(0, 0),
            index: 0,
        };
        let mut remains = Remains {
            membership: opened.machine.membership.clone(),
            server,
            vote: Vote {
                leader_id: nothing.leader_id,
                committed: false,
            },
            last: opened.machine.applied.unwrap_or(nothing),
            committed: 0,
            written,
            path,
            opened,
        };
        remains.replay().await?;
        Ok(remains)
    })
}

fn consensus(dir: &Path, why: &dyn ToString) -> OpenError {
    OpenError::Consensus {
        dir: dir.to_owned(),
        why: why.to_string(),
    }
}

/// When a file of a directory was written last.
fn newest(dir: &Path) -> Option<SystemTime> {
    let files = std::fs::read_dir(dir).ok()?.flatten();
    files
        .filter_map(|file| file.metadata().ok()?.modified().ok())
        .max()
}

impl Remains {
    /// Applies all entries after the snapshot to the table in memory.
    async fn replay(&mut self) -> Result<(), OpenError> {
        let failed = |e: std::io::Error| consensus(&self.path, &e);
        let log = &mut self.opened.log;
        if let Some(vote) = log.read_vote().await.map_err(failed)? {
            self.vote = vote;
        }
        let committed = log.read_committed().await.map_err(failed)?;
        self.committed = committed.map_or(0, |id| id.index).max(self.last.index);
        let state = log.get_log_state().await.map_err(failed)?;
        let Some(end) = state.last_log_id else {
            return Ok(());
        };
        let mut next = match self.opened.machine.applied {
            Some(applied) => applied.index + 1,
            None => 0,
        };
        while next <= end.index {
            let upto = (next + STEP).min(end.index + 1);
            let entries = log.limited_get_log_entries(next, upto).await;
            let entries = entries.map_err(failed)?;
            let Some(last) = entries.last() else { break };
            next = last.log_id.index + 1;
            for entry in entries {
                match &entry.payload {
                    EntryPayload::Blank => {}
                    EntryPayload::Normal(proposal) => drop(self.opened.machine.run(&proposal.0)),
                    EntryPayload::Membership(membership) => {
                        self.membership = Membership::new(Some(entry.log_id), membership.clone());
                    }
                }
            }
        }
        self.last = self.last.max(end);
        Ok(())
    }

    /// The servers, as the latest configuration here says.
    pub fn servers(&self) -> Vec<Server> {
        let membership = self.membership.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let servers = membership.nodes().map(|(number, node)| Server {
            number: *number,
            address: node.addr.clone(),
            voter: voters.contains(number),
        });
        servers.collect()
    }

    /// The number of this server.
    pub fn server(&self) -> u64 {
        self.server
    }

    /// The latest term that this server knows of.
    pub fn term(&self) -> u64 {
        self.vote.leader_id.term.max(self.last.leader_id.term)
    }

    /// The last entry here.
    pub fn last(&self) -> u64 {
        self.last.index
    }

    /// The last entry that this server knew to be committed.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// When the log was written to last, by the clock of this machine.
    pub fn written(&self) -> Option<SystemTime> {
        self.written
    }

    /// What the keys with a prefix hold, in order, after all entries.
    ///
    /// # Errors
    /// None while nothing else has the store.
    pub fn items(&self, prefix: &str) -> Result<Vec<Item>, StoreError> {
        let mut range = KeyRange::prefix(prefix);
        let mut all = Vec::new();
        loop {
            let page = self.opened.machine.table.range(&range, None, PAGE)?;
            if let Some(last) = page.items.last() {
                range = range.after(&last.key);
            }
            all.extend(page.items);
            if !page.more {
                return Ok(all);
            }
        }
    }

    /// Makes this server the only one, in a new term, and commits a batch that says so in the state; all of it in one write, so that
    /// a crash leaves what was there or something from which this can be done again. Then the directory may be opened.
    ///
    /// # Errors
    /// When the log cannot be written to; a disk that fails ends the process.
    pub fn recover(mut self, batch: Batch) -> BoxFuture<'static, Result<(), OpenError>> {
        Box::pin(async move {
            let term = self.term() + 1;
            let leader = LeaderId::new(term, self.server);
            let fence = self.opened.machine.table.status(false).fence;
            let own = self.membership.membership().get_node(&self.server);
            let own = own.cloned().unwrap_or_else(BasicNode::default);
            let alone = openraft::Membership::new(
                vec![BTreeSet::from([self.server])],
                BTreeMap::from([(self.server, own)]),
            );
            let alone = alone.map_err(|e| consensus(&self.path, &e))?;
            let mut entries = Vec::new();
            let mut index = self.last.index;
            let mut add = |payload| {
                index += 1;
                let leader_id = leader;
                let log_id = LogId { leader_id, index };
                entries.push(Entry { log_id, payload });
            };
            // The state first: whoever is torn off between the two is found here as it was, and this is done again.
            if !batch.is_empty() && fence != Fence(0) {
                let command = Command::Commit(vec![Write { fence, batch }]);
                add(EntryPayload::Normal(Proposal(command.into())));
            }
            add(EntryPayload::Membership(alone));
            let vote = Vote {
                leader_id: leader,
                committed: false,
            };
            let log = &mut self.opened.log;
            let voted = log.save_vote(&vote).await;
            voted.map_err(|e| consensus(&self.path, &e))?;
            let written = log.blocking_append(entries).await;
            written.map_err(|e| consensus(&self.path, &e))?;
            self.close().await;
            Ok(())
        })
    }

    /// Leaves it as it is, and gives the directory back.
    pub fn close(self) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.opened.log.stop().await;
            self.opened.lock.release();
        })
    }
}
