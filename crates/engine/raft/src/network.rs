//! The way to other servers. Each network instance has a task with a stream of its own, which is made when it is needed and made anew
//! after a failure: a caller that gives up early, as heartbeats do, does not take the stream with it.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::v2::RaftNetworkV2;
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend};
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, oneshot};

use crate::exchange::{self, Answer, Hello, Piece, Question, VERSION};
use crate::peers::{Dial, Pipe};
use crate::raft::{SnapshotMeta, Types, Vote};
use crate::snapshot::SnapshotFile;

/// How long making a stream may take.
const DIAL: Duration = Duration::from_secs(5);
/// How long an answer may take before the stream counts as broken, and a second more for each MiB that is sent. Longer than what
/// heartbeats wait for: an answer that comes late keeps the stream.
const ANSWER: Duration = Duration::from_secs(3);
/// How long installing a snapshot may take at the other end.
const INSTALL: Duration = Duration::from_secs(300);
/// Most bytes of entries in one message.
const MOST_SENT: usize = prism_store::MAX_BATCH_BYTES;
/// Bytes of a snapshot that are sent at once.
const PIECE: u64 = 1 << 20;

/// Makes the ways.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) me: u64,
    /// `None`: this server is alone, and a call is refused.
    pub(crate) dial: Option<Arc<dyn Dial>>,
}

/// A message and who waits for its answer.
struct Call {
    message: Vec<u8>,
    patience: Duration,
    answer: oneshot::Sender<io::Result<Answer>>,
}

/// The way to one server.
#[derive(Debug)]
pub(crate) struct Way {
    me: u64,
    target: u64,
    calls: mpsc::Sender<Call>,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Way;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Way {
        let (calls, inbox) = mpsc::channel(1);
        let (me, address) = (self.me, node.addr.clone());
        if let Some(dial) = self.dial.clone() {
            let hello = Hello {
                version: VERSION,
                from: me,
                to: target,
            };
            tokio::spawn(carry(dial, address, hello, inbox));
        }
        Way { me, target, calls }
    }
}

fn patience(bytes: usize) -> Duration {
    ANSWER + Duration::from_secs(bytes as u64 >> 20)
}

fn late(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what.to_owned())
}

async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    tokio::time::timeout(limit, work)
        .await
        .map_err(|_| late(what))?
}

/// Carries calls one after the other until nobody makes any more.
async fn carry(
    dial: Arc<dyn Dial>,
    address: String,
    hello: Hello,
    mut calls: mpsc::Receiver<Call>,
) {
    let mut stream: Option<Box<dyn Pipe>> = None;
    while let Some(call) = calls.recv().await {
        if call.answer.is_closed() {
            continue;
        }
        let asked = ask(&dial, &address, hello, &mut stream, &call).await;
        // Whoever says no may have stopped, and another be there instead.
        let asked = match asked {
            Ok(Answer::No(why)) => Err(io::Error::other(why)),
            asked => asked,
        };
        if asked.is_err() {
            stream = None;
        }
        // Whoever asked may have given up meanwhile.
        let _gone = call.answer.send(asked);
    }
}

async fn ask(
    dial: &Arc<dyn Dial>,
    address: &str,
    hello: Hello,
    stream: &mut Option<Box<dyn Pipe>>,
    call: &Call,
) -> io::Result<Answer> {
    let open = match stream {
        Some(open) => open,
        None => {
            let made = within(DIAL, "no stream in time", async {
                let mut made = dial.dial(hello.to, address).await?;
                exchange::send(&mut made, &exchange::encode(&hello)?).await?;
                Ok(made)
            });
            stream.insert(made.await?)
        }
    };
    within(call.patience, "no answer in time", async {
        exchange::send(open, &call.message).await?;
        exchange::receive(open).await
    })
    .await
}

impl Way {
    async fn call(&self, question: &Question) -> io::Result<Answer> {
        let gone = || io::Error::other("this server has no way to others");
        let (answer, waits) = oneshot::channel();
        let message = exchange::encode(question)?;
        let patience = match question {
            Question::Snapshot(piece) if piece.last => INSTALL,
            _ => patience(message.len()),
        };
        let call = Call {
            message,
            patience,
            answer,
        };
        self.calls.send(call).await.map_err(|_| gone())?;
        waits.await.map_err(|_| gone())?
    }

    async fn ask<T>(
        &self,
        question: Question,
        limit: Duration,
        kind: RPCTypes,
        pick: impl FnOnce(Answer) -> Option<T>,
    ) -> Result<T, RPCError<Types>> {
        match tokio::time::timeout(limit, self.call(&question)).await {
            Ok(Ok(answer)) => pick(answer).ok_or_else(|| {
                RPCError::Network(NetworkError::from_string("an answer to something else"))
            }),
            Ok(Err(why)) => Err(Unreachable::from_string(why).into()),
            Err(_) => Err(Timeout {
                action: kind,
                id: self.me,
                target: self.target,
                timeout: limit,
            }
            .into()),
        }
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        meta: SnapshotMeta,
        file: SnapshotFile,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let unsent = |why: io::Error| StreamingError::Unreachable(Unreachable::from_string(why));
        let mut file = tokio::fs::File::open(&file.0).await.map_err(unsent)?;
        let size = file.metadata().await.map_err(unsent)?.len();
        let mut offset = 0;
        loop {
            let mut bytes = Vec::new();
            let mut part = (&mut file).take(PIECE);
            let count = part.read_to_end(&mut bytes).await.map_err(unsent)? as u64;
            let last = offset + count >= size;
            let piece = Piece {
                vote,
                meta: meta.clone(),
                offset,
                bytes,
                last,
            };
            let asked = self.call(&Question::Snapshot(piece)).await;
            match asked.map_err(unsent)? {
                Answer::More if !last => offset += count,
                Answer::Snapshot(answer) => return Ok(answer),
                _ => return Err(unsent(io::Error::other("an answer to something else"))),
            }
        }
    }
}

impl RaftNetworkV2<Types> for Way {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        // What carries entries takes as long as they do: given up, it would only be sent again.
        let limit = if request.entries.is_empty() {
            option.soft_ttl()
        } else {
            DIAL + patience(MOST_SENT)
        };
        let question = Question::Append(request);
        self.ask(question, limit, RPCTypes::AppendEntries, |a| match a {
            Answer::Append(answer) => Some(answer),
            _ => None,
        })
        .await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let question = Question::Vote(request);
        self.ask(question, option.soft_ttl(), RPCTypes::Vote, |a| match a {
            Answer::Vote(answer) => Some(answer),
            _ => None,
        })
        .await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let question = Question::PreVote(request);
        self.ask(question, option.soft_ttl(), RPCTypes::Vote, |a| match a {
            Answer::Vote(answer) => Some(answer),
            _ => None,
        })
        .await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<Types, SnapshotFile>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let send = self.send_snapshot(vote, snapshot.meta, snapshot.snapshot);
        tokio::select! {
            sent = send => sent,
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let question = Question::Transfer(request);
        self.ask(
            question,
            option.soft_ttl(),
            RPCTypes::TransferLeader,
            |a| match a {
                Answer::Transfer(answer) => Some(answer),
                _ => None,
            },
        )
        .await
    }
}
