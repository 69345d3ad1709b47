//! One server or worker: its machine, its place, its small disk, and the process that may be gone at any moment.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use prism_e2e::chaos::{Shim, Tmpfs};
use prism_e2e::net::Machine;
use prism_e2e::{Leftovers, Output, Place, until};
use rustix::process::Signal;

use crate::program::Program;

/// Size of each disk, MiB.
const DISK: u32 = 96;

/// What a member is, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One of the servers.
    Server,
    /// A worker on the bridge.
    Worker,
    /// A worker behind the router.
    Far,
}

/// A server or a worker.
#[derive(Debug)]
pub struct Member {
    // Dropped in this order.
    /// Its process.
    pub program: Program,
    /// Its faults of disk; servers have it.
    pub shim: Option<Shim>,
    /// Its disk.
    pub disk: Tmpfs,
    /// Where it lives.
    pub place: Place,
    leftovers: Leftovers,
    /// Its network.
    pub machine: Machine,
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Where its packets seem to come from; the first is where it is reached.
    pub addresses: Vec<String>,
    /// What it is told at each start of what keeps the cluster's state.
    pub store: Vec<String>,
}

impl Member {
    /// One that does not run yet.
    ///
    /// # Errors
    /// When it cannot have its disk.
    pub fn new(kind: Kind, name: String, addresses: Vec<String>, machine: Machine) -> Result<Self> {
        let place = Place::new();
        let shim = match kind {
            Kind::Server => Some(Shim::new()?),
            Kind::Worker | Kind::Far => None,
        };
        Ok(Self {
            program: Program::new(name.clone()),
            shim,
            // Not beneath the place: whoever has a copy of the mounts would be taken for a process of it.
            disk: Tmpfs::new(DISK)?,
            place,
            leftovers: Leftovers::default(),
            machine,
            kind,
            name,
            addresses,
            store: Vec::new(),
        })
    }

    /// Where it keeps its data.
    pub fn data(&self) -> PathBuf {
        self.disk.path().join("d")
    }

    /// Where its API is.
    pub fn url(&self) -> String {
        format!("https://{}:8008", self.addresses[0])
    }

    /// Starts it, with these arguments more at the first time.
    ///
    /// # Errors
    /// When it runs already.
    pub fn start(&mut self, first: &[&str]) -> Result<()> {
        let mut command = self.machine.prism(&self.place, "prismd");
        command
            .arg(format!("--name={}", self.name))
            .arg(format!("--data-dir={}", self.data().display()))
            .args(&self.store)
            .args(first);
        match self.kind {
            Kind::Server => {
                let at = &self.addresses[0];
                command.args([format!("--api={at}:8008"), format!("--serf={at}:4200")]);
            }
            Kind::Worker | Kind::Far => {
                command.arg("--role=worker");
            }
        }
        // Whoever has joined finds the others by itself, and the one that founds joins nobody.
        let founds = self.name == "s1";
        command.args(match founds {
            true => ["--bootstrap"].as_slice(),
            false => &["--join=10.73.0.1:4200,10.73.0.2:4200,10.73.0.3:4200"],
        });
        if let Some(shim) = &self.shim {
            command.envs(shim.env());
        }
        self.program.start(&self.place, command)
    }

    /// What it said at its end, when it has ended by itself.
    pub fn ended(&mut self) -> Option<Output> {
        if self.program.is_up() {
            return None;
        }
        self.program.end()
    }

    /// Stops it in order; it has to end well.
    ///
    /// # Errors
    /// When it does not, or does not run.
    pub fn stop(&mut self) -> Result<()> {
        self.leftovers.note(&self.place);
        self.program.signal(Signal::TERM);
        let output = self.program.end().context("it runs")?;
        ensure!(
            output.code == Some(0),
            "{} ended with {:?}: {}",
            self.name,
            output.code,
            output.stderr
        );
        Ok(())
    }

    /// No process, mount or control group of it is left, and it never panicked.
    ///
    /// # Errors
    /// What it printed with a panic, or a mount that stays.
    ///
    /// # Panics
    /// When something of it stays.
    pub fn assert_nothing_left(self) -> Result<()> {
        let printed = self.printed();
        let panicked = printed.find("panicked at");
        let around = panicked.map(|at| {
            let (from, to) = (at.saturating_sub(200), printed.len().min(at + 1_000));
            String::from_utf8_lossy(&printed.as_bytes()[from..to]).into_owned()
        });
        ensure!(around.is_none(), "{} panicked: {around:?}", self.name);
        // Its supervisor ends by itself when it has nothing to do, and needs its directory for that.
        until("its supervisor to end", || {
            self.place.processes().is_empty().then_some(())
        });
        let disk = self.disk.path().to_owned();
        drop(self.disk);
        self.leftovers.assert_none(&self.place);
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let still = mounts.contains(&*disk.to_string_lossy());
        ensure!(!still, "{} left a mount on {}", self.name, disk.display());
        Ok(())
    }

    /// All that it has printed, at all of its starts.
    pub fn printed(&self) -> String {
        let directory = self.place.path().join("logs");
        let mut files: Vec<PathBuf> = fs::read_dir(directory)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "err"))
            .collect();
        let number = |path: &PathBuf| -> u32 {
            let stem = path.file_stem().and_then(|s| s.to_str());
            stem.and_then(|s| s.parse().ok()).unwrap_or(0)
        };
        files.sort_by_key(number);
        let mut text = String::new();
        for path in files {
            text.push_str(&format!("== start {}\n", number(&path)));
            text.push_str(&String::from_utf8_lossy(
                &fs::read(path).unwrap_or_default(),
            ));
        }
        text
    }
}
