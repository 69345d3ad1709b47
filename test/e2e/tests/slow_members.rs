//! Promise: nobody waits for a machine that has fallen silent. What is asked of it is refused within seconds, by its name; what is told
//! of all machines is told at once, and says which are missing.

use std::time::{Duration, Instant};

use prism_e2e::cluster::{LOOPBACK, Worker, healthy};
use prism_e2e::{Server, until};
use rustix::process::Signal;
use serde_json::{Value, json};

/// What a question to a machine that has just fallen silent may take: 8 s of silence, and a busy machine.
const REFUSED: Duration = Duration::from_secs(14);
/// What any other question may take.
const AT_ONCE: Duration = Duration::from_secs(4);

/// Asks, and answers the refusal with how long it took.
#[track_caller]
fn refused(server: &Server, path: &str) -> (Value, Duration) {
    let begin = Instant::now();
    let answer = server.api().get(path);
    assert!([503, 504].contains(&answer.status), "{}", answer.text());
    (answer.json(), begin.elapsed())
}

#[test]
fn who_has_fallen_silent_is_named_and_not_waited_for() {
    let server = Server::start_with(&[LOOPBACK]);
    let own = server.api().get("/api/v1/nodes").expect(200).json();
    let own = own["items"][0]["name"].as_str().expect("a name").to_owned();
    let mut far = Worker::joined(&server, "far", &[]);
    let running = far.running();
    server.ctl(&["node", "cordon", &own]).expect(0);
    let small = json!({"cpu": "100m", "memory": "32Mi"});
    let body = json!({"name": "box", "resources": small});
    server.api().post("/api/v1/sandboxes", &body).expect(201);
    let echo = ["sandbox", "exec", "box", "--", "sh", "-c", "echo there"];
    server.ctl(&echo).expect(0);
    let job =
        server.submit(&json!({"job": "said", "command": ["echo", "this"], "resources": small}));
    assert_eq!(server.finished(&job)["status"], "COMPLETED");
    let missing = |path: &str| server.api().get(path).expect(200).json()["missing"].clone();
    assert_eq!(missing("/api/v1/cluster/resources"), json!([]));

    running.signal(Signal::STOP);
    until("all of it to have stopped", || {
        let tasks = format!("/proc/{}/task", running.pid());
        let stopped = |task: &std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat"));
            stat.is_ok_and(|stat| stat.contains(") T "))
        };
        let mut all = std::fs::read_dir(tasks).ok()?.filter_map(Result::ok);
        all.all(|task| stopped(&task)).then_some(())
    });
    let (said, took) = refused(&server, "/api/v1/sandboxes/box/files?path=/work&list=true");
    let message = said["message"].as_str().expect("a text");
    assert!(
        took < REFUSED && message.contains("node far has said nothing for"),
        "{took:?} {said}"
    );
    // From then on nobody waits at all.
    for path in [
        "/api/v1/sandboxes/box/execs".to_owned(),
        "/api/v1/sandboxes/box/logs".to_owned(),
        format!("/api/v1/jobs/{job}/logs"),
    ] {
        let (said, took) = refused(&server, &path);
        assert!(
            took < AT_ONCE && said["retryable"] == true,
            "{path}: {took:?} {said}"
        );
    }
    let begin = Instant::now();
    let exec = json!({"argv": ["true"]});
    let refused = server.api().post("/api/v1/sandboxes/box/exec", &exec);
    let said = refused.expect(503).json();
    assert!(
        begin.elapsed() < AT_ONCE && said["outcome"] == "not_applied",
        "{said}"
    );
    named(&server, &missing);

    running.signal(Signal::CONT);
    healthy(&server, "far");
    assert_eq!(missing("/api/v1/cluster"), json!([]));
    let back = server.api().get(&format!("/api/v1/jobs/{job}/logs"));
    assert_eq!(back.expect(200).text(), "this\n");
}

/// Both answers about all nodes name it at once, and `prismctl info` does.
fn named(server: &Server, missing: &dyn Fn(&str) -> Value) {
    until("it to be missed", || {
        let begin = Instant::now();
        let said = missing("/api/v1/cluster/resources");
        assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
        (said[0]["name"] == "far" && said[0]["state"] == "OFFLINE").then_some(())
    });
    let said = missing("/api/v1/cluster");
    assert_eq!(said.as_array().map(Vec::len), Some(1), "{said}");
    let (since, heard) = (&said[0]["since"], &said[0]["last_heartbeat"]);
    assert!(heard.as_u64() < since.as_u64() && heard.is_u64(), "{said}");
    let shown = server.ctl(&["info"]).expect(0).stdout;
    let line = shown.lines().find(|l| l.starts_with("missing "));
    let line = line.unwrap_or_else(|| panic!("{shown}"));
    assert!(
        line.contains("far is OFFLINE since 20") && line.ends_with(')'),
        "{line}"
    );
    assert!(shown.contains("1 offline"), "{shown}");
}
