//! Time for decisions: set by the wall clock once, then carried by the monotonic clock, so that a step of the wall clock
//! while running moves no timeout, lease or retry.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use prism_types::TimeMs;

/// A clock that never goes back.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base_ms: u64,
    from: Instant,
}

impl Clock {
    /// A clock that starts at the wall clock's time, or at `floor` if that is later (the latest time in the state).
    pub fn start(floor: TimeMs) -> Self {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_millis());
        let wall = u64::try_from(wall).unwrap_or(u64::MAX);
        Self {
            base_ms: wall.max(floor.0),
            from: Instant::now(),
        }
    }

    /// Now.
    pub fn now(&self) -> TimeMs {
        let passed = u64::try_from(self.from.elapsed().as_millis()).unwrap_or(u64::MAX);
        TimeMs(self.base_ms.saturating_add(passed))
    }
}
