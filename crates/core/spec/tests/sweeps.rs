//! Points, tasks and results of sweeps and jobs, as the worker and the gateway use them.

use std::collections::BTreeMap;

use prism_spec::{
    BeamRow, Dimension, Direction, JobSpec, MetricScanner, Objective, Submission, Table, Work,
    last_json_line, parse_file, point_json, table,
};
use prism_types::JobId;
use serde_json::{Value, json};

fn submit(text: &str, files: &[(&str, u32, &[u8])]) -> Submission {
    let contents = files
        .iter()
        .map(|(path, mode, bytes)| ((*path).to_owned(), (*mode, bytes.to_vec())))
        .collect();
    parse_file("t.yaml", text.as_bytes())
        .and_then(|d| d.resolve(contents))
        .unwrap_or_else(|e| panic!("{e}"))
}

fn points(text: &str) -> Vec<String> {
    let spec = submit(&format!("sweep: a\ncommand: [x]\n{text}\n"), &[]).spec;
    let sweep = spec.sweep().expect("it is a sweep");
    let points =
        (0..sweep.point_count()).map(|i| sweep.point(i).expect("there is one for each index"));
    assert!(sweep.point(sweep.point_count()).is_none());
    points.map(|p| point_json(&p).to_string()).collect()
}

#[test]
fn a_grid_takes_every_combination_the_last_changing_fastest() {
    let all = points("space: {a: [x, 2], b: {range: [1, 5, 2]}}");
    assert_eq!(
        all,
        [
            r#"{"a":"x","b":1}"#,
            r#"{"a":"x","b":3}"#,
            r#"{"a":"x","b":5}"#,
            r#"{"a":2,"b":1}"#,
            r#"{"a":2,"b":3}"#,
            r#"{"a":2,"b":5}"#,
        ]
    );
    assert_eq!(points(""), ["{}"]);
    assert_eq!(
        points("space: {a: {log_uniform: [0.01, 100], steps: 5}}"),
        [
            r#"{"a":0.01}"#,
            r#"{"a":0.1}"#,
            r#"{"a":1.0}"#,
            r#"{"a":10.0}"#,
            r#"{"a":100.0}"#
        ]
    );
    assert_eq!(
        points("space: {a: {uniform: [-1, 1], steps: 3}}"),
        [r#"{"a":-1.0}"#, r#"{"a":0.0}"#, r#"{"a":1.0}"#]
    );
}

#[test]
fn random_points_are_what_they_always_were() {
    let text = "space: {lr: {log_uniform: [0.001, 1.0]}, hidden: [16, 32, 64], d: {uniform: [-1, 1]}}\nsearch: {random: 4, seed: 7}";
    assert_eq!(points(text), POINTS_OF_SEED_7);
    assert_eq!(points(text), points(text));
    assert_ne!(points(text), points(&text.replace("seed: 7", "seed: 8")));
    let more = points(&text.replace("random: 4", "random: 400"));
    assert_eq!(
        more[..4],
        POINTS_OF_SEED_7,
        "more points keep the first ones"
    );
    for point in more {
        let point: Value = serde_json::from_str(&point).unwrap();
        assert!((0.001..=1.0).contains(&point["lr"].as_f64().unwrap()));
        assert!((-1.0..=1.0).contains(&point["d"].as_f64().unwrap()));
    }
}

const POINTS_OF_SEED_7: [&str; 4] = [
    r#"{"lr":0.0114833,"hidden":16,"d":0.205914}"#,
    r#"{"lr":0.00778643,"hidden":64,"d":-0.938878}"#,
    r#"{"lr":0.717585,"hidden":32,"d":-0.566325}"#,
    r#"{"lr":0.135301,"hidden":64,"d":0.634994}"#,
];

#[test]
fn random_points_of_a_finite_space_repeat_only_when_all_are_taken() {
    let text = "space: {a: [1, 2, 3], b: {range: [1, 4]}}\nsearch: {random: 12, seed: 3}";
    let mut all = points(text);
    assert_ne!(all, points("space: {a: [1, 2, 3], b: {range: [1, 4]}}"));
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 12);
    assert_eq!(points(&text.replace("12", "13"))[12], points(text)[0]);
    assert_eq!(
        points("space: {a: {range: [0, 4000000000000]}}\nsearch: {random: 5}").len(),
        5
    );
}

#[test]
fn bounds_that_are_close_keep_their_digits() {
    let d = Dimension::Uniform {
        low: 1.0,
        high: 1.000_001,
        steps: Some(5),
    };
    assert_eq!(d.grid_len(), 5);
    let all = points("space: {a: {uniform: [1.0, 1.000001], steps: 5}}");
    assert_eq!(all[1], r#"{"a":1.00000025}"#);
}

#[test]
fn a_beam_gets_its_point_in_four_ways() {
    let spec = submit(
        "sweep: digits\ntask: best rate\nspace: {lr: [0.5, 0.25], kind: [a b]}\nenv: {HOME: /tmp, X: \"1\"}\nfiles: [shared.txt]\nrunners:\n  one: {command: [run, \"--lr={lr}\", \"{kind}\", \"{{lr}}\", \"{runner}\", \"{index}\"]}\n  two: {script: two.py, files: [shared.txt]}\naggregate: {script: sum.sh}\n",
        &[("shared.txt", 0o600, b"s"), ("two.py", 0o775, b"print()"), ("sum.sh", 0o644, b"ls")],
    )
    .spec;
    let sweep = spec.sweep().unwrap();
    assert_eq!(
        (spec.task_count(), sweep.beam(3), sweep.beam(4)),
        (5, Some((1, 1)), None)
    );
    assert!(sweep.is_aggregate(4) && !sweep.is_aggregate(3));
    let job = JobId::new(1, 2);
    let beam = spec.command_of(2, job, 3).unwrap();
    assert_eq!(beam.argv, ["run", "--lr=0.25", "a b", "{lr}", "one", "2"]);
    let env: BTreeMap<_, _> = beam.env.iter().cloned().collect();
    assert_eq!(env.len(), beam.env.len(), "each name once");
    let id = job.to_string();
    for (name, value) in [
        ("HOME", "/tmp"),
        ("X", "1"),
        ("LANG", "C.UTF-8"),
        ("PRISM_JOB_ID", id.as_str()),
        ("PRISM_JOB_NAME", "digits"),
        ("PRISM_TASK_INDEX", "2"),
        ("PRISM_TASK_COUNT", "5"),
        ("PRISM_TASK_ATTEMPT", "3"),
        ("PRISM_FENCE", "3"),
        ("PRISM_TASK", "best rate"),
        ("PRISM_RUNNER", "one"),
        ("PRISM_PARAM_LR", "0.25"),
        ("PRISM_PARAM_KIND", "a b"),
        ("PRISM_PARAMS", r#"{"lr":0.25,"kind":"a b"}"#),
    ] {
        assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert_eq!(beam.inline_files[0].path, "params.json");
    assert_eq!(
        beam.inline_files[0].content,
        b"{\"lr\":0.25,\"kind\":\"a b\"}\n"
    );
    assert_eq!(beam.files.len(), 1);
    let two = spec.command_of(1, job, 1).unwrap();
    assert_eq!(two.argv, ["python3", "two.py"]);
    let files: Vec<_> = two
        .files
        .iter()
        .map(|f| (f.path.as_str(), f.mode))
        .collect();
    assert_eq!(files, [("shared.txt", 0o644), ("two.py", 0o755)]);
    let aggregate = spec.command_of(4, job, 1).unwrap();
    assert_eq!(aggregate.argv, ["sh", "sum.sh"]);
    assert!(aggregate.inline_files.is_empty());
}

#[test]
fn tasks_of_jobs_know_their_index_and_item() {
    let argv = |spec: &JobSpec, i| spec.command_of(i, JobId::default(), 1).unwrap().argv;
    let spec = submit(
        "job: a\ncommand: [sh, -c, \"echo {index} ${index} {x}\"]\narray: 3\n",
        &[],
    )
    .spec;
    assert_eq!(argv(&spec, 2)[2], "echo 2 ${index} {x}");
    let text = "job: a\ncommand: [echo, \"{item}\"]\nmap: lines.txt\n";
    let lines = submit(
        text,
        &[(
            "lines.txt",
            0o644,
            "\u{feff}one\r\ntwo words\n\nlast".as_bytes(),
        )],
    );
    assert!(lines.blobs.is_empty());
    assert_eq!(lines.spec.task_count(), 4);
    assert_eq!(argv(&lines.spec, 1)[1], "two words");
    let task = lines.spec.command_of(0, JobId::default(), 1).unwrap();
    assert!(
        task.env
            .contains(&("PRISM_MAP_ITEM".to_owned(), "one".to_owned()))
    );
    let spec = submit(
        "job: a\ncommand: [echo]\nenv: {A: 1}\ntasks: [{env: {A: 2}}, {command: ls}]\n",
        &[],
    )
    .spec;
    assert_eq!(argv(&spec, 0), ["echo"]);
    assert_eq!(argv(&spec, 1), ["sh", "-c", "ls"]);
    let task = spec.command_of(0, JobId::default(), 1).unwrap();
    assert!(task.env.contains(&("A".to_owned(), "2".to_owned())));
}

#[test]
fn the_same_job_can_be_written_in_three_languages() {
    let yaml =
        "job: a\ncommand: [x, 1]\narray: 2\nresources: {cpu: 0.5}\nenv: {A: b}\nretries: 3\n";
    let json = r#"{"job": "a", "command": ["x", 1], "array": 2, "resources": {"cpu": 0.5}, "env": {"A": "b"}, "retries": 3}"#;
    let toml = "job = 'a'\ncommand = ['x', 1]\narray = 2\nretries = 3\n[resources]\ncpu = 0.5\n[env]\nA = 'b'\n";
    let read = |name: &str, text: &str| {
        let document = parse_file(name, text.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
        document.resolve(BTreeMap::new()).unwrap()
    };
    let first = read("a.yml", yaml);
    for (name, text) in [
        ("a.json", json),
        ("a.toml", toml),
        ("a", yaml),
        ("b", json),
        ("c", toml),
    ] {
        assert_eq!(read(name, text), first, "{name}");
    }
    let merged = "base: &b {A: b}\n".to_owned() + "job: a\n";
    assert!(
        parse_file("m.yaml", merged.as_bytes())
            .unwrap_err()
            .to_string()
            .contains("\"base\"")
    );
    let merged = yaml.replace("{A: b}", "{<<: {A: z, C: y}, A: b}");
    assert_eq!(read("m.yaml", &merged).spec.env.len(), 2);
    assert_eq!(read("m.yaml", &merged).spec.env["A"], "b");
}

#[test]
fn scripts_run_by_their_kind() {
    let command = |script: &str, mode, bytes: &[u8]| {
        let text = format!("job: a\nscript: {script}\n");
        let submission = submit(&text, &[(script, mode, bytes)]);
        let Work::Array { command, count: 1 } = submission.spec.work else {
            panic!()
        };
        (command.join(" "), submission.spec.files[0].mode)
    };
    assert_eq!(
        command("src/a.py", 0o644, b""),
        ("python3 src/a.py".to_owned(), 0o644)
    );
    assert_eq!(command("a.sh", 0o700, b""), ("sh a.sh".to_owned(), 0o755));
    assert_eq!(
        command("run", 0o644, b"#!/bin/sh\n"),
        ("./run".to_owned(), 0o755)
    );
    assert_eq!(
        command("run", 0o755, b"\x7fELF..."),
        ("./run".to_owned(), 0o755)
    );
}

#[test]
fn results_are_read_from_the_last_json_line() {
    let cases: [(&str, Option<Value>); 7] = [
        ("{\"a\": 1}\n{\"a\": 2}\n", Some(json!({"a": 2}))),
        (
            "{\"a\": 1}\nwarning: {\n[1]\n\"x\"\n3\n\n",
            Some(json!({"a": 1})),
        ),
        (
            "{\"a\": 0.9722222222222222}",
            Some(json!({"a": 0.972_222_222_222_222_2})),
        ),
        ("  {\"a\": NaN}\r\n {\"b\": 1} \r\n", Some(json!({"b": 1}))),
        ("nothing", None),
        ("", None),
        ("{{{{\n{\"a\": {}", None),
    ];
    for (text, expected) in cases {
        assert_eq!(last_json_line(text.as_bytes()), expected, "{text}");
    }
    let deep = format!("{{\"a\": {}}}\n", "[".repeat(60_000));
    assert_eq!(last_json_line(deep.as_bytes()), None);
    assert_eq!(last_json_line(&[0xff; 100_000]), None);
}

#[test]
fn metrics_are_read_line_by_line_within_bounds() {
    let mut scanner = MetricScanner::new("acc");
    let feed = |s: &mut MetricScanner, text: &str| {
        let points = s.feed(text.as_bytes());
        points
            .into_iter()
            .map(|p| (p.step, p.value))
            .collect::<Vec<_>>()
    };
    assert_eq!(feed(&mut scanner, "{\"acc\": 0."), []);
    assert_eq!(
        feed(&mut scanner, "5}\n{\"loss\": 1}\n{\"acc\": 1}\n"),
        [(1, 0.5), (2, 1.0)]
    );
    assert_eq!(feed(&mut scanner, &"x".repeat(200_000)), []);
    assert_eq!(
        feed(&mut scanner, "{\"acc\": 3}\n{\"acc\": 2}\n"),
        [(3, 2.0)]
    );
    assert_eq!(
        feed(
            &mut scanner,
            "{\"acc\": 1e999}\n{\"acc\": \"2\"}\n{\"acc\": 4}"
        ),
        []
    );
    assert_eq!(scanner.finish().map(|p| (p.step, p.value)), Some((4, 4.0)));
}

fn row(index: u32, result: Option<Value>) -> BeamRow {
    BeamRow {
        index,
        runner: "main".to_owned(),
        point: vec![
            ("lr".to_owned(), json!(0.5)),
            ("kind".to_owned(), json!("a, \"b\"")),
        ],
        status: "COMPLETED".to_owned(),
        reason: None,
        result,
    }
}

#[test]
fn results_as_a_table_and_as_csv() {
    let mut failed = row(1, None);
    failed.reason = Some("out_of_memory".to_owned());
    failed.status = "FAILED".to_owned();
    let rows = [
        row(0, Some(json!({"acc": 0.9, "lr": 1, "note": "two\nlines"}))),
        failed,
    ];
    let csv = table(&rows).csv();
    assert_eq!(
        csv,
        "index,lr,kind,status,acc,result.lr,note,reason\r\n0,0.5,\"a, \"\"b\"\"\",COMPLETED,0.9,1,\"two\nlines\",\r\n1,0.5,\"a, \"\"b\"\"\",FAILED,,,,out_of_memory\r\n"
    );
    assert_eq!(
        table(&[]),
        Table {
            columns: vec!["index".to_owned(), "status".to_owned()],
            rows: vec![]
        }
    );
}

#[test]
fn the_best_is_the_first_among_equals() {
    let rows = [
        row(0, Some(json!({"acc": 0.9}))),
        row(1, None),
        row(3, Some(json!({"acc": 0.95}))),
        row(2, Some(json!({"acc": 0.95}))),
        row(4, Some(json!({"acc": "1"}))),
        row(5, Some(json!({}))),
    ];
    let best = |direction| {
        let objective = Objective {
            direction,
            metric: "acc".to_owned(),
        };
        objective.best(&rows).map(|r| r.index)
    };
    assert_eq!(best(Direction::Maximize), Some(2));
    assert_eq!(best(Direction::Minimize), Some(0));
    let none = Objective {
        direction: Direction::Maximize,
        metric: "x".to_owned(),
    };
    assert!(none.best(&rows).is_none());
}
