//! The runtime on the real kernel: what runs, what it tells, what it leaves behind. As root, and as a normal user.

#![expect(
    clippy::unwrap_used,
    reason = "tests with a main of their own; a panic is how they fail"
)]

mod support;

use std::os::unix::process::CommandExt;
use std::time::Duration;

use prism_runtime::Isolation::{Plain, Sandboxed};
use prism_runtime::{InlineFile, RunEvent, Runtime, RuntimeError, Scratch};
use prism_types::{Bytes, ExitStatus, Millis, StopCause};
use support::{Node, id, is_root, segments};

fn exits_are_told() {
    let node = Node::new();
    for isolation in [Sandboxed, Plain] {
        for (i, (script, exit)) in [
            ("true", ExitStatus::Code(0)),
            ("false", ExitStatus::Code(1)),
            ("exit 42", ExitStatus::Code(42)),
            ("kill -9 $$", ExitStatus::Signal(9)),
            ("kill -6 $$", ExitStatus::Signal(6)),
        ]
        .into_iter()
        .enumerate()
        {
            let name = format!("exit-{isolation:?}-{i}").to_lowercase();
            let report = node.run(node.task(&name, isolation, script));
            assert_eq!(report.exit, exit, "{isolation:?} {script}: {report:?}");
            assert_eq!(
                report.cause,
                StopCause::None,
                "{isolation:?} {script}: {report:?}"
            );
        }
    }
}

fn what_cannot_start_says_why() {
    let node = Node::new();
    for isolation in [Sandboxed, Plain] {
        let mut launch = node.task("x", isolation, "");
        for (n, (argv, why)) in [
            (
                vec!["no-such-program"],
                "program not found: no-such-program",
            ),
            (vec!["/etc/passwd"], "may not be run"),
            (vec![], "no name"),
        ]
        .into_iter()
        .enumerate()
        {
            launch.id = id(&format!("bad-{n}-{isolation:?}").to_lowercase());
            launch.program = Some(node.program(isolation, &argv));
            let report = node.run(launch.clone());
            assert_eq!(report.cause, StopCause::StartFailed, "{report:?}");
            assert!(report.detail.contains(why), "{report:?}");
        }
    }
    let mut launch = node.task("no-layer", Sandboxed, "true");
    launch.layers = vec!["/no/such/layer".into()];
    let report = node.run(launch);
    assert!(
        report.detail.contains("mount layer /no/such/layer"),
        "{report:?}"
    );
    // The same id again is no error and starts nothing: what became of it is told again.
    node.rt()
        .launch(vec![node.task("no-layer", Sandboxed, "true")])
        .unwrap();
    assert_eq!(
        node.run(node.task("after", Sandboxed, "true")).exit,
        ExitStatus::Code(0)
    );
    let events = node.events();
    let ends = events
        .iter()
        .filter(|e| matches!(e, RunEvent::Exited { id: i, .. } if *i == id("no-layer")));
    let same = RunEvent::Exited {
        id: id("no-layer"),
        report,
    };
    assert_eq!(ends.collect::<Vec<_>>(), [&same, &same]);
}

fn every_byte_of_output_is_kept() {
    let node = Node::new();
    for isolation in [Sandboxed, Plain] {
        let name = format!("out-{isolation:?}").to_lowercase();
        let script =
            "seq 1 200000 | head -c 1048576; seq 200001 400000 | head -c 1048576 >&2; printf end";
        let report = node.run(node.task(&name, isolation, script));
        let seq = |from: u32, to: u32| -> Vec<u8> {
            let text: String = (from..=to).map(|n| format!("{n}\n")).collect();
            text.into_bytes()[..1 << 20].to_vec()
        };
        let mut out = seq(1, 200_000);
        out.extend(b"end");
        assert_eq!(report.stdout_bytes, (1 << 20) + 3);
        assert_eq!(report.stderr_bytes, 1 << 20);
        assert!(node.output(&name, "stdout") == out, "stdout differs");
        assert!(
            node.output(&name, "stderr") == seq(200_001, 400_000),
            "stderr differs"
        );
    }
    let report = node.run(node.task("silent", Sandboxed, "true"));
    assert_eq!(report.stdout_bytes, 0);
    assert!(
        !node.logs("silent").exists(),
        "a silent run made its log directory"
    );
}

fn output_is_bounded_on_disk() {
    let node = Node::new();
    let mut launch = node.task("flood", Sandboxed, "head -c 5000000 /dev/zero; printf tail");
    launch.limits.log_bytes = 256 << 10;
    let report = node.run(launch);
    assert_eq!(report.stdout_bytes, 5_000_004);
    let kept = node.output("flood", "stdout");
    assert!(kept.len() <= 256 << 10, "{} bytes", kept.len());
    assert!(kept.ends_with(b"tail"));
    let (first, _) = segments(&node.logs("flood"), "stdout").pop_first().unwrap();
    assert_eq!(first + kept.len() as u64, 5_000_004);
}

fn limits_end_runs_for_their_own_reasons() {
    let node = Node::new();
    for isolation in [Sandboxed, Plain] {
        let name = |what: &str| format!("{what}-{isolation:?}").to_lowercase();
        let mut slow = node.task(&name("slow"), isolation, "sleep 100 & sleep 100");
        slow.limits.timeout = Some(Millis(100));
        let report = node.run(slow);
        assert_eq!(report.cause, StopCause::Timeout, "{report:?}");
        assert_eq!(report.exit, ExitStatus::Signal(9), "{report:?}");
        assert!(
            report.wall >= Millis(100) && report.wall < Millis(20_000),
            "{report:?}"
        );
        let hog = "exec python3 -c 'x = bytearray(400 << 20); print(len(x))'";
        let mut hog = node.task(&name("hog"), isolation, hog);
        hog.limits.memory = Bytes(64 << 20);
        if is_root() {
            let report = node.run(hog);
            assert_eq!(report.cause, StopCause::OutOfMemory, "{report:?}");
            assert!(report.memory_peak > 32 << 20, "{report:?}");
            assert!(report.memory_peak <= 66 << 20, "{report:?}");
        } else if isolation == Sandboxed {
            // Without cgroups the allocation itself fails.
            let report = node.run(hog);
            assert_eq!(report.exit, ExitStatus::Code(1), "{report:?}");
        }
    }
}

fn figures_are_plausible() {
    let node = Node::new();
    let script = "exec python3 -c '
x = bytearray(50 << 20)
n = 0
import time
end = time.process_time() + 0.3
while time.process_time() < end: n += 1
'";
    let report = node.run(node.task("busy", Sandboxed, script));
    assert_eq!(report.exit, ExitStatus::Code(0), "{report:?}");
    assert!(
        report.cpu_us >= 300_000 && report.cpu_us < 10_000_000,
        "{report:?}"
    );
    assert!(
        report.memory_peak >= 50 << 20 && report.memory_peak < 200 << 20,
        "{report:?}"
    );
    assert!(report.wall >= Millis(300), "{report:?}");
}

fn standard_input_is_fed() {
    let node = Node::new();
    let mut launch = node.task("cat", Sandboxed, "cat");
    launch.program.as_mut().unwrap().stdin = true;
    let cat = launch.id.clone();
    node.rt().launch(vec![launch]).unwrap();
    node.wait_start(&cat);
    let part = vec![b'x'; 200_000];
    node.rt().input(&cat, &part, false).unwrap();
    node.rt().input(&cat, b"end", true).unwrap();
    assert_eq!(node.wait_exit(&cat).exit, ExitStatus::Code(0));
    let out = node.output("cat", "stdout");
    assert_eq!((out.len(), &out[200_000..]), (200_003, &b"end"[..]));
    let report = node.run(node.task("none", Sandboxed, "cat"));
    assert_eq!((report.exit, report.stdout_bytes), (ExitStatus::Code(0), 0));
    let refused = node.rt().input(&cat, b"x", false);
    assert!(
        matches!(refused, Err(RuntimeError::NotFound(_))),
        "{refused:?}"
    );
}

fn terminals_work() {
    let node = Node::new();
    for isolation in [Sandboxed, Plain] {
        let name = format!("tty-{isolation:?}").to_lowercase();
        let mut launch = node.task(
            &name,
            isolation,
            "tty; stty size; read a; echo got $a; stty size",
        );
        launch.program.as_mut().unwrap().tty = Some((33, 77));
        let run = launch.id.clone();
        node.rt().launch(vec![launch]).unwrap();
        node.wait_start(&run);
        node.wait_output(&name, "33 77");
        node.rt().resize(&run, 44, 55).unwrap();
        node.rt().input(&run, b"hello\n", false).unwrap();
        assert_eq!(node.wait_exit(&run).exit, ExitStatus::Code(0));
        let out = node.stdout(&name);
        assert!(
            out.contains("/dev/pts/") && out.contains("got hello"),
            "{out}"
        );
        assert!(out.contains("44 55"), "{out}");
    }
}

fn sandboxes_run_programs() {
    let node = Node::new();
    let sandbox = node.sandbox("box");
    node.rt().launch(vec![sandbox]).unwrap();
    // Need not wait for it to be up.
    node.rt()
        .exec(node.exec("e1", "box", &["sh", "-c", "echo $$ > /work/file; hostname"]))
        .unwrap();
    let report = node.wait_exit(&id("e1"));
    assert_eq!(report.exit, ExitStatus::Code(0), "{report:?}");
    assert_eq!(node.stdout("e1"), "inside\n");
    // The next one sees what the first left, and that it has no zombies of orphans.
    let script =
        "cat /work/file; (sleep 0.01 &) ; sleep 0.1; cat /proc/[0-9]*/stat | grep -c ' Z '; exit 3";
    node.rt()
        .exec(node.exec("e2", "box", &["sh", "-c", script]))
        .unwrap();
    let report = node.wait_exit(&id("e2"));
    assert_eq!(report.exit, ExitStatus::Code(3), "{report:?}");
    assert!(
        node.stdout("e2").ends_with("\n0\n"),
        "{}",
        node.stdout("e2")
    );
    let root = node.rt().root(&id("box")).unwrap();
    let seen = std::fs::read_to_string(root.join("work/file")).unwrap();
    assert!(node.stdout("e2").starts_with(&seen));
    std::fs::write(root.join("work/from-outside"), "x").unwrap();
    let mut exec = node.exec("e3", "box", &["sh", "-c", "echo $X; tty; exec sleep 100"]);
    exec.program.env.push(("X".into(), "y".into()));
    exec.program.tty = Some((24, 80));
    node.rt().exec(exec).unwrap();
    node.wait_start(&id("e3"));
    let usage = node.rt().usage(&id("box")).unwrap();
    assert!(
        usage.pids >= 1 && (usage.memory > 0 || !is_root()),
        "{usage:?}"
    );
    let mut exec = node.exec("e4", "box", &["sleep", "100"]);
    exec.timeout = Some(Millis(50));
    node.rt().exec(exec).unwrap();
    assert_eq!(node.wait_exit(&id("e4")).cause, StopCause::Timeout);
    node.rt().signal(&id("e3"), libc::SIGINT).unwrap();
    assert_eq!(node.wait_exit(&id("e3")).exit, ExitStatus::Signal(2));
    node.rt()
        .exec(node.exec(
            "e5",
            "box",
            &["sh", "-c", "trap '' TERM; echo up; sleep 100"],
        ))
        .unwrap();
    node.wait_output("e5", "up\n");
    node.rt().stop(&[id("box")], Millis(50)).unwrap();
    let report = node.wait_exit(&id("box"));
    assert_eq!(report.cause, StopCause::Requested, "{report:?}");
    assert_eq!(node.wait_exit(&id("e5")).exit, ExitStatus::Signal(9));
    node.rt().exec(node.exec("late", "box", &["true"])).unwrap();
    assert_eq!(node.wait_exit(&id("late")).cause, StopCause::StartFailed);
}

fn stopping_has_grace() {
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

fn many_run_at_once() {
    let node = Node::new();
    let batch: Vec<_> = (0..200)
        .map(|n| {
            let isolation = if n % 4 == 0 { Plain } else { Sandboxed };
            node.task(
                &format!("many-{n}"),
                isolation,
                &format!("echo {n}; exit {}", n % 7),
            )
        })
        .collect();
    node.rt().launch(batch).unwrap();
    for n in 0..200 {
        let report = node.wait_exit(&id(&format!("many-{n}")));
        assert_eq!(report.exit, ExitStatus::Code(n % 7), "{report:?}");
        assert_eq!(node.stdout(&format!("many-{n}")), format!("{n}\n"));
    }
}

fn files_layers_and_scratch() {
    let node = Node::new();
    let layer = node.dir.join("layer");
    std::fs::create_dir_all(layer.join("work/sub")).unwrap();
    std::fs::write(layer.join("work/sub/sent"), "sent\n").unwrap();
    let scratch = node.dir.join("scratch");
    let mut launch = node.task("write", Sandboxed, "cat sub/sent given/file; id -u; echo more >> sub/sent; echo kept > /work/kept; echo k > /root/r; ls -ld /work | cut -c1-10; umask; pwd");
    launch.layers = vec![layer.clone()];
    launch.scratch = Scratch::Disk {
        dir: scratch.clone(),
        bytes: Bytes(0),
    };
    launch.files = vec![InlineFile {
        path: "given/file".into(),
        content: b"given\n".as_slice().into(),
        mode: 0o640,
    }];
    let again = launch.clone();
    let report = node.run(launch);
    assert_eq!(
        report.exit,
        ExitStatus::Code(0),
        "{report:?} {}",
        String::from_utf8_lossy(&node.output("write", "stderr"))
    );
    assert_eq!(
        node.stdout("write"),
        "sent\ngiven\n0\ndrwxr-xr-x\n0022\n/work\n"
    );
    assert_eq!(
        std::fs::read_to_string(layer.join("work/sub/sent")).unwrap(),
        "sent\n"
    );
    assert_eq!(
        std::fs::read_to_string(scratch.join("upper/work/kept")).unwrap(),
        "kept\n"
    );
    let mut launch = again;
    launch.id = id("read");
    launch.logs = node.logs("read");
    launch.program = Some(node.program(
        Sandboxed,
        &["cat", "/work/kept", "/work/sub/sent", "/root/r"],
    ));
    // Occupy other slots first, so that the second run has other ids outside than the first.
    node.rt()
        .launch((0..3).map(|n| node.sandbox(&format!("b{n}"))).collect())
        .unwrap();
    let report = node.run(launch);
    assert_eq!(report.exit, ExitStatus::Code(0), "{report:?}");
    assert_eq!(node.stdout("read"), "kept\nsent\nmore\nk\n");
    for path in ["../out", "/abs", "", "a/../../b"] {
        let mut launch = node.task(&format!("bad{}", path.len()), Sandboxed, "true");
        launch.files = vec![InlineFile {
            path: path.into(),
            content: b"x".as_slice().into(),
            mode: 0o600,
        }];
        let report = node.run(launch);
        assert_eq!(report.cause, StopCause::StartFailed, "{path}: {report:?}");
    }
}

fn the_inside_is_usable() {
    let node = Node::new();
    let script = "set -e
python3 -c 'import ssl, json, multiprocessing, tempfile, threading
from multiprocessing import Pool
print(sum(Pool(2).map(abs, range(100))))'
for d in / /work /tmp /root /home /run /var/tmp /etc /opt /dev/shm; do touch $d/x; done
echo x > /dev/null; head -c 4 /dev/urandom | wc -c; test -r /proc/meminfo; test -r /proc/cpuinfo
git --version > /dev/null || true
ulimit -c; cat /proc/self/uid_map | wc -l; ls /sys | wc -l";
    let report = node.run(node.task("tools", Sandboxed, script));
    let err = String::from_utf8_lossy(&node.output("tools", "stderr")).into_owned();
    assert_eq!(report.exit, ExitStatus::Code(0), "{report:?} {err}");
    assert_eq!(node.stdout("tools"), "4950\n4\n0\n1\n0\n");
}

/// What `killed_daemons_lose_nothing` runs as the daemon that is killed.
fn daemon(dir: &str) {
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

fn killed_daemons_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let mut child = std::process::Command::new("/proc/self/exe")
        .args(["daemon", path])
        .process_group(0)
        .spawn()
        .unwrap();
    for _ in 0..5_000 {
        if dir.path().join("ready").exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let group = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    child.wait().unwrap();
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

fn a_killed_supervisor_takes_all_with_it() {
    let node = Node::new();
    let batch = vec![
        node.task("t", Sandboxed, "sleep 1000"),
        node.task("p", Plain, "sleep 1000 & sleep 1000"),
        node.sandbox("s"),
    ];
    node.rt().launch(batch).unwrap();
    node.rt()
        .exec(node.exec("e", "s", &["sleep", "1000"]))
        .unwrap();
    let pids: Vec<u32> = ["t", "p", "s", "e"].map(|n| node.wait_start(&id(n))).into();
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

fn is_alive(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

fn forgotten_runs_are_gone() {
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

fn nothing_leaks() {
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

fn the_host_is_described() {
    let node = Node::new();
    for list in [node.rt().capabilities(), prism_sandbox::probe()] {
        for needed in list.iter().filter(|c| c.required) {
            assert!(needed.works, "{needed:?}");
        }
        for capability in &list {
            assert_eq!(
                capability.works,
                capability.lost.is_empty(),
                "{capability:?}"
            );
        }
        let names: Vec<_> = list.iter().map(|c| c.name.as_str()).collect();
        assert!(
            names.contains(&"user-namespaces") && names.contains(&"seccomp"),
            "{names:?}"
        );
        assert!(names.iter().any(|n| n.starts_with("cgroup")), "{names:?}");
    }
}

fn limits_hold() {
    let node = Node::new();
    let mut launch = node.task(
        "forks",
        Sandboxed,
        "i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i+1)); done 2>/dev/null; echo $i",
    );
    launch.limits.pids = 20;
    node.run(launch);
    assert_ne!(node.stdout("forks"), "60\n");
    let mut launch = node.task("files", Sandboxed, "ulimit -n");
    launch.limits.nofile = 77;
    node.run(launch);
    assert_eq!(node.stdout("files"), "77\n");
    let mut launch = node.task("disk", Sandboxed, "head -c 9000000 /dev/zero > /work/x");
    launch.scratch = Scratch::Memory {
        bytes: Bytes(4 << 20),
    };
    assert_eq!(node.run(launch).exit, ExitStatus::Code(1));
    if is_root() {
        // A tenth of a processor for 200 ms of work takes at least a second of wall time.
        let work = "exec python3 -c 'import time
end = time.process_time() + 0.2
while time.process_time() < end: pass'";
        let mut launch = node.task("cpu", Sandboxed, work);
        launch.limits.cpu = prism_types::MilliCpu(100);
        let report = node.run(launch);
        assert_eq!(report.exit, ExitStatus::Code(0), "{report:?}");
        assert!(report.wall >= Millis(1_000), "{report:?}");
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("daemon") {
        daemon(&args.next().unwrap());
    }
    support::run(
        "runtime",
        &[
            ("exits_are_told", exits_are_told),
            ("what_cannot_start_says_why", what_cannot_start_says_why),
            ("every_byte_of_output_is_kept", every_byte_of_output_is_kept),
            ("output_is_bounded_on_disk", output_is_bounded_on_disk),
            (
                "limits_end_runs_for_their_own_reasons",
                limits_end_runs_for_their_own_reasons,
            ),
            ("limits_hold", limits_hold),
            ("figures_are_plausible", figures_are_plausible),
            ("standard_input_is_fed", standard_input_is_fed),
            ("terminals_work", terminals_work),
            ("sandboxes_run_programs", sandboxes_run_programs),
            ("stopping_has_grace", stopping_has_grace),
            ("many_run_at_once", many_run_at_once),
            ("files_layers_and_scratch", files_layers_and_scratch),
            ("the_inside_is_usable", the_inside_is_usable),
            ("killed_daemons_lose_nothing", killed_daemons_lose_nothing),
            (
                "a_killed_supervisor_takes_all_with_it",
                a_killed_supervisor_takes_all_with_it,
            ),
            ("forgotten_runs_are_gone", forgotten_runs_are_gone),
            ("nothing_leaks", nothing_leaks),
            ("the_host_is_described", the_host_is_described),
        ],
        &[],
    );
}
