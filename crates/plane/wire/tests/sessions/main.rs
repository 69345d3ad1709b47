//! Sessions over a pipe: what is said arrives in order, calls are answered, and whatever the other end sends, this one lives.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

mod calls;
mod hostile;
mod kit;
mod messages;
mod silence;
