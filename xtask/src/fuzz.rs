//! The long mode of fuzzing: builds the fuzzer and passes everything on to it.

use std::process::ExitCode;

use anyhow::Result;

use crate::repo::Repo;

/// Runs it; `args` are its own (`--minutes`, `--seed`, `--parser`, `--input`).
pub fn main(repo: &Repo, args: &[String]) -> Result<ExitCode> {
    let run = ["run", "--release", "--quiet", "-p", "prism-fuzz", "--"];
    crate::pass_on(repo.cargo().args(run).args(args))
}
