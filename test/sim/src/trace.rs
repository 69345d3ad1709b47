//! What happened, in order: numbers rather than text, so that noting costs nothing and only a failure is printed.

use std::collections::VecDeque;
use std::fmt::Write;

use crate::rng::fold;

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// When, virtual milliseconds.
    pub at: u64,
    /// What.
    pub what: &'static str,
    /// To whom, and with which numbers; what they mean follows from `what`.
    pub of: [u64; 3],
}

/// The last notes, and a digest of all.
#[derive(Clone, Debug)]
pub struct Trace {
    last: VecDeque<Note>,
    keep: usize,
    digest: u64,
    count: u64,
}

impl Trace {
    /// A trace that keeps so many notes.
    pub fn new(keep: usize) -> Self {
        Self {
            last: VecDeque::new(),
            keep,
            digest: 0,
            count: 0,
        }
    }

    /// Notes something.
    pub fn note(&mut self, at: u64, what: &'static str, of: [u64; 3]) {
        let mut bytes = [0u8; 32];
        for (slot, word) in bytes.chunks_mut(8).zip([at, of[0], of[1], of[2]]) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        self.digest = fold(fold(self.digest, what.as_bytes()), &bytes);
        self.count += 1;
        if self.last.len() == self.keep {
            self.last.pop_front();
        }
        self.last.push_back(Note { at, what, of });
    }

    /// Number and digest of all notes: two runs with equal ones went the same way.
    pub fn fingerprint(&self) -> (u64, u64) {
        (self.count, self.digest)
    }

    /// The kept notes as lines.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for note in &self.last {
            let [a, b, c] = note.of;
            // Writing to a string cannot fail.
            let _ok = writeln!(
                out,
                "{:>9}.{:03}  {:<22} {a:>6} {b:>6} {c}",
                note.at / 1000,
                note.at % 1000,
                note.what
            );
        }
        out
    }
}
