//! Wires a node from its configuration: store, leader, worker, gateway. Decides nothing; used by `prismd`, and by
//! `prismctl run` to embed a node in its own process.

#![forbid(unsafe_code)]

mod config;
mod embed;
mod host_files;
mod identity;
mod node;

pub use config::NodeConfig;
pub use embed::{EmbedConfig, Embedded, embed};
pub use host_files::EngineFiles;
pub use node::{Node, NodeError, start};
