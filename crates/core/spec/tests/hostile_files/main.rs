//! Spec files that are wrong, hostile or both: each gets an error that names its line and what was expected.

mod jobs;
mod sweeps;

use prism_spec::parse_file;

/// Parses and resolves without any file; the message of what went wrong.
fn refusal(name: &str, text: &[u8]) -> String {
    match parse_file(name, text) {
        Err(e) => e.to_string(),
        Ok(document) => match document.resolve(std::collections::BTreeMap::new()) {
            Err(e) => e.to_string(),
            Ok(_) => panic!("accepted: {}", String::from_utf8_lossy(text)),
        },
    }
}

fn check(cases: &[(&str, &str, &[&str])]) {
    for (name, text, expected) in cases {
        let message = refusal(name, text.as_bytes());
        for part in *expected {
            assert!(
                message.contains(part),
                "{text}\n  gave: {message}\n  expected: {part}"
            );
        }
    }
}

const Y: &str = "s.yaml";

#[test]
fn what_is_no_document() {
    check(NO_DOCUMENTS);
}

const NO_DOCUMENTS: &[(&str, &str, &[&str])] = &[
    (Y, "", &["s.yaml:1:1:", "empty"]),
    (Y, "# only a comment\n", &["s.yaml:1:1:", "empty"]),
    (Y, "\n\n", &["empty"]),
    (
        Y,
        "- a\n- b\n",
        &["s.yaml:1:1:", "expected a table", "found a list"],
    ),
    (
        Y,
        "just words",
        &["s.yaml:1:1:", "found the text \"just words\""],
    ),
    (Y, "42", &["found the number 42"]),
    (Y, "~", &["found nothing"]),
    (
        Y,
        "job: a\n---\njob: b\n",
        &["s.yaml:2:", "second document"],
    ),
    (Y, "job: [a\n", &["s.yaml:", "not YAML"]),
    (
        Y,
        "job: a\n\tarray: 2\n",
        &["s.yaml:2:1:", "a tab in the indentation"],
    ),
    (Y, "job: \"a\ncommand: [x]\n", &["s.yaml:", "not YAML"]),
    (Y, "%YAML 1.1\n---\njob: a\n", &["s.yaml:1:", "not YAML"]),
    (Y, "job: !ruby/object:Gem a\n", &["s.yaml:1:", "tags"]),
    (Y, "job: a\nlabels: !!set {a, b}\n", &["s.yaml:2:", "tags"]),
    (Y, "job: *nothing\n", &["s.yaml:1:", "not YAML"]),
    (
        Y,
        "job: a\njob: b\n",
        &["s.yaml:2:1:", "\"job\" is given twice (first on line 1)"],
    ),
    (
        Y,
        "job: a\nenv: {A: 1, A: 2}\n",
        &["s.yaml:2:13:", "given twice"],
    ),
    (Y, "job: a\n? [x, y]\n: z\n", &["s.yaml:2:", "as a key"]),
    (Y, "job: a\n<<: 3\n", &["s.yaml:2:", "<< takes a table"]),
    (
        Y,
        "workload: web\n",
        &["not supported in this version", "job:, sweep: and sandbox:"],
    ),
    (Y, "agent: a\n", &["not supported in this version"]),
    (
        Y,
        "jbo: a\ncommand: [x]\n",
        &["expected job:", "did \"jbo\" mean \"job\"?"],
    ),
    (
        Y,
        "job: a\nsweep: b\n",
        &["only one of job:, sweep: and sandbox:"],
    ),
    ("s.json", "", &["s.json:1:1:", "empty"]),
    (
        "s.json",
        "{\"job\": \"a\",}",
        &["s.json:1:13:", "expected a key in quotes"],
    ),
    (
        "s.json",
        "{\n \"job\": a}",
        &["s.json:2:9:", "expected a JSON value"],
    ),
    (
        "s.json",
        "{\"job\": \"a\"} x",
        &["s.json:1:14:", "after the end"],
    ),
    (
        "s.json",
        "{\"job\": \"a\", \"job\": \"b\"}",
        &["s.json:1:14:", "given twice"],
    ),
    ("s.json", "{\"job\": \"a\\q\"}", &["unknown escape"]),
    ("s.json", "{\"job\": \"\\ud800\"}", &["surrogate"]),
    ("s.json", "{\"job\": \"a\nb\"}", &["control character"]),
    ("s.json", "{\"job\": 01}", &["\"01\" is not a JSON number"]),
    ("s.json", "{\"job\": NaN}", &["expected a JSON value"]),
    (
        "s.json",
        "{\"job\": \"a\"",
        &["expected , or }", "found the end"],
    ),
    ("s.json", "[]", &["found a list"]),
    (
        "s.toml",
        "job = \"a\"\narray = \n",
        &["s.toml:2:", "not TOML"],
    ),
    (
        "s.toml",
        "job = \"a\"\njob = \"b\"\n",
        &["s.toml:2:", "not TOML", "duplicate"],
    ),
    (
        "s.toml",
        "job = \"a\"\n[resources]\ncpuu = 1\n",
        &["s.toml:3:1:", "did you mean \"cpu\""],
    ),
    (
        "s.toml",
        "job = \"a\"\nretries = nan\n",
        &["s.toml:2:11:", "whole number"],
    ),
];

#[test]
fn bytes_that_are_no_text() {
    let not_utf8 = refusal(Y, b"job: a\nenv: \xff\xfe\n");
    assert!(not_utf8.starts_with("s.yaml:2:6: not UTF-8"), "{not_utf8}");
    let nul = refusal(Y, b"job: a\narray: 2\0\n");
    assert!(nul.starts_with("s.yaml:2:9: a NUL byte"), "{nul}");
    for text in [
        "job: a\ncommand: [\"a\\0b\"]\n",
        "job: a\nenv: {A: \"x\\0\"}\n",
    ] {
        assert!(refusal(Y, text.as_bytes()).contains("a NUL byte"), "{text}");
    }
    assert!(refusal("x", b"\x7fELF\x02\x01\x01").contains("x:1:"));
}

#[test]
fn documents_that_grow() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let before = format!("*a{}", i - 1);
        bomb += &format!("a{i}: &a{i} [{}]\n", [before.as_str(); 10].join(", "));
    }
    let message = refusal(Y, bomb.as_bytes());
    assert!(
        message.starts_with("s.yaml:") && message.contains("more than"),
        "{message}"
    );

    let long = format!(
        "a: &a {}\nb: [{}]\n",
        "x".repeat(1 << 20),
        "*a, ".repeat(100)
    );
    let message = refusal(Y, long.as_bytes());
    assert!(
        message.starts_with("s.yaml:2:") && message.contains("64 MiB of text"),
        "{message}"
    );

    let itself = refusal(Y, b"job: &a [*a]\n");
    assert!(itself.contains("s.yaml:1:"), "{itself}");

    for (name, text) in [
        (Y, format!("job: {}{}", "[".repeat(100), "]".repeat(100))),
        (Y, "[".repeat(200_000)),
        (Y, "- ".repeat(50_000)),
        (Y, "a: {".repeat(10_000)),
        (
            "s.json",
            format!("{{\"job\": {}{}}}", "[".repeat(100), "]".repeat(100)),
        ),
        ("s.json", "[".repeat(200_000)),
        ("s.json", "{\"a\":".repeat(200_000)),
        ("s.toml", format!("job = {}", "[".repeat(200_000))),
        ("s.toml", format!("{}a = 1", "a.".repeat(100_000))),
    ] {
        let message = refusal(name, text.as_bytes());
        let named = ["deeper", "recursion", "nesting", "simple key"];
        assert!(
            named.iter().any(|n| message.contains(n)),
            "{name}: {message}"
        );
        assert!(message.starts_with(&format!("{name}:1:")), "{message}");
    }
    let chain: String = (1..70)
        .map(|i| format!("a{i}: &a{i} [*a{}]\n", i - 1))
        .collect();
    let message = refusal(Y, format!("a0: &a0 [1]\n{chain}").as_bytes());
    assert!(message.contains("deeper than 64"), "{message}");

    let large = vec![b' '; (16 << 20) + 1];
    assert!(refusal(Y, &large).contains("at most 16 MiB"));
    let large = vec![b'\n'; (4 << 20) + 1];
    assert!(refusal("s.toml", &large).contains("4 MiB"));
    let many = format!("job: a\nenv: [{}]\n", "1,".repeat(2_100_000));
    assert!(refusal(Y, many.as_bytes()).contains("more than 2000000 values"));
}

#[test]
fn amounts_beyond_the_limits() {
    for (field, text) in [
        (
            "command",
            format!("job: a\ncommand: [{}]\n", "x,".repeat(1_100)),
        ),
        (
            "command",
            format!(
                "job: a\ncommand: [{}]\n",
                format!("{},", "x".repeat(60_000)).repeat(3)
            ),
        ),
        (
            "command[0]",
            format!("job: a\ncommand: [{}]\n", "x".repeat(200_000)),
        ),
        (
            "files[0]",
            format!(
                "job: a\ncommand: [x]\nfiles: [{}]\n",
                "a/".repeat(700) + "b"
            ),
        ),
        (
            "task",
            format!("job: a\ncommand: [x]\ntask: {}\n", "x".repeat(5_000)),
        ),
        (
            "labels.a",
            format!("job: a\ncommand: [x]\nlabels: {{a: {}}}\n", "x".repeat(300)),
        ),
        (
            "map.lines[0]",
            format!(
                "job: a\ncommand: [x]\nmap: {{lines: [{}]}}\n",
                "x".repeat(70_000)
            ),
        ),
    ] {
        let message = refusal(Y, text.as_bytes());
        assert!(message.contains(&format!(": {field}: ")), "{message}");
        assert!(
            message.contains("at most") || message.contains("too long"),
            "{message}"
        );
    }
    let env: String = (0..300).map(|i| format!("  A{i}: x\n")).collect();
    let message = refusal(Y, format!("job: a\ncommand: [x]\nenv:\n{env}").as_bytes());
    assert!(message.contains("300 variables; at most 256"), "{message}");
    let file = "x".repeat(9 << 20);
    let text = format!("job: a\ncommand: [x]\nfiles: [{{path: a, content: {file}}}]\n");
    assert!(parse_file(Y, text.as_bytes()).is_ok());
}
