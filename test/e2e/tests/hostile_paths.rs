//! Promise: ids, paths, queries, cursors and keys that try to be something else are refused and reach nothing.

use prism_e2e::{Server, Trial};
use serde_json::json;

/// Ids that are none, as they stand in a URL.
const IDS: &[&str] = &[
    "..",
    ".",
    "%2e%2e",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e%2f",
    "%00",
    "a%00b",
    "%0d%0ax:%20y",
    "%ff",
    "%c0%ae%c0%ae",
    "%e2%80%ae",
    "%1b[31m",
    "-1",
    "0",
    "99999999999999999999999999",
    "01k8z3v6m0000000000000000a",
    "01K8Z3V6M0000000000000000A",
    "01k8z3v6m0000000000000000u",
    "null",
    "undefined",
    "*",
    "%25",
    "%2525",
    "a%20b",
    "'%20OR%201=1",
    "$(id)",
    "%3Cscript%3E",
    "{id}",
    "~root",
    "con",
    "a.b",
    "a;b",
    "a:b",
    "\\..\\..",
    "%5c..",
];

/// Routes with an id; the id is wrong, so the answer is 404.
const ROUTES: &[(&str, &str)] = &[
    ("GET", "/api/v1/jobs/{}"),
    ("POST", "/api/v1/jobs/{}/cancel"),
    ("GET", "/api/v1/sweeps/{}/results"),
    ("GET", "/api/v1/sandboxes/{}"),
    ("DELETE", "/api/v1/sandboxes/{}"),
    ("GET", "/api/v1/nodes/{}"),
    ("DELETE", "/api/v1/tokens/{}"),
    ("GET", "/api/v1/explain/{}"),
];

const QUERIES: &[(&str, &str)] = &[
    ("/api/v1/jobs?limit", "limit"),
    ("/api/v1/jobs?limit=", "limit"),
    ("/api/v1/jobs?limit=0", "limit"),
    ("/api/v1/jobs?limit=-1", "limit"),
    ("/api/v1/jobs?limit=1.5", "limit"),
    ("/api/v1/jobs?limit=1e2", "limit"),
    ("/api/v1/jobs?limit=0x10", "limit"),
    ("/api/v1/jobs?limit=%2b5", "limit"),
    ("/api/v1/jobs?limit=+5", "limit"),
    ("/api/v1/jobs?limit=1001", "limit"),
    ("/api/v1/jobs?limit=18446744073709551616", "limit"),
    ("/api/v1/jobs?limit=%D9%A5", "limit"),
    ("/api/v1/jobs?limit=5&limit=5", "twice"),
    ("/api/v1/jobs?Limit=5", "limit"),
    ("/api/v1/jobs?limit%00=5", "unknown"),
    ("/api/v1/jobs?%6cimit=x", "limit"),
    ("/api/v1/jobs?limit[]=5", "unknown"),
    ("/api/v1/jobs?cursor=", "cursor"),
    ("/api/v1/jobs?cursor=x", "cursor"),
    ("/api/v1/jobs?cursor=j.", "cursor"),
    ("/api/v1/jobs?cursor=j.-1", "cursor"),
    ("/api/v1/jobs?cursor=t.5", "cursor"),
    ("/api/v1/jobs?cursor=j.zzzzzzzzzzzzzzzzzzzzzzzzzz", "cursor"),
    (
        "/api/v1/jobs?cursor=j.01k8z3v6m0000000000000000a0",
        "cursor",
    ),
    ("/api/v1/jobs?cursor=eyJvZmZzZXQiOjB9", "cursor"),
    ("/api/v1/events?cursor=v.18446744073709551616", "cursor"),
    ("/api/v1/events?cursor=v.-1", "cursor"),
    ("/api/v1/events?since=-1", "since"),
    ("/api/v1/events?since=1.5", "since"),
    ("/api/v1/events?follow=2", "follow"),
    ("/api/v1/jobs?state=", "state"),
    ("/api/v1/jobs?state=queued", "state"),
    ("/api/v1/jobs?state=QUEUED,RUNNING", "state"),
    ("/api/v1/jobs?label=", "label"),
    ("/api/v1/jobs?label=a", "key=value"),
    ("/api/v1/jobs?label==b", "key=value"),
    ("/api/v1/jobs?label=%zz", "hexadecimal"),
    ("/api/v1/jobs?label=%2", "hexadecimal"),
    ("/api/v1/jobs?label=%", "hexadecimal"),
    ("/api/v1/jobs?label=%u0041", "hexadecimal"),
    ("/api/v1/jobs?label=a=%ff", "UTF-8"),
    ("/api/v1/jobs?name=%c0%80", "UTF-8"),
    ("/api/v1/jobs?name=%ed%a0%80", "UTF-8"),
    ("/api/v1/jobs?name=a%00", "NUL"),
    ("/api/v1/jobs?namespace=%00", "NUL"),
    ("/api/v1/jobs?token=x", "unknown"),
    ("/api/v1/jobs?__proto__=x", "unknown"),
    ("/api/v1/jobs?a=b;c=d", "unknown"),
    ("/api/v1/sandboxes?all=maybe", "all"),
    ("/api/v1/jobs/x/logs?task=-1", "task"),
    ("/api/v1/jobs/x/logs?task=4294967296", "task"),
    ("/api/v1/jobs/x/logs?offset=-1", "offset"),
    ("/api/v1/jobs/x/logs?offset=18446744073709551616", "offset"),
    ("/api/v1/jobs/x/logs?stream=stdin", "stream"),
];

/// Paths in a live sandbox: what reading them answers.
const READS: &[(&str, u16)] = &[
    ("", 400),
    ("..", 400),
    ("../..", 400),
    ("/..", 400),
    ("/tmp/../../etc/shadow", 400),
    ("a/%2e%2e/b", 400),
    ("%2e%2e/%2e%2e/etc/shadow", 400),
    ("..%2f..%2fetc%2fshadow", 400),
    ("a%00b", 400),
    ("/etc/passwd%00.txt", 400),
    ("%ff%fe", 400),
    ("no-such-file", 404),
    ("/no/such/file", 404),
    ("..%5c..%5cetc%5cshadow", 404),
    ("%c3%a4/%f0%9f%98%80", 404),
    ("/work/link-up", 404),
    ("/work/link-root", 400),
    ("/work/link-loop", 400),
    ("/work/link-host", 404),
    ("/work/link-proc", 404),
    ("/work/fifo", 400),
    ("/work/directory", 400),
    ("/work/directory/", 400),
    ("/dev/null", 400),
    ("/dev/zero", 400),
    ("/proc/self/mem", 404),
    ("/proc/1/environ", 400),
    ("/proc/self/root/etc/shadow", 404),
    ("/proc/self/fd/0", 404),
    ("/proc/kcore", 404),
    ("/sys/kernel/notes", 404),
];

#[test]
fn ids_and_queries_that_are_none_are_refused() {
    let server = Server::start();
    let mut trial = Trial::new(&server);
    for (i, id) in IDS.iter().enumerate() {
        // Each id at two of the routes, so that every route sees many of them.
        for (method, path) in ROUTES.iter().cycle().skip(i).take(2) {
            trial.refused(method, &path.replace("{}", id), b"", 404, "");
        }
    }
    for (path, word) in QUERIES {
        trial.refused("GET", path, b"", 400, word);
    }
    let long = [
        (
            format!("/api/v1/jobs?name={}", "a".repeat(17_000)),
            400,
            "query",
        ),
        (
            format!("/api/v1/jobs?{}", "label=a=b&".repeat(100)),
            400,
            "parameters",
        ),
        (
            format!("/api/v1/jobs?cursor={}", "j".repeat(5_000)),
            400,
            "cursor",
        ),
        (format!("/api/v1/jobs/{}", "a".repeat(8_000)), 404, ""),
        (format!("/{}", "a/".repeat(8_000)), 404, "route"),
        (format!("/api/v1/jobs/{}", "%2e".repeat(3_000)), 404, ""),
    ];
    for (path, status, word) in &long {
        trial.refused("GET", path, b"", *status, word);
    }
    trial.end(130);
}

#[test]
fn methods_and_routes_that_do_not_exist_are_refused() {
    let server = Server::start();
    let mut trial = Trial::new(&server);
    for method in [
        "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", "get", "PROPFIND",
    ] {
        trial.refused(method, "/api/v1/jobs", b"", 405, "GET");
    }
    for (method, path) in [
        ("POST", "/health"),
        ("DELETE", "/metrics"),
        ("PUT", "/api/v1/sandboxes/x"),
        ("GET", "/api/v1/jobs/x/cancel"),
        ("POST", "/api/v1/events"),
    ] {
        trial.refused(method, path, b"", 405, "takes");
    }
    for path in [
        "/",
        "//",
        "/api",
        "/api/",
        "/api/v1",
        "/api/v1/",
        "/api/v1//jobs",
        "//api/v1/jobs",
        "/API/v1/jobs",
        "/api/v1/Jobs",
        "/api/v1/jobs/",
        "/api/v1/jobs/x/",
        "/api/v1/jobs;x",
        "/api/v1/jobs%2f",
        "/api/v1/./jobs",
        "/api/v1/x/../jobs",
        "/api/v1/%6aobs",
        "/api/v2/jobs",
        "/.git/config",
        "/.env",
        "/admin",
        "/api/v1/jobs/x/y/z",
        "/openapi.yaml",
        "/metrics/",
        "/health/x",
        "/api/v1/\u{e4}",
    ] {
        trial.refused("GET", path, b"", 404, "route");
    }
    trial.end(35);
}

#[test]
fn idempotency_keys_that_are_none_are_refused() {
    let server = Server::start();
    let mut trial = Trial::new(&server);
    let body = b"{\"job\": \"a\", \"command\": [\"x\"]}";
    let long = "k".repeat(129);
    let huge = "k".repeat(10_000);
    for key in ["", " ", "a b", "a\tb", "\u{e4}", "\u{1f600}", &long, &huge] {
        let headers = [
            ("content-type", "application/json"),
            ("idempotency-key", key),
        ];
        trial.with(
            "POST",
            "/api/v1/jobs",
            &headers,
            body,
            400,
            "idempotency-key",
        );
    }
    let twice = [("idempotency-key", "a"), ("idempotency-key", "a")];
    trial.with("POST", "/api/v1/jobs", &twice, body, 400, "idempotency-key");
    trial.end(9);
}

#[test]
fn paths_in_a_sandbox_lead_nowhere_else() {
    let server = Server::start();
    let id = server.sandbox();
    let at = |rest: &str| format!("/api/v1/sandboxes/{id}/{rest}");
    let script = "cd /work && ln -s ../../../../etc/shadow link-up && ln -s / link-root && ln -s link-loop link-loop \
        && ln -s /root/no-such link-host && ln -s /proc/self/fd/1 link-proc && mkfifo fifo && mkdir directory";
    let made = server
        .api()
        .post(&at("exec"), &json!({"argv": ["sh", "-c", script]}))
        .expect(200)
        .json();
    let exec = made["id"].as_str().expect("an exec has an id").to_owned();
    prism_e2e::until("the links", || {
        let exec = server
            .api()
            .get(&at(&format!("execs/{exec}")))
            .expect(200)
            .json();
        (exec["exit"]["code"] == 0).then_some(())
    });
    let mut trial = Trial::new(&server);
    for (path, status) in READS {
        trial.refused("GET", &at(&format!("files?path={path}")), b"", *status, "");
    }
    for path in [
        "..",
        "/../x",
        "a/../../x",
        "x%00",
        "",
        "/proc/self/x",
        "/dev/x/y",
        "/work/directory",
        "/work/fifo/x",
    ] {
        trial.refused("PUT", &at(&format!("files?path={path}")), b"x", 400, "");
    }
    for mode in ["9", "7777", "-1", "0x1ff", "rwx", "1000", ""] {
        trial.refused(
            "PUT",
            &at(&format!("files?path=x&mode={mode}")),
            b"x",
            400,
            "mode",
        );
    }
    for path in ["..", "/", "/work/..", "/proc/1", "/no/such", "x%00"] {
        let status = if path == "/no/such" { 404 } else { 400 };
        trial.refused(
            "DELETE",
            &at(&format!("files?path={path}")),
            b"",
            status,
            "",
        );
    }
    let (name, deep) = ("n".repeat(300), "d/".repeat(3_000));
    for path in [name, deep, "/".to_owned() + &"x".repeat(5_000)] {
        trial.refused("GET", &at(&format!("files?path={path}")), b"", 400, "");
    }
    trial.end(54);
}
