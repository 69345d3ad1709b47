//! How processes come to be: by makers, by forks, without one; and that it makes no difference to be seen. As root, and as a
//! normal user.

#![expect(
    clippy::unwrap_used,
    reason = "tests with a main of their own; a panic is how they fail"
)]

#[expect(dead_code, reason = "shared with other tests, which use the rest")]
mod support;

use std::time::{Duration, Instant};

use prism_runtime::Isolation::{Plain, Sandboxed};
use prism_runtime::{InlineFile, Launch, RunEvent, Runtime};
use prism_types::{Bytes, ExitStatus, Millis, StopCause};
use support::{Node, id, is_root};

fn idle_sandboxes_are_small_and_closed() {
    let node = Node::new();
    node.rt().launch(vec![node.sandbox("box")]).unwrap();
    let pid = node.wait_start(&id("box"));
    let name = || std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    for _ in 0..500 {
        if name() == "prism-init\n" {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(name(), "prism-init\n");
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    let resident: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(resident <= 8, "{resident} pages");
    let script = "kill -9 1; kill -TERM 1; kill -STOP 1; cat /proc/1/environ /proc/1/mem; readlink /proc/1/exe; \
                  tr '\\0' ' ' < /proc/1/cmdline; grep -E '^(CapBnd|CapEff|NoNewPrivs|Seccomp):' /proc/1/status";
    node.rt()
        .exec(node.exec("look", "box", &["sh", "-c", script]))
        .unwrap();
    let report = node.wait_exit(&id("look"));
    assert_eq!(report.exit, ExitStatus::Code(0), "{report:?}");
    let none = "0000000000000000";
    let seen =
        format!("prism-init CapEff:\t{none}\nCapBnd:\t{none}\nNoNewPrivs:\t1\nSeccomp:\t2\n");
    assert_eq!(node.stdout("look"), seen);
}

/// A plain program's files in memory outlive it, and are charged to its cgroup: the next run must not get that one.
fn what_one_run_left_is_not_charged_to_the_next() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let left = format!("/dev/shm/prism-left-{}", std::process::id());
    let mut launch = node.task(
        "first",
        Plain,
        &format!("head -c 20000000 /dev/zero > {left}"),
    );
    launch.limits.memory = Bytes(32 << 20);
    let first = node.run(launch);
    let script = "head -c 14000000 /dev/zero | tail -c 14000000 | wc -c";
    let mut launch = node.task("second", Plain, script);
    launch.limits.memory = Bytes(32 << 20);
    let second = node.run(launch);
    std::fs::remove_file(left).unwrap();
    assert_eq!(first.exit, ExitStatus::Code(0), "{first:?}");
    assert_eq!(second.exit, ExitStatus::Code(0), "{second:?}");
}

/// Plain programs start without a fork where they can; what stands against it makes no difference to be seen.
fn plain_programs_start_alike_both_ways() {
    let node = Node::new();
    std::fs::create_dir_all(node.dir.join("plain")).unwrap();
    let script = "umask; ulimit -n; ulimit -c; pwd; ls /proc/self/fd | wc -l; cat; echo $X; \
                  awk '/^Sig(Blk|Ign)/ {print $2}' /proc/self/status";
    let quick = node.task("quick", Plain, script);
    let mut forked = node.task("forked", Plain, script);
    forked.files = vec![InlineFile {
        path: "file".into(),
        content: b"x".to_vec().into(),
        mode: 0o644,
    }];
    // Too little to leave this process's memory in: the kernel would end both for want of it.
    let mut tight = node.task("tight", Plain, script);
    tight.limits.memory = Bytes(2 << 20);
    tight
        .program
        .as_mut()
        .unwrap()
        .env
        .push(("Y".into(), "y".repeat(100_000)));
    for mut launch in [quick, forked] {
        launch.limits.nofile = 99;
        launch
            .program
            .as_mut()
            .unwrap()
            .env
            .push(("X".into(), "set".into()));
        let report = node.run(launch);
        assert_eq!(report.exit, ExitStatus::Code(0), "{report:?}");
    }
    let seen = node.stdout("quick");
    assert_eq!(seen, node.stdout("forked"));
    let dir = node.dir.join("plain");
    assert!(
        seen.starts_with(&format!("0022\n99\n0\n{}\n", dir.display())) && seen.contains("\nset\n"),
        "{seen}"
    );
    let supervisor = node.supervisor();
    node.run(tight);
    let mut none = node.task("none", Plain, "true");
    none.program.as_mut().unwrap().argv[0] = "/no/such/program".into();
    let report = node.run(none);
    assert_eq!(report.cause, StopCause::StartFailed, "{report:?}");
    assert!(report.detail.contains("program not found"), "{report:?}");
    assert_eq!(node.supervisor(), supervisor);
    assert!(is_alive(supervisor));
}

/// The makers of a supervisor: children that run its own program, and are not on their way to be a sandbox's first process.
fn makers(supervisor: u32) -> Vec<u32> {
    let program = |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let children = format!("/proc/{supervisor}/task/{supervisor}/children");
    let children = std::fs::read_to_string(children).unwrap_or_default();
    let numbers = children.split_whitespace().map(|pid| pid.parse().unwrap());
    let is_first = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let known = status.lines().find_map(|l| l.strip_prefix("NSpid:"));
        known.is_none_or(|numbers| numbers.split_whitespace().count() > 1)
    };
    numbers
        .filter(|pid| program(*pid).is_some() && program(*pid) == program(supervisor))
        .filter(|pid| !is_first(*pid))
        .collect()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    let _gone_already = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

fn is_alive(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

/// What a maker makes does not hang on it: it runs, and tells of its end, when the maker is long dead. What it had not made yet is
/// told as not started.
fn killed_makers_lose_only_what_they_had_not_made() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    node.run(node.task("first", Sandboxed, "true"));
    let supervisor = node.supervisor();
    let long = node.task(
        "long",
        Sandboxed,
        "cat /dev/zero | head -c 1000 | wc -c; sleep 1; exit 7",
    );
    node.rt().launch(vec![long, node.sandbox("box")]).unwrap();
    node.wait_start(&id("long"));
    node.wait_start(&id("box"));
    let (mut began, mut not) = (0, 0);
    for round in 0..20 {
        let name = |n: u32| format!("r{round}-{n}");
        let batch: Vec<Launch> = (0..8)
            .map(|n| node.task(&name(n), Sandboxed, "exit 3"))
            .collect();
        node.rt().launch(batch).unwrap();
        let exec = node.exec(&format!("e{round}"), "box", &["sh", "-c", "exit 3"]);
        node.rt().exec(exec).unwrap();
        makers(supervisor).into_iter().for_each(kill);
        for name in (0..8).map(name).chain([format!("e{round}")]) {
            let report = node.wait_exit(&id(&name));
            match report.cause {
                StopCause::None => {
                    assert_eq!(report.exit, ExitStatus::Code(3), "{report:?}");
                    began += 1;
                }
                StopCause::StartFailed => {
                    assert!(!report.detail.is_empty(), "{report:?}");
                    not += 1;
                }
                _ => panic!("{report:?}"),
            }
        }
    }
    assert_eq!(began + not, 180);
    let report = node.wait_exit(&id("long"));
    assert_eq!(report.exit, ExitStatus::Code(7), "{report:?}");
    assert_eq!(node.stdout("long"), "1000\n");
    let report = node.run(node.task("last", Sandboxed, "exit 4"));
    assert_eq!(report.exit, ExitStatus::Code(4), "{report:?}");
    assert_eq!(node.supervisor(), supervisor);
}

/// A maker is not larger after thousands of orders, and its descriptors are those that it began with.
fn makers_keep_nothing() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let round = |from: u32, count: u32| {
        let mut batch: Vec<Launch> = (from..from + count)
            .map(|n| node.task(&format!("k{n}"), Sandboxed, "true"))
            .collect();
        for (n, launch) in batch.iter_mut().enumerate() {
            let text = "x".repeat(n % 50 * 1000);
            let program = launch.program.as_mut().unwrap();
            program.env.push(("PAYLOAD".into(), text));
            if n % 3 == 0 {
                program.argv[0] = "/no/such/program".into();
            }
        }
        let ids: Vec<_> = batch.iter().map(|l| l.id.clone()).collect();
        node.rt().launch(batch).unwrap();
        ids.iter().for_each(|id| drop(node.wait_exit(id)));
        node.rt().forget(&ids).unwrap();
    };
    round(0, 200);
    let supervisor = node.supervisor();
    let kept = wait_for_one(supervisor).expect("one maker is kept");
    let look = || {
        let status = std::fs::read_to_string(format!("/proc/{kept}/status")).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
        let size = line.unwrap().trim().trim_end_matches(" kB");
        let open = std::fs::read_dir(format!("/proc/{kept}/fd"))
            .unwrap()
            .count();
        (size.parse::<u64>().unwrap(), open)
    };
    let before = look();
    for n in 0..5 {
        round(1000 + n * 200, 200);
    }
    assert_eq!(wait_for_one(supervisor), Some(kept));
    let after = look();
    assert!(
        after.0 <= before.0 + 256,
        "{before:?} KiB and descriptors, then {after:?}"
    );
    assert_eq!(after.1, before.1);
}

/// The one maker that stays when there is nothing to do.
fn wait_for_one(supervisor: u32) -> Option<u32> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let now = makers(supervisor);
        if now.len() < 2 || Instant::now() > until {
            assert!(now.len() < 2, "{} makers stay", now.len());
            return now.first().copied();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What is too large to be sent to a maker is forked; inside nobody can tell.
fn sandboxes_are_the_same_both_ways() {
    let node = Node::new();
    let script = "grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp|Sig(Blk|Ign)|Pid|NSpid):' /proc/self/status; ulimit -a; \
                  umask; pwd; ls -l /proc/self/fd | wc -l; cat /proc/self/cgroup; hostname; ls -l /dev | cut -c1-40; \
                  mount | wc -l; kill -9 1; echo $?; readlink /proc/1/exe /proc/1/root /proc/1/fd/3 /proc/1/ns/net; \
                  (echo x >/proc/1/fd/3) 2>/dev/null; echo $?; cat /proc/1/environ /proc/1/maps /proc/1/syscall 2>/dev/null; true";
    let quick = node.task("one", Sandboxed, script);
    let mut forked = node.task("two", Sandboxed, script);
    forked.files = vec![InlineFile {
        path: "large".into(),
        content: vec![b'x'; 200_000].into(),
        mode: 0o644,
    }];
    forked.hostname.clone_from(&quick.hostname);
    for launch in [quick, forked] {
        let report = node.run(launch);
        assert_eq!(report.exit, ExitStatus::Code(0), "{report:?}");
    }
    let (one, two) = (node.stdout("one"), node.stdout("two"));
    assert_eq!(one, two);
    // Nothing is told of the first process, and nothing can be done to it.
    assert!(one.ends_with("\n0\n2\n"), "{one}");
    assert!(one.contains("CapBnd:\t0000000000000000"), "{one}");
}

/// Whoever asks for a run that is known may have come after what was told of it: it is told again, and nothing is started.
fn what_is_asked_for_again_is_answered_again() {
    let node = Node::new();
    let ended = node.task("ended", Sandboxed, "echo once >> log; cat log; exit 5");
    let first = node.run(ended.clone());
    let live = node.task("live", Plain, "sleep 1000");
    node.rt().launch(vec![live.clone()]).unwrap();
    node.wait_start(&id("live"));
    node.rt().launch(vec![ended, live]).unwrap();
    let told = |wanted: &RunEvent| node.events().iter().filter(|e| *e == wanted).count();
    let exited = RunEvent::Exited {
        id: id("ended"),
        report: first,
    };
    node.wait("both to be told again", |events| {
        let started =
            |e: &&RunEvent| matches!(e, RunEvent::Started { id: of, .. } if *of == id("live"));
        let twice = events.iter().filter(started).count() == 2;
        (twice && events.iter().filter(|e| **e == exited).count() == 2).then_some(())
    });
    assert_eq!(told(&exited), 2);
    assert_eq!(node.stdout("ended"), "once\n");
    node.rt().stop(&[id("live")], Millis(0)).unwrap();
    node.wait_exit(&id("live"));
}

/// A task may be ended at any moment of its way up, by whoever asks or by its time.
fn what_is_stopped_on_its_way_up_ends() {
    let node = Node::new();
    for round in 0..30u32 {
        let names: Vec<String> = (0..4).map(|n| format!("s{round}-{n}")).collect();
        let mut batch: Vec<Launch> = names
            .iter()
            .map(|name| node.task(name, Sandboxed, "sleep 1000"))
            .collect();
        batch[0].limits.timeout = Some(Millis(1 + u64::from(round) / 4));
        let ids: Vec<_> = batch.iter().map(|l| l.id.clone()).collect();
        node.rt().launch(batch).unwrap();
        // The moment is the test's input: from before the process is made to well after.
        std::thread::sleep(Duration::from_micros(u64::from(round) * 150));
        node.rt().stop(&ids[1..], Millis(0)).unwrap();
        let report = node.wait_exit(&ids[0]);
        assert_eq!(report.cause, StopCause::Timeout, "{report:?}");
        for id in &ids[1..] {
            let report = node.wait_exit(id);
            assert_eq!(report.cause, StopCause::Requested, "{report:?}");
        }
    }
    let supervisor = node.supervisor();
    assert!(is_alive(supervisor));
}

fn main() {
    support::run(
        "starts",
        &[
            (
                "idle_sandboxes_are_small_and_closed",
                idle_sandboxes_are_small_and_closed,
            ),
            (
                "what_one_run_left_is_not_charged_to_the_next",
                what_one_run_left_is_not_charged_to_the_next,
            ),
            (
                "plain_programs_start_alike_both_ways",
                plain_programs_start_alike_both_ways,
            ),
            (
                "killed_makers_lose_only_what_they_had_not_made",
                killed_makers_lose_only_what_they_had_not_made,
            ),
            ("makers_keep_nothing", makers_keep_nothing),
            (
                "sandboxes_are_the_same_both_ways",
                sandboxes_are_the_same_both_ways,
            ),
            (
                "what_is_asked_for_again_is_answered_again",
                what_is_asked_for_again_is_answered_again,
            ),
            (
                "what_is_stopped_on_its_way_up_ends",
                what_is_stopped_on_its_way_up_ends,
            ),
        ],
        &[],
    );
}
