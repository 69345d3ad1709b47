//! Random choices that can be made again: from a seed that is told when a test fails.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where a seed comes from, if a failed run is to be repeated.
const VARIABLE: &str = "PRISM_SEED";

/// A sequence of numbers of a seed. Says the seed when it is dropped by a panic.
#[derive(Debug)]
pub struct Random {
    name: String,
    seed: u64,
    state: u64,
}

impl Random {
    /// Numbers of a new seed, or of the one in `PRISM_SEED`; `name` is in the message.
    ///
    /// # Panics
    /// When `PRISM_SEED` is not a number.
    pub fn new(name: &str) -> Self {
        let told = std::env::var(VARIABLE).ok();
        let told = told.map(|s| s.parse().expect("PRISM_SEED is a number"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let fresh = now.map_or(1, |d| u64::try_from(d.as_nanos()).unwrap_or(1));
        Self::of(name, told.unwrap_or(fresh))
    }

    /// Numbers of this seed.
    pub fn of(name: &str, seed: u64) -> Self {
        Self {
            name: name.to_owned(),
            seed,
            state: seed,
        }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The next number (SplitMix64).
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// A time below `ms` milliseconds.
    pub fn moment(&mut self, ms: u64) -> Duration {
        Duration::from_micros(self.below(ms * 1000))
    }

    /// One of these.
    ///
    /// # Panics
    /// When there is none.
    pub fn of_these<'t, T>(&mut self, these: &'t [T]) -> &'t T {
        let n = usize::try_from(self.below(these.len() as u64)).expect("a list's length fits");
        &these[n]
    }
}

impl Drop for Random {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: again with {VARIABLE}={}", self.name, self.seed);
        }
    }
}
