//! Checks of the tree that no compiler makes. Each returns its problems as sentences with the file and line.

mod crates;
mod docs;
mod licences;
mod rings;
mod sources;

use std::process::ExitCode;

use anyhow::Result;

use crate::repo::Repo;

type Check = fn(&Repo) -> Result<Vec<String>>;

const CHECKS: &[(&str, Check)] = &[
    ("rings", rings::check),
    ("crates", crates::check),
    ("sources", sources::check),
    ("docs", docs::check),
    ("licences", licences::check),
];

/// Every problem of the tree.
pub fn problems(repo: &Repo) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for (name, check) in CHECKS {
        problems.extend(
            check(repo)?
                .into_iter()
                .map(|p| format!("tidy {name}: {p}")),
        );
    }
    Ok(problems)
}

/// Prints them.
pub fn main(repo: &Repo) -> Result<ExitCode> {
    let problems = problems(repo)?;
    for problem in &problems {
        println!("{problem}");
    }
    Ok(if problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
