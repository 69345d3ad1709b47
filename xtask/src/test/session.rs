//! One run of the tests: its scratch directory, what was built, and who runs a test program.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::build::{self, Built, TestProgram};
use super::report::{Counts, Outcome};
use crate::process::{self, Ended};
use crate::repo::Repo;

/// The account that `scripts/setup-test-host` makes; without it, the kernel's "nobody".
const ACCOUNT: &str = "prism-test";
const NOBODY: u32 = 65_534;

/// Longest time of a build, a lint or one test program.
pub const LIMIT: Duration = Duration::from_secs(1_500);

/// As whom a test program runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum As {
    /// As whoever runs xtask.
    Caller,
    /// As an ordinary user, also when root runs xtask.
    User,
}

/// One run of the tests.
pub struct Session<'a> {
    /// The checkout.
    pub repo: &'a Repo,
    built: Option<Arc<Built>>,
    scratch: PathBuf,
    times: Arc<Mutex<Vec<Took>>>,
}

/// What a test program took.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Took {
    /// From its start to its end.
    pub time: Duration,
    /// How busy the machine's processors were meanwhile, in percent.
    pub busy: u64,
    /// The program.
    pub program: String,
}

impl<'a> Session<'a> {
    /// Makes the scratch directory; it is removed at the end.
    pub fn new(repo: &'a Repo) -> Result<Self> {
        Self::at("px", repo, None, Arc::default())
    }

    /// One of the same build with a scratch directory of its own, for what runs at the same time.
    pub fn beside(&self) -> Result<Self> {
        Self::at("py", self.repo, self.built.clone(), self.times.clone())
    }

    fn at(
        prefix: &str,
        repo: &'a Repo,
        built: Option<Arc<Built>>,
        times: Arc<Mutex<Vec<Took>>>,
    ) -> Result<Self> {
        // Short, because sockets lie in it and their paths may have 107 bytes.
        let scratch = std::env::temp_dir().join(format!("{prefix}{}", std::process::id()));
        fs::create_dir(&scratch).with_context(|| format!("creating {scratch:?}"))?;
        fs::set_permissions(&scratch, fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            repo,
            built,
            scratch,
            times,
        })
    }

    /// Builds everything.
    pub fn build(&mut self) -> Result<Outcome> {
        let ended = self.run(self.repo.cargo().args(build::ARGS))?;
        if ended.ok {
            self.built = Some(Arc::new(build::read(&ended.output)?));
        }
        let output = without_json(&ended.output);
        Ok(Outcome::Ran {
            counts: Counts::default(),
            ok: ended.ok,
            output,
        })
    }

    /// Whether the build is there.
    pub fn is_built(&self) -> bool {
        self.built.is_some()
    }

    /// What was built.
    pub fn built(&self) -> Result<&Built> {
        self.built.as_deref().context("nothing is built")
    }

    /// Runs any command to its end.
    pub fn run(&self, command: &mut Command) -> Result<Ended> {
        self.run_within(command, LIMIT)
    }

    /// Runs any command to its end, at most so long.
    pub fn run_within(&self, command: &mut Command, limit: Duration) -> Result<Ended> {
        process::run(command, &self.scratch, limit)
    }

    /// Runs a command as a check that is not made of tests.
    pub fn check(&self, command: &mut Command) -> Result<Outcome> {
        let ended = self.run(command)?;
        Ok(Outcome::Ran {
            counts: Counts::of(&ended.output),
            ok: ended.ok,
            output: ended.output,
        })
    }

    /// Runs test programs one after the other, each with a home of its own.
    pub fn tests(&self, programs: &[&TestProgram], who: As) -> Result<Outcome> {
        let mut counts = Counts::default();
        let mut failures = String::new();
        for program in programs {
            let before = processors();
            let ended = self.test(program, who)?;
            let user = if who == As::User { " (user)" } else { "" };
            let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
            times.push(Took {
                time: ended.took,
                busy: busy(before, processors()),
                program: format!("{} {}{user}", program.package, program.target),
            });
            drop(times);
            counts = counts.plus(Counts::of(&ended.output));
            if !ended.ok {
                let TestProgram {
                    package, target, ..
                } = program;
                let seconds = ended.took.as_secs();
                let output = &ended.output;
                failures.push_str(&format!("{package} {target} ({seconds} s):\n{output}\n"));
            }
        }
        Ok(Outcome::Ran {
            counts,
            ok: failures.is_empty(),
            output: failures,
        })
    }

    /// The programs that took longest, and how long that was.
    pub fn slowest(&self, most: usize) -> Vec<Took> {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let mut times = times.clone();
        times.sort_by(|a, b| b.cmp(a));
        times.truncate(most);
        times
    }

    fn test(&self, program: &TestProgram, who: As) -> Result<Ended> {
        let binaries = &self.built()?.binaries;
        let mut command = match self.account(who) {
            None => {
                let mut command = Command::new(&program.path);
                command
                    .current_dir(&program.directory)
                    .env("CARGO_MANIFEST_DIR", &program.directory)
                    .env("PRISM_BIN_DIR", binaries)
                    .env("PRISM_REPO_DIR", &self.repo.root);
                command
            }
            Some(uid) => self.staged(program, uid)?,
        };
        let home = self.home(self.account(who))?;
        // The sandbox's own tests repeat themselves as an ordinary user unless told that this is done by a group.
        command
            .arg("--quiet")
            .env("PRISM_TEST_ROOT_ONLY", "1")
            .env_remove("CARGO");
        at_home(&mut command, &home);
        self.run(&mut command)
    }

    /// A directory with the programs and the examples that every account may read.
    pub fn stage(&self) -> Result<PathBuf> {
        let stage = self.scratch.join("stage");
        if !stage.exists() {
            let binaries = &self.built()?.binaries;
            fs::create_dir(&stage)?;
            for name in ["prismd", "prismctl"] {
                fs::copy(binaries.join(name), stage.join(name))
                    .with_context(|| format!("copying {name}"))?;
            }
            let examples = self.repo.root.join("examples");
            let copied = self.run(Command::new("cp").arg("-r").arg(examples).arg(&stage))?;
            if !copied.ok {
                bail!("copying the examples: {}", copied.output);
            }
        }
        Ok(stage)
    }

    /// The command for another account, with everything it needs copied to where that account may read.
    fn staged(&self, program: &TestProgram, uid: u32) -> Result<Command> {
        let stage = self.stage()?;
        let own = stage.join(
            program
                .path
                .file_name()
                .context("a program without a name")?,
        );
        if !own.exists() {
            fs::copy(&program.path, &own)?;
        }
        let id = uid.to_string();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"])
            .arg(&own)
            .current_dir(&stage)
            .env("CARGO_MANIFEST_DIR", &stage)
            // The large array runs in full once, and shorter the second time.
            .env("PRISM_E2E_ARRAY", "20000")
            .env("PRISM_BIN_DIR", &stage)
            .env("PRISM_REPO_DIR", &stage);
        Ok(command)
    }

    /// A fresh home directory.
    pub fn home(&self, uid: Option<u32>) -> Result<PathBuf> {
        let home = self.scratch.join("home");
        if home.exists() {
            fs::remove_dir_all(&home).with_context(|| format!("emptying {home:?}"))?;
        }
        fs::create_dir_all(home.join("tmp"))?;
        for path in [home.clone(), home.join("tmp")] {
            // Some tests of root repeat themselves as another user, who has to get through here.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
            chown(&path, uid, uid)?;
        }
        Ok(home)
    }

    /// The account to change to, if a change is needed.
    pub fn account(&self, who: As) -> Option<u32> {
        (who == As::User && is_root()).then(|| {
            let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
            accounts
                .lines()
                .find_map(|l| {
                    l.strip_prefix(ACCOUNT)?
                        .strip_prefix(":")?
                        .split(':')
                        .nth(1)
                })
                .and_then(|uid| uid.parse().ok())
                .unwrap_or(NOBODY)
        })
    }

    /// Why an ordinary user's sandboxes cannot work here, if they cannot.
    pub fn no_user_sandboxes(&self) -> Result<Option<String>> {
        let mut command = match self.account(As::User) {
            None => Command::new("unshare"),
            Some(uid) => {
                let id = uid.to_string();
                let mut command = Command::new("setpriv");
                command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "unshare"]);
                command
            }
        };
        command.args(["--user", "--map-root-user", "--mount", "true"]);
        Ok(match self.run(&mut command) {
            Ok(ended) if ended.ok => None,
            Ok(ended) => Some(format!(
                "no user namespaces for an ordinary user ({})",
                ended.output.trim()
            )),
            Err(e) => Some(format!("{e:#}")),
        })
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.scratch) {
            eprintln!("xtask: {:?} was not removed: {e}", self.scratch);
        }
    }
}

/// Whether xtask runs as root.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

/// Lets a command find only this home and temporary directory.
pub fn at_home(command: &mut Command, home: &Path) {
    for name in [
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_STATE_HOME",
        "XDG_CACHE_HOME",
        "XDG_RUNTIME_DIR",
        "PRISM_CONTEXT",
        "PRISM_API",
        "PRISM_TOKEN",
    ] {
        command.env_remove(name);
    }
    command.env("HOME", home).env("TMPDIR", home.join("tmp"));
}

/// Ticks of all processors since the machine started: idle ones, and all.
fn processors() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    let ticks = first.split_whitespace().skip(1).take(8);
    let ticks: Vec<u64> = ticks.filter_map(|t| t.parse().ok()).collect();
    let idle = ticks.iter().skip(3).take(2).sum();
    (idle, ticks.iter().sum())
}

fn busy(before: (u64, u64), after: (u64, u64)) -> u64 {
    let (idle, all) = (after.0 - before.0, after.1 - before.1);
    (100 * all.saturating_sub(idle))
        .checked_div(all)
        .unwrap_or(0)
}

fn without_json(output: &str) -> String {
    let lines: Vec<&str> = output.lines().filter(|l| !l.starts_with('{')).collect();
    lines.join("\n")
}
