//! The leader's state holds its own invariants, and is what loading it from the store would give.

use prism_state::State;
use prism_store::{KeyRange, Revision, Table};

use super::Held;

/// The state as a table holds it at a revision; without some prefixes only if a fault is planted.
pub fn load(table: &Table, at: Option<Revision>, without: Option<&str>) -> Result<State, String> {
    let mut entries = Vec::new();
    for prefix in State::LOAD_PREFIXES {
        if Some(*prefix) == without {
            continue;
        }
        let page = table.range(&KeyRange::prefix(*prefix), at, usize::MAX);
        let page = page.map_err(|e| e.to_string())?;
        entries.extend(page.items.into_iter().map(|i| (i.key, i.value)));
    }
    State::load(entries).map_err(|e| e.to_string())
}

/// After a commit of the leader, while its table is at that commit.
pub fn holds(state: &State, table: &Table) -> Held {
    state.check_invariants()?;
    let loaded = load(table, None, None)?;
    if loaded != *state {
        return Err("the state that the store holds is not the leader's".to_owned());
    }
    match loaded.encode() == state.encode() {
        true => Ok(()),
        false => Err("equal states have different bytes".to_owned()),
    }
}
