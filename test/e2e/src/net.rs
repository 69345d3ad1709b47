//! Machines that are network namespaces: held by a process that waits, wired by lines of shell, gone with the place that they are of.

use std::ffi::OsStr;
use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::place::Place;
use crate::program::Running;
use crate::wait::until;

/// Set, to the name of the test, for the process that a test is again in a namespace of its own.
const INSIDE: &str = "PRISM_TEST_INSIDE";

/// What the test of this name does in a network namespace of its own, in which nothing is up: it is run again there, by itself, and `inside`
/// answers its last words, which have to be heard here.
///
/// # Panics
/// When it fails there, or is not run.
pub fn inside_one(name: &str, inside: impl FnOnce() -> String) {
    const LAST: &str = "the test has come to its end: ";
    if std::env::var_os(INSIDE).is_some_and(|told| told == name) {
        println!("{LAST}{}", inside());
        return;
    }
    let me = std::env::current_exe().expect("this test is a program");
    let done = Command::new("unshare")
        .arg("--net")
        .arg(me)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, name)
        .output()
        .expect("unshare is part of every Debian");
    let out = String::from_utf8_lossy(&done.stdout);
    let err = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success() && out.contains(LAST),
        "{}: {out}{err}",
        done.status
    );
    print!("{out}");
}

/// A network namespace.
#[derive(Debug)]
pub struct Machine {
    holder: Running,
}

impl Machine {
    /// One without any device but its loopback, which is down. It ends with its place, or with the thread that made it.
    ///
    /// # Panics
    /// When there can be none.
    pub fn new(place: &Place) -> Self {
        let mut command = Command::new("unshare");
        command
            .args(["--net", "setpriv", "--pdeathsig", "KILL"])
            .args(["sleep", "14400"])
            .env("PLACE", place.path());
        let holder = place.launch(command);
        let own = fs::read_link("/proc/self/ns/net").expect("we have one");
        until("a namespace", || {
            let ns = fs::read_link(format!("/proc/{}/ns/net", holder.pid())).ok()?;
            (ns != own).then_some(())
        });
        Self { holder }
    }

    /// The process that holds it.
    pub fn pid(&self) -> u32 {
        self.holder.pid()
    }

    /// A command that is run in it, without an environment of its own.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid().to_string(), "-n", "--"]);
        command.arg(program);
        command
    }

    /// A program of Prism in it, which sees only this place.
    pub fn prism(&self, place: &Place, program: &str) -> Command {
        let inner = place.command(program);
        let mut command = self.command(inner.get_program());
        command
            .env_clear()
            .stdin(Stdio::null())
            .current_dir(place.work());
        for (key, value) in inner.get_envs() {
            if let Some(value) = value {
                command.env(key, value);
            }
        }
        command
    }

    /// Runs lines of shell in it; what they print.
    ///
    /// # Errors
    /// When one of them fails.
    pub fn shell(&self, lines: &str) -> Result<String> {
        let mut command = self.command("sh");
        command.args(["-euc", lines]);
        ended(command, lines)
    }
}

/// Runs lines of shell outside of the machines, with the process of each machine as a variable.
///
/// # Errors
/// When one of them fails.
pub fn wire(machines: &[(&str, &Machine)], lines: &str) -> Result<String> {
    let mut command = Command::new("sh");
    command.args(["-euc", lines]);
    for (name, machine) in machines {
        command.env(name, machine.pid().to_string());
    }
    ended(command, lines)
}

fn ended(mut command: Command, lines: &str) -> Result<String> {
    let done = command.output().context("there is a shell")?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{lines}: {said}");
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
