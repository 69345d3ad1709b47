//! Promise: what a task prints cannot take over a terminal, a table, a sweep or a log: people see it escaped, programs get
//! its very bytes.

use prism_e2e::{Server, until};
use serde_json::{Value, json};

/// Last lines of a sweep's runner that are no result, or an odd one, as the shell's `printf` writes them.
const LAST_LINES: &[&str] = &[
    "{\"score\": NaN}",
    "{\"score\": Infinity}",
    "{\"score\": 1e999}",
    "{\"score\": -1e999}",
    "{\"score\": \"9\"}",
    "{\"score\": null}",
    "{\"score\": [1]}",
    "{\"score\": {\"score\": 1}}",
    "{\"score\": 1",
    "{\"score\": 1}}",
    "{\"score\": 0x10}",
    "{\"score\": 01}",
    "{\"score\": +1}",
    "{score: 1}",
    "[1, 2]",
    "\"score\"",
    "{}",
    "{\"score\": 1}\\000",
    "\\377\\376{\"score\": 1}",
    "{\"a\\033[31m\": \"\\033]0;owned\\007\"}",
];

fn logs(server: &Server, job: &str) -> Vec<u8> {
    server
        .api()
        .get(&format!("/api/v1/jobs/{job}/logs"))
        .expect(200)
        .body
}

#[test]
fn bytes_of_output_are_kept_as_they_are() {
    let server = Server::start();
    let script = "printf '\\033[31mred\\033]0;title\\007\\r\\342\\200\\256bidi\\000\\377\\376end'";
    let job = server.submit(&json!({"job": "bytes", "command": ["sh", "-c", script]}));
    server.finished(&job);
    let expected = b"\x1b[31mred\x1b]0;title\x07\r\xe2\x80\xaebidi\x00\xff\xfeend";
    assert_eq!(logs(&server, &job), expected);
    server.place.assert_no_panic();
}

#[test]
fn what_failed_tasks_say_is_escaped_for_people() {
    let server = Server::start();
    let script = "printf '\\033[31mred\\033]0;owned\\007\\r\\342\\200\\256over' >&2; exit 3";
    let job = server.submit(
        &json!({"job": "says", "command": ["sh", "-c", script], "labels": {"a": "\u{202e}b"}}),
    );
    server.finished(&job);
    for args in [
        &["job", "get", &job][..],
        &["job", "ls"],
        &["job", "results", &job],
        &["job", "tasks", &job],
        &["explain", &job],
        &["explain", &format!("{job}.0")],
        &["events"],
    ] {
        let out = server.ctl(args);
        for text in [&out.stdout, &out.stderr] {
            let bad =
                |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
            assert!(!text.contains(bad), "{args:?}: {text:?}");
        }
    }
    server.place.assert_no_panic();
}

#[test]
fn last_lines_that_are_no_result_end_a_beam_and_nothing_else() {
    let server = Server::start();
    let lines: Vec<Value> = LAST_LINES.iter().map(|l| json!(l)).collect();
    let deep = format!("{}1{}", "[".repeat(2_000), "]".repeat(2_000));
    let wide = format!("{{\"score\": 1, \"x\": [{}1]}}", "1,".repeat(1_500));
    let choices: Vec<Value> = lines
        .into_iter()
        .chain([json!(deep), json!(wide)])
        .collect();
    let count = choices.len();
    let spec = json!({
        "sweep": "odd", "command": ["sh", "-c", "printf \"$PRISM_PARAM_LINE\\n\""],
        "space": {"line": {"choice": choices}}, "search": "grid",
        "objective": {"maximize": "score"},
    });
    let view = server
        .api()
        .post("/api/v1/sweeps", &spec)
        .expect(201)
        .json();
    let id = view["id"].as_str().expect("a sweep has an id").to_owned();
    server.finished(&id);
    let view = server
        .api()
        .get(&format!("/api/v1/sweeps/{id}"))
        .expect(200)
        .json();
    assert_eq!(
        view["completed"].as_array().map(Vec::len),
        Some(count),
        "{view}"
    );
    server
        .api()
        .get(&format!("/api/v1/sweeps/{id}/results?format=csv"))
        .expect(200);
    let table = server.ctl(&["sweep", "results", &id]);
    let bad = |c: char| c.is_control() && c != '\n';
    assert!(!table.stdout.contains(bad), "{:?}", table.stdout);
    server.place.assert_no_panic();
}

#[test]
fn a_line_without_end_and_a_flood_are_bounded_and_kept_apart() {
    let server = Server::start();
    let long = server.submit(
        &json!({"job": "long", "command": ["sh", "-c", "head -c 5000000 /dev/zero | tr '\\0' x"]}),
    );
    let flood = server
        .submit(&json!({"job": "flood", "command": ["sh", "-c", "yes flood | head -c 30000000"]}));
    server.finished(&long);
    server.finished(&flood);
    let head = logs(&server, &long);
    assert!(!head.is_empty() && head.iter().all(|b| *b == b'x'));
    // The start of a flood may have made room for its end.
    let kept = logs(&server, &flood);
    assert!(
        kept.len() <= 30_000_000 && kept.ends_with(b"flood\n"),
        "{} bytes",
        kept.len()
    );
    until("the next job", || {
        let job = server.submit(&json!({"job": "next", "command": ["true"]}));
        (server.finished(&job)["status"] == "COMPLETED").then_some(())
    });
    server.place.assert_no_panic();
}
