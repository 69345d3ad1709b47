//! `cargo xtask`: everything that is done to this repository, in one place and without installing anything.
//!
//! It calls cargo and the built binaries; nothing of Prism calls it.

#![forbid(unsafe_code)]

mod fuzz;
mod plots;
mod process;
mod repo;
mod test;
mod tidy;
mod torture;

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use repo::Repo;

const HELP: &str = "\
usage: cargo xtask COMMAND

  test [--require all] [GROUP...]   run every group of tests, or some; skipped ones are named with the reason
                                    (--require all: a skipped group is a failure)
  test --list                       name the groups
  test --times [GROUP...]           and say which programs took longest
  tidy                              only the checks of the tree: rings, sizes, purity, licences, docs
  fuzz [--minutes N] [--parser NAME] [--seed N] [--input FILE]
                                    feed every parser with mutated input (10 minutes unless said), or one input again
  fix                               format everything
  bench NAME [--json]               run one bench; it prints one JSON object
  bench --list                      name the benches
  torture [--minutes N] [--seed S]  load, kills and faults at random, checked against what was acknowledged
  chaos [--minutes N] [--seed S] [--store raft|etcd]
                                    three servers and five workers in network namespaces: kills, pauses, partitions, NAT,
                                    delays, disks; what clients saw is checked for linearizability, results for exactly
                                    once (--store etcd: the same on an etcd of three members, which is killed too)
  plots [--kept]                    run the benches that have a curve and draw docs/performance (--kept: only draw)
";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(e) => {
            eprintln!("xtask: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|a| a == "--help" || a == "-h") {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    let repo = Repo::find()?;
    match args.first().map(String::as_str) {
        Some("test") => test::main(&repo, &args[1..]),
        Some("tidy") => tidy::main(&repo),
        Some("fuzz") => fuzz::main(&repo, &args[1..]),
        Some("fix") => pass_on(repo.cargo().args(["fmt", "--all"])),
        Some("bench") => {
            // One of them measures the real server, from where cargo puts it beside the bench.
            let built = repo
                .cargo()
                .args(["build", "--release", "--quiet", "--bin", "prismd"])
                .status();
            if !built.context("cargo could not be started")?.success() {
                bail!("prismd does not build; nothing was measured");
            }
            pass_on(
                repo.cargo()
                    .args(["run", "--release", "--quiet", "-p", "prism-bench", "--"])
                    .args(&args[1..]),
            )
        }
        Some("torture") => torture::main(&repo, &args[1..]),
        Some("chaos") => torture::chaos(&repo, &args[1..]),
        Some("plots") => plots::main(&repo, &args[1..]),
        None | Some("help") => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        Some(other) => {
            bail!(
                "no command {other:?}: expected test, tidy, fix, fuzz, torture, chaos, plots or bench"
            )
        }
    }
}

/// Runs a command on this terminal and ends as it did.
fn pass_on(command: &mut Command) -> Result<ExitCode> {
    let status = command.status().context("cargo could not be started")?;
    let code = status.code().and_then(|c| u8::try_from(c).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}
