//! What the gateway is told when it is made, with its bounds.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prism_identity::{Pin, pins_in};

use crate::certificates::Authority;
use crate::gossip_keys::Gossip;
use crate::join_tokens::Joining;

/// How much room the server's disk has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskRoom {
    /// Enough.
    Enough,
    /// What is left is for what was accepted already; says how much that is.
    Low(String),
    /// None: whatever is written waits; says so.
    Full(String),
}

/// Tells how much room there is; asked for every request.
#[derive(Clone)]
pub struct DiskGauge(Arc<dyn Fn() -> DiskRoom + Send + Sync>);

impl DiskGauge {
    /// Asks this.
    pub fn new(ask: impl Fn() -> DiskRoom + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    pub(crate) fn read(&self) -> DiskRoom {
        (self.0)()
    }
}

impl std::fmt::Debug for DiskGauge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DiskGauge")
    }
}

/// How what keeps the cluster's state is, when that is not these servers themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// Why nobody can lead now, as far as this server knows.
    pub trouble: Option<StoreTrouble>,
    /// What people should know beside.
    pub warnings: Vec<String>,
}

/// Why nobody can lead; says what is wrong and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreTrouble {
    /// It does not answer, or refuses.
    Away(String),
    /// It has no room left.
    Full(String),
}

/// Tells how what keeps the state is; asked for requests that nobody can answer.
#[derive(Clone)]
pub struct StoreGauge(Arc<dyn Fn() -> StoreHealth + Send + Sync>);

impl StoreGauge {
    /// Asks this.
    pub fn new(ask: impl Fn() -> StoreHealth + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    pub(crate) fn read(&self) -> StoreHealth {
        (self.0)()
    }
}

impl std::fmt::Debug for StoreGauge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreGauge")
    }
}

/// A server, as the leader knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its number in the configuration of the state.
    pub number: u64,
    /// Where the others reach it.
    pub address: String,
    /// Whether it leads.
    pub leader: bool,
    /// Whether it votes.
    pub voter: bool,
    /// Entries that it does not have yet, if it was heard of.
    pub behind: Option<u64>,
    /// How long ago it was heard of, if it was.
    pub heard: Option<Duration>,
}

/// Tells of the servers.
#[derive(Clone)]
pub struct Peers(Arc<dyn Fn() -> Vec<Peer> + Send + Sync>);

impl Peers {
    /// Asks this at each request.
    pub fn new(ask: impl Fn() -> Vec<Peer> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    pub(crate) fn all(&self) -> Vec<Peer> {
        (self.0)()
    }
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Peers")
    }
}

/// Settings of the gateway.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Name of this server.
    pub server: String,
    /// Prism's version.
    pub version: String,
    /// What to do to get a first token; ends the sentence that refuses every request while there is none.
    pub token_hint: String,
    /// Connections at once. Beyond it, the one that has been idle for the longest gives way to a new one; while none is
    /// idle, new ones wait to be accepted.
    pub connections_max: usize,
    /// Longest time for the head of a request, and between requests of one connection.
    pub header_timeout: Duration,
    /// Longest time for a request body.
    pub body_timeout: Duration,
    /// Longest time that a client may take nothing of an answer.
    pub write_timeout: Duration,
    /// Bytes that large request bodies may take in all.
    pub bodies_max: usize,
    /// The same for small ones, of at most 64 KiB each, so that large ones do not keep them out.
    pub small_bodies_max: usize,
    /// Bytes that whole answers may take in all while they are sent.
    pub answers_max: usize,
    /// Longest time that a request waits for room among these bytes.
    pub room_wait: Duration,
    /// Longest time that creating a sandbox waits for it to run.
    pub start_wait: Duration,
    /// Silence after which an open stream of events gets a comment.
    pub keep_alive: Duration,
    /// Tells of the servers in the configuration of the state, if there may be several.
    pub peers: Option<Peers>,
    /// What the servers say of each other, where they do.
    pub gossip: Option<Arc<dyn Gossip>>,
    /// How often a stream looks whether its token is still good.
    pub token_check: Duration,
    /// How machines join by this server, if they can.
    pub joining: Option<Joining>,
    /// This server's part of the cluster's authority, if it has one.
    pub authority: Option<Arc<dyn Authority>>,
    /// Whether it is served with TLS.
    pub tls: bool,
    /// Tells how much room the disk has; without it there is always enough.
    pub disk: Option<DiskGauge>,
    /// Tells how what keeps the state is, if that is not the servers themselves.
    pub store: Option<StoreGauge>,
    /// Where backups lie for a moment, on the way out and in; the files have no name there.
    pub spool: PathBuf,
    /// How long open requests may go on after the end is asked for.
    pub drain: Duration,
}

impl GatewayConfig {
    /// Defaults for a server of this name.
    pub fn new(server: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            server: server.into(),
            version: version.into(),
            token_hint:
                "start this server with `prismd dev`, which writes a token into prismctl's context"
                    .to_owned(),
            connections_max: 1024,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            bodies_max: 28 << 20,
            small_bodies_max: 4 << 20,
            answers_max: 16 << 20,
            room_wait: Duration::from_secs(10),
            start_wait: Duration::from_secs(10),
            keep_alive: Duration::from_secs(15),
            peers: None,
            gossip: None,
            token_check: Duration::from_secs(3),
            joining: None,
            authority: None,
            tls: false,
            disk: None,
            store: None,
            spool: std::env::temp_dir(),
            drain: Duration::from_secs(3),
        }
    }
}

impl GatewayConfig {
    /// The pin of the cluster's root, if this server knows it.
    pub(crate) fn pin(&self) -> Option<Pin> {
        let newest = self
            .authority
            .as_ref()
            .and_then(|a| a.roots().into_iter().next());
        let newest = newest.and_then(|root| pins_in(&[root]).ok()?.pop());
        newest.or(self.joining.as_ref().map(|joining| joining.pin))
    }
}
