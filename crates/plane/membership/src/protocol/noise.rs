//! Numbers drawn from a seed that the shell gives: who is asked next, not secrets.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// A generator for the protocol library and for the engine's own choices.
#[derive(Debug, Clone)]
pub(crate) struct Noise(SmallRng);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// For the protocol library.
    pub(crate) fn split(&mut self) -> SmallRng {
        SmallRng::seed_from_u64(self.0.random())
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0.random()
    }

    /// One of them.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        match from.len() {
            0 => None,
            n => from.get(self.0.random_range(0..n)).copied(),
        }
    }
}
