//! Feeding one parser: mutate, feed, keep what is new, stop at the first panic.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::dice::Dice;
use crate::mutate::mutated;
use crate::parsers::Parser;

/// Most inputs that are kept to go on from.
const CORPUS_MAX: usize = 2_000;

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After so many inputs.
    Inputs(u64),
    /// At this time.
    Time(Instant),
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// Inputs that were fed.
    pub inputs: u64,
    /// Forms of answers that were seen.
    pub forms: usize,
    /// The input that took longest, and how long.
    pub slowest: Duration,
    /// The panic that ended it, if one did.
    pub failure: Option<Failure>,
}

/// An input that made a parser panic.
#[derive(Debug)]
pub struct Failure {
    /// The input.
    pub input: Vec<u8>,
    /// What the panic said.
    pub message: String,
}

/// Feeds a parser; the same seed gives the same inputs.
pub fn run(parser: &Parser, seed: u64, until: Until) -> Report {
    let mut dice = Dice::new(seed);
    let mut feed = (parser.make)();
    let mut corpus = (parser.seeds)();
    let mut forms = BTreeSet::new();
    let mut report = Report {
        inputs: 0,
        forms: 0,
        slowest: Duration::ZERO,
        failure: None,
    };
    let mut seeds = corpus.clone().into_iter();
    while more(until, report.inputs) {
        let input = seeds.next().unwrap_or_else(|| mutated(&mut dice, &corpus));
        report.inputs += 1;
        let started = Instant::now();
        let answer = catch_unwind(AssertUnwindSafe(|| feed(&input)));
        report.slowest = report.slowest.max(started.elapsed());
        match answer {
            Ok(answer) => {
                if forms.insert(form(&answer)) && corpus.len() < CORPUS_MAX {
                    corpus.push(input);
                }
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned()));
                let message = text.unwrap_or_else(|| "a panic without a text".to_owned());
                report.failure = Some(Failure { input, message });
                break;
            }
        }
    }
    report.forms = forms.len();
    report
}

fn more(until: Until, done: u64) -> bool {
    match until {
        Until::Inputs(most) => done < most,
        // Looking at the clock is dearer than some of the parsers.
        Until::Time(end) => !done.is_multiple_of(16) || Instant::now() < end,
    }
}

/// An answer without its numbers and quoted parts: what kind of answer it is.
fn form(answer: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (i, part) in answer.split(['"', '\'', '`']).enumerate().take(12) {
        if i % 2 == 0 {
            part.bytes()
                .filter(|b| !b.is_ascii_digit())
                .take(200)
                .for_each(|b| b.hash(&mut hasher));
        }
    }
    hasher.finish()
}
