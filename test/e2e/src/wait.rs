//! Waits for conditions, with a deadline after which it says what never came true.

use std::time::{Duration, Instant};

/// Longest wait for anything that should take seconds; generous, because it only ends tests that fail anyway.
pub const LIMIT: Duration = Duration::from_secs(120);

/// How long to leave the machine to what is waited for, between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until `look` finds something, at most [`LIMIT`].
///
/// # Panics
/// When it does not in time.
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(LIMIT, what, look)
}

/// Waits until `look` finds something, at most `limit`.
///
/// # Panics
/// When it does not in time.
pub fn until_within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            started.elapsed() < limit,
            "not within {} s: {what}",
            limit.as_secs()
        );
        std::thread::sleep(PAUSE);
    }
}
