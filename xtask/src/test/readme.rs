//! Runs every `sh` block of the README, in order, as one script in a home of its own. Where the README says to start
//! `prismd dev` in another terminal, the script starts it in the background and waits until it answers.
//!
//! `cargo run --release --` means the `prismctl` that is built already; `cargo xtask` is what runs this, so it does nothing here.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use anyhow::{Result, bail};

use super::report::Outcome;
use super::session::{Session, at_home};

const CARGO: &str = r#"#!/bin/sh
case "$*" in
    "run --release -- "*) shift 3; exec prismctl "$@" ;;
    "xtask "* | "build --release") exit 0 ;;
    *) echo "cargo $*: not a command that the README may show" >&2; exit 2 ;;
esac
"#;

/// The line that starts a server in another terminal, and what does the same in a script.
const SERVER_LINE: &str = "    prismd dev";
const SERVER: &str = "prismd dev >prismd.log 2>&1 &
for _ in $(seq 300); do prismctl info >/dev/null 2>&1 && break; sleep 0.1; done
prismctl info >/dev/null || { cat prismd.log; exit 1; }
";

/// What runs in the background ends with the script.
const PRELUDE: &str = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n";

/// Runs them.
pub fn run(session: &Session<'_>) -> Result<Outcome> {
    let blocks = blocks(&session.repo.read("README.md")?);
    if blocks.is_empty() {
        bail!("README.md has no `sh` block to run");
    }
    let home = session.home(None)?;
    let (bin, work) = (home.join("bin"), home.join("work"));
    fs::create_dir(&bin)?;
    fs::create_dir(&work)?;
    fs::write(bin.join("cargo"), CARGO)?;
    fs::set_permissions(bin.join("cargo"), fs::Permissions::from_mode(0o755))?;
    symlink(session.repo.root.join("examples"), work.join("examples"))?;
    symlink(&session.built()?.binaries, work.join("release"))?;
    let script = work.join("readme.sh");
    fs::write(&script, format!("{PRELUDE}{}", blocks.join("\n")))?;
    let path = std::env::join_paths([bin, session.built()?.binaries.clone()].into_iter().chain(
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()),
    ))?;
    let mut command = Command::new("bash");
    command
        .arg("-x")
        .arg(&script)
        .current_dir(&work)
        .env("PATH", path);
    at_home(&mut command, &home);
    session.check(&mut command)
}

fn blocks(markdown: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in markdown.lines() {
        match &mut open {
            None if line == "```sh" => open = Some(String::new()),
            None if line == SERVER_LINE => blocks.push(SERVER.to_owned()),
            None => {}
            Some(_) if line == "```" => blocks.extend(open.take()),
            Some(text) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sh_blocks_and_the_server_are_taken() {
        let text = "a\n```sh\none\n```\n```yaml\ntwo: 2\n```\n    prismd dev\n```sh\nthree\n```\n";
        assert_eq!(blocks(text), ["one\n", SERVER, "three\n"]);
    }
}
