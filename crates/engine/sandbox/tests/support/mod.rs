//! What the runtime's tests share: a main that can be supervisor or daemon, a runner, and a runtime in a directory of its own.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use prism_runtime::{Exec, Image, Isolation, Launch, Limits, Program, RunEvent, Runtime, Scratch};
use prism_sandbox::{Config, ProcessRuntime};
use prism_types::{Bytes, MilliCpu, RunId, RunReport, TimeMs};

/// A test: its name and what it does.
pub type Case = (&'static str, fn());

/// Longest that any test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A user that owns nothing on any host.
const NOBODY: u32 = 65_534;

/// Runs the cases in this process, each in turn; as root first, then all over again as a normal user in a second process.
pub fn run(suite: &str, cases: &[Case], root_only: &[&str]) {
    prism_sandbox::maybe_supervise();
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|a| a == "--list") {
        for (name, _) in cases {
            println!("{name}: test");
        }
        return;
    }
    let wanted: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
    let root = is_root();
    let who = if root { "root" } else { "user" };
    let mut failed = Vec::new();
    for (name, case) in cases {
        let chosen = wanted.is_empty() || wanted.iter().any(|w| name.contains(w.as_str()));
        if !chosen || !root && root_only.contains(name) {
            continue;
        }
        let since = Instant::now();
        let ok = std::panic::catch_unwind(case).is_ok();
        let verdict = if ok { "ok" } else { "FAILED" };
        println!(
            "test {suite}::{name} ({who}) ... {verdict} {:?}",
            since.elapsed()
        );
        if !ok {
            failed.push(*name);
        }
    }
    let mut bad = !failed.is_empty();
    if root && std::env::var_os("PRISM_TEST_ROOT_ONLY").is_none() {
        bad |= !again_as_user(&args);
    }
    if bad {
        println!("failed as {who}: {failed:?}");
        std::process::exit(1);
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The same tests as a normal user, from a copy of this program that such a user may run.
fn again_as_user(args: &[String]) -> bool {
    let dir = tempfile::Builder::new()
        .prefix("prism-user-")
        .tempdir_in("/tmp")
        .unwrap();
    std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let copy = dir.path().join("tests");
    std::fs::copy("/proc/self/exe", &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut child = Command::new(&copy)
        .args(args)
        .env("TMPDIR", dir.path())
        .env("HOME", dir.path())
        .current_dir(dir.path())
        .uid(NOBODY)
        .gid(NOBODY)
        .process_group(0)
        .spawn()
        .unwrap();
    child.wait().unwrap().success()
}

/// A runtime in a directory of its own, and all it has told. Shut down at the end.
pub struct Node {
    pub dir: PathBuf,
    pub runtime: Option<Arc<ProcessRuntime>>,
    told: Arc<Told>,
    keep: Option<tempfile::TempDir>,
}

#[derive(Default)]
struct Told {
    events: Mutex<Vec<RunEvent>>,
    more: Condvar,
}

impl Node {
    pub fn new() -> Self {
        let keep = tempfile::Builder::new()
            .prefix("prism-node-")
            .tempdir()
            .unwrap();
        let mut node = Self::at(keep.path().to_owned());
        node.keep = Some(keep);
        node
    }

    pub fn at(dir: PathBuf) -> Self {
        let mut node = Self {
            dir,
            runtime: None,
            told: Arc::default(),
            keep: None,
        };
        node.open();
        node
    }

    /// Opens the runtime (again), with a new memory of events.
    pub fn open(&mut self) {
        self.told = Arc::default();
        let told = Arc::clone(&self.told);
        let sink = Box::new(move |events: Vec<RunEvent>| {
            told.events.lock().unwrap().extend(events);
            told.more.notify_all();
        });
        let mut config = Config::new(self.dir.join("run"), sink);
        config.idle_exit = Duration::from_secs(5);
        self.runtime = Some(ProcessRuntime::open(config).unwrap());
    }

    pub fn rt(&self) -> &ProcessRuntime {
        self.runtime.as_ref().unwrap()
    }

    /// Waits until `find` finds something in all that was told.
    pub fn wait<T>(&self, what: &str, mut find: impl FnMut(&[RunEvent]) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        let mut events = self.told.events.lock().unwrap();
        loop {
            if let Some(found) = find(&events) {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited too long for {what}: {events:?}");
            events = self.told.more.wait_timeout(events, left).unwrap().0;
        }
    }

    pub fn events(&self) -> Vec<RunEvent> {
        self.told.events.lock().unwrap().clone()
    }

    pub fn wait_exit(&self, id: &RunId) -> RunReport {
        self.wait(&format!("the end of {id}"), |events| {
            events.iter().find_map(|e| match e {
                RunEvent::Exited { id: i, report } if i == id => Some(report.clone()),
                _ => None,
            })
        })
    }

    pub fn wait_start(&self, id: &RunId) -> u32 {
        self.wait(&format!("the start of {id}"), |events| {
            events.iter().find_map(|e| match e {
                RunEvent::Started { id: i, pid, .. } if i == id => Some(*pid),
                RunEvent::Exited { id: i, report } if i == id => panic!("{i} ended: {report:?}"),
                _ => None,
            })
        })
    }

    /// A task that runs a command line, with a shell.
    pub fn task(&self, name: &str, isolation: Isolation, script: &str) -> Launch {
        let mut launch = self.sandbox(name);
        launch.isolation = isolation;
        launch.program = Some(self.program(isolation, &["/bin/sh", "-c", script]));
        launch
    }

    pub fn program(&self, isolation: Isolation, argv: &[&str]) -> Program {
        let cwd = match isolation {
            Isolation::Sandboxed => "/work".to_owned(),
            Isolation::Plain => self.dir.join("plain").to_string_lossy().into_owned(),
        };
        Program {
            argv: argv.iter().map(|a| (*a).to_owned()).collect(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            cwd,
            stdin: false,
            tty: None,
        }
    }

    pub fn sandbox(&self, name: &str) -> Launch {
        Launch {
            lanes: 0,
            lease: None,
            id: id(name),
            isolation: Isolation::Sandboxed,
            image: Image::Host,
            layers: Vec::new(),
            scratch: Scratch::Memory {
                bytes: Bytes(64 << 20),
            },
            program: None,
            files: Vec::new(),
            limits: Limits {
                cpu: MilliCpu(0),
                memory: Bytes(256 << 20),
                pids: 256,
                nofile: 1024,
                io_bytes_per_s: 0,
                timeout: None,
                log_bytes: 16 << 20,
            },
            hostname: "inside".into(),
            logs: self.logs(name),
        }
    }

    pub fn exec(&self, name: &str, inside: &str, argv: &[&str]) -> Exec {
        Exec {
            id: id(name),
            inside: id(inside),
            program: self.program(Isolation::Sandboxed, argv),
            timeout: None,
            logs: self.logs(name),
            log_bytes: 16 << 20,
        }
    }

    pub fn logs(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(name)
    }

    /// All that is kept of a stream.
    pub fn output(&self, name: &str, stream: &str) -> Vec<u8> {
        segments(&self.logs(name), stream)
            .values()
            .flat_map(|path| std::fs::read(path).unwrap())
            .collect()
    }

    pub fn stdout(&self, name: &str) -> String {
        String::from_utf8_lossy(&self.output(name, "stdout")).into_owned()
    }

    /// Waits until a run's standard output holds a text.
    pub fn wait_output(&self, name: &str, what: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.stdout(name).contains(what) {
            let out = self.stdout(name);
            assert!(Instant::now() < until, "no {what:?} in {out:?} of {name}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Runs a task to its end.
    pub fn run(&self, launch: Launch) -> RunReport {
        let id = launch.id.clone();
        self.rt().launch(vec![launch]).unwrap();
        self.wait_exit(&id)
    }

    /// The supervisor's process number.
    pub fn supervisor(&self) -> u32 {
        supervisor_of(&self.dir)
    }
}

/// Whether a process was forked by another one of the same command line.
fn is_copy(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let parent = status
        .lines()
        .find_map(|l| l.strip_prefix("PPid:"))
        .map(|l| l.trim().to_owned())
        .unwrap_or_default();
    let line = |pid: &str| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line(&parent) == line(&pid.to_string())
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown();
        }
    }
}

/// The time of day.
pub fn unix_now() -> TimeMs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    TimeMs(u64::try_from(since.unwrap().as_millis()).unwrap())
}

pub fn id(name: &str) -> RunId {
    RunId::new(name).unwrap()
}

/// Segment files of a stream by offset.
pub fn segments(dir: &Path, stream: &str) -> BTreeMap<u64, PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return BTreeMap::new();
    };
    entries
        .flatten()
        .filter_map(|e| {
            let name = e.file_name().into_string().ok()?;
            let offset = name.strip_prefix(stream)?.strip_prefix('.')?.parse().ok()?;
            Some((offset, e.path()))
        })
        .collect()
}

/// The supervisor of a node's directory, by its command line.
pub fn supervisor_of(dir: &Path) -> u32 {
    let dir = std::fs::canonicalize(dir.join("run")).unwrap();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let args: Vec<_> = line.split(|b| *b == 0).collect();
        let ours = args.get(1) == Some(&&b"supervise"[..])
            && args.get(2).is_some_and(|a| {
                std::fs::canonicalize(String::from_utf8_lossy(a).as_ref()).ok() == Some(dir.clone())
            });
        // Sandboxes' first processes are copies of the supervisor; it is the one that is nobody's copy.
        if ours && !is_copy(pid) {
            return pid;
        }
    }
    panic!("no supervisor of {}", dir.display());
}
