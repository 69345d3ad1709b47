//! What the groups did, as a table that grows while they run, and the sum in the very last line.

use std::process::ExitCode;
use std::time::Duration;

/// Sums of libtest's `test result:` lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Tests that were left out.
    pub skipped: u64,
}

/// What became of a group.
pub enum Outcome {
    /// It ran to its end.
    Ran {
        /// Its tests.
        counts: Counts,
        /// All of it went well.
        ok: bool,
        /// What it printed, for when it did not.
        output: String,
    },
    /// It cannot run on this machine, because of this.
    Skipped(String),
}

impl Outcome {
    /// This and what ran beside it, as one.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (
                Self::Ran { counts, ok, output },
                Self::Ran {
                    counts: more,
                    ok: well,
                    output: said,
                },
            ) => Self::Ran {
                counts: counts.plus(more),
                ok: ok && well,
                output: output + &said,
            },
            (Self::Skipped(why), _) | (_, Self::Skipped(why)) => Self::Skipped(why),
        }
    }

    /// It failed before any test of its own could.
    pub fn broken(output: String) -> Self {
        Self::Ran {
            counts: Counts::default(),
            ok: false,
            output,
        }
    }
}

impl Counts {
    /// Reads every `test result:` line of an output; without any, the lines of the tests themselves, which is what test
    /// programs with a main of their own print.
    pub fn of(output: &str) -> Self {
        let mut counts = Self::default();
        if !output.contains("test result: ") {
            for line in output.lines().filter(|l| l.starts_with("test ")) {
                counts.passed += u64::from(line.contains(" ... ok"));
                counts.failed += u64::from(line.contains(" ... FAILED"));
            }
            return counts;
        }
        for line in output.lines() {
            let Some((_, rest)) = line.split_once("test result: ") else {
                continue;
            };
            for part in rest.split(['.', ';']) {
                let mut words = part.split_whitespace();
                let number = words.next().and_then(|n| n.parse::<u64>().ok());
                match (number, words.next()) {
                    (Some(n), Some("passed")) => counts.passed += n,
                    (Some(n), Some("failed")) => counts.failed += n,
                    (Some(n), Some("ignored")) => counts.skipped += n,
                    _ => {}
                }
            }
        }
        counts
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

/// The table and its sum.
pub struct Report {
    require_all: bool,
    sum: Counts,
    failed: Vec<String>,
    skipped: Vec<String>,
}

impl Report {
    /// An empty table.
    pub fn new(require_all: bool) -> Self {
        println!(
            "{:<14}{:>8}{:>8}{:>8}{:>10}",
            "group", "passed", "failed", "skipped", "seconds"
        );
        Self {
            require_all,
            sum: Counts::default(),
            failed: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// Prints the row of a group, and what it printed if it failed.
    pub fn add(&mut self, name: &str, took: Duration, outcome: Outcome) {
        let seconds = took.as_secs_f64();
        match outcome {
            Outcome::Skipped(why) => {
                self.sum.skipped += 1;
                println!("{name:<14}{:>8}{:>8}{:>8}{seconds:>10.1}", "-", "-", "all");
                self.skipped.push(format!("{name}: skipped, {why}"));
            }
            Outcome::Ran {
                mut counts,
                ok,
                output,
            } => {
                // A check that is not a test, or a test program that did not get to its end, counts as one.
                if !ok && counts.failed == 0 {
                    counts.failed = 1;
                }
                self.sum = self.sum.plus(counts);
                let Counts {
                    passed,
                    failed,
                    skipped,
                } = counts;
                println!("{name:<14}{passed:>8}{failed:>8}{skipped:>8}{seconds:>10.1}");
                if failed > 0 {
                    println!(
                        "--- {name} failed:\n{}\n--- end of {name}",
                        output.trim_end()
                    );
                    self.failed.push(name.to_owned());
                }
            }
        }
    }

    /// Prints the reasons and the sum.
    pub fn finish(self) -> ExitCode {
        for line in &self.skipped {
            println!("{line}");
        }
        if !self.failed.is_empty() {
            println!("failed: {}", self.failed.join(", "));
        }
        let short = self.require_all && self.sum.skipped > 0;
        if short {
            println!("failed: --require all, and something was skipped");
        }
        let Counts {
            passed,
            failed,
            skipped,
        } = self.sum;
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        if failed > 0 || short {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_summed_and_others_are_not() {
        let output = "running 3 tests\n\
            test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s\n\
            5 passed by a car\n\
            test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let expected = Counts {
            passed: 13,
            failed: 2,
            skipped: 1,
        };
        assert_eq!(Counts::of(output), expected);
        let own = "test runtime::a (root) ... ok 3ms\ntest runtime::b (root) ... FAILED 1s\n";
        let expected = Counts {
            passed: 1,
            failed: 1,
            skipped: 0,
        };
        assert_eq!(Counts::of(own), expected);
    }
}
