//! Chaos: a real cluster in network namespaces, clients that write down what they see, real faults in an order that a seed draws, and the
//! checker of it all. Run by `cargo xtask chaos`.
//!
//! It knows Prism from outside: command lines and the API, by the client that other programs use. Callers: its own program, and the
//! tests of the checker.

#![forbid(unsafe_code)]

mod counts;
mod delay;
mod desk;
mod etcd;
mod fault;
mod jobs;
pub mod linear;
mod load;
mod member;
mod program;
pub mod register;
mod run;
mod site;
mod ways;

pub use run::run;
pub use site::Keeper;
