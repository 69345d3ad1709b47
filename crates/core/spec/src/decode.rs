//! From a located tree to drafts of specs: every field checked, every default filled in, nothing read from outside.

mod common;
mod files;
mod job;
mod sandbox;
mod sweep;

use prism_types::nearest;

use crate::cursor::Cursor;
use crate::draft::Draft;
use crate::error::{SpecError, quoted};
use crate::sandbox::SandboxSpec;

/// What a document turned out to be.
pub(crate) enum Decoded {
    Job(Draft),
    Sweep(Draft),
    Sandbox(SandboxSpec),
}

const NOUNS: [&str; 3] = ["job", "sweep", "sandbox"];

/// Reads a whole document, whose top-level field says what it is.
pub(crate) fn document(top: &Cursor<'_>) -> Result<Decoded, SpecError> {
    let entries = top.entries("a table with job:, sweep: or sandbox: at its top")?;
    let has = |key: &str| entries.iter().any(|e| e.key == key);
    for later in ["workload", "agent"] {
        if has(later) {
            return Err(top.error(format!(
                "{later}: is not supported in this version; supported are job:, sweep: and sandbox:"
            )));
        }
    }
    match NOUNS.map(has) {
        [true, false, false] => job::job(top).map(Decoded::Job),
        [false, true, false] => sweep::sweep(top).map(Decoded::Sweep),
        [false, false, true] => sandbox::sandbox(top).map(Decoded::Sandbox),
        [false, false, false] => {
            let near = entries
                .iter()
                .find_map(|e| nearest(&e.key, NOUNS).map(|near| (&e.key, near)));
            let hint = match near {
                Some((key, near)) => format!("; did {} mean {near:?}?", quoted(key)),
                None => String::new(),
            };
            Err(top.error(format!(
                "expected job:, sweep: or sandbox: at the top, with its name{hint}"
            )))
        }
        _ => Err(top.error("expected only one of job:, sweep: and sandbox: at the top")),
    }
}

/// Reads a job of a request.
pub(crate) fn job(top: &Cursor<'_>) -> Result<Draft, SpecError> {
    job::job(top)
}

/// Reads a sweep of a request.
pub(crate) fn sweep(top: &Cursor<'_>) -> Result<Draft, SpecError> {
    sweep::sweep(top)
}

/// Reads a sandbox of a request.
pub(crate) fn sandbox(top: &Cursor<'_>) -> Result<SandboxSpec, SpecError> {
    sandbox::sandbox(top)
}
