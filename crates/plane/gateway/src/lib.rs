//! The REST gateway: serves every row of `prism-api`'s table of routes over HTTP/1.1, for the control plane of this process.
//!
//! It decides nothing: it checks who asks and what, makes a command or reads committed state, and answers in wire types.
//! The node's wiring calls [`serve`]. Tasks: one that accepts, one per connection, one per streamed answer; every queue
//! between them is bounded.

#![forbid(unsafe_code)]

mod answer;
mod app;
mod ask;
mod auth;
mod backups;
mod ca;
mod certificates;
mod client;
mod cluster;
mod config;
mod connections;
mod desk;
mod events;
mod execs;
mod explain;
mod files;
mod forward;
mod gossip_keys;
mod gossip_metrics;
mod health;
mod idempotency;
mod images;
mod jobs;
mod join_tokens;
mod list;
mod logs;
mod metrics;
mod namespaces;
mod nodes;
mod output;
mod patient;
mod peers;
mod pipeline;
mod query;
mod refuse;
mod results;
mod room;
mod sandboxes;
mod server;
mod snapshots;
mod stream;
mod submit;
mod sweeps;
mod tasks;
mod tls;
mod tokens;
mod watch;

pub use auth::{NewToken, new_token, read_token};
pub use certificates::Authority;
pub use config::{
    DiskGauge, DiskRoom, GatewayConfig, Peer, Peers, StoreGauge, StoreHealth, StoreTrouble,
};
pub use desk::{Ground, Pipe, Reach};
pub use gossip_keys::{Gossip, Hint, HintState, KeyChange, KeyName, Traffic};
pub use join_tokens::Joining;
pub use query::check_query;
pub use server::{Gateway, serve, serve_tls};
pub use tls::Face;
