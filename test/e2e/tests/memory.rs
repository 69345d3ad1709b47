//! Promise: whatever is sent, and by however many at once, the server's memory stays within 64 MiB above idle.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::thread;

use prism_e2e::{Api, Server, until};
use serde_json::json;

/// What hostile and refused requests may add, KiB.
const ABOVE_IDLE: u64 = 64 << 10;

/// A field of the server's status, KiB.
fn status(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("the server runs");
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(field))
        .expect("the kernel tells it");
    let digits: String = line.chars().filter(char::is_ascii_digit).collect();
    digits.parse().expect("a number of KiB")
}

fn list(head: &str, item: &str, count: usize, tail: &str) -> Vec<u8> {
    format!("{head}{}{item}{tail}", format!("{item},").repeat(count - 1)).into_bytes()
}

/// All of them.
fn bodies() -> Vec<(&'static str, Vec<u8>, u16)> {
    let mut all = wasteful();
    all.extend(refused_late());
    all
}

/// Bodies that would take much more memory than they have bytes if they were simply read, and their statuses.
fn wasteful() -> Vec<(&'static str, Vec<u8>, u16)> {
    let long = "x".repeat(100_000);
    let deep: String = format!("[{}", "[1,1,1],".repeat(10_000)).repeat(60);
    let keys: Vec<String> = (0..1_000_000).map(|n| format!("\"k{n}\":1")).collect();
    vec![
        (
            "ten million ones",
            list("{\"job\": \"a\", \"command\": [", "1", 10 << 20, "]}"),
            400,
        ),
        (
            "small tables",
            list(
                "{\"job\": \"a\", \"x\": [",
                "{\"a\":1,\"b\":2}",
                1_500_000,
                "]}",
            ),
            400,
        ),
        (
            "empty lists",
            list("{\"job\": \"a\", \"x\": [", "[]", 7_900_000, "]}"),
            400,
        ),
        (
            "lists in lists",
            format!("{{\"job\": \"a\", \"x\": {deep}1{}}}", "]".repeat(60)).into_bytes(),
            400,
        ),
        (
            "a million fields",
            format!("{{{}}}", keys.join(",")).into_bytes(),
            400,
        ),
        (
            "a text of escapes",
            format!("{{\"job\": \"{}\"}}", "\\n".repeat(11 << 20)).into_bytes(),
            400,
        ),
        (
            "tasks that share a long command",
            list(
                &format!("{{\"job\": \"a\", \"command\": [\"{long}\"], \"tasks\": ["),
                "{}",
                900_000,
                "]}",
            ),
            400,
        ),
    ]
}

/// Bodies as large as they may be, that are right but for what is looked at last.
fn refused_late() -> Vec<(&'static str, Vec<u8>, u16)> {
    let text = "x".repeat((16 << 20) - 10);
    let after = "{\"job\": \"a\", \"after\": [\"no-such\"], \"command\": [\"x\"]";
    vec![
        (
            "the most tasks, refused late",
            list(
                "{\"job\": \"a\", \"after\": [\"no-such\"], \"tasks\": [",
                "{\"command\":[\"x\"]}",
                100_000,
                "]}",
            ),
            404,
        ),
        (
            "the most lines, refused late",
            list(
                &format!("{after}, \"map\": {{\"lines\": ["),
                "\"123456789\"",
                1_000_000,
                "]}}",
            ),
            404,
        ),
        (
            "the largest file, refused late",
            format!("{after}, \"files\": [{{\"path\": \"a\", \"content\": \"\\n{text}\"}}]}}")
                .into_bytes(),
            404,
        ),
    ]
}

fn post(api: &Api, body: &[u8]) -> u16 {
    let headers = [("content-type", "application/json")];
    api.try_send("POST", "/api/v1/jobs", &headers, body)
        .map_or(0, |a| a.status)
}

#[test]
fn hostile_requests_take_little_memory() {
    let server = Server::start();
    let (api, pid) = (server.api(), server.pid());
    let idle = status(pid, "VmRSS:");
    let within = |what: &str| {
        let most = status(pid, "VmHWM:");
        assert!(
            most <= idle + ABOVE_IDLE,
            "{what}: {} MiB above idle ({idle} KiB)",
            (most - idle) >> 10
        );
    };
    let all = bodies();
    for (what, body, expected) in &all {
        assert_eq!(post(api, body), *expected, "{what}");
        within(what);
    }
    // Many at once: refused as before, or told to come again.
    for (what, body, expected) in [&all[0], &all[7], &all[8]] {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let status = post(api, body);
                    assert!([*expected, 429, 0].contains(&status), "{what}: {status}");
                });
            }
        });
        within(what);
    }
    let middle = list("{\"job\": \"a\", \"command\": [", "1", 100_000, "]}");
    thread::scope(|scope| {
        for _ in 0..60 {
            scope.spawn(|| assert!([400, 429].contains(&post(api, &middle))));
        }
    });
    within("sixty of 200 KB");
    let heads = many_heads(&server, 900);
    api.get("/health").expect(200);
    within("900 heads that do not end");
    drop(heads);
    eprintln!(
        "{} MiB above idle at most",
        (status(pid, "VmHWM:") - idle) >> 10
    );
    let jobs = api.get("/api/v1/jobs").expect(200).json();
    assert_eq!(jobs["items"], json!([]));
    server.place.assert_no_panic();
}

/// Connections with a head of nearly the most bytes, which does not end.
fn many_heads(server: &Server, count: usize) -> Vec<TcpStream> {
    let head = format!("GET /health HTTP/1.1\r\nx: {}", "y".repeat(30_000));
    let open = |_| {
        let mut stream = TcpStream::connect(&server.api().address).ok()?;
        stream.write_all(head.as_bytes()).ok()?;
        Some(stream)
    };
    (0..count).filter_map(open).collect()
}

#[test]
fn the_largest_requests_that_are_allowed_are_accepted() {
    let server = Server::start();
    let api = server.api();
    let node = api.get("/api/v1/nodes").expect(200).json();
    let node = node["items"][0]["id"]
        .as_str()
        .expect("there is a node")
        .to_owned();
    // Nothing of it is to run here.
    api.post(&format!("/api/v1/nodes/{node}/cordon"), &json!({}))
        .expect(200);
    let lines = list(
        "{\"job\": \"lines\", \"command\": [\"x\"], \"map\": {\"lines\": [",
        "\"123456789\"",
        1_000_000,
        "]}}",
    );
    let tasks = list(
        "{\"job\": \"tasks\", \"tasks\": [",
        "{\"command\":[\"x\"]}",
        100_000,
        "]}",
    );
    let array = b"{\"job\": \"array\", \"command\": [\"x\"], \"array\": 1000000}".to_vec();
    for (body, total) in [(array, 1_000_000), (lines, 1_000_000), (tasks, 100_000)] {
        let headers = [("content-type", "application/json")];
        let view = api
            .send("POST", "/api/v1/jobs", &headers, &body)
            .expect(201);
        assert!(
            view.body.len() < 100_000,
            "{} bytes of answer",
            view.body.len()
        );
        let view = view.json();
        assert_eq!(view["counts"]["total"], total, "{}", view["name"]);
        let cancel = format!(
            "/api/v1/jobs/{}/cancel",
            view["id"].as_str().expect("an id")
        );
        api.post(&cancel, &json!({})).expect(200);
    }
    let more = list(
        "{\"job\": \"a\", \"command\": [\"x\"], \"map\": {\"lines\": [",
        "\"1\"",
        1_000_001,
        "]}}",
    );
    assert_eq!(post(api, &more), 400);
    server.place.assert_no_panic();
}

#[test]
fn readers_that_take_nothing_hold_little_memory() {
    let server = Server::start();
    let (api, pid) = (server.api(), server.pid());
    let id = server.sandbox();
    let exec = format!("/api/v1/sandboxes/{id}/exec");
    let made = api
        .post(
            &exec,
            &json!({"argv": ["head", "-c", "60000000", "/dev/zero"]}),
        )
        .expect(200)
        .json();
    let exec = made["id"].as_str().expect("an exec has an id").to_owned();
    let view = format!("/api/v1/sandboxes/{id}/execs/{exec}");
    until("its output", || {
        let view = api.get(&view).expect(200).json();
        view["exit"].is_object().then_some(())
    });
    let idle = status(pid, "VmRSS:");
    let head = format!(
        "GET {view}/output HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        api.token.as_deref().unwrap_or_default()
    );
    let open = |_: i32| {
        let mut stream = TcpStream::connect(&api.address).expect("it listens");
        stream.write_all(head.as_bytes()).expect("it reads");
        stream
    };
    let readers: Vec<TcpStream> = (0..200).map(open).collect();
    // All of them were begun: one that reads gets its own answer after them.
    let whole = api
        .get(&format!("{view}/output?offset=59000000"))
        .expect(200);
    assert_eq!(whole.body.len(), 1_000_000);
    let most = status(pid, "VmHWM:").saturating_sub(idle);
    assert!(most <= ABOVE_IDLE, "{} MiB above idle", most >> 10);
    drop(readers);
    server.place.assert_no_panic();
}
