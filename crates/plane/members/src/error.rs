//! What goes wrong between members.

use std::io;
use std::net::SocketAddr;

use prism_identity::IdentityError;
use prism_types::Rejection;

/// Why a node is not let in, or cannot come.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// Nobody answers there, or the connection broke.
    #[error("no connection to {address}: {why}; nothing was changed; it can be tried again")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// Why.
        why: io::Error,
    },
    /// Whoever answers there is not who should.
    #[error("{address} is not to be trusted: {why}; nothing was sent to it")]
    NotTrusted {
        /// Where.
        address: SocketAddr,
        /// Why.
        why: String,
    },
    /// A server of the cluster, which has proven that it is one, keeps this node out.
    #[error(
        "the server at {address} keeps this node out: it was removed from the cluster, or denied"
    )]
    KeptOut {
        /// Where.
        address: SocketAddr,
    },
    /// A server's name leads nowhere.
    #[error("cannot find {0}: {1}; nothing was changed")]
    Unknown(String, io::Error),
    /// The cluster said no.
    #[error("{0}")]
    Refused(#[from] Rejection),
    /// What was said is not understood.
    #[error(
        "{address} said something that is not understood: {what}; is it a server of another version?"
    )]
    Protocol {
        /// Where.
        address: SocketAddr,
        /// What.
        what: &'static str,
    },
    /// A key or certificate cannot be made or used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What is kept of this node cannot be read or written.
    #[error("cannot keep who this node is: {0}")]
    Kept(io::Error),
}
