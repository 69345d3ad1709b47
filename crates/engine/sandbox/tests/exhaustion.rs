//! Runs that take all they can get, beside a neighbour: the neighbour gets on with its work, the node stays up, and the report of
//! the guilty names the limit that it hit. As root, and as a normal user with what such a one can limit.

#![expect(
    clippy::unwrap_used,
    reason = "tests with a main of their own; a panic is how they fail"
)]

#[expect(dead_code, reason = "shared with other tests, which use the rest")]
mod support;

use std::time::{Duration, Instant};

use prism_runtime::Isolation::Sandboxed;
use prism_runtime::{Launch, Runtime, Scratch};
use prism_types::{Bytes, ExitStatus, Millis, RunReport, StopCause};
use support::{Node, id, is_root};

/// Programs that the neighbour runs before, and at least that many meanwhile.
const NEIGHBOURLY: usize = 10;

/// No guilty run lives longer than this, whatever it does.
const LONGEST: Millis = Millis(120_000);

/// One that takes memory may come to its limit and not beyond; see `named_memory`.
const LONGEST_AT_LIMIT: Millis = Millis(10_000);

/// A node with a neighbour on it.
struct Street {
    node: Node,
    supervisor: u32,
    before: Vec<Duration>,
    count: usize,
}

impl Street {
    fn new() -> Self {
        let node = Node::new();
        let mut neighbour = node.sandbox("neighbour");
        neighbour.limits.pids = 64;
        node.rt().launch(vec![neighbour]).unwrap();
        node.wait_start(&id("neighbour"));
        let mut street = Self {
            supervisor: node.supervisor(),
            node,
            before: Vec::new(),
            count: 0,
        };
        street.before = (0..NEIGHBOURLY).map(|_| street.neighbourly()).collect();
        street
    }

    /// One program in the neighbour, which must do its work; how long it took.
    fn neighbourly(&mut self) -> Duration {
        self.count += 1;
        let name = format!("good-{}", self.count);
        let since = Instant::now();
        let exec = self.node.exec(&name, "neighbour", &["/bin/echo", "well"]);
        self.node.rt().exec(exec).unwrap();
        let report = self.node.wait_exit(&id(&name));
        assert_eq!(report.exit, ExitStatus::Code(0), "{report:?}");
        assert_eq!(self.node.stdout(&name), "well\n");
        let took = since.elapsed();
        // It works, it does not race: the processors are for the guilty.
        std::thread::sleep(Duration::from_millis(2));
        took
    }

    fn guilty(&self, python: &str) -> Launch {
        let mut launch = self.node.task("guilty", Sandboxed, "");
        let program = launch.program.as_mut().unwrap();
        program.argv = ["python3", "-c", python].map(str::to_owned).to_vec();
        launch.limits.pids = 64;
        launch.limits.memory = Bytes(64 << 20);
        launch.limits.nofile = 256;
        launch.limits.timeout = Some(LONGEST);
        launch
    }

    fn on_disk(&self, python: &str, bytes: u64) -> Launch {
        let mut launch = self.guilty(python);
        launch.scratch = Scratch::Disk {
            dir: self.node.dir.join("scratch"),
            bytes: Bytes(bytes),
        };
        launch
    }

    /// Runs the guilty to its end while the neighbour works on.
    fn endure(mut self, launch: Launch) -> (RunReport, String) {
        let guilty = launch.id.clone();
        self.node.rt().launch(vec![launch]).unwrap();
        let mut during = Vec::new();
        let over = |street: &Self| {
            let ended = |e: &prism_runtime::RunEvent| matches!(e, prism_runtime::RunEvent::Exited { id, .. } if *id == guilty);
            street.node.events().iter().any(ended)
        };
        while during.len() < NEIGHBOURLY || !over(&self) {
            during.push(self.neighbourly());
        }
        let report = self.node.wait_exit(&guilty);
        assert_eq!(
            self.node.supervisor(),
            self.supervisor,
            "another supervisor"
        );
        assert!(self.node.rt().usage(&id("neighbour")).is_ok());
        assert!(
            !self
                .node
                .events()
                .contains(&prism_runtime::RunEvent::Restarted)
        );
        let p99 = |times: &mut Vec<Duration>| {
            times.sort();
            times[(times.len() * 99 / 100).min(times.len() - 1)]
        };
        println!(
            "  neighbour's slowest of a hundred: {:?} before, {:?} meanwhile ({} programs); {:?}: {}",
            p99(&mut self.before),
            p99(&mut during),
            during.len(),
            report.cause,
            report.detail
        );
        let out = self.node.stdout("guilty");
        (report, out)
    }
}

/// Says how the guilty ended, when a check of it fails.
macro_rules! check {
    ($holds:expr, $run:expr) => {
        assert!($holds, "{}: {:?}", stringify!($holds), $run)
    };
}

fn fork_bomb() {
    let street = Street::new();
    let bomb = street.guilty(
        "import os, time
refused = 0
for _ in range(3000):
    try:
        if os.fork() == 0: time.sleep(60); os._exit(0)
    except OSError: refused += 1
print(refused, flush=True)
os._exit(3)",
    );
    let run = street.endure(bomb);
    check!(run.0.exit == ExitStatus::Code(3), run);
    check!(run.1.trim().parse::<u32>().unwrap() > 2000, run);
    check!(
        !is_root()
            || run
                .0
                .detail
                .contains("the limit of 64 processes and threads was hit"),
        run
    );
}

fn doubling_fork_bomb() {
    let street = Street::new();
    let mut bomb =
        street.guilty("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass");
    bomb.limits.timeout = Some(Millis(1_500));
    // Room for all of them: it is their number that is to hold it.
    bomb.limits.memory = Bytes(512 << 20);
    let run = street.endure(bomb);
    check!(run.0.cause == StopCause::Timeout, run);
    check!(
        !is_root() || run.0.detail.contains("the limit of 64 processes"),
        run
    );
}

fn threads() {
    let street = Street::new();
    let launch = street.guilty(
        "import threading, time, os
n = 0
try:
    while True: threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); n += 1
except RuntimeError: print(n, flush=True); os._exit(3)",
    );
    let run = street.endure(launch);
    check!(run.1.trim().parse::<u32>().unwrap() <= 66, run);
    check!(
        !is_root() || run.0.detail.contains("processes and threads was hit"),
        run
    );
}

fn zombies() {
    let street = Street::new();
    let launch = street.guilty(
        "import os
refused = 0
for _ in range(3000):
    try:
        if os.fork() == 0: os._exit(0)
    except OSError: refused += 1
print(refused); raise SystemExit(3)",
    );
    let run = street.endure(launch);
    check!(run.1.trim().parse::<u32>().unwrap() > 2000, run);
    check!(
        !is_root() || run.0.detail.contains("processes and threads was hit"),
        run
    );
}

/// Children of children that are gone fall to the sandbox's first process, which must bury them.
fn orphans() {
    let street = Street::new();
    let launch = street.guilty(
        "import os, time
for _ in range(1500):
    try: pid = os.fork()
    except OSError: time.sleep(0.001); continue
    if pid == 0:
        try: os.fork()
        except OSError: pass
        os._exit(0)
    os.waitpid(pid, 0)
time.sleep(0.2)
print(sum(p.isdigit() for p in os.listdir('/proc')))",
    );
    let run = street.endure(launch);
    check!(run.0.exit == ExitStatus::Code(0), run);
    check!(run.1.trim().parse::<u32>().unwrap() < 20, run);
}

/// Whether a report says that the memory limit was hit. A run whose own program is in the page cache that counts as its memory
/// may read that from disk over and over without coming to the point where the kernel ends it; then its time does.
fn named_memory(report: &RunReport) -> bool {
    match report.cause {
        StopCause::OutOfMemory => report.detail.starts_with("limit 64 MiB, peak 6"),
        StopCause::Timeout => report.detail == "its memory reached the limit of 64 MiB",
        _ => false,
    }
}

fn memory() {
    let street = Street::new();
    let mut launch =
        street.guilty("keep = []\nwhile True: keep.append(bytearray(b'x') * (1 << 20))");
    launch.limits.timeout = Some(LONGEST_AT_LIMIT);
    let run = street.endure(launch);
    if is_root() {
        check!(named_memory(&run.0), run);
    } else {
        check!(run.0.exit == ExitStatus::Code(1), run);
        check!(run.0.memory_peak < 80 << 20, run);
    }
}

/// Files in memory count as the run's memory.
fn memory_by_files() {
    if !is_root() {
        return;
    }
    let street = Street::new();
    let mut launch =
        street.guilty("f = open('/work/f', 'wb')\nwhile True: f.write(b'x' * (1 << 20))");
    launch.scratch = Scratch::Memory {
        bytes: Bytes(1 << 30),
    };
    launch.limits.timeout = Some(LONGEST_AT_LIMIT);
    let run = street.endure(launch);
    check!(named_memory(&run.0), run);
}

/// What the kernel keeps for a run counts as the run's memory too.
const KERNEL: &[(&str, &str)] = &[
        (
            "pipes",
            "import os, fcntl
keep = []
while True:
    r, w = os.pipe(); keep.append((r, w))
    try: fcntl.fcntl(w, 1031, 1 << 20)
    except OSError: pass
    os.set_blocking(w, False)
    try:
        while True: os.write(w, b'x' * 65536)
    except BlockingIOError: pass",
        ),
        (
            "sockets",
            "import socket
keep = []
while True:
    a, b = socket.socketpair(); keep.append((a, b)); a.setblocking(False)
    try:
        while True: a.send(b'x' * 65536)
    except BlockingIOError: pass",
        ),
        (
            "mlock",
            "import ctypes, mmap
libc = ctypes.CDLL(None)
keep = []
while True:
    m = mmap.mmap(-1, 1 << 20); keep.append(m); m.write(b'x' * (1 << 20))
    if libc.mlock(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(m))), 1 << 20): raise SystemExit(4)",
        ),
        (
            "shm",
            "import ctypes
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
for _ in range(512):
    i = libc.shmget(0, 1 << 20, 0o600)
    at = libc.shmat(i, None, 0)
    ctypes.memset(at, 1, 1 << 20)
raise SystemExit(5)",
        ),
];

fn memory_of_the_kernel() {
    for (what, python) in KERNEL {
        let street = Street::new();
        let mut launch = street.guilty(python);
        launch.limits.timeout = Some(LONGEST_AT_LIMIT);
        let (report, out) = street.endure(launch);
        let named = match report.cause {
            StopCause::OutOfMemory | StopCause::Timeout => named_memory(&report),
            // Its own limits came first: descriptors, locked memory; or, without cgroups, none (see SECURITY.md).
            _ => matches!(report.exit, ExitStatus::Code(1 | 4)) || !is_root(),
        };
        assert!(named, "{what}: {report:?} {out}");
    }
}

fn descriptors() {
    let street = Street::new();
    let launch = street.guilty(
        "import os, errno
n = 0
try:
    while True: os.dup(1); n += 1
except OSError as e: print(n, errno.errorcode[e.errno]); raise SystemExit(3)",
    );
    let run = street.endure(launch);
    check!(run.1.trim().ends_with("EMFILE"), run);
    check!(
        run.1.split(' ').next().unwrap().parse::<u32>().unwrap() < 256,
        run
    );
}

fn space_in_memory() {
    let street = Street::new();
    let mut launch =
        street.guilty("f = open('/work/f', 'wb')\nwhile True: f.write(b'x' * (1 << 20))");
    launch.scratch = Scratch::Memory {
        bytes: Bytes(16 << 20),
    };
    let run = street.endure(launch);
    check!(run.0.exit == ExitStatus::Code(1), run);
    check!(
        run.0.detail == "its space for files, in memory, is full",
        run
    );
}

fn files_in_memory() {
    let street = Street::new();
    let mut launch = street.guilty("n = 0\nwhile True: open('/work/%d' % n, 'w').close(); n += 1");
    launch.scratch = Scratch::Memory {
        bytes: Bytes(16 << 20),
    };
    let run = street.endure(launch);
    check!(run.0.exit == ExitStatus::Code(1), run);
    check!(run.0.detail.contains("inodes"), run);
}

fn space_on_disk() {
    let street = Street::new();
    let launch = street.on_disk(
        "import time
n = 0
while True:
    with open('/work/%d' % n, 'wb') as f: f.write(b'x' * (1 << 20)); n += 1
    time.sleep(0.01)",
        16 << 20,
    );
    let run = street.endure(launch);
    check!(run.0.cause == StopCause::DiskExceeded, run);
    check!(run.0.detail.contains("limit 16 MiB, found"), run);
}

fn one_large_file_on_disk() {
    let street = Street::new();
    let mut launch = street.on_disk("", 16 << 20);
    launch.program.as_mut().unwrap().argv = ["dd", "if=/dev/zero", "of=/work/f", "bs=1M"]
        .map(str::to_owned)
        .to_vec();
    let scratch = street.node.dir.join("scratch/upper/work/f");
    let street_dir = scratch.clone();
    let run = street.endure(launch);
    check!(run.0.cause == StopCause::DiskExceeded, run);
    check!(
        !street_dir.exists() || scratch.metadata().unwrap().len() <= 16 << 20,
        run
    );
}

fn deleted_files_on_disk() {
    let street = Street::new();
    let launch = street.on_disk(
        "import os, time
keep = []
while len(keep) < 200:
    f = open('/work/f', 'wb'); os.unlink('/work/f'); f.write(b'x' * (1 << 20)); f.flush(); keep.append(f)
    time.sleep(0.01)
time.sleep(60)",
        16 << 20,
    );
    let run = street.endure(launch);
    check!(run.0.cause == StopCause::DiskExceeded, run);
}

fn files_on_disk() {
    let street = Street::new();
    let launch = street.on_disk(
        "n = 0\nwhile True: open('/work/%d' % n, 'w').close(); n += 1",
        16 << 20,
    );
    let run = street.endure(launch);
    check!(run.0.cause == StopCause::DiskExceeded, run);
    check!(run.0.detail.contains("limit 4096 files"), run);
}

fn directories_without_end_on_disk() {
    let street = Street::new();
    let launch = street.on_disk(
        "import os, time
for _ in range(1500): os.mkdir('d'); os.chdir('d')
time.sleep(60)",
        64 << 20,
    );
    let run = street.endure(launch);
    check!(run.0.cause == StopCause::DiskExceeded, run);
    check!(run.0.detail.contains("directories in each other"), run);
}

fn a_hundred_thousand_small_files() {
    let street = Street::new();
    let mut launch = street.guilty(
        "import os
for d in range(100):
    os.mkdir('/work/%d' % d)
    for n in range(1000): open('/work/%d/%d' % (d, n), 'w').close()
print(sum(len(f) for _, _, f in os.walk('/work')))",
    );
    launch.limits.memory = Bytes(1 << 30);
    launch.scratch = Scratch::Memory {
        bytes: Bytes(4 << 30),
    };
    let run = street.endure(launch);
    check!(
        run.0.exit == ExitStatus::Code(0) && run.1 == "100000\n",
        run
    );
}

/// What a sandbox's programs write is the sandbox's, and so is the end.
fn a_sandbox_that_fills_its_disk() {
    let mut street = Street::new();
    let mut launch = street.on_disk("", 16 << 20);
    launch.program = None;
    launch.limits.timeout = None;
    street.node.rt().launch(vec![launch]).unwrap();
    let script =
        "n=0; while :; do n=$((n+1)); head -c 1000000 /dev/zero > /work/$n; sleep 0.02; done";
    let exec = street.node.exec("writer", "guilty", &["sh", "-c", script]);
    street.node.rt().exec(exec).unwrap();
    street.neighbourly();
    for run in ["writer", "guilty"] {
        let report = street.node.wait_exit(&id(run));
        check!(report.cause == StopCause::DiskExceeded, report);
        check!(report.detail.starts_with("limit 16 MiB, found"), report);
    }
    street.neighbourly();
}

fn a_flood_of_output() {
    let street = Street::new();
    let mut launch = street.guilty("");
    launch.program.as_mut().unwrap().argv =
        ["sh", "-c", "head -c 200000000 /dev/zero; printf tail"]
            .map(str::to_owned)
            .to_vec();
    launch.limits.log_bytes = 1 << 20;
    let run = street.endure(launch);
    check!(run.0.exit == ExitStatus::Code(0), run.0);
    check!(run.0.stdout_bytes == 200_000_004, run.0);
    check!(run.1.len() <= 1 << 20 && run.1.ends_with("tail"), run.0);
    let dropped = 200_000_004 - run.1.len();
    let named = format!("the first {dropped} of 200000004 bytes of stdout were not kept");
    check!(run.0.detail.contains(&named), run.0);
}

fn processors() {
    let street = Street::new();
    let mut launch =
        street.guilty("import os\nfor _ in range(16): os.fork() or None\nwhile True: pass");
    launch.program.as_mut().unwrap().argv = [
        "sh",
        "-c",
        "for i in 1 2 3 4 5 6 7 8; do while :; do :; done & done; wait",
    ]
    .map(str::to_owned)
    .to_vec();
    launch.limits.timeout = Some(Millis(1_500));
    let run = street.endure(launch);
    check!(run.0.cause == StopCause::Timeout, run);
}

/// Ways that one case tries more than one of, and cases that need cgroups.
fn the_page_counts_them() {
    let more = KERNEL.len() - 1;
    let root = CASES.len() - 1 + more;
    let line = format!("| ways to exhaust the node | {root} | {} |", root - 1);
    assert!(
        include_str!("../../../../SECURITY.md").contains(&line),
        "SECURITY.md lacks {line:?}"
    );
}

const CASES: &[support::Case] = &[
    ("fork_bomb", fork_bomb),
    ("doubling_fork_bomb", doubling_fork_bomb),
    ("threads", threads),
    ("zombies", zombies),
    ("orphans", orphans),
    ("memory", memory),
    ("memory_by_files", memory_by_files),
    ("memory_of_the_kernel", memory_of_the_kernel),
    ("descriptors", descriptors),
    ("space_in_memory", space_in_memory),
    ("files_in_memory", files_in_memory),
    ("space_on_disk", space_on_disk),
    ("one_large_file_on_disk", one_large_file_on_disk),
    ("deleted_files_on_disk", deleted_files_on_disk),
    ("files_on_disk", files_on_disk),
    (
        "directories_without_end_on_disk",
        directories_without_end_on_disk,
    ),
    (
        "a_hundred_thousand_small_files",
        a_hundred_thousand_small_files,
    ),
    (
        "a_sandbox_that_fills_its_disk",
        a_sandbox_that_fills_its_disk,
    ),
    ("a_flood_of_output", a_flood_of_output),
    ("processors", processors),
    ("the_page_counts_them", the_page_counts_them),
];

fn main() {
    support::run("exhaustion", CASES, &["memory_by_files"]);
}
