//! Wires a node from its configuration: store, leader, worker, gateway. Decides nothing; used by `prismd`, and by
//! `prismctl run` to embed a node in its own process.

#![forbid(unsafe_code)]

mod advertise;
mod api;
mod autopilot;
mod cohort;
mod config;
mod embed;
mod format;
mod gossip;
mod host_files;
mod identity;
mod introduction;
mod keeper;
mod lan;
mod members;
mod node;
mod on_etcd;
mod outcast;
mod recover;
mod seat;
mod servers;
mod session;
mod strict;
mod way;
mod worker_node;

pub use api::TlsFiles;
pub use cohort::ExpectConfig;
pub use config::NodeConfig;
pub use embed::{EmbedConfig, Embedded, embed};
pub use host_files::EngineFiles;
pub use node::{JOIN_ANEW, Node, NodeError, start};
pub use prism_control::ControlError;
pub use prism_etcd::{Config as EtcdConfig, Login as EtcdLogin, Tls as EtcdTls};
pub use prism_identity::{ClusterId, CommonToken, JoinToken};
pub use prism_vault::Config as VaultConfig;
pub use recover::{LeftBehind, Survey, Survivor, survey};
pub use worker_node::{JoinConfig, WorkerNode, start_worker};
