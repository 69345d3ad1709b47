//! Whatever bytes come, nothing panics, and what is accepted can be expanded.

use std::collections::BTreeMap;

use prism_spec::{
    Document, MetricScanner, WireKind, last_json_line, parse_file, parse_sandbox_wire, parse_wire,
};
use prism_types::JobId;
use proptest::prelude::*;

const VALID: [(&str, &str); 4] = [
    (
        "a.yaml",
        "sweep: digits\ntask: best\nscript: {path: t.py, content: x}\nspace:\n  lr: {log_uniform: [0.001, 1.0]}\n  hidden: &h {choice: [16, 32]}\n  more: *h\nsearch: {random: 24, seed: 7}\nobjective: {maximize: accuracy}\nearly_stop: {halving: {metric: accuracy, rounds: 3}}\nresources: {cpu: 500m, memory: 256Mi}\nretries: 2\ntimeout: 5m\n",
    ),
    (
        "b.yaml",
        "base: &b {A: 1}\njob: hello\ncommand: [sh, -c, 'echo {index}']\narray: 8\nenv: {<<: *b, B: 2}\n",
    ),
    (
        "c.json",
        "{\"job\": \"x\", \"command\": \"echo {item} \\u00e4\", \"map\": {\"lines\": [\"a\", \"b\"]}, \"retries\": {\"max\": 2, \"jitter\": 0.5}}",
    ),
    (
        "d.toml",
        "sweep = \"t\"\ncommand = [\"x\", \"{p}\"]\n[space]\np = [1, 2.5, \"three\"]\nq = {range = [1, 9, 2]}\n[runners]\n",
    ),
];

/// Goes all the way with whatever is accepted.
fn exercise(name: &str, bytes: &[u8]) {
    let Ok(document) = parse_file(name, bytes) else {
        return;
    };
    if let Document::Sandbox(_) = document {
        return;
    }
    let contents: BTreeMap<_, _> = document
        .wanted_files()
        .into_iter()
        .map(|w| (w.path, (0o644, b"one\ntwo\n".to_vec())))
        .collect();
    let Ok(submission) = document.resolve(contents) else {
        return;
    };
    let count = submission.spec.task_count();
    for index in [0, 1, count / 2, count.saturating_sub(1)] {
        let task = submission.spec.command_of(index, JobId::default(), 1);
        assert_eq!(task.is_some(), index < count);
    }
    assert!(
        submission
            .spec
            .command_of(count, JobId::default(), 1)
            .is_none()
    );
    let body = submission.to_wire().to_string();
    let again = parse_wire(submission.wire_kind(), body.as_bytes()).expect("our own form is read");
    assert_eq!(again, submission);
}

fn names() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a.yaml", "b.json", "c.toml", "d"])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(name in names(), bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        exercise(name, &bytes);
        let _ = parse_wire(WireKind::Job, &bytes);
        let _ = parse_wire(WireKind::Sweep, &bytes);
        let _ = parse_sandbox_wire(&bytes);
    }

    #[test]
    fn texts_of_the_languages_signs_never_panic(name in names(), text in "[\\[\\]{}:,\"'&*!|>%@`#?<=\\- \n\tajob0-9.\\\\]{0,200}") {
        exercise(name, text.as_bytes());
        exercise(name, format!("job: a\ncommand: [x]\n{text}").as_bytes());
        let _ = parse_wire(WireKind::Job, text.as_bytes());
    }

    #[test]
    fn changed_files_never_panic(
        which in 0..VALID.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..6),
    ) {
        let (name, text) = VALID[which];
        let mut bytes = text.as_bytes().to_vec();
        for (at, byte, how) in changes {
            let at = at.index(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
            match how {
                _ if bytes.is_empty() => bytes.push(byte),
                0 => bytes[at] = byte,
                1 => { bytes.remove(at); }
                2 => bytes.insert(at, byte),
                _ => bytes.truncate(at),
            }
        }
        exercise(name, &bytes);
    }

    #[test]
    fn the_last_json_line_is_found_behind_anything(
        before in "[^\\n]{0,40}", n in any::<i32>(), after in prop::collection::vec("[^{\\n]{0,20}", 0..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let text = format!("{before}\n{{\"n\": {n}}}\n{}", after.join("\n"));
        let found = last_json_line(text.as_bytes()).expect("the line is there");
        prop_assert_eq!(found["n"].as_i64(), Some(i64::from(n)));
        let _ = last_json_line(&text.as_bytes()[cut.index(text.len())..]);
    }

    #[test]
    fn a_metric_is_found_whatever_the_chunks(
        values in prop::collection::vec(-1e6..1e6f64, 0..20), size in 1..64usize,
    ) {
        let text: String = values.iter().map(|v| format!("noise\n{{\"m\": {v}}}\n{{\"m\": \"x\"}}\n")).collect();
        let mut scanner = MetricScanner::new("m");
        let found: Vec<f64> = text.as_bytes().chunks(size).flat_map(|c| scanner.feed(c)).map(|p| p.value).collect();
        prop_assert_eq!(found, values);
    }
}

#[test]
fn the_valid_files_are_valid() {
    for (name, text) in &VALID[..3] {
        let text = text
            .replace("base: &b {A: 1}\n", "")
            .replace("<<: *b, ", "");
        let document = parse_file(name, text.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
        document
            .resolve(BTreeMap::new())
            .unwrap_or_else(|e| panic!("{e}"));
    }
}
