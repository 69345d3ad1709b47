//! Who outlives whom: stops, killed daemons, killed supervisors, and what is left of runs that are over.

use std::os::unix::process::CommandExt;
use std::time::Duration;

use prism_runtime::Isolation::{Plain, Sandboxed};
use prism_runtime::{BootMs, RunEvent, Runtime};
use prism_types::{ExitStatus, Millis, StopCause};

use super::support::{Node, id, is_root, supervisor_of};

pub fn stopping_has_grace() {
    let node = Node::new();
    for isolation in [Sandboxed, Plain] {
        let name = |what: &str| format!("{what}-{isolation:?}").to_lowercase();
        let polite = node.task(
            &name("polite"),
            isolation,
            "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.01; done",
        );
        let rude = node.task(
            &name("rude"),
            isolation,
            "trap '' TERM; echo up; while :; do sleep 0.01; done",
        );
        let plain = node.task(&name("default"), isolation, "echo up; exec sleep 100");
        let ids = [polite.id.clone(), rude.id.clone(), plain.id.clone()];
        node.rt().launch(vec![polite, rude, plain]).unwrap();
        for run in &ids {
            node.wait_output(run.as_str(), "up\n");
        }
        node.rt().stop(&ids[..2], Millis(1_000)).unwrap();
        node.rt().stop(&ids[2..], Millis(60_000)).unwrap();
        let reports = ids.clone().map(|run| node.wait_exit(&run));
        assert!(
            reports.iter().all(|r| r.cause == StopCause::Requested),
            "{reports:?}"
        );
        assert_eq!(reports[0].exit, ExitStatus::Code(7), "{reports:?}");
        assert_eq!(node.stdout(ids[0].as_str()), "up\nbye\n");
        assert_eq!(reports[1].exit, ExitStatus::Signal(9), "{reports:?}");
        assert_eq!(reports[2].exit, ExitStatus::Signal(15), "{reports:?}");
        assert!(reports[2].wall < Millis(50_000), "{reports:?}");
    }
}

fn boot_now() -> BootMs {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    BootMs::of(now.tv_sec, now.tv_nsec)
}

/// With nobody there to end it: the daemon is gone meanwhile.
pub fn a_lease_ends_a_run_that_is_not_renewed() {
    let mut node = Node::new();
    let script = "echo up; while :; do sleep 0.01; done";
    let leased = |name: &str, ms: u64| {
        let mut launch = node.task(name, Sandboxed, script);
        launch.lease = Some(BootMs(boot_now().0 + ms));
        launch
    };
    let batch = vec![
        leased("short", 4_000),
        leased("renewed", 4_000),
        leased("ahead", 60_000),
        leased("over", 0),
        node.task("without", Sandboxed, script),
    ];
    node.rt().launch(batch).unwrap();
    let late = node.wait_exit(&id("over"));
    assert_eq!(late.cause, StopCause::LeaseExpired, "{late:?}");
    assert_eq!(late.stdout_bytes, 0, "it never began");
    for name in ["short", "renewed", "ahead", "without"] {
        node.wait_start(&id(name));
    }
    let all = ["renewed", "without", "ahead"].map(id);
    let until = BootMs(boot_now().0 + 30_000);
    node.rt().renew(&all, until).unwrap();
    // What is answered after it: it has come.
    node.rt().observe().unwrap();
    node.runtime = None;
    std::thread::sleep(Duration::from_millis(6_000));
    let back = super::support::unix_now();
    node.open();
    let report = node.wait_exit(&id("short"));
    assert_eq!(report.cause, StopCause::LeaseExpired, "{report:?}");
    assert_eq!(report.exit, ExitStatus::Signal(9), "{report:?}");
    let ended = report.started.after(report.wall);
    assert!(ended < back, "it waited for nobody: {report:?}");
    let why = &report.detail;
    assert!(why.contains("no answer of a leader"), "{why}");
    let live = node.rt().observe().unwrap();
    let lives = |name: &str| live.iter().any(|o| o.id == id(name) && o.exited.is_none());
    assert!(
        lives("renewed") && lives("ahead") && lives("without"),
        "{live:?}"
    );
}

/// What `killed_daemons_lose_nothing` runs as the daemon that is killed.
pub fn daemon(dir: &str) {
    let node = Node::at(dir.into());
    let script =
        "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); sleep 0.002; done; exit 5";
    let mut batch: Vec<_> = (0..6)
        .map(|n| {
            let isolation = if n % 2 == 0 { Plain } else { Sandboxed };
            node.task(&format!("d{n}"), isolation, script)
        })
        .collect();
    batch.push(node.task("quick", Sandboxed, "echo quick; exit 9"));
    batch.push(node.sandbox("box"));
    node.rt().launch(batch).unwrap();
    node.wait_exit(&id("quick"));
    for n in 0..6 {
        node.wait_start(&id(&format!("d{n}")));
    }
    std::fs::write(format!("{dir}/ready"), "").unwrap();
    loop {
        std::thread::park();
    }
}

/// Runs [`daemon`] until its work is under way, and kills it.
fn kill_a_daemon(dir: &std::path::Path) {
    let mut child = std::process::Command::new("/proc/self/exe")
        .arg("daemon")
        .arg(dir)
        .process_group(0)
        .spawn()
        .unwrap();
    for _ in 0..5_000 {
        if dir.join("ready").exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let group = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    child.wait().unwrap();
}

pub fn killed_daemons_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    kill_a_daemon(dir.path());
    let node = Node::at(dir.path().to_owned());
    let known = node.rt().observe().unwrap();
    assert_eq!(known.len(), 8, "{known:?}");
    assert_eq!(node.wait_exit(&id("quick")).exit, ExitStatus::Code(9));
    let lines: String = (0..300).map(|i| format!("line {i}\n")).collect();
    for n in 0..6 {
        let report = node.wait_exit(&id(&format!("d{n}")));
        assert_eq!(report.exit, ExitStatus::Code(5), "{report:?}");
        assert_eq!(report.cause, StopCause::None);
        assert_eq!(node.stdout(&format!("d{n}")), lines);
    }
    node.rt()
        .exec(node.exec("e", "box", &["echo", "still"]))
        .unwrap();
    node.wait_exit(&id("e"));
    assert_eq!(node.stdout("e"), "still\n");
    let events = node.events();
    assert!(!events.contains(&RunEvent::Restarted), "{events:?}");
}

pub fn a_killed_supervisor_takes_all_with_it() {
    let node = Node::new();
    // Beside its child also one in a session of its own, and one that it is not the parent of any more.
    let plain = "sleep 1000 & echo $!; setsid sleep 1000 & echo $!; (sleep 1000 & echo $!); echo up; sleep 1000";
    let batch = vec![
        node.task("t", Sandboxed, "sleep 1000"),
        node.task("p", Plain, plain),
        node.sandbox("s"),
    ];
    node.rt().launch(batch).unwrap();
    node.rt()
        .exec(node.exec("e", "s", &["sleep", "1000"]))
        .unwrap();
    let mut pids: Vec<u32> = ["t", "p", "s", "e"].map(|n| node.wait_start(&id(n))).into();
    node.wait_output("p", "up\n");
    pids.extend(
        node.stdout("p")
            .lines()
            .filter_map(|l| l.parse::<u32>().ok()),
    );
    assert!(pids.len() == 7 && pids.iter().all(|pid| is_alive(*pid)));
    if !super::support::is_root() {
        // Its heir, which has nothing more to do then.
        pids.extend(parent(node.supervisor()));
        assert_eq!(pids.len(), 8);
    }
    let done = node.run(node.task("done", Sandboxed, "exit 4"));
    let supervisor = rustix::process::Pid::from_raw(node.supervisor().cast_signed()).unwrap();
    rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).unwrap();
    for name in ["t", "p", "s", "e"] {
        let report = node.wait_exit(&id(name));
        assert_eq!(report.cause, StopCause::Lost, "{name}: {report:?}");
    }
    assert!(node.events().contains(&RunEvent::Restarted));
    pids.into_iter().for_each(wait_dead);
    // What was over is told as it was, and work goes on.
    assert_eq!(node.wait_exit(&id("done")), done);
    assert_eq!(
        node.run(node.task("next", Sandboxed, "exit 3")).exit,
        ExitStatus::Code(3)
    );
}

fn wait_dead(pid: u32) {
    for _ in 0..2_000 {
        if !is_alive(pid) {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("process {pid} lives on");
}

fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

fn is_alive(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

pub fn forgotten_runs_are_gone() {
    let mut node = Node::new();
    node.run(node.task("a", Sandboxed, "true"));
    node.run(node.task("b", Sandboxed, "true"));
    node.rt().forget(&[id("a")]).unwrap();
    let names = |node: &Node| -> Vec<String> {
        let runs = node.rt().observe().unwrap();
        runs.iter().map(|r| r.id.to_string()).collect()
    };
    assert_eq!(names(&node), ["b"]);
    node.runtime = None;
    node.open();
    node.wait_exit(&id("b"));
    assert_eq!(names(&node), ["b"]);
    let told = node.events();
    assert!(
        !told
            .iter()
            .any(|e| matches!(e, RunEvent::Exited { id: i, .. } if *i == id("a")))
    );
}

pub fn nothing_leaks() {
    let node = Node::new();
    let round = |from: u32, count: u32| {
        let batch: Vec<_> = (from..from + count)
            .map(|n| match n % 10 {
                0 => node.task(&format!("l{n}"), Plain, "echo x"),
                1 => node.task(&format!("l{n}"), Sandboxed, "no-such-thing"),
                _ => node.task(&format!("l{n}"), Sandboxed, "echo x; sleep 100 &"),
            })
            .collect();
        let ids: Vec<_> = batch.iter().map(|l| l.id.clone()).collect();
        node.rt().launch(batch).unwrap();
        ids.iter().for_each(|i| drop(node.wait_exit(i)));
        node.rt().forget(&ids).unwrap();
        node.rt().observe().unwrap();
    };
    let supervisor = node.supervisor();
    round(0, 100);
    let before = held(supervisor);
    round(100, 500);
    // The pool may have grown to its bound: 64 slots of eight descriptors.
    let most = before.0 + 64 * 8;
    for _ in 0..500 {
        if held(supervisor).0 <= most && held(supervisor).1 <= 1 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let after = held(supervisor);
    assert!(after.0 <= most, "descriptors: {before:?}, then {after:?}");
    // One maker is kept.
    assert!(after.1 <= 1, "children: {after:?}");
    assert_eq!(after.2, before.2, "mounts: {before:?}, then {after:?}");
    let dir = node.dir.join("run");
    let groups = || groups_of(&dir);
    assert!(groups() <= 64 * 4, "{} groups", groups());
    drop(node);
    assert_eq!(groups_of(&dir), 0, "cgroups are left");
    wait_dead(supervisor);
}

/// Of a supervisor that is killed and has no successor, the next one on the host removes the groups; a live one's stay.
pub fn groups_of_the_dead_are_removed() {
    if !is_root() {
        return;
    }
    let alive = Node::new();
    alive.run(alive.task("a", Sandboxed, "true"));
    let dir = tempfile::tempdir().unwrap();
    kill_a_daemon(dir.path());
    let supervisor = supervisor_of(dir.path());
    let groups = |dir: &std::path::Path| groups_of(&dir.join("run"));
    assert!(groups(&alive.dir) > 0 && groups(dir.path()) > 0);
    let pid = rustix::process::Pid::from_raw(supervisor.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    wait_dead(supervisor);
    // What it ran is killed with it, but not within the same moment.
    for round in 0.. {
        let next = Node::new();
        next.run(next.task("a", Sandboxed, "true"));
        if groups(dir.path()) == 0 {
            break;
        }
        assert!(round < 200, "{} groups are left", groups(dir.path()));
    }
    assert!(groups(&alive.dir) > 0);
    let again = alive.run(alive.task("b", Sandboxed, "true"));
    assert_eq!(again.exit, ExitStatus::Code(0), "{again:?}");
}

/// Descriptors, children and mounts of the supervisor.
fn held(pid: u32) -> (usize, usize, usize) {
    let count =
        |dir: &str| std::fs::read_dir(format!("/proc/{pid}/{dir}")).map_or(0, Iterator::count);
    let read =
        |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let children = read(&format!("task/{pid}/children"))
        .split_whitespace()
        .count();
    (count("fd"), children, read("mounts").lines().count())
}

/// Cgroup directories of instances that nobody supervises any more, or of this one.
fn groups_of(dir: &std::path::Path) -> usize {
    use std::os::unix::ffi::OsStrExt;
    let hash = dir
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |h, b| {
            (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
        });
    let mut count = 0;
    for tree in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let at = tree.path().join("prism").join(format!("{hash:016x}"));
        if let Ok(entries) = std::fs::read_dir(&at) {
            count += entries.flatten().filter(|e| e.path().is_dir()).count() + 1;
        }
    }
    count
}
