//! `prism-chaos`: one run, as root, in a network namespace of its own. Prints a line for each fault and one JSON object at the end; ends
//! with 0 when all was well and shown, with 1 when not, with 2 when it could not be run.

#![forbid(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use prism_chaos::{Keeper, run};
use prism_e2e::chaos::Wanted;

/// Set for the process inside of the namespace.
const INSIDE: &str = "PRISM_CHAOS_INSIDE";

fn main() -> ExitCode {
    match inside()
        .and_then(|()| wanted())
        .and_then(|(wanted, keeper)| run(&wanted, keeper))
    {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("chaos: {e:#}");
            ExitCode::from(2)
        }
    }
}

/// Becomes the same program in a network namespace of its own, unless it is that already.
fn inside() -> Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    // What is wrong with the arguments is said before.
    wanted()?;
    ensure!(
        rustix::process::geteuid().is_root(),
        "it makes network namespaces and small disks, which root may: run it as root"
    );
    let me = std::env::current_exe().context("where this program is")?;
    let error = Command::new("unshare")
        .arg("--net")
        .arg(me)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    Err(error).context("starting unshare")
}

/// Ten minutes unless told otherwise, and longer until each kind of fault was given once; and what keeps the state (`--store`).
fn wanted() -> Result<(Wanted, Keeper)> {
    let mut keeper = Keeper::Raft;
    let mut rest = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let store = match arg.strip_prefix("--store") {
            Some("") => args.next(),
            Some(value) if value.starts_with('=') => Some(value[1..].to_owned()),
            _ => {
                rest.push(arg);
                continue;
            }
        };
        let store = store.unwrap_or_default();
        keeper = Keeper::named(&store)
            .with_context(|| format!("--store: expected raft or etcd, found {store:?}"))?;
    }
    Ok((Wanted::of(rest, 10)?, keeper))
}
