//! The leader: one loop around the pure core, worker sessions, leases. It decides nothing itself and touches no file.
//!
//! Tasks: the leader loop ([`Leader::run`], the single writer: decide, apply, commit, answer, act), one reader for each
//! worker session, and a lease timer within the loop. Proposals reach the loop through one bounded queue.

#![forbid(unsafe_code)]

mod act;
mod backup;
mod clock;
mod error;
mod handle;
mod leader;
mod restore;
mod results;
mod resume;
mod seat;
mod session;
mod waits;

pub use clock::Clock;
pub use error::ControlError;
pub use handle::{Control, LiveNode, Numbers};
pub use leader::{Leader, admission, frozen, open, servers};
pub use restore::{RestoreOutcome, Source};
pub use results::{results_page, sweep_rows};
pub use seat::{Seat, Seats};
pub use waits::SandboxWait;
