//! A worker's session over one connection: what the two ends of [`prism_link::pair`] say to each other within a process, and what the
//! gateway asks of the node ([`prism_link::NodeService`]), carried over any stream of bytes (TLS between machines, a pipe in tests).
//!
//! The worker dials; everything in both directions is on that one stream, so a node behind NAT needs no open port. Long messages are
//! cut into frames and take turns, so that a file that is read does not hold back a heartbeat. Who is at the other end is known
//! before anything here begins; still nothing it sends is taken on trust: every length is bounded.

#![forbid(unsafe_code)]

mod answer;
mod ask;
mod calls;
mod carry;
mod error;
mod frame;
mod greet;
mod read;
mod request;
mod versions;
mod write;

pub use ask::RemoteNode;
pub use carry::{Greeted, Link, carry_control, carry_greeted, carry_worker, greet_control};
pub use error::{WireError, versions};
