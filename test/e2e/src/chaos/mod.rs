//! What the tests of crashes and faults share: random moments, a daemon that is killed part by part, load, and faults of disk and
//! clock; and what the programs share that run them for long.

mod daemon;
mod load;
mod random;
mod shim;
mod wanted;
pub mod work;

pub use daemon::Daemon;
pub use load::{Load, Loaded};
pub use random::Random;
pub use shim::{Shim, Tmpfs};
pub use wanted::Wanted;
