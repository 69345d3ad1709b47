//! A program that runs, with its output in files, and what it printed when it ended.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::procs;
use crate::wait::until_within;

/// A program that runs in a process group of its own. Dropping it kills the group.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
    stdout: PathBuf,
    stderr: PathBuf,
    over: Option<ExitStatus>,
}

/// How a program ended, and what it printed.
#[derive(Clone, Debug)]
pub struct Output {
    /// What was run.
    pub name: String,
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Running {
    /// Starts it; `files` is a path that `.out` and `.err` are added to.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command, files: PathBuf) -> Result<Self> {
        let name = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_string_lossy().chars().take(200).collect::<String>())
            .collect::<Vec<_>>()
            .join(" ");
        let (stdout, stderr) = (files.with_extension("out"), files.with_extension("err"));
        let child = command
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self {
            child,
            name,
            stdout,
            stderr,
            over: None,
        })
    }

    /// Its process id, which is also its group's.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    ///
    /// # Panics
    /// When the kernel does not say.
    pub fn is_over(&mut self) -> bool {
        if self.over.is_none() {
            self.over = self
                .child
                .try_wait()
                .expect("our own child can be waited for");
        }
        self.over.is_some()
    }

    /// What it has printed on standard output so far.
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// What it has printed on standard error so far.
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// Kills its process group at once and waits for it.
    ///
    /// # Panics
    /// When it does not end.
    pub fn kill_group(&mut self) {
        procs::kill_group(self.pid());
        self.waited(Duration::from_secs(30));
    }

    /// Asks it to end, as Ctrl-C or a service manager does.
    pub fn signal(&self, signal: rustix::process::Signal) {
        if let Some(pid) = i32::try_from(self.pid())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            // It may have ended by itself meanwhile.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end in time; its output is in the message.
    pub fn wait(mut self, limit: Duration) -> Output {
        let status = self.waited(limit);
        Output {
            name: self.name.clone(),
            code: status.code(),
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }

    fn waited(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until_within(limit, &what, || {
                self.is_over().then_some(self.over).flatten()
            })
        }));
        ended.unwrap_or_else(|_| {
            panic!(
                "{what} did not come; it printed\n{}\n{}",
                self.stdout(),
                self.stderr()
            )
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_over() {
            procs::kill_group(self.pid());
            // Nothing is left to do about a child that cannot be waited for.
            let _ = self.child.wait();
        }
    }
}

impl Output {
    /// The same, when it ended with this code.
    ///
    /// # Panics
    /// When it did not; all it printed is in the message.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        let Self {
            name,
            stdout,
            stderr,
            ..
        } = &self;
        assert_eq!(self.code, Some(code), "{name}\n{stdout}\n{stderr}");
        self
    }

    /// Its standard output as JSON.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| {
            panic!(
                "{}: no JSON ({e}):\n{}\n{}",
                self.name, self.stdout, self.stderr
            )
        })
    }

    /// Its standard output as JSON values, one or many.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn json_or_lines(&self) -> Vec<Value> {
        serde_json::Deserializer::from_str(&self.stdout)
            .into_iter()
            .map(|v| v.unwrap_or_else(|e| panic!("{}: no JSON ({e}): {}", self.name, self.stdout)))
            .collect()
    }
}

fn text(path: &PathBuf) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
