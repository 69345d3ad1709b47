//! For tests only: the suite that every engine of the store must pass, and an engine in memory for tests of whatever stands
//! on a store, and a real etcd for tests of whatever uses one. A crate of its own, so that what ships is compiled once and the same
//! with and without tests.

#![forbid(unsafe_code)]

pub mod conformance;
pub mod etcd;
mod fake;

pub use fake::FakeStore;
