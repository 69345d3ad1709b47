//! The control plane simulated from one seed: the real core and the real table of the store inside shells that follow the real
//! ones step by step, with a network, disks, clocks and processes that fail. One thread, no clock, no I/O; one seed is one run.
//!
//! `docs/simulation.md` says what is real and what is modelled.

#![forbid(unsafe_code)]

pub mod bugs;
pub mod client;
pub mod control;
pub mod disk;
pub mod faults;
pub mod invariants;
pub mod log;
pub mod message;
pub mod net;
pub mod queue;
pub mod raft;
pub mod resume;
pub mod rng;
pub mod runner;
pub mod server;
pub mod session;
pub mod setup;
pub mod sim;
pub mod supervisor;
pub mod trace;
pub mod work;
pub mod worker;
pub mod world;
