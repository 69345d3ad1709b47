//! What the store needs of the outside to speak with other servers: streams to them. Who is at the other end is proven by whoever
//! makes the stream, before it is given here.

use std::fmt;
use std::io;
use std::time::Duration;

use prism_store::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// A stream of bytes between two servers.
pub trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

/// Makes streams to other servers.
pub trait Dial: Send + Sync + fmt::Debug {
    /// A new stream to a server of this number at this address, at whose other end [`crate::RaftStore::serve`] is.
    ///
    /// # Errors
    /// When nobody is there, or it is not to be trusted.
    fn dial(&self, server: u64, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Pipe>>>;
}

/// A server of the cluster, as its configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its number, never used again after it is gone.
    pub number: u64,
    /// Where the others reach it.
    pub address: String,
    /// Whether it votes, in the old configuration and in the new one while it is changed; one that does not is still learning.
    pub voter: bool,
}

/// Where the cluster stands, as far as this server knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The term.
    pub term: u64,
    /// The number of the server that leads.
    pub leader: Option<u64>,
    /// Whether this one does.
    pub leading: bool,
    /// All servers.
    pub servers: Vec<Server>,
    /// Whether the configuration is one, and committed: no change of it is under way.
    pub settled: bool,
}

impl Standing {
    /// Where the leader is.
    pub fn leader_address(&self) -> Option<&str> {
        let leader = self.leader?;
        let server = self.servers.iter().find(|s| s.number == leader)?;
        Some(&server.address)
    }
}

/// How far a server is behind, as the leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Its number.
    pub number: u64,
    /// Entries that it does not have yet; `None` when it was never heard of in this term.
    pub behind: Option<u64>,
    /// How long ago it was heard of; `None` when it never was in this term.
    pub heard: Option<Duration>,
}
