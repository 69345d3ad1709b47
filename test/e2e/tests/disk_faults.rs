//! Promise: a full, read-only, slow or failing disk costs nothing that was acknowledged. New work is refused with the reason, what
//! runs goes on, and a store that cannot know what the disk holds stops at once.

use prism_e2e::chaos::{Daemon, Shim, Tmpfs};
use prism_e2e::{Oracle, Sandboxes, until};
use rustix::io::Errno;
use serde_json::{Value, json};

fn shimmed(shim: &Shim) -> Daemon {
    let [preload, control] = shim.env();
    Daemon::new()
        .with_env(preload.0, preload.1)
        .with_env(control.0, control.1)
}

fn job(name: &str, command: &str, array: u64) -> Value {
    json!({"job": name, "command": ["sh", "-c", command], "array": array,
        "resources": {"cpu": "50m", "memory": "16Mi", "disk": "64Ki"}})
}

/// What a refused submission must say.
fn assert_refused_for_space(answer: &prism_e2e::Answer) {
    assert_eq!(answer.status, 507, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["reason"], "pressure", "{body}");
    assert_eq!(body["outcome"], "not_applied", "{body}");
    assert_eq!(body["retryable"], true, "{body}");
    let message = body["message"].as_str().expect("a text");
    assert!(message.contains("data disk of"), "{message}");
    assert!(message.contains("free space"), "{message}");
}

#[test]
fn a_full_disk_refuses_new_work_and_what_runs_goes_on() {
    if !rustix::process::geteuid().is_root() {
        // Only root can mount a disk to fill; the tests below show the same errors to anybody.
        return;
    }
    let disk = Tmpfs::new(16).expect("a small disk");
    let mut daemon = Daemon::new().with_data(&disk.path().join("data"));
    daemon.start().expect("it starts on a small disk");
    let mut oracle = Oracle::new(daemon.api(), "full").expect("an oracle");
    oracle.submit(daemon.api(), 20).expect("a job");
    let api = oracle.api(daemon.api());
    let running = job("running", "while [ ! -e /tmp/x ]; do sleep 0.2; done", 1);
    let running = api.post("/api/v1/jobs", &running).expect(201).json();
    let running = running["id"].as_str().expect("an id").to_owned();
    let status = || {
        let view = api
            .get(&format!("/api/v1/jobs/{running}"))
            .expect(200)
            .json();
        view["counts"]["running"].as_u64().unwrap_or(0)
    };
    until("the job to run", || (status() == 1).then_some(()));

    disk.fill();
    assert_refused_for_space(&api.post("/api/v1/jobs", &job("more", "true", 1)));
    assert_refused_for_space(&api.post("/api/v1/sandboxes", &json!({})));
    assert_eq!(status(), 1, "what runs goes on");
    // What ends work needs no more room than is kept for it.
    api.post(&format!("/api/v1/jobs/{running}/cancel"), &json!({}))
        .expect(200);
    until("the end of the job", || (status() == 0).then_some(()));

    disk.free();
    until("work to be taken again", || {
        oracle.submit(daemon.api(), 5).ok()
    });
    oracle
        .check(daemon.api(), Sandboxes::Live)
        .expect("all is there");
    daemon.kill();
    daemon.start().expect("it starts again");
    oracle
        .check(daemon.api(), Sandboxes::Live)
        .expect("all is there");
    daemon.place.assert_no_panic();
    daemon.stop().expect("it runs").expect(0);
}

#[test]
fn the_supervisor_goes_on_when_its_journal_cannot_be_written() {
    let shim = Shim::new().expect("a shim");
    let mut daemon = shimmed(&shim);
    daemon.start().expect("it starts");
    let mut oracle = Oracle::new(daemon.api(), "journal").expect("an oracle");
    oracle.submit(daemon.api(), 50).expect("a job");
    let supervisor = daemon.supervisor();
    // Its log as well: it must not end for having nowhere to complain.
    let files = daemon.data().join("supervisor");
    shim.fail("write", &files, Errno::NOSPC, 0);
    oracle.submit(daemon.api(), 50).expect("a job");
    oracle
        .check(daemon.api(), Sandboxes::Live)
        .expect("all is recorded");
    assert!(shim.given() > 0, "the fault was never given");
    shim.set("");
    oracle.submit(daemon.api(), 50).expect("a job");
    oracle
        .check(daemon.api(), Sandboxes::Live)
        .expect("all is recorded");
    assert_eq!(daemon.supervisor(), supervisor, "it never died");
}

#[test]
fn a_failed_sync_ends_prismd_at_once_and_nothing_acknowledged_is_lost() {
    for (call, error, words) in [
        ("sync", Errno::IO, "cannot sync"),
        ("write", Errno::IO, "cannot write"),
        ("write", Errno::ROFS, "cannot write"),
    ] {
        let shim = Shim::new().expect("a shim");
        let mut daemon = shimmed(&shim);
        daemon.start().expect("it starts");
        let mut oracle = Oracle::new(daemon.api(), "sync").expect("an oracle");
        oracle.submit(daemon.api(), 40).expect("a job");
        let log = daemon.data().join("store/log");
        shim.fail(call, &log, error, 3);
        let mut sent = 0;
        while daemon.is_up() && sent < 50 {
            // The one that meets the fault has no answer.
            let _ = oracle.submit(daemon.api(), 3);
            sent += 1;
        }
        let output = daemon.ended();
        assert_eq!(output.code, Some(70), "{}", output.stderr);
        let said = &output.stderr;
        assert!(
            said.contains(words) && said.contains(&*log.to_string_lossy()),
            "{said}"
        );
        assert!(said.contains("does not try again"), "{said}");
        assert!(said.contains("prismctl explain PRISM-D004"), "{said}");
        assert_eq!(shim.given(), 1, "it was never tried again");
        shim.set("");
        daemon.start().expect("it starts again");
        oracle
            .check(daemon.api(), Sandboxes::Live)
            .expect("all is there");
    }
}

#[test]
fn a_slow_disk_makes_it_slow_and_it_says_so() {
    let shim = Shim::new().expect("a shim");
    let mut daemon = shimmed(&shim);
    daemon.start().expect("it starts");
    let mut oracle = Oracle::new(daemon.api(), "slow").expect("an oracle");
    shim.slow("sync", &daemon.data().join("store"), 1_100);
    oracle.submit(daemon.api(), 10).expect("a job");
    let sandbox = oracle.sandbox(daemon.api()).expect("a sandbox");
    oracle.file(daemon.api(), sandbox, b"slow").expect("a file");
    shim.set("");
    oracle
        .check(daemon.api(), Sandboxes::Live)
        .expect("all is there");
    assert!(shim.given() > 0, "the fault was never given");
    assert!(
        daemon.stderr().contains("the disk is slow"),
        "{}",
        daemon.stderr()
    );
}

#[test]
fn a_directory_that_cannot_be_written_is_refused_by_name() {
    let shim = Shim::new().expect("a shim");
    for (call, beneath, error, words) in [
        ("open", "store", Errno::ROFS, "Read-only file system"),
        ("open", "store", Errno::NOSPC, "No space left on device"),
        ("open", "store/lock", Errno::IO, "Input/output error"),
    ] {
        let daemon = shimmed(&shim);
        shim.fail(call, &daemon.data().join(beneath), error, 0);
        let output = daemon.start_refused();
        let said = &output.stderr;
        assert_ne!(output.code, Some(0), "{said}");
        assert!(said.contains(words), "{said}");
        assert!(said.contains(&*daemon.data().to_string_lossy()), "{said}");
        assert!(said.contains("PRISM-D00"), "{said}");
        shim.set("");
    }
}

/// A copy of a data directory, as it was left.
fn copy_of(data: &std::path::Path, to: &std::path::Path) {
    let copied = std::process::Command::new("cp")
        .args(["-a", "--sparse=always", "--"])
        .args([data, to])
        .status()
        .expect("cp is there");
    assert!(copied.success(), "the copy failed");
}

/// The durable files of a node, and at how many places each is damaged.
fn durable(data: &std::path::Path) -> Vec<(std::path::PathBuf, u64)> {
    let mut files = vec![
        (data.join("node.json"), 4),
        (data.join("supervisor/journal"), 6),
        (data.join("worker/sandboxes/journal"), 6),
        (data.join("store/vote"), 1),
        (data.join("store/tail"), 1),
        (data.join("store/format"), 1),
    ];
    for (dir, extension) in [("worker/snapshots", "json"), ("store/log", "seg")] {
        let entries = std::fs::read_dir(data.join(dir)).expect("it is there");
        let paths = entries.map(|e| e.expect("an entry").path());
        files.extend(
            paths
                .filter(|p| p.extension().is_some_and(|e| e == extension))
                .map(|p| (p, 2)),
        );
    }
    files
}

#[test]
fn damaged_files_are_refused_by_name_and_place_or_change_nothing() {
    let mut daemon = Daemon::new();
    daemon.start().expect("it starts");
    let mut oracle = Oracle::new(daemon.api(), "damage").expect("an oracle");
    let sandbox = oracle.sandbox(daemon.api()).expect("a sandbox");
    oracle.file(daemon.api(), sandbox, b"kept").expect("a file");
    oracle
        .exec(daemon.api(), sandbox, &["true"])
        .expect("an exec");
    oracle.snapshot(daemon.api(), sandbox).expect("a snapshot");
    oracle.submit(daemon.api(), 100).expect("a job");
    oracle
        .check(daemon.api(), Sandboxes::Live)
        .expect("all is there");
    daemon.kill();
    daemon.kill_supervisor();
    let mut random = prism_e2e::chaos::Random::new("damaged files");
    let mut refused = 0;
    for (file, places) in durable(daemon.data()) {
        let name = file.strip_prefix(daemon.data()).expect("it is beneath");
        for place in 0..places {
            let mut again = Daemon::new();
            let data = again.place.path().join("copy");
            copy_of(daemon.data(), &data);
            again = again.with_data(&data);
            let mut bytes = std::fs::read(data.join(name)).expect("it can be read");
            // Behind the entries a segment holds zeros.
            let used = bytes
                .iter()
                .rposition(|b| *b != 0)
                .expect("it holds something")
                + 1;
            let at = usize::try_from(random.below(used as u64)).expect("a size fits");
            let what = if place % 3 == 2 {
                bytes.truncate(at);
                format!("{} cut at {at}", name.display())
            } else {
                bytes[at] ^= 1 << (at % 8);
                format!("{} flipped at {at}", name.display())
            };
            std::fs::write(data.join(name), bytes).expect("it can be written");
            let file_name = name.to_string_lossy();
            let told = |said: &str| {
                said.contains(&*file_name) && (said.contains("byte") || said.contains("offset"))
            };
            match again.start() {
                Ok(()) => {
                    // Its snapshots may be what is damaged: then asking for them is refused.
                    if let Err(e) = oracle.clone().check(again.api(), Sandboxes::MayBeLost) {
                        let said = format!("{e:?}");
                        assert!(told(&said), "{what}: {said}");
                        refused += 1;
                    }
                }
                Err(e) => {
                    let said = format!("{e:?}");
                    assert!(told(&said), "{what}: {said}");
                    refused += 1;
                }
            }
            again.place.assert_no_panic();
        }
    }
    assert!(refused >= 10, "only {refused} were noticed");
}
