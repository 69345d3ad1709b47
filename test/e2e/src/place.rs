//! A temporary directory that is all that the programs of a test see of the machine: home, configuration, state, data.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::procs;
use crate::program::{Output, Running};
use crate::wait::{LIMIT, until_within};

/// A place for programs. Dropping it ends every process that was started in it and removes it; after a failed test the
/// logs are printed first.
#[derive(Debug)]
pub struct Place {
    directory: TempDir,
    count: AtomicU32,
}

impl Place {
    /// Makes one.
    ///
    /// # Panics
    /// When the temporary directory cannot be written.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("pe")
            .tempdir()
            .expect("the temporary directory can be written");
        for name in [
            "home", "config", "state", "cache", "run", "data", "work", "logs", "tmp",
        ] {
            fs::create_dir(directory.path().join(name)).expect("a fresh directory can be filled");
        }
        Self {
            directory,
            count: AtomicU32::new(0),
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A directory for the test's own files; programs run in it.
    pub fn work(&self) -> PathBuf {
        self.path().join("work")
    }

    /// Where `prismd` keeps its data.
    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Writes a file of the test's own and answers its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.work().join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("our own directory can be written");
        }
        fs::write(&path, content).expect("our own directory can be written");
        path.to_string_lossy().into_owned()
    }

    /// A command of Prism that sees only this place.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(binaries().join(program));
        let at = |name: &str| self.path().join(name);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", at("home"))
            .env("TMPDIR", at("tmp"))
            .env("XDG_CONFIG_HOME", at("config"))
            .env("XDG_DATA_HOME", at("data"))
            .env("XDG_STATE_HOME", at("state"))
            .env("XDG_CACHE_HOME", at("cache"))
            .env("XDG_RUNTIME_DIR", at("run"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .current_dir(self.work());
        command
    }

    /// Starts a program of Prism.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(&self, program: &str, args: &[&str]) -> Running {
        let mut command = self.command(program);
        command.args(args);
        self.launch(command)
    }

    /// Starts a prepared command.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn launch(&self, command: Command) -> Running {
        let n = self.count.fetch_add(1, Ordering::Relaxed);
        Running::start(command, self.path().join("logs").join(n.to_string()))
            .unwrap_or_else(|e| panic!("{e:#}"))
    }

    /// Runs `prismctl` to its end.
    ///
    /// # Panics
    /// When it does not end in time.
    #[track_caller]
    pub fn ctl(&self, args: &[&str]) -> Output {
        self.start("prismctl", args).wait(LIMIT)
    }

    /// Runs `prismctl` to its end with this as its standard input.
    ///
    /// # Panics
    /// When it does not end in time.
    #[track_caller]
    pub fn ctl_with(&self, input: &[u8], args: &[&str]) -> Output {
        let path = self.write("input", input);
        let file = fs::File::open(path).expect("it was just written");
        let mut command = self.command("prismctl");
        command.args(args).stdin(file);
        self.launch(command).wait(LIMIT)
    }

    /// Every process that was started here and still runs, as text.
    pub fn processes(&self) -> Vec<String> {
        procs::of(self.path())
            .into_iter()
            .map(procs::describe)
            .collect()
    }

    /// Kills every process that was started here, supervisors and sandboxes included, and waits until they are gone.
    ///
    /// # Panics
    /// When they are not.
    pub fn kill_all(&self) {
        until_within(Duration::from_secs(30), "the end of what ran", || {
            let left = procs::of(self.path());
            left.iter().copied().for_each(procs::kill);
            left.is_empty().then_some(())
        });
    }

    /// Everything that the programs printed, for messages.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        let mut files = Vec::new();
        collect(&self.path().join("logs"), &mut files);
        collect(&self.data(), &mut files);
        collect(&self.path().join("state"), &mut files);
        files.sort();
        for path in files {
            let is_log = path.extension().is_some_and(|e| e == "err" || e == "log");
            let content = fs::read(&path).unwrap_or_default();
            if is_log && !content.is_empty() {
                let tail = &content[content.len().saturating_sub(4_000)..];
                text.push_str(&format!(
                    "== {}\n{}\n",
                    path.display(),
                    String::from_utf8_lossy(tail)
                ));
            }
        }
        text
    }

    /// Fails when a program of Prism panicked here.
    ///
    /// # Panics
    /// Then.
    #[track_caller]
    pub fn assert_no_panic(&self) {
        let logs = self.logs();
        assert!(!logs.contains("panicked at"), "{logs}");
    }

    /// Where a file of the repository is, such as `examples/digits/sweep.yaml`.
    pub fn repo(path: &str) -> String {
        let root = std::env::var_os("PRISM_REPO_DIR").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")),
            PathBuf::from,
        );
        root.join(path).to_string_lossy().into_owned()
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.kill_all()));
        if ended.is_err() && !std::thread::panicking() {
            panic!("these could not be ended: {:?}", self.processes());
        }
        unmount(self.path());
    }
}

/// Detaches what is still mounted beneath a directory, so that it can be removed.
fn unmount(directory: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let prefix = directory.to_string_lossy();
    for line in mounts.lines().rev() {
        let target = line.split(' ').nth(1).unwrap_or_default();
        if target.starts_with(&*prefix) {
            // Removing the directory says so if this did not work.
            let _ = rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

fn collect(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(&entry.path(), into),
            Ok(kind) if kind.is_file() => into.push(entry.path()),
            _ => {}
        }
    }
}

/// Directory of the built binaries: `PRISM_BIN_DIR`, or where cargo put this test's neighbours.
fn binaries() -> PathBuf {
    found().unwrap_or_else(|e| panic!("{e:#}"))
}

fn found() -> Result<PathBuf> {
    if let Some(told) = std::env::var_os("PRISM_BIN_DIR") {
        return Ok(told.into());
    }
    let test = std::env::current_exe().context("where this test is")?;
    let release = test
        .parent()
        .and_then(Path::parent)
        .context("it lies in target/*/deps")?;
    anyhow::ensure!(
        release.join("prismd").exists(),
        "no prismd in {release:?}; build it first: cargo build --release"
    );
    Ok(release.to_owned())
}
