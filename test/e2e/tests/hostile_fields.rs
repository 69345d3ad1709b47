//! Promise: every field of every request body that has a wrong type, range or form is refused with its name.

use prism_e2e::{Server, Trial};
use serde_json::{Value, json};

/// A field, a word of the refusal, and values as JSON text.
type Fields = &'static [(&'static str, &'static str, &'static [&'static str])];

/// What jobs and sweeps have in common.
const COMMON: Fields = &[
    (
        "namespace",
        "namespace",
        &["[]", "{}", "\"\"", "\"A\"", "\"../x\"", "\"a\\u0000\""],
    ),
    ("group", "group", &["[]", "\"a b\"", "\"ä\""]),
    ("task", "task", &["[]", "{}", "\"\\u0000\""]),
    (
        "command",
        "command",
        &[
            "{}",
            "1",
            "true",
            "[]",
            "[[]]",
            "[\"\"]",
            "\"\"",
            "\"  \"",
            "[\"a\\u0000\"]",
        ],
    ),
    (
        "script",
        "script",
        &[
            "1",
            "[]",
            "\"/etc/passwd\"",
            "\"x.py\"",
            "{\"path\": \"x.py\"}",
        ],
    ),
    (
        "env",
        "env",
        &[
            "[]",
            "1",
            "\"A=1\"",
            "{\"\": 1}",
            "{\"A=B\": 1}",
            "{\"A\": []}",
            "{\"A\": \"\\u0000\"}",
            "{\"1A\": 1}",
            "{\"PRISM_X\": 1}",
        ],
    ),
    (
        "files",
        "files",
        &[
            "{}",
            "1",
            "[1]",
            "[\"x\"]",
            "[{}]",
            "[{\"path\": \"x\"}]",
            "[{\"content\": \"\"}]",
            "[{\"path\": \"\", \"content\": \"\"}]",
            "[{\"path\": \"/x\", \"content\": \"\"}]",
            "[{\"path\": \"a/../../x\", \"content\": \"\"}]",
            "[{\"path\": \"a\\u0000\", \"content\": \"\"}]",
            "[{\"path\": \"x\", \"content\": 1}]",
            "[{\"path\": \"x\", \"content\": \"\", \"content_base64\": \"\"}]",
            "[{\"path\": \"x\", \"content_base64\": \"=\"}]",
            "[{\"path\": \"x\", \"content\": \"\", \"mode\": \"999\"}]",
            "[{\"path\": \"x\", \"content\": \"\", \"mode\": -1}]",
            "[{\"path\": \"x\", \"content\": \"\", \"owner\": \"root\"}]",
        ],
    ),
    (
        "image",
        "image",
        &[
            "[]", "\"\"", "\"../x\"", "\"a//b\"", "\"/etc\"", "\"a b\"", "\"a\\n\"",
        ],
    ),
    (
        "isolation",
        "isolation",
        &["1", "[]", "\"Sandbox\"", "\"off\""],
    ),
    (
        "resources",
        "resources",
        &[
            "[]",
            "1",
            "{\"gpu\": 1}",
            "{\"cpu\": -1}",
            "{\"cpu\": \"1x\"}",
            "{\"cpu\": \"0\"}",
            "{\"cpu\": 1e300}",
            "{\"cpu\": []}",
            "{\"memory\": 0}",
            "{\"memory\": -1}",
            "{\"memory\": \"1Qi\"}",
            "{\"memory\": \"99999999999Gi\"}",
            "{\"memory\": \"\"}",
            "{\"disk\": \"lots\"}",
            "{\"disk\": \"-1Gi\"}",
        ],
    ),
    (
        "pids",
        "pids",
        &["0", "-1", "1.5", "\"9\"", "1e9", "100001", "[]"],
    ),
    (
        "retries",
        "retries",
        &[
            "-1",
            "101",
            "1.5",
            "\"1\"",
            "[]",
            "{}",
            "{\"max\": -1}",
            "{\"max\": 1, \"factor\": 11}",
            "{\"max\": 1, \"jitter\": 2}",
            "{\"max\": 1, \"initial\": \"x\"}",
            "{\"max\": 1, \"extra\": 1}",
        ],
    ),
    (
        "backoff",
        "backoff",
        &[
            "1",
            "[]",
            "{\"initial\": -1}",
            "{\"max\": \"1 fortnight\"}",
            "{\"initial\": \"2m\", \"max\": \"1m\"}",
            "{\"factor\": 0.5}",
        ],
    ),
    (
        "timeout",
        "timeout",
        &[
            "-1",
            "[]",
            "\"1 year\"",
            "\"99999999999999999999h\"",
            "\"-5s\"",
            "\"5x\"",
            "1e400",
        ],
    ),
    (
        "concurrency",
        "concurrency",
        &["0", "-1", "1.5", "\"2\"", "99999999999"],
    ),
    (
        "priority",
        "priority",
        &["101", "-101", "0.5", "\"high\"", "[]"],
    ),
    (
        "max_failures",
        "max_failures",
        &["-1", "1.5", "\"1\"", "1e40"],
    ),
    (
        "after",
        "after",
        &[
            "{}",
            "1.5",
            "[1.5]",
            "[\"A B\"]",
            "[[]]",
            "\"../x\"",
            "[\"no-such-job\"]",
        ],
    ),
    (
        "labels",
        "labels",
        &[
            "[]",
            "1",
            "{\"\": 1}",
            "{\"a b\": 1}",
            "{\"a\": {}}",
            "{\"a\": \"\\n\"}",
            "{\"-a\": 1}",
        ],
    ),
];

const JOB: Fields = &[
    (
        "job",
        "job",
        &[
            "[]",
            "{}",
            "\"\"",
            "\"A\"",
            "\"a_b\"",
            "\"ä\"",
            "\"a/b\"",
            "\"a\\u0000\"",
            "\"a\\r\\nx: y\"",
            "null",
        ],
    ),
    (
        "array",
        "array",
        &[
            "0",
            "-1",
            "1.5",
            "\"5\"",
            "[]",
            "true",
            "1e999",
            "-0",
            "10000001",
            "18446744073709551616",
        ],
    ),
    (
        "array",
        "request:1:3",
        &["0x10", "NaN", "Infinity", "01", "+1", "1."],
    ),
    (
        "tasks",
        "tasks",
        &[
            "[]",
            "{}",
            "1",
            "[1]",
            "[{\"command\": []}]",
            "[{\"name\": \"A B\"}]",
            "[{\"env\": []}]",
            "[{\"image\": \"x\"}]",
        ],
    ),
    (
        "map",
        "map",
        &[
            "1",
            "\"lines.txt\"",
            "{\"file\": \"/etc/passwd\"}",
            "{\"lines\": []}",
            "{\"lines\": {}}",
            "{\"lines\": [[]]}",
            "{\"lines\": [\"\\u0000\"]}",
            "{\"lines\": [\"a\"], \"file\": \"x\"}",
            "{}",
        ],
    ),
];

const SWEEP: Fields = &[
    ("sweep", "sweep", &["[]", "\"\"", "\"A\"", "null"]),
    (
        "space",
        "space",
        &[
            "[]",
            "1",
            "{\"a b\": {\"choice\": [1]}}",
            "{\"n\": 1}",
            "{\"n\": {}}",
            "{\"n\": {\"choice\": []}}",
            "{\"n\": {\"choice\": [[]]}}",
            "{\"n\": {\"range\": [1]}}",
            "{\"n\": {\"range\": [5, 1]}}",
            "{\"n\": {\"range\": [1, 5, 0]}}",
            "{\"n\": {\"uniform\": [1, 0]}}",
            "{\"n\": {\"uniform\": [0, 1e999]}}",
            "{\"n\": {\"log_uniform\": [0, 1]}}",
            "{\"n\": {\"log_uniform\": [-1, 1]}}",
            "{\"n\": {\"uniform\": [0, 1], \"steps\": 0}}",
            "{\"n\": {\"choice\": [1], \"range\": [1, 2]}}",
            "{\"n\": {\"chioce\": [1]}}",
        ],
    ),
    (
        "search",
        "search",
        &[
            "1",
            "[]",
            "\"gird\"",
            "{\"random\": 0}",
            "{\"random\": -1}",
            "{\"random\": 1000001}",
            "{\"random\": 1, \"seed\": \"x\"}",
            "{\"random\": \"1\"}",
        ],
    ),
    (
        "objective",
        "objective",
        &[
            "1",
            "[]",
            "{}",
            "{\"maximize\": 1}",
            "{\"maximize\": \"a\", \"minimize\": \"b\"}",
            "{\"most\": \"a\"}",
        ],
    ),
    (
        "early_stop",
        "early_stop",
        &[
            "1",
            "[]",
            "{}",
            "{\"halving\": 1}",
            "{\"halving\": {\"metric\": \"m\", \"rounds\": 0}}",
            "{\"median\": {}}",
        ],
    ),
    (
        "runners",
        "runners",
        &[
            "1",
            "[]",
            "{\"a b\": {\"command\": [\"x\"]}}",
            "{\"a\": {}}",
            "{\"a\": 1}",
        ],
    ),
    (
        "aggregate",
        "aggregate",
        &["1", "[]", "{}", "{\"command\": []}"],
    ),
];

const SANDBOX: Fields = &[
    ("name", "name", &["[]", "\"A B\"", "\"../x\"", "\"\""]),
    ("namespace", "namespace", &["[]", "\"A\""]),
    ("image", "image", &["[]", "\"../x\"", "\"a b\""]),
    ("snapshot", "snapshot", &["[]", "\"../x\"", "\"a b\""]),
    (
        "resources",
        "resources",
        &[
            "[]",
            "{\"cpu\": -1}",
            "{\"memory\": \"x\"}",
            "{\"disk\": -5}",
        ],
    ),
    ("pids", "pids", &["0", "-1", "\"5\"", "1e9"]),
    ("env", "env", &["[]", "{\"A=\": 1}", "{\"A\": \"\\u0000\"}"]),
    ("timeout", "timeout", &["-1", "\"x\"", "[]"]),
    ("labels", "labels", &["[]", "{\"a b\": 1}"]),
    ("command", "unknown field", &["[\"x\"]"]),
];

const TOKEN: Fields = &[
    ("name", "", &["1", "[]", "\"\"", "null", "\"a\\nb\""]),
    ("role", "", &["1", "\"root\"", "\"ADMIN\"", "null", "[]"]),
    (
        "expires_in",
        "",
        &[
            "1",
            "\"never\"",
            "\"-1d\"",
            "[]",
            "\"0s\"",
            "\"99999999999d\"",
        ],
    ),
    ("secret", "unknown field", &["\"x\""]),
];

const EXEC: Fields = &[
    (
        "argv",
        "",
        &[
            "1",
            "\"ls\"",
            "[]",
            "[1]",
            "[\"\"]",
            "[\"a\\u0000\"]",
            "{}",
            "null",
        ],
    ),
    (
        "id",
        "",
        &[
            "1",
            "\"\"",
            "\"A\"",
            "\"../x\"",
            "\"abcdefghijklmnopqrstuvwxyz0\"",
        ],
    ),
    (
        "env",
        "",
        &[
            "1",
            "[]",
            "{\"A\": 1}",
            "{\"A\": \"\\u0000\"}",
            "{\"A=B\": \"x\"}",
            "{\"\": \"x\"}",
        ],
    ),
    ("cwd", "", &["1", "[]", "\"a\\u0000\""]),
    ("stdin", "", &["1", "\"yes\""]),
    (
        "tty",
        "",
        &[
            "1",
            "{}",
            "{\"rows\": -1, \"columns\": 1}",
            "{\"rows\": 70000, \"columns\": 1}",
            "{\"rows\": 1}",
            "{\"rows\": 0, \"columns\": 0}",
        ],
    ),
    ("timeout", "", &["1", "\"soon\"", "\"-1s\""]),
    ("shell", "unknown field", &["true"]),
];

const IMAGE: Fields = &[
    (
        "path",
        "",
        &[
            "1",
            "\"\"",
            "\"x.tar\"",
            "\"/a/../../x\"",
            "\"/a\\u0000\"",
            "null",
            "\"/no/such.tar\"",
            "\"/etc/hostname\"",
            "\"/dev/null\"",
            "\"/proc/self/mem\"",
            "\"/\"",
        ],
    ),
    ("name", "", &["1", "[]"]),
    ("node", "no-such", &["\"no-such\""]),
    ("url", "unknown field", &["\"http://169.254.169.254/\""]),
];

/// A body with one field put in as text, so that what is no JSON can be tried too.
fn body(base: &Value, field: &str, value: &str) -> String {
    let mut body = base.clone();
    body[field] = json!("@@@");
    body.to_string().replace("\"@@@\"", value)
}

fn every(trial: &mut Trial<'_>, path: &str, base: &Value, fields: Fields) {
    for (field, word, values) in fields {
        for value in *values {
            let text = body(base, field, value);
            let status = match *value {
                "[\"no-such-job\"]" | "\"no-such\"" => 404,
                _ => 400,
            };
            trial.refused("POST", path, text.as_bytes(), status, word);
        }
    }
}

#[test]
fn every_wrong_field_of_a_submission_is_named() {
    let server = Server::start();
    let mut trial = Trial::new(&server);
    let job = json!({"job": "a", "command": ["x"]});
    let sweep =
        json!({"sweep": "a", "command": ["x"], "space": {"n": {"choice": [1]}}, "search": "grid"});
    every(&mut trial, "/api/v1/jobs", &job, COMMON);
    every(&mut trial, "/api/v1/jobs", &job, JOB);
    every(&mut trial, "/api/v1/sweeps", &sweep, COMMON);
    every(&mut trial, "/api/v1/sweeps", &sweep, SWEEP);
    every(&mut trial, "/api/v1/sandboxes", &json!({}), SANDBOX);
    trial.end(390);
}

#[test]
fn every_wrong_field_of_other_requests_is_refused() {
    let server = Server::start();
    let id = server.sandbox();
    let mut trial = Trial::new(&server);
    let at = |rest: &str| format!("/api/v1/sandboxes/{id}/{rest}");
    every(
        &mut trial,
        "/api/v1/tokens",
        &json!({"name": "x", "role": "viewer"}),
        TOKEN,
    );
    every(
        &mut trial,
        "/api/v1/images",
        &json!({"path": "/no/such.tar"}),
        IMAGE,
    );
    every(&mut trial, &at("exec"), &json!({"argv": ["true"]}), EXEC);
    trial.end(60);
}
