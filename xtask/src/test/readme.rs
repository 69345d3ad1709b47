//! Runs every `sh` block of the README and of the guides, in order, each document as one script in a home of its own, and
//! once more as an ordinary user. Where a document says to start `prismd dev` in another terminal, the script starts it in
//! the background and waits until it answers. A document that starts an etcd is left out where there is none. A `yaml` block that begins with its name in a comment is written to that file.
//!
//! `cargo run --release --` means the `prismctl` that is built already; `cargo xtask` is what runs this, so it does nothing here.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::report::{Counts, Outcome};
use super::session::{As, Session, at_home, is_root};

const CARGO: &str = r#"#!/bin/sh
case "$*" in
    "run --release -- "*) shift 3; exec prismctl "$@" ;;
    "xtask "* | "build --release") exit 0 ;;
    *) echo "cargo $*: not a command that the README may show" >&2; exit 2 ;;
esac
"#;

/// The line that starts a server in another terminal, and what does the same in a script.
const SERVER_LINE: &str = "    prismd dev";
const SERVER: &str = "prismd dev --api 127.0.0.1:0 >prismd.log 2>&1 &
for _ in $(seq 600); do prismctl info >/dev/null 2>&1 && break; sleep 0.1; done
prismctl info >/dev/null || { cat prismd.log; exit 1; }
";

/// What runs in the background ends with the script.
const PRELUDE: &str = "set -euo pipefail
trap 'code=$?; set +e; [ -z \"$(jobs -p)\" ] || kill $(jobs -p); wait; exit $code' EXIT
";

/// Runs them as the caller and, for root, as an ordinary user.
pub fn run(session: &Session<'_>) -> Result<Outcome> {
    let mut counts = Counts::default();
    let mut failures = String::new();
    let mut documents = vec!["README.md".to_owned()];
    for entry in fs::read_dir(session.repo.root.join("docs/guides"))? {
        let name = entry?.file_name();
        documents.push(format!("docs/guides/{}", name.to_string_lossy()));
    }
    documents.sort();
    let who: &[As] = match (is_root(), session.no_user_sandboxes()?) {
        (true, None) => &[As::Caller, As::User],
        _ => &[As::Caller],
    };
    for who in who {
        for document in &documents {
            let blocks = blocks(&session.repo.read(document)?);
            if blocks.is_empty() {
                bail!("{document} has no `sh` block to run");
            }
            if blocks
                .iter()
                .any(|b| b.lines().any(|l| l.starts_with("etcd ")))
                && !has("etcd")
            {
                counts.skipped += 1;
                continue;
            }
            let ended = script(session, &blocks.join("\n"), session.account(*who))?;
            match ended {
                None => counts.passed += 1,
                Some(output) => {
                    counts.failed += 1;
                    let user = if *who == As::User { " as a user" } else { "" };
                    failures.push_str(&format!("{document}{user}:\n{output}\n"));
                }
            }
        }
    }
    Ok(Outcome::Ran {
        counts,
        ok: failures.is_empty(),
        output: failures,
    })
}

/// Whether a program that a document calls is here; without it the document is left out, and counted so.
fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Runs a script in a fresh home; answers what it printed if it failed.
fn script(session: &Session<'_>, text: &str, uid: Option<u32>) -> Result<Option<String>> {
    let stage = session.stage()?;
    let home = session.home(uid)?;
    let (bin, work) = (home.join("bin"), home.join("work"));
    fs::create_dir(&bin)?;
    fs::create_dir(&work)?;
    chown(&work, uid, uid)?;
    fs::write(bin.join("cargo"), CARGO)?;
    fs::set_permissions(bin.join("cargo"), fs::Permissions::from_mode(0o755))?;
    symlink(stage.join("examples"), work.join("examples"))?;
    let script = home.join("script.sh");
    fs::write(&script, format!("{PRELUDE}{text}"))?;
    let path = std::env::join_paths([bin, stage].into_iter().chain(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    )))?;
    let mut command = as_uid(uid, &script);
    command.current_dir(&work).env("PATH", path);
    at_home(&mut command, &home);
    // Root would keep its state in /var/lib otherwise, and find that of an earlier run there.
    command.env("XDG_STATE_HOME", home.join(".local/state"));
    let ended = session.run(&mut command).context("running a script")?;
    Ok((!ended.ok).then_some(ended.output))
}

fn as_uid(uid: Option<u32>, script: &Path) -> Command {
    let mut command = match uid {
        None => Command::new("bash"),
        Some(uid) => {
            let id = uid.to_string();
            let mut command = Command::new("setpriv");
            command.args([
                "--reuid",
                &id,
                "--regid",
                &id,
                "--clear-groups",
                "--",
                "bash",
            ]);
            command
        }
    };
    command.arg("-x").arg(script);
    command
}

fn blocks(markdown: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in markdown.lines() {
        match &mut open {
            None if line == "```sh" => open = Some((true, String::new())),
            None if line == "```yaml" => open = Some((false, String::new())),
            None if line == SERVER_LINE => blocks.push(SERVER.to_owned()),
            None => {}
            Some(_) if line == "```" => blocks.extend(
                open.take()
                    .and_then(|(sh, text)| if sh { Some(text) } else { file(&text) }),
            ),
            Some((_, text)) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    blocks
}

/// What writes a file whose name is in its first line.
fn file(text: &str) -> Option<String> {
    let name = text.lines().next()?.strip_prefix("# ")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (name.ends_with(".yaml") && name.chars().all(plain))
        .then(|| format!("cat > {name} <<'END_OF_FILE'\n{text}END_OF_FILE\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sh_blocks_named_files_and_the_server_are_taken() {
        let text = "a\n```sh\none\n```\n```yaml\ntwo: 2\n```\n```yaml\n# f.yaml\nx: 1\n```\n    prismd dev\n```sh\nthree\n```\n";
        let file = "cat > f.yaml <<'END_OF_FILE'\n# f.yaml\nx: 1\nEND_OF_FILE\n";
        assert_eq!(blocks(text), ["one\n", file, SERVER, "three\n"]);
    }
}
