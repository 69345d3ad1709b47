//! Parsers of texts: specs, bodies, quantities, metric lines, queries, tokens, contexts.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use prism_api::ROUTES;
use prism_spec::{
    BeamRow, Document, MetricScanner, WireKind, last_json_line, parse_file, parse_sandbox_wire,
    parse_wire, table,
};

use super::{Feed, Parser, said, texts};

const JOB_YAML: &str = "job: a\ncommand: [sh, -c, 'echo {index}']\narray: 3\nenv: {A: b, C: 1}\nresources: {cpu: 500m, memory: 1Gi}\nretries: {max: 2, initial: 1s, factor: 2}\ntimeout: 5m\nlabels: {a/b: c}\nafter: [x]\nfiles: [a.txt, {path: b, content: \"x\"}]\n";
const SWEEP_YAML: &str = "sweep: s\nscript: train.py\nspace:\n  lr: {log_uniform: [1e-4, 1], steps: 3}\n  n: {range: [1, 9, 2]}\n  k: {choice: [a, 1, true]}\nsearch: {random: 5, seed: 7}\nobjective: {maximize: acc}\nearly_stop: {halving: {metric: acc, rounds: 3}}\naggregate: {command: [x]}\n";
const TRICKS_YAML: &str = "a: &a {x: 1}\njob: &n a\n<<: *a\ncommand: |\n  a\n  b\nenv: !!map {\"A\\u0041\": >-\n  folded\n}\n? b\n: c\n";
const JOB_JSON: &str = r#"{"job": "a", "command": ["x", "\u0041\ud83d\ude00"], "map": {"lines": ["a", 1, true]}, "env": {"A": "b"}, "timeout": "5m", "retries": 2}"#;
const TASKS_JSON: &str = r#"{"job": "a", "tasks": [{"name": "t", "command": ["x"], "env": {"A": 1}}, {"command": "y"}], "resources": {"cpu": 0.5, "memory": "1Gi"}}"#;
const FILES_JSON: &str = r#"{"job": "a", "script": {"path": "x.py", "content": "print()"}, "files": [{"path": "a/b", "content_base64": "AAEC", "mode": "0755"}]}"#;
const SWEEP_JSON: &str = r#"{"sweep": "s", "command": ["x", "{lr}"], "space": {"lr": {"uniform": [0, 1], "steps": 4}, "k": {"choice": [1, "a"]}}, "search": "grid", "runners": {"r": {"command": ["y"]}}}"#;
const SANDBOX_JSON: &str = r#"{"name": "s", "image": "debian:13", "resources": {"memory": "64Mi"}, "pids": 9, "env": {"A": "b"}, "timeout": "1h", "labels": {"a": "b"}}"#;

fn file(name: &'static str) -> Feed {
    Box::new(move |input| match parse_file(name, input) {
        Ok(document) => resolved(document),
        Err(e) => e.to_string(),
    })
}

fn resolved(document: Document) -> String {
    let wanted = document.wanted_files();
    let contents: BTreeMap<_, _> = wanted
        .into_iter()
        .map(|w| (w.path, (0o644, b"a\nb\n".to_vec())))
        .collect();
    match document.resolve(contents) {
        Ok(submission) => {
            again(&submission);
            "ok".to_owned()
        }
        Err(e) => e.to_string(),
    }
}

/// What was accepted can be sent and run: it comes back the same, and its first and last tasks can be made.
fn again(submission: &prism_spec::Submission) {
    let wire = submission.to_wire().to_string();
    let back = parse_wire(submission.wire_kind(), &wire);
    assert_eq!(
        back.as_ref().ok(),
        Some(submission),
        "{wire}: {:?}",
        back.as_ref().err()
    );
    let spec = &submission.spec;
    let count = spec.task_count();
    for index in [0, count / 2, count.saturating_sub(1), count] {
        let task = spec.command_of(index, prism_types::JobId::new(1, 1), 1);
        assert_eq!(task.is_some(), index < count, "task {index} of {count}");
    }
}

fn wire(kind: WireKind) -> Feed {
    Box::new(move |input| match parse_wire(kind, input) {
        Ok(submission) => {
            again(&submission);
            "ok".to_owned()
        }
        Err(e) => e.to_string(),
    })
}

pub(super) const YAML: Parser = Parser {
    name: "yaml",
    seeds: || texts(&[JOB_YAML, SWEEP_YAML, TRICKS_YAML, JOB_JSON]),
    make: || file("fuzz.yaml"),
    quick: 6_000,
};
pub(super) const JSON: Parser = Parser {
    name: "json",
    seeds: || texts(&[JOB_JSON, TASKS_JSON, SWEEP_JSON, SANDBOX_JSON]),
    make: || file("fuzz.json"),
    quick: 8_000,
};
pub(super) const TOML: Parser = Parser {
    name: "toml",
    seeds: || {
        texts(&[
            "job = \"a\"\ncommand = [\"x\"]\narray = 0x10\n[env]\nA = \"b\"\n[resources]\ncpu = 0.5\n",
            "sweep = 's'\ncommand = '''\nx'''\nsearch = \"grid\"\nspace.n = {choice = [1, 2]}\n[[files]]\npath = \"a\"\n",
        ])
    },
    make: || file("fuzz.toml"),
    quick: 4_000,
};
pub(super) const JOB: Parser = Parser {
    name: "job-request",
    seeds: || texts(&[JOB_JSON, TASKS_JSON, FILES_JSON]),
    make: || wire(WireKind::Job),
    quick: 8_000,
};
pub(super) const SWEEP: Parser = Parser {
    name: "sweep-request",
    seeds: || texts(&[SWEEP_JSON]),
    make: || wire(WireKind::Sweep),
    quick: 8_000,
};
pub(super) const SANDBOX: Parser = Parser {
    name: "sandbox-request",
    seeds: || texts(&[SANDBOX_JSON, "{}"]),
    make: || Box::new(|input| said(parse_sandbox_wire(input))),
    quick: 8_000,
};
pub(super) const BODIES: Parser = Parser {
    name: "other-requests",
    seeds: || {
        texts(&[
            r#"{"argv": ["ls"], "env": {"A": "b"}, "tty": {"rows": 1, "columns": 2}, "timeout": "5s"}"#,
            r#"{"name": "x", "role": "viewer", "expires_in": "5d"}"#,
            r#"{"path": "/x.tar", "node": "n"}"#,
            r#"{"signal": "TERM"}"#,
            r#"{"timeout": "5m"}"#,
        ])
    },
    make: || {
        Box::new(|input| {
            [
                said(serde_json::from_slice::<prism_api::ExecBody>(input)),
                said(serde_json::from_slice::<prism_api::TokenCreate>(input)),
                said(serde_json::from_slice::<prism_api::ImageLoad>(input)),
                said(serde_json::from_slice::<prism_api::SignalBody>(input)),
                said(serde_json::from_slice::<prism_api::TimeoutBody>(input)),
            ]
            .concat()
        })
    },
    quick: 8_000,
};
pub(super) const WORDS: Parser = Parser {
    name: "names-and-quantities",
    seeds: || {
        texts(&[
            "a-b",
            "500m",
            "1.5",
            "64Mi",
            "4096",
            "1G",
            "1h30m",
            "90s",
            "01k8z3v6m0000000000000000a",
            "debian:13",
            "r.io/a/b@sha256:0000",
            "1e3",
            "0.0001",
        ])
    },
    make: || {
        Box::new(|input| {
            let text = String::from_utf8_lossy(input);
            let cpu = text.parse::<prism_types::MilliCpu>();
            let bytes = text.parse::<prism_types::Bytes>();
            // What is shown reads back as the same.
            if let Ok(cpu) = &cpu {
                assert_eq!(cpu.to_string().parse().ok(), Some(*cpu));
            }
            if let Ok(bytes) = &bytes {
                assert_eq!(bytes.to_string().parse().ok(), Some(*bytes));
            }
            let near = prism_types::nearest(&text, ["command", "array", "retries"]);
            [
                said(text.parse::<prism_types::Name>()),
                said(text.parse::<prism_types::JobId>()),
                said(cpu),
                said(bytes),
                said(prism_types::parse_duration(&text)),
                said(prism_sandbox::image::ImageName::parse(&text)),
                near.unwrap_or_default().to_owned(),
            ]
            .join("|")
        })
    },
    quick: 20_000,
};
pub(super) const METRICS: Parser = Parser {
    name: "metric-lines",
    seeds: || {
        texts(&[
            "{\"acc\": 0.5}\n",
            "text\n{\"acc\": 1, \"acc\": 2}\n{\"acc\": NaN}\n",
            "{\"acc\": 1e999}\r\n{\"a\": {\"acc\": 1}}\n[1]\n",
            "{\"acc\": \"0.5\"}\n{\"acc\": null}\n",
        ])
    },
    make: || {
        Box::new(|input| {
            let mut whole = MetricScanner::new("acc");
            let mut found = whole.feed(input);
            found.extend(whole.finish());
            // Where the chunks end does not matter.
            let mut pieces = MetricScanner::new("acc");
            let mut again = Vec::new();
            for chunk in input.chunks(7) {
                again.extend(pieces.feed(chunk));
            }
            again.extend(pieces.finish());
            assert_eq!(found, again);
            assert!(found.iter().all(|p| p.value.is_finite()));
            format!(
                "{} {}",
                "x".repeat(found.len().min(5)),
                last_json_line(input).is_some()
            )
        })
    },
    quick: 8_000,
};
pub(super) const TABLE: Parser = Parser {
    name: "results-table",
    seeds: || {
        texts(&[
            "{\"a\": 1, \"b\": \"x,y\"}\n{\"a\": [1, {}], \"status\": \"\\r\\n\\\"\"}\n{\"index\": null}",
        ])
    },
    make: || {
        Box::new(|input| {
            let rows: Vec<BeamRow> = input
                .split(|b| *b == b'\n')
                .take(50)
                .zip(0..)
                .map(|(line, index)| BeamRow {
                    index,
                    runner: "main".to_owned(),
                    point: vec![("n".to_owned(), index.into())],
                    status: "done".to_owned(),
                    reason: None,
                    result: serde_json::from_slice(line).ok(),
                })
                .collect();
            let table = table(&rows);
            assert!(table.rows.iter().all(|r| r.len() == table.columns.len()));
            format!("{} {}", table.csv().contains('"'), table.columns.len())
        })
    },
    quick: 4_000,
};
pub(super) const QUERY: Parser = Parser {
    name: "query",
    seeds: || {
        texts(&[
            "limit=5&cursor=j.01k8z3v6m0000000000000000a",
            "label=a=b&label=c%3dd",
            "follow&offset=7&stream=stderr",
            "path=%2fa%20b+c&mode=755&mkdir=1",
            "state=QUEUED&name=a",
            "since=5&subject=x",
        ])
    },
    make: || {
        Box::new(|input| {
            let text = String::from_utf8_lossy(input);
            ROUTES
                .iter()
                .filter(|r| !r.query.is_empty())
                .step_by(3)
                .map(|r| said(prism_gateway::check_query(r, &text)))
                .collect()
        })
    },
    quick: 4_000,
};
pub(super) const TOKEN: Parser = Parser {
    name: "token",
    seeds: || vec![format!("pt_01k8z3v6m0000000000000000a_{}", "0".repeat(64)).into_bytes()],
    make: || {
        Box::new(|input| {
            let text = String::from_utf8_lossy(input);
            prism_gateway::read_token(&text).is_some().to_string()
        })
    },
    quick: 20_000,
};
pub(super) const CONTEXTS: Parser = Parser {
    name: "contexts-file",
    seeds: || {
        texts(&[
            "current = \"dev\"\n\n[contexts.dev]\napi = \"http://127.0.0.1:1\"\ntoken = \"pt_x\"\n",
        ])
    },
    make: || {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        Box::new(move |input| {
            let path = directory.path().join("contexts.toml");
            fs::write(&path, input).expect("our own directory can be written");
            fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("it is ours");
            said(prism_cli::context::load(&path)).replace(&*path.to_string_lossy(), "")
        })
    },
    quick: 3_000,
};
