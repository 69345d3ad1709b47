//! The log and the state machine by themselves: the suite of the consensus library, and the orders that only a cluster
//! of several servers gives (cut, purge ahead of the log), each followed by opening the directory again.

use std::ops::Range;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::vote::RaftLeaderId;
use openraft::{EntryPayload, RaftLogReader, StorageError};
use tempfile::TempDir;

use crate::Config;
use crate::disk::sync_file;
use crate::log::Log;
use crate::machine::Machine;
use crate::raft::{Entry, LeaderId, LogId, Types, Vote};
use crate::store::Opened;

struct Fresh {
    segment_bytes: u64,
}

impl StoreBuilder<Types, Log, Machine, TempDir> for Fresh {
    async fn build(&self) -> Result<(TempDir, Log, Machine), StorageError<Types>> {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let opened = reopen(&dir, self.segment_bytes);
        Ok((dir, opened.log, opened.machine))
    }
}

fn reopen(dir: &TempDir, segment_bytes: u64) -> Opened {
    let mut config = Config::new(dir.path());
    config.segment_bytes = segment_bytes;
    Opened::read(&config, sync_file).expect("the directory opens")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_of_the_library_passes() {
    Suite::test_all(Fresh {
        segment_bytes: 1024 * 1024,
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_of_the_library_passes_with_a_segment_for_every_write() {
    Suite::test_all(Fresh { segment_bytes: 65 }).await.unwrap();
}

fn id(term: u64, index: u64) -> LogId {
    LogId {
        leader_id: LeaderId::new(term, 1),
        index,
    }
}

async fn append(log: &mut Log, term: u64, indexes: Range<u64>) {
    for index in indexes {
        let entry = Entry {
            log_id: id(term, index),
            payload: EntryPayload::Blank,
        };
        log.blocking_append([entry]).await.unwrap();
    }
}

async fn ids(log: &mut Log) -> Vec<(u64, u64)> {
    let entries = log.try_get_log_entries(..).await.unwrap();
    entries
        .iter()
        .map(|e| (e.log_id.leader_id.term, e.log_id.index))
        .collect()
}

async fn again(dir: &TempDir, opened: Opened) -> Opened {
    opened.log.stop().await;
    opened.lock.release();
    drop(opened);
    reopen(dir, 300)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_log_stays_cut() {
    for (from, keep) in [(40, 20), (40, 0), (40, 38), (40, 3), (9, 5)] {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = reopen(&dir, 300);
        let vote = Vote {
            leader_id: LeaderId::new(1, 1),
            committed: true,
        };
        opened.log.save_vote(&vote).await.unwrap();
        append(&mut opened.log, 1, 0..from).await;
        opened.log.truncate_after(Some(id(1, keep))).await.unwrap();
        let expected: Vec<_> = (0..=keep).map(|index| (1, index)).collect();
        assert_eq!(ids(&mut opened.log).await, expected);
        let mut opened = again(&dir, opened).await;
        assert_eq!(ids(&mut opened.log).await, expected, "after opening again");
        append(&mut opened.log, 2, keep + 1..keep + 30).await;
        let mut opened = again(&dir, opened).await;
        let expected: Vec<_> = expected
            .into_iter()
            .chain((keep + 1..keep + 30).map(|index| (2, index)))
            .collect();
        assert_eq!(
            ids(&mut opened.log).await,
            expected,
            "with what another leader wrote"
        );
        opened.log.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_lost_its_snapshot_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = reopen(&dir, 300);
    let vote = Vote {
        leader_id: LeaderId::new(1, 1),
        committed: true,
    };
    opened.log.save_vote(&vote).await.unwrap();
    append(&mut opened.log, 1, 0..40).await;
    opened.log.purge(id(1, 30)).await.unwrap();
    let left = ids(&mut opened.log).await;
    assert_eq!(left, (31..40).map(|index| (1, index)).collect::<Vec<_>>());
    // Ahead of all entries: as when a snapshot came from another server.
    opened.log.purge(id(3, 100)).await.unwrap();
    append(&mut opened.log, 3, 101..110).await;
    let state = opened.log.get_log_state().await.unwrap();
    assert_eq!(
        (state.last_purged_log_id, state.last_log_id),
        (Some(id(3, 100)), Some(id(3, 109)))
    );
    opened.log.stop().await;
    opened.lock.release();
    drop(opened);
    let error = Opened::read(&Config::new(dir.path()), sync_file)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("begins after entry 100, but the snapshot ends at none"),
        "{error}"
    );
}
