//! What servers say to each other, and how it is put on a stream: a greeting, then questions and answers in turn, each with its
//! length before it. Who may speak here is decided by whoever made the stream; here only what is meant for another server is refused.

use std::io;

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::raft::{SnapshotMeta, Types, Vote};

/// The version of all that is said here.
pub(crate) const VERSION: u32 = 1;
/// The oldest version that is understood: the one before, from the second on.
pub(crate) const OLDEST: u32 = 1;
/// Most bytes of a message: entries of one append are bounded by `log::storage`, a single one by the largest batch.
const MOST: usize = prism_store::MAX_BATCH_BYTES + (32 << 20);
/// Read at once; a message that says it is long must first come.
const STEP: usize = 1 << 20;

/// The first message of whoever dials.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) version: u32,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// A question.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    Transfer(TransferLeaderRequest<Types>),
    Snapshot(Piece),
}

impl Question {
    /// Its name.
    fn name(&self) -> &'static str {
        match self {
            Self::Append(_) => "append",
            Self::Vote(_) => "vote",
            Self::PreVote(_) => "pre-vote",
            Self::Transfer(_) => "transfer",
            Self::Snapshot(_) => "snapshot",
        }
    }
}

/// A part of a snapshot, in order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Piece {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) last: bool,
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Append(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    Transfer(TransferLeaderResponse<Types>),
    /// The part is there; more is to come.
    More,
    Snapshot(SnapshotResponse<Types>),
    /// Why there is none.
    No(String),
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// As it goes on the stream.
pub(crate) fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let bytes = postcard::to_extend(message, vec![0; 4]).map_err(|e| invalid(e.to_string()))?;
    let mut bytes: Vec<u8> = bytes;
    let length = bytes.len() - 4;
    if length > MOST {
        return Err(invalid(format!(
            "a message of {length} bytes, at most {MOST}"
        )));
    }
    let length = u32::try_from(length).map_err(|_| invalid("a message is too long"))?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// Sends what [`encode`] made.
pub(crate) async fn send<W: AsyncWrite + Unpin>(to: &mut W, message: &[u8]) -> io::Result<()> {
    to.write_all(message).await?;
    to.flush().await
}

/// Receives a message of which nothing is wanted.
pub(crate) async fn discard<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<()> {
    let length = u64::from(from.read_u32_le().await?);
    let mut message = from.take(length);
    tokio::io::copy(&mut message, &mut tokio::io::sink()).await?;
    Ok(())
}

/// Receives a message.
pub(crate) async fn receive<R, T>(from: &mut R) -> io::Result<T>
where
    R: AsyncRead + Unpin,
    T: DeserializeOwned,
{
    let length = usize::try_from(from.read_u32_le().await?).unwrap_or(usize::MAX);
    if length > MOST {
        return Err(invalid(format!(
            "a message of {length} bytes, at most {MOST}"
        )));
    }
    let mut body = Vec::with_capacity(length.min(STEP));
    while body.len() < length {
        let step = (length - body.len()).min(STEP) as u64;
        let before = body.len();
        from.take(step).read_to_end(&mut body).await?;
        if body.len() == before {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let (message, rest) = postcard::take_from_bytes(&body).map_err(|e| invalid(e.to_string()))?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(invalid("something follows the message"))
    }
}

/// Reads bytes as a server does to which another comes: a greeting, then questions. Says what came and why no more is read; for tests that
/// have no server.
pub async fn check_messages(mut bytes: &[u8]) -> String {
    let from = &mut bytes;
    let mut came = match receive::<_, Hello>(from).await {
        Ok(_) => "hello".to_owned(),
        Err(why) => return why.to_string(),
    };
    loop {
        match receive::<_, Question>(from).await {
            Ok(question) => {
                // What was read can be said.
                let again = encode(&question).map_or("unsaid", |_| question.name());
                came.push(' ');
                came.push_str(again);
            }
            Err(why) => return format!("{came}: {why}"),
        }
    }
}
