//! The kit of the end-to-end tests: the real `prismd` and `prismctl` in directories of their own, killed and cleaned up by id.
//!
//! It knows Prism only from outside: command lines, HTTP, files. Callers: the tests beside it, one file for each promise.

#![forbid(unsafe_code)]

pub mod chaos;
pub mod cluster;
mod hostile;
mod http;
mod leftovers;
pub mod net;
mod oracle;
mod place;
mod procs;
mod program;
mod server;
mod wait;

pub use hostile::{Trial, refusal};
pub use http::{Answer, Api, Lines};
pub use leftovers::Leftovers;
pub use oracle::{Acknowledged, Oracle, Sandboxes};
pub use place::Place;
pub use procs::{Process, alive, beneath, kill, kill_group, supervisor};
pub use program::{Output, Running};
pub use server::{Server, Shared};
pub use wait::{LIMIT, until, until_within};
