//! The clock that leases are counted by.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since the machine was started, those in which it slept included. Never goes back; the same for all processes of
/// the machine.
pub fn boot_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let millis = u64::try_from(now.tv_nsec / 1_000_000).unwrap_or_default();
    seconds * 1_000 + millis
}
