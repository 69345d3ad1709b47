//! Certificates and tokens of every kind, each shown at the real listener: nobody is let in who should not be, each is counted by its
//! reason, and the good ones among them get in, so that a listener that refuses all cannot pass.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]
#![allow(clippy::too_many_lines, reason = "tables of cases")]

#[path = "../kit/mod.rs"]
mod kit;

mod certificates;
mod forge;
mod tokens;
