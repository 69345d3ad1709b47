//! `cargo xtask torture` and `cargo xtask chaos`: builds the node and the program of a long mode, and runs it.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::pass_on;
use crate::repo::Repo;
use crate::test::build;

/// One node under load, kills and faults.
pub fn main(repo: &Repo, args: &[String]) -> Result<ExitCode> {
    long(repo, "prism-e2e", "torture", args)
}

/// Three servers and five workers under load and faults of machines and networks.
pub fn chaos(repo: &Repo, args: &[String]) -> Result<ExitCode> {
    long(repo, "prism-chaos", "prism-chaos", args)
}

/// Builds and runs a program of a package; ends as it does.
fn long(repo: &Repo, package: &str, program: &str, args: &[String]) -> Result<ExitCode> {
    let output = repo
        .cargo()
        .args(["build", "--release", "--quiet", "--bins"])
        .args([
            "-p",
            "prism",
            "-p",
            package,
            "--message-format=json-render-diagnostics",
        ])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cargo could not be started")?;
    if !output.status.success() {
        bail!("it does not build; nothing was run");
    }
    let built = build::read(&String::from_utf8_lossy(&output.stdout))?;
    let mut command = std::process::Command::new(built.binaries.join(program));
    command
        .args(args)
        .env("PRISM_BIN_DIR", &built.binaries)
        .env("PRISM_REPO_DIR", &repo.root);
    pass_on(&mut command)
}
