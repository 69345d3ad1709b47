//! Why a connection ends.

use std::io;

/// Why a connection ended, or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other end closed it.
    #[error("the other end closed the connection")]
    Closed,
    /// This end has nothing more to say.
    #[error("this end closed the connection")]
    Over,
    /// The stream failed.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// Nothing came, not even a sign of life.
    #[error("nothing was heard from the other end for {0} s")]
    Silent(u64),
    /// The other end is none of ours.
    #[error("the other end does not speak this protocol")]
    Stranger,
    /// No version is common to both ends.
    #[error(
        "the other end speaks versions {theirs_min} to {theirs_max} of the protocol, this one {ours_min} to {ours_max}; bring the older one within one version of the other"
    )]
    Version {
        /// The oldest that the other end speaks.
        theirs_min: u16,
        /// The newest.
        theirs_max: u16,
        /// The oldest that this end speaks.
        ours_min: u16,
        /// The newest.
        ours_max: u16,
    },
    /// What came breaks the protocol.
    #[error("the other end broke the protocol: {0}")]
    Protocol(&'static str),
}
