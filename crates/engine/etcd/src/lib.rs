//! The store engine on an existing etcd: etcd keeps the log and the keys, this crate the rules.
//!
//! What happens to a commit:
//!
//! 1. [`EtcdStore`] puts it in a bounded queue. One task takes what waits there and makes it *one* entry (`queue`, `group`), so
//!    that any number of callers share a round trip.
//! 2. An entry is one etcd transaction (`propose`). It puts the keys, and last of all the key `head`, which says the
//!    revision, the fence and what else a reader must know. It holds only while `leader` is as this server left it and while
//!    `head` was written exactly as often as this server knows: so an entry can be sent again, and is done at most once.
//! 3. The entry is applied to the shared table of `prism-store` in memory (`mirror`), and every caller is answered.
//!
//! Servers that do not lead read the same entries from a watch (`feed`) and apply them the same way. All reads and watches are
//! served from the table; before a read of the latest state the mirror is compared with etcd.
//!
//! Where things are in etcd is in `layout`, who leads in `lead`, what is larger than a request in `large`. Why it is so: ADR 0010.

#![forbid(unsafe_code)]

mod client;
mod config;
mod engine;
mod error;
mod feed;
mod group;
mod health;
mod http;
mod json;
mod large;
mod layout;
mod lead;
mod load;
mod mirror;
mod propose;
mod queue;
mod store;
#[cfg(test)]
extern crate self as prism_etcd;
#[cfg(test)]
mod tests;

pub use config::{Config, Login, Tls};
pub use engine::Seat;
pub use error::OpenError;
pub use health::Health;
pub use store::{EtcdStore, open};
