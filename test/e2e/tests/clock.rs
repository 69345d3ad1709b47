//! Promise: a step of the wall clock by an hour, either way, while everything runs, moves no lease, time limit, retry or sandbox.

use std::time::{Duration, Instant};

use prism_e2e::chaos::{Daemon, Shim};
use prism_e2e::{Oracle, Sandboxes, until};
use serde_json::{Value, json};

const HOUR_MS: i64 = 3_600_000;

fn resources() -> Value {
    json!({"cpu": "50m", "memory": "16Mi"})
}

/// Work that depends on time, begun before a step: its ids.
struct Timed {
    limited: String,
    long: String,
    retried: String,
    idle: String,
}

impl Timed {
    fn begin(api: &prism_e2e::Api, step: i64) -> Self {
        let job = |name: &str, command: &str, more: Value| {
            let mut spec = json!({"job": format!("{name}-{step}"), "command": ["sh", "-c", command], "resources": resources()});
            for (key, value) in more.as_object().expect("an object") {
                spec[key] = value.clone();
            }
            let view = api.post("/api/v1/jobs", &spec).expect(201).json();
            view["id"].as_str().expect("an id").to_owned()
        };
        let sandbox = json!({"resources": resources(), "timeout": "10m"});
        let view = api.post("/api/v1/sandboxes", &sandbox).expect(201).json();
        Self {
            limited: job("limited", "sleep 600", json!({"timeout": "3s"})),
            long: job("long", "sleep 4", json!({"timeout": "5m"})),
            retried: job(
                "retried",
                "exit 1",
                json!({"retries": 2, "backoff": {"initial": "500ms", "max": "1s"}}),
            ),
            idle: view["id"].as_str().expect("an id").to_owned(),
        }
    }

    /// How each must come out, whatever the clock says.
    fn check(&self, api: &prism_e2e::Api) {
        let over = |id: &str| {
            until("the end of a job", || {
                let view = api.get(&format!("/api/v1/jobs/{id}")).expect(200).json();
                (!matches!(view["status"].as_str(), Some("QUEUED" | "RUNNING"))).then_some(view)
            });
            let text = api
                .get(&format!("/api/v1/jobs/{id}/results"))
                .expect(200)
                .text();
            serde_json::from_str::<Value>(text.lines().next().expect("a result")).expect("JSON")
        };
        let limited = over(&self.limited);
        assert_eq!(limited["reason"], "timeout", "{limited}");
        let long = over(&self.long);
        assert_eq!(long["status"], "COMPLETED", "{long}");
        let retried = over(&self.retried);
        assert_eq!(retried["reason"], "exit_code", "{retried}");
        assert_eq!(retried["attempt"], 3, "{retried}");
        for result in [&limited, &long] {
            assert_eq!(result["attempt"], 1, "its lease did not run out: {result}");
        }
        let path = format!("/api/v1/sandboxes/{}", self.idle);
        let view = api.get(&path).expect(200).json();
        assert_eq!(view["status"], "RUNNING", "it was idle for seconds: {view}");
    }
}

#[test]
fn steps_of_an_hour_in_both_directions_change_nothing() {
    let shim = Shim::new().expect("a shim");
    let [preload, control] = shim.env();
    let mut daemon = Daemon::new()
        .with_env(preload.0, preload.1)
        .with_env(control.0, control.1);
    daemon.start().expect("it starts");
    let mut oracle = Oracle::new(daemon.api(), "clock").expect("an oracle");
    let began = Instant::now();
    for step in [HOUR_MS, -HOUR_MS, 0] {
        let api = oracle.api(daemon.api());
        let timed = Timed::begin(&api, step);
        oracle.submit(daemon.api(), 20).expect("a job");
        shim.clock(step);
        oracle.submit(daemon.api(), 20).expect("a job");
        let nodes = api.get("/api/v1/nodes").expect(200).json();
        assert_eq!(nodes["items"][0]["state"], "HEALTHY", "{nodes}");
        timed.check(&api);
        oracle
            .check(daemon.api(), Sandboxes::Live)
            .expect("all is there");
    }
    assert!(shim.given() > 0, "nobody looked at the clock");
    assert!(began.elapsed() < Duration::from_secs(600), "nothing hung");
}

#[test]
fn a_restart_with_another_time_of_day_loses_nothing() {
    let shim = Shim::new().expect("a shim");
    let [preload, control] = shim.env();
    let mut daemon = Daemon::new()
        .with_env(preload.0, preload.1)
        .with_env(control.0, control.1);
    daemon.start().expect("it starts");
    let mut oracle = Oracle::new(daemon.api(), "restart").expect("an oracle");
    let sandbox = oracle.sandbox(daemon.api()).expect("a sandbox");
    for step in [HOUR_MS, -HOUR_MS, 0] {
        oracle.file(daemon.api(), sandbox, b"kept").expect("a file");
        oracle.submit(daemon.api(), 60).expect("a job");
        shim.clock(step);
        daemon.kill();
        daemon.start().expect("it starts again");
        oracle.submit(daemon.api(), 10).expect("a job");
        oracle
            .check(daemon.api(), Sandboxes::Live)
            .expect("all is there");
    }
    daemon.stop().expect("it runs").expect(0);
}
