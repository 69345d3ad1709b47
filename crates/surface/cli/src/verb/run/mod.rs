//! `run FILE`: a job or sweep from its file to its result, on the server that is known or on an embedded node.

mod drive;
mod embedded;
mod home;
mod result;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use prism_spec::Submission;
use sha2::{Digest, Sha256};

use super::job::interruptible;
use crate::exit::{Done, Exit, Failure};
use crate::output::Out;
use crate::server::Server;
use crate::settings::{Globals, Target};
use crate::spec_file;
use drive::Drive;
use home::Home;

/// Run a job or sweep file and print its result; needs no server.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  prismctl run examples/digits/sweep.yaml
  prismctl run examples/digits/sweep.yaml -o json > result.json
  prismctl run examples/hello-job/job.yaml

It runs on the server of the current context if there is one, otherwise on a
node of its own in this process, which keeps its data in
$XDG_STATE_HOME/prism/run and leaves nothing running. Interrupted or killed at
any moment, the same command goes on where it stood, and each task's result is
recorded once. What counts is the content of the file and of the files it names:
when that changes, it is another run.

Exit codes: 0 all went well, 3 some tasks failed, 1 it failed, 130 interrupted
(and saved).")]
pub struct RunArgs {
    /// Job or sweep file in YAML, JSON or TOML; `-` is standard input
    file: PathBuf,
    /// Start anew, even if a run of the same file is unfinished
    #[arg(long)]
    new: bool,
    /// Run on this machine, even if a server is known
    #[arg(long)]
    local: bool,
}

/// How long a server that may well be gone is given to answer.
const PROBE: Duration = Duration::from_secs(3);

/// Runs it.
///
/// # Errors
/// When the file is wrong, the server or node cannot be used, or the output cannot be written.
pub async fn run(args: &RunArgs, globals: &Globals, out: &Out) -> Done {
    let mut submission = spec_file::submission(&args.file)?;
    let target = if args.local { None } else { globals.target()? };
    let namespace = target
        .as_ref()
        .and_then(|t| t.namespace.clone())
        .or(globals.namespace.clone());
    spec_file::place(&mut submission, namespace.as_ref());
    let digest = digest(&submission);
    let home = Home::of(&digest)?;
    let place = match target {
        Some(target) if target.named || !home.is_unfinished() => {
            reachable(target, globals, out).await?
        }
        // What was begun here goes on here.
        _ => None,
    };
    match place {
        Some(server) => on_server(&server, &submission, &digest, args.new, out).await,
        None => here(&home, &submission, &digest, args, out).await,
    }
}

/// What a run is recognised by: everything that is submitted, contents of files included.
fn digest(submission: &Submission) -> String {
    let hash = Sha256::digest(submission.to_wire().to_string());
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

/// The server, or nothing when it is the throw-away node of `prismd dev` and that is gone.
async fn reachable(
    target: Target,
    globals: &Globals,
    out: &Out,
) -> Result<Option<Server>, Failure> {
    let probe = Server::new(&target, globals.patience().min(PROBE), out)?;
    match probe.client().health().await {
        Ok(_) => Server::new(&target, globals.patience(), out).map(Some),
        Err(e) => {
            let failure = Failure::from(e);
            if failure.exit() == Exit::Unreachable && target.may_be_gone() {
                out.note(&format!(
                    "the node of the context dev at {} is gone; running here instead",
                    target.api
                ));
                return Ok(None);
            }
            Err(failure.next("run it on this machine with --local, or start that server"))
        }
    }
}

async fn on_server(
    server: &Server,
    submission: &Submission,
    digest: &str,
    new: bool,
    out: &Out,
) -> Done {
    let drive = Drive {
        server,
        submission,
        digest,
        out,
        often: Duration::from_millis(500),
    };
    let id = drive.start(new, false).await?;
    match interruptible(drive.until_over(&id)).await? {
        Some(()) => result::show(server, submission, &id, out).await,
        None => {
            out.note(&format!(
                "no longer watching; it goes on at {}. Watch it again with the same command; end it with: prismctl job cancel {id}",
                server.address()
            ));
            Ok(Exit::Interrupted)
        }
    }
}

async fn here(
    home: &Home,
    submission: &Submission,
    digest: &str,
    args: &RunArgs,
    out: &Out,
) -> Done {
    let lock = home.lock()?;
    let Some(node) = interruptible(embedded::start(home.data(), out)).await? else {
        out.note(&saved());
        return Ok(Exit::Interrupted);
    };
    let worked = interruptible(async {
        home.mark_unfinished(&args.file)?;
        let server = node.server(out)?;
        let drive = Drive {
            server: &server,
            submission,
            digest,
            out,
            often: Duration::from_millis(150),
        };
        let id = drive.start(args.new, true).await?;
        drive.until_over(&id).await?;
        result::show(&server, submission, &id, out).await
    })
    .await;
    // Asked a second time, it does not wait for the node to end in order: the data is safe without.
    let ended = interruptible(async {
        node.stop().await;
        Ok(())
    })
    .await?;
    match worked {
        Ok(Some(exit)) => {
            home.mark_finished()?;
            drop(lock);
            home.prune();
            Ok(exit)
        }
        Ok(None) => {
            out.note(&saved());
            Ok(Exit::Interrupted)
        }
        Err(e) => {
            if ended.is_some() && !e.is_quiet() {
                out.note("the run is kept; the same command goes on with it");
            }
            Err(e)
        }
    }
}

fn saved() -> String {
    format!(
        "interrupted; the run is saved. Go on with:\n  {}",
        resume_command(std::env::args())
    )
}

/// The command line as it was given, without `--new`, for a shell.
fn resume_command(args: impl Iterator<Item = String>) -> String {
    let words = args.filter(|a| a != "--new").map(|a| quoted(&a));
    words.collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resume_command_is_exact() {
        let args = [
            "prismctl",
            "run",
            "my file.yaml",
            "--new",
            "-o",
            "json",
            "it's",
        ];
        assert_eq!(
            resume_command(args.into_iter().map(str::to_owned)),
            "prismctl run 'my file.yaml' -o json 'it'\\''s'"
        );
    }

    #[test]
    fn a_digest_changes_with_the_content_of_any_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("job.yaml");
        std::fs::write(&path, "job: a\ncommand: [cat, in.txt]\nfiles: [in.txt]\n").unwrap();
        let mut seen = Vec::new();
        for content in ["one", "one", "two"] {
            std::fs::write(dir.path().join("in.txt"), content).unwrap();
            seen.push(digest(&spec_file::submission(&path).unwrap()));
        }
        assert_eq!(seen[0], seen[1]);
        assert_ne!(seen[1], seen[2]);
        assert_eq!(seen[0].len(), 64);
    }
}
