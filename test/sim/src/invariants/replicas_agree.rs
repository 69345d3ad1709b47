//! The state on all servers is equal at equal applied index: the outcome of every entry, and all that the store holds.

use std::collections::BTreeMap;

use prism_store::{KeyRange, Table};

use super::Held;
use crate::log::ServerId;
use crate::rng::fold;

/// Whole tables are compared at every so many entries.
const WHOLE: u64 = 24;

/// What came of the entries.
#[derive(Debug, Default)]
pub struct Replicas {
    outcomes: BTreeMap<u64, u64>,
    whole: BTreeMap<u64, u64>,
}

impl Replicas {
    /// A server has applied all up to an index, with this digest of entries and outcomes.
    pub fn applied(&mut self, server: ServerId, index: u64, digest: u64, table: &Table) -> Held {
        let known = *self.outcomes.entry(index).or_insert(digest);
        if known != digest {
            return Err(format!(
                "server {server} has another outcome at index {index} than a server before"
            ));
        }
        match index % WHOLE {
            0 => self.whole(server, index, table),
            _ => Ok(()),
        }
    }

    /// A server holds this table at an index.
    pub fn whole(&mut self, server: ServerId, index: u64, table: &Table) -> Held {
        let digest = digest_of(table)?;
        let known = *self.whole.entry(index).or_insert(digest);
        match known == digest {
            true => Ok(()),
            false => Err(format!(
                "server {server} holds another state at index {index} than a server before"
            )),
        }
    }
}

fn digest_of(table: &Table) -> Result<u64, String> {
    let all = table.range(&KeyRange::all(), None, usize::MAX);
    let all = all.map_err(|e| e.to_string())?;
    let mut digest = fold(table.fence().0, &table.revision().0.to_le_bytes());
    for item in &all.items {
        digest = fold(fold(digest, &item.key), &item.value);
        digest = fold(digest, &item.revision.0.to_le_bytes());
    }
    Ok(digest)
}
