//! Promise: jobs run as their files say, and every failure has a reason that the CLI and the API show.

use prism_e2e::{Place, Server, Shared, until};
use serde_json::{Value, json};

static SERVER: Shared = Shared::new();

const SMALL: &str = "{\"cpu\": \"100m\", \"memory\": \"32Mi\"}";

/// A job of small tasks; `more` adds or replaces fields.
fn job(name: &str, command: &str, more: Value) -> Value {
    let mut spec = json!({
        "job": name,
        "command": ["sh", "-c", command],
        "resources": serde_json::from_str::<Value>(SMALL).expect("it is JSON"),
    });
    for (key, value) in more.as_object().expect("a table") {
        spec[key] = value.clone();
    }
    spec
}

fn only_result(server: &Server, spec: &Value) -> Value {
    let id = server.submit(spec);
    server.finished(&id);
    let mut results = server.results(&id);
    assert_eq!(results.len(), 1, "{results:?}");
    results.remove(0)
}

fn view(server: &Server, id: &str) -> Value {
    server
        .api()
        .get(&format!("/api/v1/jobs/{id}"))
        .expect(200)
        .json()
}

#[test]
fn the_hello_job_says_hello_from_every_task() {
    let server = SERVER.get();
    let file = Place::repo("examples/hello-job/job.yaml");
    let view = server
        .ctl(&["job", "submit", &file, "--wait", "-o", "json"])
        .expect(0)
        .json();
    let id = view["id"].as_str().expect("a job has an id");
    for index in 0..8 {
        let logs = server
            .ctl(&["job", "logs", id, "--task", &index.to_string()])
            .expect(0);
        assert_eq!(logs.stdout, format!("hello from task {index} of 8\n"));
    }
    assert_eq!(server.finished(id)["counts"]["completed"], 8);
}

#[test]
fn a_map_job_gives_a_result_for_every_line_of_its_file() {
    let place = Place::new();
    let out = place
        .ctl(&[
            "run",
            &Place::repo("examples/map-job/job.yaml"),
            "-o",
            "json",
        ])
        .expect(0);
    assert!(out.stdout.contains("Ishmael"), "{}", out.stdout);
}

#[test]
fn a_listed_job_runs_each_task_with_its_own_command_and_environment() {
    let server = SERVER.get();
    let id = server.submit(&json!({
        "job": "listed",
        "command": ["sh", "-c", "echo \"{\\\"who\\\": \\\"$WHO\\\"}\""],
        "env": {"WHO": "all"},
        "resources": {"cpu": "100m", "memory": "32Mi"},
        "tasks": [{"name": "one"}, {"name": "two", "env": {"WHO": "two"}}, {"command": ["echo", "{\"who\": \"three\"}"]}],
    }));
    assert_eq!(server.finished(&id)["status"], "COMPLETED");
    let who: Vec<Value> = server
        .results(&id)
        .iter()
        .map(|r| r["result"]["who"].clone())
        .collect();
    assert_eq!(who, ["all", "two", "three"]);
}

#[test]
fn a_task_that_fails_is_tried_again_as_often_as_said_and_no_oftener() {
    let server = SERVER.get();
    let more = json!({"retries": 2, "backoff": {"initial": "10ms", "max": "20ms"}});
    let result = only_result(&server, &job("retried", "exit 4", more.clone()));
    assert_eq!(result["status"], "FAILED");
    assert_eq!(result["attempt"], 3, "{result}");
    assert_eq!(result["exit_code"], 4);
    assert_eq!(result["reason"], "exit_code");
    let result = only_result(
        &server,
        &job("second-luck", "test $PRISM_TASK_ATTEMPT = 2", more),
    );
    assert_eq!(result["status"], "COMPLETED");
    assert_eq!(result["attempt"], 2, "{result}");
}

#[test]
fn each_way_to_fail_has_its_own_reason() {
    let server = SERVER.get();
    // Without control groups there is a limit for each process, at which memory is refused to it; it sees that and fails.
    let checks = server.ctl(&["doctor", "-o", "json"]).expect(0).json();
    let grouped = checks["checks"].as_array().is_some_and(|all| {
        all.iter()
            .any(|c| c["name"] == "cgroup-memory" && c["works"] == true)
    });
    let memory = if grouped {
        "out_of_memory"
    } else {
        "exit_code"
    };
    let python = "exec python3 -c 'x = bytearray(1 << 28); print(len(x))'";
    for (name, command, more, reason) in [
        ("signalled", "kill -KILL $$", json!({}), "signal"),
        (
            "too-long",
            "exec sleep 600",
            json!({"timeout": "300ms"}),
            "timeout",
        ),
        ("too-much", python, json!({}), memory),
    ] {
        let result = only_result(&server, &job(name, command, more));
        assert_eq!(result["reason"], reason, "{name}: {result}");
        assert_eq!(result["status"], "FAILED", "{name}: {result}");
        assert!(
            result["message"].as_str().is_some_and(|m| !m.is_empty()),
            "{name}: {result}"
        );
    }
    let mut spec = job("no-such", "", json!({}));
    spec["command"] = json!(["/no/such/program"]);
    let result = only_result(&server, &spec);
    assert_eq!(result["reason"], "start_failed", "{result}");
}

#[test]
fn a_failed_job_ends_the_command_line_with_1_and_a_partial_one_with_3() {
    let server = SERVER.get();
    let submit = |name: &str, command: &str| {
        let file = server.place.write(
            &format!("{name}.yaml"),
            format!("job: {name}\ncommand: {command}\narray: 2\nresources: {SMALL}\n"),
        );
        server.ctl(&["job", "submit", &file, "--wait"])
    };
    submit("all-fail", "exit 1").expect(1);
    submit("half-fails", "exit $PRISM_TASK_INDEX").expect(3);
    submit("none-fails", "exit 0").expect(0);
}

#[test]
fn a_job_waits_for_the_jobs_it_is_after_and_falls_with_them() {
    let server = SERVER.get();
    let first = server.submit(&job(
        "first",
        "until test -e /proc/self; do :; done; sleep 0.5",
        json!({}),
    ));
    let second = server.submit(&job("second", "true", json!({"after": [first.as_str()]})));
    let second = server.finished(&second);
    let first = server.finished(&first);
    assert!(
        second["started"].as_u64() >= first["finished"].as_u64(),
        "{first}\n{second}"
    );
    let broken = server.submit(&job("broken", "exit 1", json!({})));
    let behind = server.submit(&job("behind", "true", json!({"after": [broken.as_str()]})));
    let behind = server.finished(&behind);
    assert_eq!(behind["reason"], "dependency_failed", "{behind}");
    assert_eq!(behind["counts"]["completed"], 0);
}

#[test]
fn a_cancelled_job_ends_and_its_tasks_with_it() {
    let server = SERVER.get();
    let id = server.submit(&job("cancelled", "exec sleep 600", json!({"array": 50})));
    until("a task to run", || {
        view(&server, &id)["counts"]["running"]
            .as_u64()
            .filter(|n| *n > 0)
    });
    server.ctl(&["job", "cancel", &id]).expect(0);
    let over = server.finished(&id);
    assert_eq!(over["status"], "CANCELLED");
    assert_eq!(over["counts"]["cancelled"], 50, "{over}");
    let again = server
        .api()
        .post(&format!("/api/v1/jobs/{id}/pause"), &Value::Null);
    assert_eq!(again.status, 409, "{}", again.text());
}

#[test]
fn a_paused_job_places_nothing_new_until_it_is_resumed() {
    let server = SERVER.get();
    let id = server.submit(&job(
        "paused",
        "sleep 0.2",
        json!({"array": 30, "concurrency": 1}),
    ));
    until("a task to complete", || {
        view(&server, &id)["counts"]["completed"]
            .as_u64()
            .filter(|n| *n > 0)
    });
    server.ctl(&["job", "pause", &id]).expect(0);
    let counts = until("what ran to end", || {
        let view = view(&server, &id);
        let busy = view["counts"]["running"].as_u64()? + view["counts"]["assigned"].as_u64()?;
        assert_eq!(view["paused"], true);
        (busy == 0).then(|| view["counts"].clone())
    });
    assert!(counts["queued"].as_u64() > Some(0), "{counts}");
    server.ctl(&["job", "resume", &id]).expect(0);
    assert_eq!(server.finished(&id)["counts"]["completed"], 30);
}

#[test]
fn more_failures_than_allowed_end_the_job() {
    let server = SERVER.get();
    let id = server.submit(&job(
        "fragile",
        "exit 1",
        json!({"array": 200, "concurrency": 2, "max_failures": 3}),
    ));
    let over = server.finished(&id);
    assert_eq!(over["status"], "FAILED");
    assert_eq!(over["reason"], "too_many_failures", "{over}");
    assert!(over["counts"]["cancelled"].as_u64() > Some(100), "{over}");
}

#[test]
fn failed_tasks_can_be_run_again_by_request() {
    let server = SERVER.get();
    let id = server.submit(&job("again", "exit 1", json!({"array": 3})));
    assert_eq!(server.finished(&id)["counts"]["failed"], 3);
    server.ctl(&["job", "retry", &id]).expect(0);
    until("the tasks to have failed again", || {
        let results = server.results(&id);
        let again = results
            .iter()
            .filter(|r| r["attempt"].as_u64() > Some(1))
            .count();
        (again == 3).then_some(())
    });
}

#[test]
fn concurrency_is_never_exceeded() {
    let server = SERVER.get();
    // Each task tells when it began and ended; no moment may be in more than two of them.
    let command = "import json, time; a = time.time(); time.sleep(0.1); print(json.dumps({\"a\": a, \"b\": time.time()}))";
    let mut spec = job("narrow", "", json!({"array": 12, "concurrency": 2}));
    spec["command"] = json!(["python3", "-c", command]);
    let id = server.submit(&spec);
    assert_eq!(server.finished(&id)["counts"]["completed"], 12);
    let spans: Vec<(f64, f64)> = server
        .results(&id)
        .iter()
        .filter_map(|r| Some((r["result"]["a"].as_f64()?, r["result"]["b"].as_f64()?)))
        .collect();
    assert_eq!(spans.len(), 12);
    for (begin, _) in &spans {
        let at_once = spans
            .iter()
            .filter(|(a, b)| a <= begin && begin < b)
            .count();
        assert!(at_once <= 2, "{spans:?}");
    }
}

#[test]
fn output_errors_and_usage_are_kept_after_the_end() {
    let server = SERVER.get();
    let id = server.submit(&job(
        "kept",
        "echo out; echo err >&2; echo '{\"n\": 1}'",
        json!({}),
    ));
    server.finished(&id);
    let logs = |more: &[&str]| {
        server
            .ctl(&[&["job", "logs", &id][..], more].concat())
            .expect(0)
            .stdout
    };
    assert_eq!(logs(&[]), "out\n{\"n\": 1}\n");
    assert_eq!(logs(&["--stderr"]), "err\n");
    let result = &server.results(&id)[0];
    assert_eq!(result["result"], json!({"n": 1}));
    assert!(
        result["wall_ms"].is_u64() && result["cpu_us"].is_u64(),
        "{result}"
    );
}

#[test]
fn a_million_tasks_are_accepted_in_one_small_request() {
    let server = SERVER.get();
    let id = server.submit(&job(
        "million",
        "true",
        json!({"array": 1_000_000, "priority": -100}),
    ));
    let view = view(&server, &id);
    assert_eq!(view["counts"]["total"], 1_000_000);
    server.ctl(&["job", "cancel", &id]).expect(0);
    assert_eq!(server.finished(&id)["status"], "CANCELLED");
}
