//! Large requests: what is small when written does not become large in memory, and what is allowed still works.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

use prism_spec::{WireKind, Work, parse_wire};

fn refusal(body: &str) -> String {
    parse_wire(WireKind::Job, body).unwrap_err().to_string()
}

fn tasks(head: &str, task: &str, count: usize) -> String {
    let tasks = vec![task; count].join(",");
    format!("{{\"job\": \"a\"{head}, \"tasks\": [{tasks}]}}")
}

#[test]
fn tasks_that_share_a_long_command_are_counted_with_it() {
    let long = format!(", \"command\": [\"{}\"]", "x".repeat(100_000));
    let message = refusal(&tasks(&long, "{}", 1_000));
    assert!(
        message.contains("tasks[167]") && message.contains("16 MiB"),
        "{message}"
    );
    let many = refusal(&tasks("", "{\"command\": [\"x\"]}", 900_000));
    assert!(many.contains("use array or map"), "{many}");
}

#[test]
fn tens_of_thousands_of_tasks_are_read_value_by_value() {
    let body = tasks(
        "",
        "{\"command\": [\"x\", \"\\u0041\"], \"env\": {}}",
        70_000,
    );
    let submission = parse_wire(WireKind::Job, &body).unwrap();
    let Work::List { tasks } = &submission.spec.work else {
        panic!("a list");
    };
    assert_eq!(tasks.len(), 70_000);
    assert!(tasks.iter().all(|t| t.command == ["x", "A"]));
    let shown = submission.spec.shown(3);
    assert_eq!((shown.task_count(), shown.name), (3, submission.spec.name));
}

#[test]
fn a_wrong_value_far_into_a_long_list_is_found_with_its_place() {
    let good = vec!["\"l\""; 50_000].join(",\n");
    let lines = |rest: &str| {
        format!(
            "{{\"job\": \"a\", \"command\": [\"x\"], \"map\": {{\"lines\": [{good},\n{rest}]}}}}"
        )
    };
    let message = refusal(&lines("[]"));
    assert!(
        message.starts_with("request:50001:1: map.lines[50000]:"),
        "{message}"
    );
    let message = refusal(&lines("\"open"));
    assert!(message.starts_with("request:50001:"), "{message}");
    let message = refusal(&lines("{\"a\": 1, \"a\": 2}"));
    assert!(message.contains("given twice"), "{message}");
}

#[test]
fn long_lists_where_none_belong_are_refused_by_their_length() {
    let ones = vec!["1"; 20_000].join(",");
    for (field, word) in [
        ("command", "20000 entries; at most 1024"),
        ("after", "20000 entries"),
        ("files", "20000 entries"),
        ("env", "a list"),
        ("labels", "a list"),
        ("timeout", "a list"),
    ] {
        let command = if field == "command" {
            ""
        } else {
            "\"command\": [\"x\"], "
        };
        let message = refusal(&format!(
            "{{\"job\": \"a\", {command}\"{field}\": [{ones}]}}"
        ));
        assert!(
            message.contains(field) && message.contains(word),
            "{field}: {message}"
        );
    }
    let nested = format!(
        "{}{}",
        format!("[{}", "[1],".repeat(5_000)).repeat(30),
        "]".repeat(30)
    );
    let message = refusal(&format!("{{\"job\": \"a\", \"command\": {nested}}}"));
    assert!(
        message.contains("more than 100000 values") || message.contains("JSON value"),
        "{message}"
    );
}

#[test]
fn placeholders_do_not_multiply_a_long_line() {
    let body = |line: usize| {
        format!(
            "{{\"job\": \"a\", \"command\": [\"{}\"], \"map\": {{\"lines\": [\"{}\"]}}}}",
            "{item}".repeat(1_000),
            "x".repeat(line)
        )
    };
    assert!(parse_wire(WireKind::Job, body(100)).is_ok());
    let message = refusal(&body(60_000));
    assert!(message.contains("60000001 bytes of arguments"), "{message}");
    let sweep = format!(
        "{{\"sweep\": \"a\", \"command\": [\"{}\"], \"space\": {{\"n\": {{\"choice\": [\"{}\"]}}}}, \"search\": \"grid\"}}",
        "{n}".repeat(1_000),
        "x".repeat(4_000)
    );
    let message = parse_wire(WireKind::Sweep, &sweep).unwrap_err().to_string();
    assert!(message.contains("bytes of arguments"), "{message}");
}

#[test]
fn long_texts_with_escapes_are_contents_and_nothing_else() {
    let text = "line\\n\\u00e4".repeat(100_000);
    let file = format!(
        r#"{{"job": "a", "command": ["x"], "files": [{{"path": "a", "content": "{text}"}}]}}"#
    );
    let submission = parse_wire(WireKind::Job, &file).unwrap();
    let content = submission.blobs.values().next().unwrap();
    assert_eq!(content.len(), 700_000);
    assert!(content.starts_with("line\nä".as_bytes()) && content.ends_with("ä".as_bytes()));
    let coded = format!(
        r#"{{"job": "a", "command": ["x"], "files": [{{"path": "a", "content_base64": "{}"}}]}}"#,
        "AA\\/A".repeat(100_000)
    );
    let submission = parse_wire(WireKind::Job, &coded).unwrap();
    assert_eq!(submission.blobs.values().next().unwrap().len(), 300_000);
    for field in ["job", "task", "timeout", "script", "image"] {
        let name = if field == "job" {
            ""
        } else {
            r#""job": "a", "#
        };
        let message = refusal(&format!(
            r#"{{{name}"{field}": "{text}", "command": ["x"]}}"#
        ));
        assert!(message.contains(field), "{field}: {message}");
    }
    let message = refusal(&format!(r#"{{"job": "a", "command": ["{text}"]}}"#));
    assert!(message.contains("700000 bytes long; at most"), "{message}");
}
