//! Entries on their way, by themselves: what is sent before what was answered, and what ends it.

use futures::{StreamExt, stream};
use openraft::EntryPayload;
use openraft::errors::RPCError;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult,
};
use openraft::vote::RaftLeaderId;
use tokio::io::DuplexStream;

use crate::exchange::{self, Answer, Question};
use crate::peers::Pipe;
use crate::pipeline::{Idle, send_all};
use crate::raft::{Entry, LeaderId, LogId, Types, Vote};

type Result = std::result::Result<StreamAppendResult<Types>, RPCError<Types>>;

fn id(index: u64) -> LogId {
    LogId {
        leader_id: LeaderId::new(1, 1),
        index,
    }
}

/// A message with one entry.
fn message(index: u64) -> AppendEntriesRequest<Types> {
    AppendEntriesRequest {
        vote: Vote::new_committed(1, 1),
        prev_log_id: Some(id(index - 1)),
        entries: vec![Entry {
            log_id: id(index),
            payload: EntryPayload::Blank,
        }],
        leader_commit: None,
    }
}

/// Sends messages of the entries 1 to `count`; what came of each, and whether the stream can be used again.
async fn sent(here: DuplexStream, count: u64) -> (Vec<Result>, bool) {
    let halves = tokio::io::split(Box::new(here) as Box<dyn Pipe>);
    let mut idle = Idle::default();
    let input = stream::iter((1..=count).map(message));
    let results = send_all(halves, &mut idle, input).collect().await;
    (results, idle.from.is_some() && idle.to.is_some())
}

async fn asked(there: &mut DuplexStream, index: u64) {
    match exchange::receive(there).await.unwrap() {
        Question::Append(request) => assert_eq!(request.prev_log_id, Some(id(index - 1))),
        other => panic!("{other:?}"),
    }
}

async fn answered(there: &mut DuplexStream, answer: AppendEntriesResponse<Types>) {
    let answer = exchange::encode(&Answer::Append(answer)).unwrap();
    exchange::send(there, &answer).await.unwrap();
}

#[tokio::test]
async fn messages_do_not_wait_for_the_answers_to_those_before_them() {
    let (here, mut there) = tokio::io::duplex(1 << 16);
    let other = tokio::spawn(async move {
        for index in 1..=5 {
            asked(&mut there, index).await;
        }
        for _ in 0..4 {
            answered(&mut there, AppendEntriesResponse::Success).await;
        }
        let whole = AppendEntriesResponse::PartialSuccess(Some(id(5)));
        answered(&mut there, whole).await;
        there
    });
    let (results, again) = sent(here, 5).await;
    let last: Vec<_> = results
        .into_iter()
        .map(|r| r.unwrap().unwrap().unwrap().index)
        .collect();
    assert_eq!(last, [1, 2, 3, 4, 5]);
    assert!(again, "the stream is as it was");
    other.await.unwrap();
}

#[tokio::test]
async fn what_is_not_taken_as_a_whole_ends_it() {
    for (answer, first) in [
        (AppendEntriesResponse::Conflict, true),
        (AppendEntriesResponse::PartialSuccess(Some(id(1))), false),
    ] {
        let (here, mut there) = tokio::io::duplex(1 << 16);
        let other = tokio::spawn(async move {
            asked(&mut there, 1).await;
            answered(&mut there, AppendEntriesResponse::Success).await;
            asked(&mut there, 2).await;
            answered(&mut there, answer).await;
            there
        });
        let (results, again) = sent(here, 5).await;
        assert_eq!(results.len(), 2);
        match results.last().unwrap().as_ref().unwrap() {
            Err(StreamAppendError::Conflict(at)) => assert!(first && *at == id(1)),
            Ok(at) => assert!(!first && *at == Some(id(1))),
            other => panic!("{other:?}"),
        }
        assert!(!again, "answers are still on their way on it");
        other.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_or_is_silent_is_said_to_be_unreachable() {
    for hangs in [false, true] {
        let (here, mut there) = tokio::io::duplex(1 << 16);
        let other = tokio::spawn(async move {
            asked(&mut there, 1).await;
            answered(&mut there, AppendEntriesResponse::Success).await;
            hangs.then_some(there)
        });
        let (results, again) = sent(here, 5).await;
        assert!(results[0].is_ok() && results.len() == 2, "{results:?}");
        assert!(matches!(&results[1], Err(RPCError::Unreachable(_))));
        assert!(!again);
        other.await.unwrap();
    }
}
