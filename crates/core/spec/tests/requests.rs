//! Bodies of requests: the same schema as JSON, with the contents in it.

use prism_spec::WireKind::{Job, Sweep};
use prism_spec::{
    SandboxSpec, WireKind, parse_file, parse_sandbox_wire, parse_wire, sandbox_to_wire,
};

fn refusal(kind: WireKind, body: &str) -> String {
    parse_wire(kind, body.as_bytes())
        .expect_err(body)
        .to_string()
}

const WRONG: &[(WireKind, &str, &[&str])] = &[
    (Job, "", &["request:1:1:", "empty"]),
    (Job, "null", &["found nothing"]),
    (Job, "[]", &["found a list"]),
    (Job, "{\"job\": \"a\"", &["request:1:12:"]),
    (Job, "job: a", &["request:1:1:", "expected a JSON value"]),
    (Job, r#"{"command": ["x"]}"#, &["\"job\" is missing"]),
    (
        Sweep,
        r#"{"job": "a", "command": ["x"]}"#,
        &["unknown field \"job\""],
    ),
    (
        Job,
        r#"{"job": "a", "command": ["x"], "arry": 3}"#,
        &["did you mean \"array\"?"],
    ),
    (
        Job,
        r#"{"job": "a", "script": "train.py"}"#,
        &[
            "script",
            "cannot read \"train.py\" on your machine",
            "content",
        ],
    ),
    (
        Job,
        r#"{"job": "a", "command": ["x"], "files": ["/etc/shadow"]}"#,
        &["files[0]", "cannot read"],
    ),
    (
        Job,
        r#"{"job": "a", "command": ["x"], "files": [{"path": "a"}]}"#,
        &["files[0]", "no content"],
    ),
    (
        Job,
        r#"{"job": "a", "command": ["x"], "files": [{"path": "../a", "content": ""}]}"#,
        &["files[0].path", "leaves its directory"],
    ),
    (
        Job,
        r#"{"job": "a", "command": ["x"], "map": "lines.txt"}"#,
        &["map", "{lines: [...]}"],
    ),
    (
        Job,
        r#"{"job": "a", "command": ["x"], "map": {"file": "lines.txt"}}"#,
        &["map.file", "{lines: [...]}"],
    ),
    (
        Sweep,
        r#"{"sweep": "a", "runners": {"b": {"script": "x.py"}}}"#,
        &["runners.b.script", "cannot read"],
    ),
    (
        Sweep,
        r#"{"sweep": "a", "command": ["x"], "aggregate": {"script": "x.py"}}"#,
        &["aggregate.script", "cannot read"],
    ),
    (
        Job,
        r#"{"job": "a", "command": ["x\u0000"]}"#,
        &["command[0]", "NUL"],
    ),
];

#[test]
fn wrong_bodies_are_refused_with_their_field() {
    for (kind, body, expected) in WRONG {
        let message = refusal(*kind, body);
        for part in *expected {
            assert!(message.contains(part), "{body}\n  gave: {message}");
        }
    }
    let large = vec![b' '; (24 << 20) + 1];
    let message = parse_wire(Job, &large).unwrap_err().to_string();
    assert!(message.contains("at most 24 MiB"), "{message}");
    let file = "x".repeat(6 << 20);
    let files: Vec<String> = ["a", "b", "c"]
        .map(|p| format!(r#"{{"path": "{p}", "content": "{p}{file}"}}"#))
        .to_vec();
    let body = format!(
        r#"{{"job": "a", "command": ["x"], "files": [{}]}}"#,
        files.join(",")
    );
    let message = refusal(Job, &body);
    assert!(
        message.contains("files[2]") && message.contains("16 MiB"),
        "{message}"
    );
}

#[test]
fn a_submission_comes_through_a_request_unchanged() {
    let inline = "{path: bin/x, mode: 755, content_base64: /wD+}";
    let texts = [
        "job: one\ncommand: echo hi\n".to_owned(),
        format!(
            "job: two\ntask: why not\ncommand: [x, \"{{index}}\"]\narray: 1000000\nfiles: [{inline}]\ngroup: g\nenv: {{A: 1.50, B: true}}\nretries: {{max: 3, initial: 250ms, factor: 1.5, max_delay: 10s, jitter: 0.1}}\ntimeout: 90s\nconcurrency: 4\npriority: -5\nmax_failures: 0\nafter: [one, g]\nlabels: {{team: core}}\nisolation: none\nimage: debian:13\nresources: {{cpu: 0.25, memory: 64Mi, disk: 1G}}\npids: 12\n"
        ),
        "job: alone\ncommand: x\nsingle_instance: true\n".to_owned(),
        "job: three\ntasks: [{name: a, command: [x], env: {K: v}}, {command: y}]\n".to_owned(),
        "job: four\ncommand: [x, \"{item}\"]\nmap: {lines: [a, \"b c\", \"\", ä]}\n".to_owned(),
        format!(
            "sweep: five\nscript: {{path: t.py, content: \"print()\"}}\nfiles: [{inline}]\nspace:\n  lr: {{log_uniform: [0.001, 1.0]}}\n  n: {{range: [1, 9, 2]}}\n  c: [1, 0.1, text, true, \"1\"]\n  u: {{uniform: [-1, 1], steps: 3}}\nsearch: {{random: 24, seed: 9223372036854775807}}\nobjective: {{minimize: loss}}\nearly_stop: {{halving: {{metric: loss, rounds: 3, factor: 3, first: 2}}}}\naggregate: echo done\n"
        ),
        "sweep: six\nrunners: {b: {command: [x]}, a: {script: {path: a.sh, content: ls}}}\n"
            .to_owned(),
    ];
    for text in texts {
        let submission = parse_file("t.yaml", text.as_bytes())
            .and_then(|d| d.resolve(std::collections::BTreeMap::new()))
            .unwrap_or_else(|e| panic!("{text}\n{e}"));
        let body = serde_json::to_vec(&submission.to_wire()).unwrap();
        let again = parse_wire(submission.wire_kind(), &body).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(again, submission);
        let stored = serde_json::to_vec(&submission.spec).unwrap();
        let loaded: prism_spec::JobSpec = serde_json::from_slice(&stored).unwrap();
        assert_eq!(loaded, submission.spec);
    }
}

#[test]
fn a_sandbox_comes_through_a_request_unchanged() {
    let body = br#"{"name": "box", "env": {"A": "b"}, "timeout": "5m", "resources": {"cpu": 2}, "labels": {"a": "b"}, "snapshot": "snap-1"}"#;
    let spec = parse_sandbox_wire(body).unwrap();
    let again = parse_sandbox_wire(sandbox_to_wire(&spec).to_string().as_bytes()).unwrap();
    assert_eq!(spec, again);
    let lives = |body: &str| -> Option<u64> {
        let spec: SandboxSpec = parse_sandbox_wire(body.as_bytes()).unwrap();
        spec.timeout.map(|t| t.0)
    };
    assert_eq!(lives("{}"), Some(3_600_000));
    assert_eq!(lives("{\"timeout\": null}"), None);
    assert_eq!(lives("{\"timeout\": 0}"), None);
    let forever = parse_sandbox_wire(b"{\"timeout\": null}").unwrap();
    let again = parse_sandbox_wire(sandbox_to_wire(&forever).to_string().as_bytes()).unwrap();
    assert_eq!(forever, again);
}

#[test]
fn a_million_lines_fit_a_request() {
    let lines: Vec<String> = (0..1_000_000).map(|i| format!("\"{i}\"")).collect();
    let body = format!(
        r#"{{"job": "m", "command": ["x"], "map": {{"lines": [{}]}}}}"#,
        lines.join(",")
    );
    let submission = parse_wire(WireKind::Job, body.as_bytes()).unwrap();
    assert_eq!(submission.spec.task_count(), 1_000_000);
    let body = format!(
        r#"{{"job": "m", "command": ["x"], "map": {{"lines": [{},"x"]}}}}"#,
        lines.join(",")
    );
    let message = refusal(WireKind::Job, &body);
    assert!(
        message.contains("map.lines: 1000001 entries; at most 1000000"),
        "{message}"
    );
}
