//! Every parser fed with mutated input: none may panic, whatever it reads.
//!
//! Property fuzzing on the stable compiler. Inputs are mutations of seeds; an input whose answer has a form that was not
//! seen before (another error, another shape of success) joins the seeds, so that the search goes deeper by itself. That is
//! a poorer guide than counters in the code, which stable offers no cheap way to read in the running process.
//! `cargo xtask fuzz` runs it for long; `tests/quick.rs` runs it with fixed seeds.

#![forbid(unsafe_code)]

mod dice;
mod mutate;
mod parsers;
mod run;

pub use dice::Dice;
pub use mutate::mutated;
pub use parsers::{PARSERS, Parser};
pub use run::{Failure, Report, Until, run};
