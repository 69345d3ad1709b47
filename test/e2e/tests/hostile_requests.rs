//! Promise: a request that is wrong or hostile gets a 4xx with a reason, changes nothing, and leaves the server well.

use prism_e2e::{Answer, Server, Shared};
use serde_json::{Value, json};

static SERVER: Shared = Shared::new();

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// What is true of every refusal.
#[track_caller]
fn refusal(what: &str, answer: &Answer) -> Value {
    assert!(
        (400..500).contains(&answer.status),
        "{what}: {} {}",
        answer.status,
        answer.text()
    );
    let body = answer.json();
    for field in [
        "code",
        "message",
        "reason",
        "retryable",
        "outcome",
        "request_id",
        "details",
    ] {
        assert!(!body[field].is_null(), "{what}: no {field} in {body}");
    }
    assert_eq!(body["outcome"], "not_applied", "{what}");
    assert!(
        body["message"]
            .as_str()
            .is_some_and(|m| !m.is_empty() && m.len() < 2_000),
        "{what}: {body}"
    );
    body
}

fn nothing_was_made(server: &Server) {
    for path in ["/api/v1/jobs", "/api/v1/sandboxes?all=true"] {
        let list = server.api().get(path).expect(200).json();
        assert_eq!(
            list["items"].as_array().map(Vec::len),
            Some(0),
            "{path}: {list}"
        );
    }
    server.api().get("/health").expect(200);
    server.place.assert_no_panic();
}

/// Bodies of a submission, and the field that the refusal names.
const BODIES: &[(&str, &str)] = &[
    ("", ""),
    ("nonsense", ""),
    ("{", ""),
    ("[]", ""),
    ("null", ""),
    ("\"job\"", ""),
    ("{\"job\": \"a\"} {}", ""),
    ("{\"job\": \"a\", \"job\": \"b\"}", "job"),
    ("{\"job\": {}}", "job"),
    ("{\"job\": \"A B\", \"command\": [\"x\"]}", "job"),
    ("{\"job\": \"../a\", \"command\": [\"x\"]}", "job"),
    ("{\"job\": \"a\"}", "command"),
    ("{\"job\": \"a\", \"command\": []}", "command"),
    ("{\"job\": \"a\", \"command\": [\"a\\u0000\"]}", "command"),
    ("{\"job\": \"a\", \"command\": [{}]}", "command"),
    ("{\"job\": \"a\", \"comand\": [\"x\"]}", "comand"),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"array\": 0}",
        "array",
    ),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"array\": 1e30}",
        "array",
    ),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"array\": 10000001}",
        "array",
    ),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"tasks\": []}",
        "tasks",
    ),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"map\": \"/etc/passwd\"}",
        "map",
    ),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"files\": [\"/etc/passwd\"]}",
        "files",
    ),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"files\": [{\"path\": \"../x\", \"content\": \"\"}]}",
        "files",
    ),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"files\": [{\"path\": \"x\", \"content_base64\": \"!\"}]}",
        "files",
    ),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"files\": [{\"path\": \"x\", \"content\": \"\", \"mode\": \"4755\"}]}",
        "mode",
    ),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"env\": {\"\": \"x\"}}",
        "env",
    ),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"env\": {\"PRISM_JOB_ID\": \"x\"}}",
        "env",
    ),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"image\": \"a b\"}",
        "image",
    ),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"resources\": {\"memory\": \"9999999Ti\"}}",
        "memory",
    ),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"timeout\": -1}",
        "timeout",
    ),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"labels\": {\"a b\": \"x\"}}",
        "labels",
    ),
    (
        "{\"job\": \"a\", \"command\": [\"x\"], \"retries\": {\"max\": 1, \"factor\": 0}}",
        "factor",
    ),
];

#[test]
fn bodies_that_are_no_spec_are_refused_with_the_field() {
    let server = SERVER.get();
    let deep = format!(
        "{{\"job\": {}1{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let wide = format!(
        "{{\"job\": \"a\", \"command\": [{}\"x\"]}}",
        "\"x\",".repeat(5_000)
    );
    let name = format!(
        "{{\"job\": \"{}\", \"command\": [\"x\"]}}",
        "a".repeat(1 << 20)
    );
    let grown = [
        (deep.as_str(), ""),
        (wide.as_str(), "command"),
        (name.as_str(), "job"),
    ];
    for (body, field) in BODIES.iter().chain(&grown) {
        let shown: String = body.chars().take(80).collect();
        let answer = server
            .api()
            .send("POST", "/api/v1/jobs", JSON, body.as_bytes());
        let error = refusal(&shown, &answer);
        let named = error["details"]["field"].as_str().unwrap_or_default();
        let told = error["message"].as_str().unwrap_or_default();
        assert!(
            named.contains(field) || told.contains(field),
            "{shown}: {error}"
        );
    }
    let answer = server
        .api()
        .send("POST", "/api/v1/jobs", JSON, b"{\"job\": \"\xff\xfe\"}");
    refusal("not UTF-8", &answer);
    nothing_was_made(&server);
}

#[test]
fn an_unknown_field_is_refused_with_the_nearest_known_one() {
    let server = SERVER.get();
    let body = json!({"job": "a", "command": ["x"], "retrys": 2});
    let error = refusal("retrys", &server.api().post("/api/v1/jobs", &body));
    assert!(error.to_string().contains("retries"), "{error}");
    nothing_was_made(&server);
}

#[test]
fn paths_queries_and_methods_that_do_not_exist_are_refused() {
    let server = SERVER.get();
    let id = "01k8z3v6m0000000000000000a";
    for (method, path, status) in [
        ("GET", "/api/v1/jbos".to_owned(), 404),
        ("GET", "/api/v2/jobs".to_owned(), 404),
        ("GET", "/api/v1/jobs/../../etc/passwd".to_owned(), 404),
        ("GET", "/api/v1/jobs/%2e%2e%2f%2e%2e".to_owned(), 404),
        ("GET", "/api/v1/jobs/%ff%fe".to_owned(), 404),
        ("GET", format!("/api/v1/jobs/{id}"), 404),
        ("GET", format!("/api/v1/jobs/{}", "a".repeat(5_000)), 404),
        ("POST", format!("/api/v1/jobs/{id}/cancel"), 404),
        ("GET", format!("/api/v1/sweeps/{id}"), 404),
        ("GET", format!("/api/v1/sandboxes/{id}"), 404),
        ("DELETE", format!("/api/v1/sandboxes/{id}"), 404),
        (
            "GET",
            format!("/api/v1/sandboxes/{id}/files?path=/etc/passwd"),
            404,
        ),
        ("DELETE", "/api/v1/jobs".to_owned(), 405),
        ("PATCH", "/api/v1/jobs".to_owned(), 405),
        ("GET", "/api/v1/jobs?limt=5".to_owned(), 400),
        ("GET", "/api/v1/jobs?limit=-1".to_owned(), 400),
        ("GET", "/api/v1/jobs?limit=99999999".to_owned(), 400),
        ("GET", "/api/v1/jobs?limit=5&limit=6".to_owned(), 400),
        ("GET", "/api/v1/jobs?cursor=nonsense".to_owned(), 400),
        ("GET", "/api/v1/jobs?state=HAPPY".to_owned(), 400),
        ("GET", "/api/v1/jobs?label=%zz".to_owned(), 400),
        ("GET", "/api/v1/events?since=yesterday".to_owned(), 400),
        (
            "GET",
            format!("/api/v1/jobs?label={}", "a".repeat(20_000)),
            400,
        ),
    ] {
        let shown: String = path.chars().take(80).collect();
        let answer = server.api().send(method, &path, &[], b"");
        refusal(&format!("{method} {shown}"), &answer);
        assert_eq!(answer.status, status, "{method} {shown}: {}", answer.text());
    }
    nothing_was_made(&server);
}

#[test]
fn other_bodies_and_headers_that_are_wrong_are_refused() {
    let server = SERVER.get();
    let api = server.api();
    let long = "k".repeat(500);
    for key in ["", " ", "two words", long.as_str()] {
        let headers = [JSON[0], ("idempotency-key", key)];
        let body = b"{\"job\": \"a\", \"command\": [\"x\"]}";
        refusal(
            "idempotency key",
            &api.send("POST", "/api/v1/jobs", &headers, body),
        );
    }
    for (path, body) in [
        ("/api/v1/sandboxes", json!({"image": "../x"})),
        ("/api/v1/sandboxes", json!({"pids": 0})),
        ("/api/v1/sandboxes", json!({"snapshot": "../../etc"})),
        ("/api/v1/sandboxes", json!({"tiemout": "1m"})),
        ("/api/v1/sandboxes", json!([1])),
        (
            "/api/v1/sweeps",
            json!({"sweep": "a", "command": ["x"], "space": {"a b": {"choice": [1]}}, "search": "grid"}),
        ),
        (
            "/api/v1/sweeps",
            json!({"sweep": "a", "command": ["x"], "space": {"n": {"choice": []}}, "search": "grid"}),
        ),
        ("/api/v1/sweeps", json!({"job": "a", "command": ["x"]})),
        ("/api/v1/tokens", json!({"name": "x", "role": "god"})),
        (
            "/api/v1/tokens",
            json!({"name": "x", "role": "viewer", "more": 1}),
        ),
        ("/api/v1/tokens", json!({"role": "viewer"})),
        (
            "/api/v1/tokens",
            json!({"name": "x", "role": "viewer", "expires_in": "never"}),
        ),
        ("/api/v1/images", json!({"path": "relative.tar"})),
        ("/api/v1/images", json!({"path": "/no/such/archive.tar"})),
    ] {
        refusal(&format!("{path} {body}"), &api.post(path, &body));
    }
    nothing_was_made(&server);
}

#[test]
fn what_is_too_large_or_no_http_is_refused_and_the_server_goes_on() {
    let server = SERVER.get();
    let api = server.api();
    let address = &api.address;
    let token = api.token.clone().unwrap_or_default();
    let huge = format!(
        "POST /api/v1/jobs HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-length: 99999999999\r\n\r\n{{"
    );
    assert_eq!(api.raw(huge.as_bytes()).expect("an answer").status, 413);
    let many: String = (0..5_000).map(|n| format!("x-{n}: y\r\n")).collect();
    for bytes in [
        b"nonsense\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        format!("GET /health HTTP/1.1\r\nhost: x\r\n{many}\r\n").into_bytes(),
        format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(1 << 20)).into_bytes(),
        b"POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n".to_vec(),
        b"POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"
            .to_vec(),
    ] {
        // Closing without a word is an answer too; serving it is not.
        if let Ok(answer) = api.raw(&bytes) {
            assert!((400..500).contains(&answer.status), "{}", answer.status);
        }
    }
    nothing_was_made(&server);
}
