//! What one server has applied at an index, every server applies there: committed entries are the same for ever and everywhere.

use std::collections::BTreeMap;

use super::Held;
use crate::log::{Entry, ServerId};

/// What was committed.
#[derive(Debug, Default)]
pub struct Entries(BTreeMap<u64, u64>);

impl Entries {
    /// A server applies an entry; true the first time that any does.
    pub fn applied(&mut self, server: ServerId, index: u64, entry: &Entry) -> Result<bool, String> {
        match self.0.get(&index) {
            None => {
                self.0.insert(index, entry.digest);
                Ok(true)
            }
            Some(known) if *known == entry.digest => Ok(false),
            Some(_) => Err(format!(
                "server {server} applies another entry at index {index} (of term {}) than was applied there before",
                entry.term
            )),
        }
    }

    /// Index of the last one.
    pub fn last(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(index, _)| *index)
    }

    /// A restarted or replaced server may not be ahead of what was ever committed.
    pub fn knows(&self, index: u64) -> Held {
        match index <= self.last() {
            true => Ok(()),
            false => Err(format!("index {index} is applied, and never was committed")),
        }
    }
}
