//! Bad input: every case gets a whole error body with a fitting status, changes nothing, and the server goes on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod harness;

use harness::{Request, Server, bare, config, http, server};
use prism_api::Role;

/// What a case expects: the status, and a word of the message.
struct Case(Request, u16, &'static str);

/// Bodies of `POST /jobs`.
const JOBS: &[(&str, u16, &str)] = &[
    ("", 400, "request"),
    ("{", 400, "request"),
    ("null", 400, "request"),
    ("[]", 400, "request"),
    ("{}", 400, "job"),
    (r#"{"job": "a""#, 400, "request"),
    (r#"{"job": "Not A Name", "command": ["x"]}"#, 400, "name"),
    (r#"{"job": "../../etc", "command": ["x"]}"#, 400, "name"),
    (r#"{"job": "a", "comand": ["x"]}"#, 400, "command"),
    (
        r#"{"job": "a", "command": ["x"], "retires": 2}"#,
        400,
        "retries",
    ),
    (
        r#"{"job": "a", "command": ["x"], "array": -1}"#,
        400,
        "array",
    ),
    (
        r#"{"job": "a", "command": ["x"], "array": 18446744073709551615}"#,
        400,
        "array",
    ),
    (r#"{"job": "a", "command": ["x\u0000y"]}"#, 400, "NUL"),
    (
        r#"{"job": "a", "command": ["x"], "files": ["/etc/passwd"]}"#,
        400,
        "file",
    ),
    (
        r#"{"job": "a", "command": ["x"], "files": [{"path": "../x", "content": ""}]}"#,
        400,
        "..",
    ),
    (
        r#"{"job": "a", "command": ["x"], "map": "/etc/passwd"}"#,
        400,
        "server",
    ),
    (
        r#"{"job": "a", "command": ["x"], "after": ["no-such-job"]}"#,
        404,
        "no-such-job",
    ),
];

/// Bodies of other routes.
const POSTS: &[(&str, &str, u16, &str)] = &[
    (
        "/api/v1/sweeps",
        r#"{"sweep": "a", "command": ["x"], "space": {"lr": {"log_uniform": [0, 1]}}}"#,
        400,
        "lr",
    ),
    (
        "/api/v1/sandboxes",
        r#"{"image": "../../root"}"#,
        400,
        "image",
    ),
    (
        "/api/v1/sandboxes",
        r#"{"resources": {"memory": "lots"}}"#,
        400,
        "memory",
    ),
    ("/api/v1/tokens", "", 400, "body"),
    (
        "/api/v1/tokens",
        r#"{"name": "x", "role": "amdin"}"#,
        400,
        "did you mean admin",
    ),
    (
        "/api/v1/tokens",
        r#"{"name": "", "role": "admin"}"#,
        400,
        "name",
    ),
    (
        "/api/v1/tokens",
        r#"{"name": "x", "role": "admin", "expires_in": "soon"}"#,
        400,
        "duration",
    ),
    (
        "/api/v1/tokens",
        r#"{"name": "x", "role": "admin", "expiresin": 1}"#,
        400,
        "did you mean expires_in",
    ),
    ("/api/v1/images", r#"{"path": "../image.tar"}"#, 400, "path"),
    (
        "/api/v1/images",
        r#"{"path": "/a/../../etc/shadow"}"#,
        400,
        "path",
    ),
    ("/api/v1/jobs/x/cancel", r#"{"why": 1}"#, 400, "body"),
];

/// Methods and targets without a body.
const TARGETS: &[(&str, &str, u16, &str)] = &[
    ("GET", "/api/v1/jbos", 404, "/api/v1/jobs"),
    ("GET", "/api/v2/jobs", 404, "route"),
    ("GET", "/api/v1/jobs/x/tsks", 404, "route"),
    ("GET", "/../../etc/passwd", 404, "route"),
    ("DELETE", "/api/v1/jobs", 405, "GET"),
    ("BREW", "/api/v1/jobs", 405, "POST"),
    ("PATCH", "/api/v1/sandboxes/x", 405, "DELETE"),
    ("GET", "/api/v1/jobs?limt=5", 400, "limit"),
    ("GET", "/api/v1/jobs?limit=0", 400, "limit"),
    ("GET", "/api/v1/jobs?limit=1001", 400, "1000"),
    ("GET", "/api/v1/jobs?limit=-1", 400, "limit"),
    ("GET", "/api/v1/jobs?limit=%2B5", 400, "limit"),
    (
        "GET",
        "/api/v1/jobs?limit=99999999999999999999999",
        400,
        "limit",
    ),
    ("GET", "/api/v1/jobs?limit=5&limit=6", 400, "twice"),
    ("GET", "/api/v1/jobs?cursor=zzz", 400, "cursor"),
    ("GET", "/api/v1/jobs?cursor=t.5", 400, "cursor"),
    (
        "GET",
        "/api/v1/nodes?cursor=j.00000000000000000000000000",
        400,
        "cursor",
    ),
    ("GET", "/api/v1/jobs?label=nope", 400, "key=value"),
    ("GET", "/api/v1/jobs?state=done", 400, "COMPLETED"),
    ("GET", "/api/v1/jobs?name=%ff%fe", 400, "UTF-8"),
    ("GET", "/api/v1/jobs?name=%zz", 400, "hexadecimal"),
    ("GET", "/api/v1/jobs?name=%", 400, "hexadecimal"),
    ("GET", "/api/v1/jobs?name=a%00b", 400, "NUL"),
    ("GET", "/api/v1/jobs/%ff", 404, "path"),
    ("GET", "/api/v1/jobs/%00", 404, "name"),
    ("GET", "/api/v1/jobs/..%2f..%2fetc%2fpasswd", 404, "job"),
    (
        "GET",
        "/api/v1/jobs/nothing/results?follow=perhaps",
        400,
        "true or false",
    ),
    ("GET", "/api/v1/sandboxes/x/files", 400, "path"),
    ("GET", "/api/v1/sandboxes/x/files?path=", 400, "path"),
    (
        "GET",
        "/api/v1/sandboxes/x/files?path=../../etc/shadow",
        400,
        "..",
    ),
    (
        "GET",
        "/api/v1/sandboxes/x/files?path=/a/%2e%2e/b",
        400,
        "..",
    ),
    ("GET", "/api/v1/sandboxes/x/files?path=a%00b", 400, "NUL"),
    (
        "PUT",
        "/api/v1/sandboxes/x/files?path=a&mode=9",
        400,
        "octal",
    ),
    (
        "PUT",
        "/api/v1/sandboxes/x/files?path=a&mode=7777",
        400,
        "octal",
    ),
    ("GET", "/api/v1/explain/..%2f", 404, "sandbox"),
    ("DELETE", "/api/v1/tokens/not-an-id", 404, "token"),
];

fn job(body: impl Into<Vec<u8>>) -> Request {
    Request::post("/api/v1/jobs", body)
}

fn bodies() -> Vec<Case> {
    let deep =
        |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    let long_name = format!(r#"{{"job": "{}", "command": ["x"]}}"#, "a".repeat(64));
    let mut cases = vec![
        Case(job(deep("[", "]")), 400, "deep"),
        Case(job(deep(r#"{"a":"#, "}")), 400, ""),
        Case(job(long_name), 400, "name"),
        Case(job(vec![0xff, 0xfe, b'{']), 400, "UTF-8"),
        Case(job(vec![0; 100]), 400, ""),
    ];
    cases.extend(
        JOBS.iter()
            .map(|(body, status, word)| Case(job(*body), *status, word)),
    );
    cases.extend(
        POSTS
            .iter()
            .map(|(path, body, status, word)| Case(Request::post(path, *body), *status, word)),
    );
    cases
}

fn targets() -> Vec<Case> {
    let get = Request::get;
    let long = format!("/api/v1/jobs?name={}", "a".repeat(20_000));
    let many = format!("/api/v1/jobs?{}", "label=a=b&".repeat(100));
    let long_id = format!("/api/v1/jobs/{}", "a".repeat(5000));
    let key =
        |text: &str| Request::new("POST", "/api/v1/jobs/x/cancel").header("idempotency-key", text);
    let mut cases = vec![
        Case(get(&long), 400, "query"),
        Case(get(&many), 400, "parameters"),
        Case(get(&long_id), 404, "name"),
        Case(key(""), 400, "idempotency-key"),
        Case(key("a b"), 400, "idempotency-key"),
        Case(key(&"k".repeat(129)), 400, "128"),
        Case(key("a").header("idempotency-key", "b"), 400, "one text"),
    ];
    let plain = TARGETS.iter();
    cases.extend(
        plain.map(|(method, target, status, word)| {
            Case(Request::new(method, target), *status, word)
        }),
    );
    cases
}

async fn check(server: &Server, token: &str, cases: Vec<Case>) {
    for (i, Case(request, status, word)) in cases.into_iter().enumerate() {
        let shown: String = format!(
            "{} {} {}",
            request.method,
            request.target,
            String::from_utf8_lossy(&request.body)
        )
        .chars()
        .take(160)
        .collect();
        let answer = server.ask(request.token(token)).await;
        assert_eq!(
            answer.status,
            status,
            "case {i}: {shown}: {}",
            answer.text()
        );
        let error = answer.error(status);
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(word), "case {i}: {shown}: {message}");
        assert!(message.len() < 1000, "case {i}: {shown}");
    }
}

#[tokio::test]
async fn hostile_bodies_are_refused_with_a_field_and_change_nothing() {
    let server = server().await;
    let token = server.token(Role::Admin).await;
    let before = server.control.store().status().revision;
    let cases = bodies();
    assert!(cases.len() >= 30);
    check(&server, &token, cases).await;
    let (jobs, boxes, tokens) = server
        .control
        .read(|s| (s.jobs().count(), s.sandboxes().count(), s.tokens().count()))
        .await;
    assert_eq!((jobs, boxes, tokens), (0, 0, 1));
    assert!(server.control.store().status().revision >= before);
}

#[tokio::test]
async fn hostile_targets_and_headers_are_refused() {
    let server = server().await;
    let token = server.token(Role::Admin).await;
    let cases = targets();
    assert!(cases.len() >= 40);
    check(&server, &token, cases).await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let server = bare(config()).await;
    let token = server.token(Role::Admin).await;
    for (path, announced) in [("/api/v1/tokens", 5 << 20), ("/api/v1/jobs", 65usize << 20)] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: {announced}\r\n\r\n"
        );
        let error = http::parse(&http::raw(server.address, head.as_bytes()).await).error(413);
        assert_eq!(error["reason"], "overloaded");
        assert!(error["message"].as_str().unwrap().contains("MiB"));
    }
}

#[tokio::test]
async fn a_chunked_body_is_counted_as_it_comes() {
    let server = bare(config()).await;
    let token = server.token(Role::Admin).await;
    let mut bytes = format!(
        "POST /api/v1/tokens HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for _ in 0..5 {
        bytes.extend_from_slice(b"100000\r\n");
        bytes.extend_from_slice(&vec![b' '; 1 << 20]);
        bytes.extend_from_slice(b"\r\n");
    }
    http::parse(&http::raw(server.address, &bytes).await).error(413);
}

#[tokio::test]
async fn broken_http_ends_the_connection_and_nothing_else() {
    let server = bare(config()).await;
    let token = server.token(Role::Admin).await;
    let many: String = (0..200).map(|i| format!("x-{i}: y\r\n")).collect();
    let long = format!("GET /health HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    let cases: Vec<Vec<u8>> = vec![
        b"\r\n\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET /health HTTP/9.9\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"GET /health HTTP/1.1\r\nhost\x00: x\r\n\r\n".to_vec(),
        b"GET /health HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello".to_vec(),
        b"POST /api/v1/jobs HTTP/1.1\r\ncontent-length: -5\r\n\r\n".to_vec(),
        b"POST /api/v1/jobs HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        format!("GET /health HTTP/1.1\r\n{many}\r\n").into_bytes(),
        long.into_bytes(),
    ];
    for case in cases {
        let shown: String = String::from_utf8_lossy(&case).chars().take(60).collect();
        // A client that sends garbage and no more: whatever comes back, the connection ends.
        let mut stream = tokio::net::TcpStream::connect(server.address)
            .await
            .unwrap();
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let _ = stream.write_all(&case).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let _ = tokio::time::timeout(std::time::Duration::from_secs(20), read)
            .await
            .expect("it ends");
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{shown:?}");
    }
    server
        .ask(Request::get("/api/v1/cluster").token(&token))
        .await
        .ok();
}

#[tokio::test]
async fn a_request_id_is_kept_if_it_is_fit_for_logs() {
    let server = bare(config()).await;
    let ask = |id: &str| Request::get("/nothing").header("x-request-id", id);
    let kept = server.ask(ask("abc-1.2_3")).await;
    assert_eq!(kept.error(404)["request_id"], "abc-1.2_3");
    for bad in ["a b", "\u{e4}", &"x".repeat(129), "a;b"] {
        let answer = server.ask(ask(bad)).await;
        assert_ne!(answer.error(404)["request_id"], bad);
    }
}

#[tokio::test]
async fn a_panic_in_a_handler_is_a_500_with_an_id() {
    let server = server().await;
    let token = server.token(Role::Submitter).await;
    let made = server
        .ask(Request::post("/api/v1/sandboxes", "{}").token(&token))
        .await
        .ok();
    let path = format!(
        "/api/v1/sandboxes/{}/exec",
        made.json()["id"].as_str().unwrap()
    );
    let answer = server
        .ask(Request::post(&path, r#"{"argv": ["panic"]}"#).token(&token))
        .await;
    let error = answer.error(500);
    assert_eq!(error["reason"], "internal");
    server.ask(Request::get("/health")).await.ok();
}
