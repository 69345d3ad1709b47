//! What runs: its end, its streams, its files, what it finds inside.

use prism_runtime::Isolation::{Plain, Sandboxed};
use prism_runtime::{InlineFile, RunEvent, Runtime, RuntimeError, Scratch};
use prism_types::{Bytes, ExitStatus, JobId, Millis, RunId, StopCause, TaskRef};

use super::support::{Node, id, is_root};

pub fn exits_are_told() {
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

pub fn what_cannot_start_says_why() {
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

pub fn standard_input_is_fed() {
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

pub fn terminals_work() {
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

pub fn sandboxes_run_programs() {
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

pub fn many_run_at_once() {
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

pub fn files_layers_and_scratch() {
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

/// With what the kernel's overlay itself leaves there; without this each sandbox makes and removes its directories.
pub fn scratch_directories_are_used_again() {
    let node = Node::new();
    let mut scratch = node.dir.join("scratch0");
    for n in 1..=3 {
        let mut launch = node.task(
            &format!("use-{n}"),
            Sandboxed,
            "ls -A /work /tmp; pwd; echo mine > file; mkdir -p /tmp/deep/er",
        );
        launch.scratch = Scratch::Disk {
            dir: scratch.clone(),
            bytes: Bytes(0),
        };
        let report = node.run(launch);
        assert_eq!(report.exit, ExitStatus::Code(0), "{report:?}");
        assert_eq!(
            node.stdout(&format!("use-{n}")),
            "/tmp:\n\n/work:\n/work\n",
            "what the one before left is there"
        );
        let to = node.dir.join(format!("scratch{n}"));
        assert!(
            prism_sandbox::recycle(&scratch, &to).unwrap(),
            "run {n}: its directory is not used again"
        );
        scratch = to;
    }
}

pub fn the_inside_is_usable() {
    let node = Node::new();
    let script = "set -e
python3 -c 'import ssl, json, multiprocessing, tempfile, threading
from multiprocessing import Pool
print(sum(Pool(2).map(abs, range(100))))'
for d in / /work /tmp /root /home /run /var/tmp /etc /opt /dev/shm; do touch $d/x; done
echo x > /dev/null; head -c 4 /dev/urandom | wc -c; test -r /proc/meminfo; test -r /proc/cpuinfo
for tool in git perl; do ! command -v $tool > /dev/null || $tool --version > /dev/null || echo $tool fails; done
ulimit -c; cat /proc/self/uid_map | wc -l; ls /sys | wc -l";
    let report = node.run(node.task("tools", Sandboxed, script));
    let err = String::from_utf8_lossy(&node.output("tools", "stderr")).into_owned();
    assert_eq!(report.exit, ExitStatus::Code(0), "{report:?} {err}");
    assert_eq!(node.stdout("tools"), "4950\n4\n0\n1\n0\n");
}

pub fn the_host_is_described() {
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

/// Nobody tells when a task of a job with lanes begins: it is looked at, long as it lives or short.
pub fn tasks_of_many_are_heard_of() {
    let node = Node::new();
    for (n, isolation) in [(1, Sandboxed), (2, Plain)] {
        let script =
            "trap 'exit 7' TERM; head -c 1000000 /dev/zero; echo end; while :; do sleep 0.01; done";
        let task = |index: u32, script: &str| {
            let mut launch = node.task(&format!("many-{n}-{index}"), isolation, script);
            launch.id = RunId::task(TaskRef {
                job: JobId::new(1, n),
                index,
                attempt: 1,
            });
            launch.lanes = 1;
            launch
        };
        let tasks = [task(0, script), task(1, "true"), task(2, "exit 3")];
        let ids = tasks.each_ref().map(|launch| launch.id.clone());
        node.rt().launch(tasks.to_vec()).unwrap();
        assert!(node.wait_start(&ids[0]) > 0);
        // More than a pipe holds.
        node.wait_output(&format!("many-{n}-0"), "end\n");
        node.rt().stop(&ids[..1], Millis(60_000)).unwrap();
        let ends = ids.each_ref().map(|id| node.wait_exit(id).exit);
        assert_eq!(ends, [7, 0, 3].map(ExitStatus::Code), "{isolation:?}");
        for run in &ids {
            let told: Vec<&str> = node
                .events()
                .iter()
                .filter_map(|event| match event {
                    RunEvent::Started { id, .. } if id == run => Some("started"),
                    RunEvent::Exited { id, .. } if id == run => Some("exited"),
                    _ => None,
                })
                .collect();
            assert_eq!(told, ["started", "exited"], "{run}");
        }
    }
}
