//! `prism-chaos`: one run, as root, in a network namespace of its own. Prints a line for each fault and one JSON object at the end; ends
//! with 0 when all was well and shown, with 1 when not, with 2 when it could not be run.

#![forbid(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use prism_chaos::{Keeper, Wanted, run};

/// Set for the process inside of the namespace.
const INSIDE: &str = "PRISM_CHAOS_INSIDE";

fn main() -> ExitCode {
    match inside()
        .and_then(|()| parse())
        .and_then(|wanted| run(&wanted))
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
    parse()?;
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

fn parse() -> Result<Wanted> {
    let mut wanted = Wanted::default();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (arg, args.next()),
        };
        let value = value.with_context(|| format!("{name} expects a value"))?;
        let number = || {
            let number = value.parse::<u64>();
            number.with_context(|| format!("{name}: expected a number, found {value:?}"))
        };
        match name.as_str() {
            "--minutes" => wanted.minutes = number()?,
            "--seed" => wanted.seed = Some(number()?),
            "--store" => {
                let keeper = Keeper::named(&value);
                wanted.keeper = keeper
                    .with_context(|| format!("{name}: expected raft or etcd, found {value:?}"))?;
            }
            _ => bail!("no argument {name:?}: expected --minutes N, --seed S, --store raft|etcd"),
        }
    }
    ensure!(wanted.minutes > 0, "--minutes: expected at least 1");
    Ok(wanted)
}
