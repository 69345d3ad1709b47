//! The schemas of submissions and the reader of `prism-spec` agree, in both directions.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod schema;

use prism_api::openapi;
use prism_spec::{WireKind, parse_sandbox_wire, parse_wire, sandbox_to_wire};
use serde_json::{Value, json};

fn check(document: &Value, name: &str, body: &Value) {
    let schema = json!({"$ref": format!("#/components/schemas/{name}")});
    if let Err(why) = schema::check(document, &schema, body, name) {
        panic!("{why}");
    }
}

fn properties(document: &Value, name: &str) -> Vec<String> {
    let schema = &document["components"]["schemas"][name]["properties"];
    schema.as_object().unwrap().keys().cloned().collect()
}

fn common() -> Value {
    json!({
        "namespace": "lab", "group": "g", "task": "find out", "env": {"A": "b"}, "image": "host",
        "files": [{"path": "a.txt", "mode": "0644", "content": "x"}],
        "isolation": "sandbox", "resources": {"cpu": "500m", "memory": "64Mi"}, "pids": 10,
        "retries": 2, "backoff": {"initial": "1s", "factor": 2.0, "max": "10s", "jitter": 0.1},
        "timeout": "5m", "concurrency": 3, "priority": 5, "max_failures": 1, "after": ["b"],
        "labels": {"team": "blue"},
    })
}

fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

fn jobs() -> Vec<Value> {
    vec![
        with(
            common(),
            json!({"job": "a", "command": ["true"], "array": 3, "single_instance": true}),
        ),
        with(
            common(),
            json!({"job": "a", "tasks": [{"name": "t", "command": ["true"], "env": {"X": "y"}}]}),
        ),
        with(
            common(),
            json!({"job": "a", "command": ["echo", "{item}"], "map": {"lines": ["a", "b"]}}),
        ),
        with(
            common(),
            json!({"job": "a", "script": {"path": "run.sh", "content": "true"}}),
        ),
    ]
}

fn sweeps() -> Vec<Value> {
    let space = json!({"lr": {"log_uniform": [0.001, 1.0]}, "n": {"choice": [1, "two"]}, "k": {"range": [1, 5, 2]},
        "u": {"uniform": [0.0, 1.0]}, "l": [1, 2]});
    let rest = json!({
        "space": space, "search": {"random": 4, "seed": 1}, "objective": {"maximize": "acc"},
        "early_stop": {"halving": {"metric": "acc", "rounds": 2}}, "aggregate": {"command": ["cat"]},
    });
    vec![
        with(
            with(common(), rest.clone()),
            json!({"sweep": "s", "command": ["x"]}),
        ),
        with(
            with(common(), rest),
            json!({"sweep": "s", "runners": {"a": {"command": ["x"]}, "b": {"script": {"path": "b.py", "content": "1"}}}}),
        ),
        json!({"sweep": "s", "script": {"path": "s.py", "content_base64": "eA=="}, "space": {"g": [1]}, "search": "grid"}),
    ]
}

#[test]
fn what_the_schemas_describe_is_accepted_and_printed_back() {
    let document = openapi("1.2.3");
    for (kind, name, bodies) in [
        (WireKind::Job, "JobSubmission", jobs()),
        (WireKind::Sweep, "SweepSubmission", sweeps()),
    ] {
        let mut used: Vec<String> = Vec::new();
        for body in &bodies {
            check(&document, name, body);
            let read = parse_wire(kind, serde_json::to_vec(body).unwrap());
            let read = read.unwrap_or_else(|e| panic!("{e}: {body}"));
            check(&document, name, &read.to_wire());
            used.extend(body.as_object().unwrap().keys().cloned());
        }
        for property in properties(&document, name) {
            assert!(
                used.contains(&property),
                "{name}.{property} is in no sample"
            );
        }
    }
}

#[test]
fn sandboxes_as_well() {
    let document = openapi("1.2.3");
    let body = json!({
        "name": "box", "namespace": "lab", "image": "host", "snapshot": "snap-1", "pids": 5,
        "resources": {"cpu": 1, "memory": "64Mi"}, "env": {"A": "b"}, "timeout": "30m", "labels": {"a": "b"},
    });
    let read = parse_sandbox_wire(&serde_json::to_vec(&body).unwrap()).unwrap();
    let printed = sandbox_to_wire(&read);
    for property in properties(&document, "SandboxSubmission") {
        assert!(
            property == "sandbox" || body.get(&property).is_some(),
            "{property}"
        );
    }
    let shown: Value = printed
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, v)| !v.is_null())
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect::<serde_json::Map<_, _>>()
        .into();
    check(&document, "SandboxSubmission", &shown);
}

#[test]
fn a_field_that_the_schema_does_not_know_is_refused_by_both() {
    let document = openapi("1.2.3");
    let body = with(jobs()[0].clone(), json!({"arrray": 3}));
    let schema = json!({"$ref": "#/components/schemas/JobSubmission"});
    assert!(schema::check(&document, &schema, &body, "job").is_err());
    assert!(parse_wire(WireKind::Job, serde_json::to_vec(&body).unwrap()).is_err());
}
