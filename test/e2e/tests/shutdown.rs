//! Promise: what ran goes on when only `prismd` dies, and nothing is left when it is told to end.

use prism_e2e::{Leftovers, Server, until};
use serde_json::json;

#[test]
fn a_task_and_a_sandbox_outlive_prismd() {
    let mut server = Server::start();
    let resources = json!({"cpu": "100m", "memory": "32Mi"});
    let sandbox = json!({"name": "survivor", "resources": resources});
    server.api().post("/api/v1/sandboxes", &sandbox).expect(201);
    let write = [
        "sandbox",
        "exec",
        "survivor",
        "--",
        "sh",
        "-c",
        "echo kept > /work/state",
    ];
    server.ctl(&write).expect(0);
    let command =
        "echo begun; i=0; while [ $i -lt 40 ]; do sleep 0.1; i=$((i+1)); done; echo ended";
    let id = server.submit(
        &json!({"job": "survivor", "command": ["sh", "-c", command], "resources": resources}),
    );
    until("its first output", || {
        let answer = server.api().get(&format!("/api/v1/jobs/{id}/logs?task=0"));
        (answer.status == 200 && answer.text() == "begun\n").then_some(())
    });
    server.kill();
    server.restart();
    let view = server.finished(&id);
    assert_eq!(view["status"], "COMPLETED", "{view}");
    let result = &server.results(&id)[0];
    assert_eq!(result["attempt"], 1, "it was not run again: {result}");
    let logs = server
        .api()
        .get(&format!("/api/v1/jobs/{id}/logs?task=0"))
        .expect(200)
        .text();
    assert_eq!(logs, "begun\nended\n");
    let read = server
        .ctl(&["sandbox", "exec", "survivor", "--", "cat", "/work/state"])
        .expect(0);
    assert_eq!(read.stdout, "kept\n");
}

#[test]
fn nothing_is_left_after_prismd_was_told_to_end() {
    let mut server = Server::start();
    let resources = json!({"cpu": "100m", "memory": "32Mi"});
    let id = server
        .submit(&json!({"job": "some", "command": ["true"], "array": 20, "resources": resources}));
    server.finished(&id);
    let view = server
        .api()
        .post("/api/v1/sandboxes", &json!({"resources": resources}))
        .expect(201)
        .json();
    let path = format!("/api/v1/sandboxes/{}", view["id"].as_str().expect("an id"));
    server
        .api()
        .post(&format!("{path}/exec"), &json!({"argv": ["sleep", "600"]}));
    let mut leftovers = Leftovers::default();
    leftovers.note(&server.place);
    assert!(server.api().delete(&path).status < 300);
    until("the sandbox to be gone", || {
        let view = server.api().get(&path).json();
        (view["status"] == "STOPPED").then_some(())
    });
    server.stop().expect(0);
    leftovers.assert_none(&server.place);
    server.place.assert_no_panic();
}

/// Whoever hears that it is ready may end it that very moment.
#[test]
fn one_that_is_ended_the_moment_it_is_ready_ends_in_order() {
    for _ in 0..8 {
        let mut server = Server::start();
        server.stop().expect(0);
    }
}
