//! One noun per file: its arguments, what it asks the server, how the answer is shown.

pub mod backup;
pub mod ca;
pub mod completion;
pub mod context;
pub mod doctor;
pub mod events;
pub mod explain;
pub mod image;
pub mod info;
pub mod issue;
pub mod job;
pub mod namespace;
pub mod node;
pub mod peer;
pub mod peer_key;
pub mod recover;
pub mod run;
pub mod sandbox;
pub mod server;
pub mod sweep;
pub mod token;
