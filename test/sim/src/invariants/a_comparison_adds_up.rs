//! What an honest worker answers to a comparison adds up to what it summed up before, whatever happened to it meanwhile.

use std::collections::BTreeSet;

use prism_link::resume::{Item, Mismatch};

use super::Held;

/// A worker's answer was settled.
pub fn settled(known: &Result<BTreeSet<Item>, Mismatch>) -> Held {
    match known {
        Ok(_) => Ok(()),
        Err(why) => Err(format!("an honest answer is refused: {why}")),
    }
}
