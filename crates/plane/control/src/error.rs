//! Why the leader cannot start or had to stop.

use prism_state::Corrupt;
use prism_store::StoreError;

/// Why the leader cannot start or had to stop. What was acknowledged is in the store in every case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The store said no.
    #[error("the store refused; nothing more is decided until the server is started again")]
    Store(#[source] StoreError),
    /// What is stored cannot be read as state.
    #[error(
        "the stored state cannot be read; nothing was changed; restore a backup, or report this with the key"
    )]
    Corrupt(#[source] Corrupt),
    /// The cluster goes on without this server.
    #[error("{0}")]
    TakenOut(String),
    /// The state was replaced by that of a backup: it is to be loaded anew.
    #[error("the state was replaced by that of a backup")]
    Replaced,
}
