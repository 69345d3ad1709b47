//! A deposed leader's writes never land: after a fence is granted, no write under an older one counts.

use prism_types::Fence;

use super::Held;

/// The fences that were granted, in the order of the log.
#[derive(Debug, Default)]
pub struct Fences(u64);

impl Fences {
    /// The next fence is granted.
    pub fn granted(&mut self, fence: Fence) -> Held {
        self.0 += 1;
        match fence.0 == self.0 {
            true => Ok(()),
            false => Err(format!(
                "fence {} is granted after fence {}",
                fence.0,
                self.0 - 1
            )),
        }
    }

    /// A write under a fence was carried out.
    pub fn wrote(&self, fence: Fence) -> Held {
        match fence.0 == self.0 {
            true => Ok(()),
            false => Err(format!(
                "a write under fence {} was carried out, and the latest granted is {}",
                fence.0, self.0
            )),
        }
    }
}
