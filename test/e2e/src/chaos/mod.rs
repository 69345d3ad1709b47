//! What the tests of crashes and faults share: random moments, a daemon that is killed part by part, load, and faults of disk and
//! clock.

mod daemon;
mod load;
mod random;
mod shim;
pub mod work;

pub use daemon::Daemon;
pub use load::{Load, Loaded};
pub use random::Random;
pub use shim::{Shim, Tmpfs};
