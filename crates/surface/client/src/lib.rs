//! The typed HTTP client: one method per route of `prism-api`, streams as `next().await`, every change with an idempotency
//! key, safe repetition when a connection is lost.
//!
//! It prints nothing and reads no configuration. The CLI and other programs call it.

#![forbid(unsafe_code)]

mod access;
mod backups;
mod error;
mod exec;
mod jobs;
mod nodes;
mod raw;
mod sandboxes;
mod stream;
mod sweeps;
mod tls;
mod transport;
mod url;

pub use access::{Events, EventsQuery};
pub use error::ClientError;
pub use exec::{ExecOutput, ExecStream};
pub use jobs::{Jobs, LogsQuery};
pub use nodes::Nodes;
pub use raw::Ask;
pub use sandboxes::{Files, Sandboxes};
pub use stream::{ByteStream, EventStream, Lines};
pub use sweeps::Sweeps;
pub use tls::{Security, pin};
pub use transport::{Client, ListQuery};

/// What a call answers.
pub type Result<T, E = ClientError> = std::result::Result<T, E>;
