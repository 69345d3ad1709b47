//! How much one archive may cost, and the account kept while it is unpacked.
//!
//! Pure arithmetic; never touches a file. Used by the unpacker and by the readers of archives.

use super::error::Refusal;

/// How much an archive may contain before it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries in the archive (for an image: in all layers together).
    pub entries_max: u64,
    /// Unpacked bytes (for an image: of all layers together).
    pub bytes_max: u64,
    /// How many times larger than its compressed form a stream may be.
    pub ratio_max: u64,
    /// Unpacked bytes up to which the ratio does not matter.
    pub ratio_floor_bytes: u64,
}

impl Limits {
    /// The limits for images: 200,000 entries, 10 GiB, 100 times beyond the first 64 MiB.
    pub const IMAGE: Self = Self {
        entries_max: 200_000,
        bytes_max: 10 << 30,
        ratio_max: 100,
        ratio_floor_bytes: 64 << 20,
    };

    /// The limits for snapshots. The ratio is left to the byte limit: a sandbox may well have
    /// written a gigabyte of the same line, and its snapshot must come back.
    pub const SNAPSHOT: Self = Self {
        entries_max: 200_000,
        bytes_max: 10 << 30,
        ratio_max: u64::MAX,
        ratio_floor_bytes: u64::MAX,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::IMAGE
    }
}

/// What is left of a [`Limits`] while archives are unpacked against it.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) limits: Limits,
    entries: u64,
    bytes: u64,
}

impl Budget {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: 0,
            bytes: 0,
        }
    }

    /// Counts one entry that announces `size` bytes of content.
    pub(crate) fn charge(&mut self, size: u64) -> Result<(), Refusal> {
        self.entries += 1;
        if self.entries > self.limits.entries_max {
            return Err(Refusal::TooManyEntries {
                max: self.limits.entries_max,
            });
        }
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.limits.bytes_max {
            return Err(Refusal::TooManyBytes {
                max: self.limits.bytes_max,
            });
        }
        Ok(())
    }

    /// Entries counted so far.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// The most a tar stream may be long within what is left: content, headers and trailer.
    pub(crate) fn stream_max(&self) -> u64 {
        let entries_left = self.limits.entries_max - self.entries.min(self.limits.entries_max);
        let bytes_left = self.limits.bytes_max - self.bytes.min(self.limits.bytes_max);
        // Header, padding and a moderate extended header per entry; 1 MiB for the trailer.
        bytes_left
            .saturating_add(entries_left.saturating_mul(4096))
            .saturating_add(1 << 20)
    }
}
