//! `cargo xtask torture`: builds the node and the program of the long mode, and runs it.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::pass_on;
use crate::repo::Repo;
use crate::test::build;

/// Builds and runs it; ends as it does.
pub fn main(repo: &Repo, args: &[String]) -> Result<ExitCode> {
    let output = repo
        .cargo()
        .args(["build", "--release", "--quiet", "--bins"])
        .args([
            "-p",
            "prism",
            "-p",
            "prism-e2e",
            "--message-format=json-render-diagnostics",
        ])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cargo could not be started")?;
    if !output.status.success() {
        bail!("it does not build; nothing was run");
    }
    let built = build::read(&String::from_utf8_lossy(&output.stdout))?;
    let mut torture = std::process::Command::new(built.binaries.join("torture"));
    torture
        .args(args)
        .env("PRISM_BIN_DIR", &built.binaries)
        .env("PRISM_REPO_DIR", &repo.root);
    pass_on(&mut torture)
}
