//! Wires a node from its configuration: store, leader, worker, gateway. Decides nothing; used by `prismd`, and by
//! `prismctl run` to embed a node in its own process.

#![forbid(unsafe_code)]

mod advertise;
mod autopilot;
mod cohort;
mod config;
mod embed;
mod gossip;
mod host_files;
mod identity;
mod lan;
mod members;
mod node;
mod seat;
mod servers;
mod session;
mod strict;
mod way;
mod worker_node;

pub use cohort::ExpectConfig;
pub use config::NodeConfig;
pub use embed::{EmbedConfig, Embedded, embed};
pub use host_files::EngineFiles;
pub use node::{Node, NodeError, start};
pub use prism_identity::{CommonToken, JoinToken};
pub use worker_node::{JoinConfig, WorkerNode, start_worker};
