//! The process of a member, which may be gone at any moment.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use prism_e2e::{Place, Process, Running, kill};
use rustix::process::Signal;

/// How long a process may take to end.
const WAIT: Duration = Duration::from_secs(60);

/// A program under the name of its member.
#[derive(Debug)]
pub struct Program {
    running: Option<Running>,
    name: String,
}

impl Program {
    /// One that does not run yet.
    pub fn new(name: String) -> Self {
        Self {
            running: None,
            name,
        }
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it runs already.
    pub fn start(&mut self, place: &Place, command: std::process::Command) -> Result<()> {
        ensure!(!self.is_up(), "{} runs already", self.name);
        self.running = Some(place.launch(command));
        Ok(())
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Running::pid)
    }

    /// Whether it runs.
    pub fn is_up(&mut self) -> bool {
        self.running.as_mut().is_some_and(|r| !r.is_over())
    }

    /// Complains when it has ended by itself.
    ///
    /// # Errors
    /// Then, with what it said.
    pub fn assert_runs(&mut self) -> Result<()> {
        if self.running.is_none() || self.is_up() {
            return Ok(());
        }
        let said = self.printed();
        let tail = said.get(said.len().saturating_sub(2_000)..);
        bail!(
            "{} has ended by itself:\n{}",
            self.name,
            tail.unwrap_or(&said)
        )
    }

    /// Sends it a signal, if it runs.
    pub fn signal(&self, signal: Signal) {
        if let Some(running) = &self.running {
            running.signal(signal);
        }
    }

    /// `kill -9`, of the process alone; whether it ran.
    pub fn kill(&mut self) -> bool {
        let Some(running) = self.running.take() else {
            return false;
        };
        let there = Process::of(running.pid()).is_some();
        kill(running.pid());
        running.wait(WAIT);
        there
    }

    /// Takes its end: what it said until then. `None` when it was not started.
    pub fn end(&mut self) -> Option<prism_e2e::Output> {
        Some(self.running.take()?.wait(WAIT))
    }

    /// What it has printed on standard error since its last start.
    pub fn printed(&self) -> String {
        let said = self.running.as_ref().map(Running::stderr);
        said.unwrap_or_default()
    }
}
