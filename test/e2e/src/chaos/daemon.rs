//! A `prismd` whose every start may fail, and whose parts are killed one by one.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::http::Api;
use crate::place::Place;
use crate::procs::{self, Process};
use crate::program::{Output, Running};
use crate::server::api_of;
use crate::wait::{LIMIT, until};

/// A daemon and the place where it lives.
#[derive(Debug)]
pub struct Daemon {
    // Dropped first, so that the place is quiet when it is removed.
    running: Option<Running>,
    api: Api,
    data: PathBuf,
    env: Vec<(String, OsString)>,
    /// Where it lives.
    pub place: Place,
}

impl Daemon {
    /// One that does not run yet.
    pub fn new() -> Self {
        let place = Place::new();
        Self {
            running: None,
            api: Api {
                address: String::new(),
                token: None,
            },
            data: place.data(),
            env: Vec::new(),
            place,
        }
    }

    /// The same with its data elsewhere.
    #[must_use]
    pub fn with_data(mut self, data: &Path) -> Self {
        self.data = data.to_owned();
        self
    }

    /// The same with a variable in its environment.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Where it keeps its data.
    pub fn data(&self) -> &Path {
        &self.data
    }

    fn launch(&self) -> Running {
        // What an earlier one wrote is of no use any more.
        let _ = fs::remove_file(self.contexts());
        let mut command = self.place.command("prismd");
        command
            .args(["dev", "--api=127.0.0.1:0", "--data-dir"])
            .arg(&self.data)
            .envs(self.env.iter().map(|(k, v)| (k, v)));
        self.place.launch(command)
    }

    fn contexts(&self) -> PathBuf {
        self.place.path().join("config/prism/contexts.toml")
    }

    /// Starts it and waits until it takes work.
    ///
    /// # Errors
    /// When it ends before, or does not take work in time; with what it printed.
    pub fn start(&mut self) -> Result<()> {
        let mut running = self.launch();
        let began = Instant::now();
        loop {
            if let Some(api) = self.ready() {
                self.api = api;
                self.running = Some(running);
                return Ok(());
            }
            if running.is_over() || began.elapsed() > LIMIT {
                bail!(
                    "prismd did not start: {}{}",
                    running.stdout(),
                    running.stderr()
                );
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn ready(&self) -> Option<Api> {
        let api = api_of(&fs::read_to_string(self.contexts()).ok()?)?;
        let health = api.try_send("GET", "/health", &[], b"").ok()?;
        let view: Value = serde_json::from_slice(&health.body).ok()?;
        (health.status == 200 && view["ready"] == true).then_some(api)
    }

    /// Starts it although it cannot be; what it said when it ended.
    ///
    /// # Panics
    /// When it does not end.
    pub fn start_refused(&self) -> Output {
        self.launch().wait(LIMIT)
    }

    /// Its API, with the token of the context that it wrote last.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Whether it runs.
    pub fn is_up(&mut self) -> bool {
        self.running.as_mut().is_some_and(|r| !r.is_over())
    }

    /// What it printed on standard error since its last start.
    pub fn stderr(&self) -> String {
        self.running
            .as_ref()
            .map(Running::stderr)
            .unwrap_or_default()
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it does not, or does not run.
    pub fn ended(&mut self) -> Output {
        self.running.take().expect("it runs").wait(LIMIT)
    }

    /// `kill -9` of the daemon alone.
    pub fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            procs::kill(running.pid());
            running.wait(LIMIT);
        }
    }

    /// Its supervisor.
    ///
    /// # Panics
    /// When there is none for a long time.
    pub fn supervisor(&self) -> Process {
        until("a supervisor", || procs::supervisor(&self.data))
    }

    /// `kill -9` of the supervisor alone; what it ran at that moment.
    ///
    /// # Panics
    /// When there is none, or it does not die.
    pub fn kill_supervisor(&self) -> Vec<Process> {
        let supervisor = self.supervisor();
        let orphans = procs::beneath(supervisor.pid);
        procs::kill(supervisor.pid);
        until("the supervisor's death", || {
            (!supervisor.is_alive()).then_some(())
        });
        orphans
    }

    /// Asks it to end in order.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop(&mut self) -> Result<Output> {
        let running = self.running.take().context("it runs")?;
        running.signal(Signal::TERM);
        Ok(running.wait(LIMIT))
    }
}

impl Default for Daemon {
    fn default() -> Self {
        Self::new()
    }
}
