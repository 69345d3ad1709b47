//! Spec files that are wrong, hostile or both: each gets an error that names its line and what was expected.

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
fn fields_of_jobs() {
    let job = |line: &str| format!("job: a\ncommand: [x]\n{line}\n");
    for (line, expected) in JOB_FIELDS {
        check(&[(Y, &job(line), expected)]);
    }
    check(JOBS);
}

const JOB_FIELDS: &[(&str, &[&str])] = &[
    (
        "retires: 2",
        &[
            "s.yaml:3:1:",
            "unknown field \"retires\"; did you mean \"retries\"?",
        ],
    ),
    (
        "colour: red",
        &[
            "s.yaml:3:1:",
            "unknown field \"colour\"; expected one of job, namespace",
        ],
    ),
    ("space: {}", &["unknown field \"space\""]),
    (
        "retries: two",
        &[
            "s.yaml:3:10:",
            "retries",
            "a whole number from 0 to 100",
            "found the text \"two\"",
        ],
    ),
    (
        "retries: 101",
        &["a whole number from 0 to 100, found the number 101"],
    ),
    ("retries: -1", &["a whole number from 0 to 100"]),
    ("retries: 1.5", &["a whole number from 0 to 100"]),
    (
        "retries: 99999999999999999999999999999999999999999999",
        &["retries", "whole number"],
    ),
    ("retries: .inf", &["whole number"]),
    ("retries: {initial: 1s}", &["retries", "\"max\" is missing"]),
    (
        "retries: {max: 2, jiter: 1}",
        &["s.yaml:3:19:", "did you mean \"jitter\""],
    ),
    (
        "backoff: {factor: .nan}",
        &["backoff.factor", "a number from 1 to 10"],
    ),
    (
        "backoff: {factor: 1e400}",
        &["backoff.factor", "a number from 1 to 10"],
    ),
    (
        "backoff: {initial: 10s, max: 1s}",
        &["backoff.max", "shorter than the first wait"],
    ),
    ("array: 0", &["s.yaml:3:8:", "array", "from 1 to 10000000"]),
    ("array: 10000001", &["from 1 to 10000000"]),
    ("array: [3]", &["found a list"]),
    (
        "array: 2\nmap: x.txt",
        &["only one of array, tasks and map"],
    ),
    ("tasks: []", &["tasks", "at least one task"]),
    (
        "tasks: [{comand: [y]}]",
        &["s.yaml:3:10:", "tasks[0]", "did you mean \"command\"?"],
    ),
    (
        "tasks:\n  - name: one\n  - name: Two!",
        &["s.yaml:5:11:", "tasks[1].name", "is not a name"],
    ),
    (
        "tasks: [{env: {A: [1]}}]",
        &["tasks[0].env.A", "found a list"],
    ),
    ("map: /etc/passwd", &["s.yaml:3:6:", "map", "is absolute"]),
    ("map: ../../x", &["leaves its directory"]),
    (
        "map: {file: a, lines: [b]}",
        &["map", "both file and lines"],
    ),
    ("map: {lines: []}", &["map.lines", "at least one"]),
    ("map: {line: [a]}", &["did you mean \"lines\""]),
    (
        "map: 7",
        &[
            "a path, {file: path} or {lines: [...]}",
            "found the number 7",
        ],
    ),
    ("map: {lines: [[1]]}", &["map.lines[0]", "found a list"]),
    ("namespace: Team A", &["namespace", "is not a name"]),
    ("group: ../x", &["group", "is not a name"]),
    ("task: [a]", &["task", "a sentence", "found a list"]),
    (
        "env: [A=1]",
        &["env", "a table of variables", "found a list"],
    ),
    (
        "env: {1A: x}",
        &["s.yaml:3:11:", "\"1A\" cannot be a variable"],
    ),
    ("env: {\"A=B\": x}", &["cannot be a variable"]),
    ("env: {\"\": x}", &["cannot be a variable"]),
    (
        "env: {PRISM_TASK_INDEX: 3}",
        &["env.PRISM_TASK_INDEX", "set by prism itself"],
    ),
    ("env: {A: {b: c}}", &["env.A", "found a table"]),
    ("files: train.py", &["files", "a list of files"]),
    ("files: [../secrets]", &["files[0]", "leaves its directory"]),
    ("files: [/etc/shadow]", &["files[0]", "is absolute"]),
    ("files: [\"a\\nb\"]", &["files[0]", "control character"]),
    ("files: [{mode: 755}]", &["files[0]", "\"path\" is missing"]),
    ("files: [{path: a, mode: 888}]", &["files[0].mode", "octal"]),
    (
        "files: [{path: a, mode: 4755}]",
        &["files[0].mode", "octal"],
    ),
    (
        "files: [{path: a, content: [1]}]",
        &["files[0].content", "found a list"],
    ),
    (
        "files: [{path: a, content_base64: \"%%\"}]",
        &["content_base64", "not base 64"],
    ),
    (
        "files: [{path: a, content: b, content_base64: Yg==}]",
        &["both content"],
    ),
    (
        "files: [{path: a, content: x}, {path: ./a, content: y}]",
        &["\"a\" is given twice"],
    ),
    (
        "files: [{path: a, content: x}, {path: a/b, content: y}]",
        &["both a file and the directory"],
    ),
    ("image: ../../etc", &["image", "is not an image"]),
    ("image: \"a b\"", &["is not an image"]),
    (
        "isolation: vm",
        &["isolation", "expected sandbox or none, found \"vm\""],
    ),
    (
        "resources: 2",
        &["resources", "a table of cpu, memory and disk"],
    ),
    (
        "resources: {cpu: fast}",
        &["s.yaml:3:18:", "resources.cpu", "is not an amount of cpu"],
    ),
    (
        "resources: {cpu: -1}",
        &["resources.cpu", "is not an amount of cpu"],
    ),
    ("resources: {cpu: 0}", &["resources.cpu", "at least 1m"]),
    ("resources: {cpu: .inf}", &["is not an amount of cpu"]),
    (
        "resources: {memory: 99999999Ti}",
        &["resources.memory", "is not a size"],
    ),
    (
        "resources: {memory: 1}",
        &["resources.memory", "at least 1Mi"],
    ),
    ("resources: {gpu: 1}", &["unknown field \"gpu\""]),
    ("pids: 0", &["pids", "a whole number from 1"]),
    ("timeout: 5 minutes", &["timeout", "is not a duration"]),
    ("timeout: -5s", &["timeout", "is not a duration"]),
    ("concurrency: 0", &["concurrency", "from 1 to"]),
    ("priority: 101", &["priority", "from -100 to 100"]),
    ("max_failures: -1", &["max_failures", "from 0 to"]),
    ("after: [\"\"]", &["after[0]", "is not a name"]),
    ("after: {a: b}", &["after", "found a table"]),
    ("labels: {\"a b\": c}", &["labels.a b", "cannot be a label"]),
    ("labels: {a: [b]}", &["labels.a", "found a list"]),
];

const JOBS: &[(&str, &str, &[&str])] = &[
    (Y, "job: a\n", &["expected a command or a script"]),
    (
        Y,
        "job: A B\ncommand: [x]\n",
        &["s.yaml:1:6:", "job", "is not a name"],
    ),
    (Y, "job:\ncommand: [x]\n", &["\"job\" is missing"]),
    (Y, "job: [a]\ncommand: [x]\n", &["job", "found a list"]),
    (
        Y,
        "job: a\ncommand: []\n",
        &["s.yaml:2:10:", "command", "an empty command"],
    ),
    (Y, "job: a\ncommand: \"  \"\n", &["an empty command"]),
    (
        Y,
        "job: a\ncommand: [x, [y]]\n",
        &["s.yaml:2:14:", "command[1]", "found a list"],
    ),
    (
        Y,
        "job: a\ncommand: {a: b}\n",
        &["command", "found a table"],
    ),
    (
        Y,
        "job: a\nscript: {path: run, content: hello}\n",
        &["script", "how to run \"run\" is not known"],
    ),
    (
        Y,
        "job: a\nscript: run.sh\n",
        &["script", "\"run.sh\" was not read"],
    ),
    (
        Y,
        "job: a\ntasks: [{name: b}]\n",
        &["tasks[0]", "\"command\" is missing"],
    ),
];

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

#[test]
fn fields_of_sweeps() {
    let sweep = |line: &str| format!("sweep: a\ncommand: [x]\n{line}\n");
    for (line, expected) in SWEEP_FIELDS {
        check(&[(Y, &sweep(line), expected)]);
    }
    check(SWEEPS);
}

const SWEEP_FIELDS: &[(&str, &[&str])] = &[
    ("spaec: {}", &["s.yaml:3:1:", "did you mean \"space\"?"]),
    (
        "space: [a]",
        &["space", "a table of parameters", "found a list"],
    ),
    ("space: {1x: [1]}", &["space.1x", "cannot name a parameter"]),
    ("space: {a-b: [1]}", &["cannot name a parameter"]),
    (
        "space: {lr: [1], LR: [2]}",
        &["space.LR", "differs from lr only by case"],
    ),
    ("space: {x: []}", &["space.x", "nothing to choose from"]),
    ("space: {x: 3}", &["space.x", "a list of values, or one of"]),
    ("space: {x: {}}", &["space.x", "expected a list of values"]),
    (
        "space: {x: {chioce: [1]}}",
        &["s.yaml:3:13:", "did you mean \"choice\"?"],
    ),
    (
        "space: {x: {choice: [1], range: [1, 2]}}",
        &["space.x", "expected a list of values"],
    ),
    ("space: {x: [[1]]}", &["space.x[0]", "found a list"]),
    ("space: {x: [.nan]}", &["space.x[0]", "finite number"]),
    (
        "space: {x: [99999999999999999999]}",
        &["space.x[0]", "64 bits"],
    ),
    ("space: {x: [~]}", &["space.x[0]", "found nothing"]),
    ("space: {x: {range: [1]}}", &["space.x.range", "[from, to]"]),
    (
        "space: {x: {range: [5, 1]}}",
        &["space.x.range", "the lower one first"],
    ),
    (
        "space: {x: {range: [1, 5, 0]}}",
        &["space.x.range[2]", "from 1 to"],
    ),
    (
        "space: {x: {range: [0.5, 1.5]}}",
        &["space.x.range[0]", "a whole number"],
    ),
    (
        "space: {x: {range: [1, 2, 3, 4]}}",
        &["4 entries; at most 3"],
    ),
    (
        "space: {x: {range: [1, 2], steps: 3}}",
        &["space.x.steps", "uniform and log_uniform only"],
    ),
    (
        "space: {x: {uniform: [1, 1]}}",
        &["space.x.uniform", "the lower one first"],
    ),
    (
        "space: {x: {uniform: [0, .inf]}}",
        &["space.x.uniform[1]", "a finite number"],
    ),
    (
        "space: {x: {uniform: [a, b]}}",
        &["space.x.uniform[0]", "found the text \"a\""],
    ),
    (
        "space: {x: {log_uniform: [0, 1]}}",
        &["space.x.log_uniform[0]", "a finite number above 0"],
    ),
    (
        "space: {x: {log_uniform: [-1, 1]}}",
        &["space.x.log_uniform[0]"],
    ),
    (
        "space: {x: {uniform: [0, 1]}}",
        &["a grid over x", "steps: N", "search: {random: N"],
    ),
    (
        "space: {x: {uniform: [0, 1]}}\nsearch: grid",
        &["s.yaml:4:9:", "search", "a grid over x"],
    ),
    (
        "space: {x: {range: [1, 2000000]}}",
        &["a grid of 2000000 points; at most 1000000"],
    ),
    (
        "space: {x: {range: [0, 9007199254740992]}, y: {range: [0, 9007199254740992]}}",
        &["at most 1000000"],
    ),
    (
        "search: gird",
        &[
            "search",
            "expected grid, or {random: N, seed: S}, found \"gird\"",
        ],
    ),
    (
        "search: {random: 0}",
        &["search.random", "from 1 to 1000000"],
    ),
    ("search: {random: 1000001}", &["from 1 to 1000000"]),
    ("search: {random: 3, sed: 1}", &["did you mean \"seed\"?"]),
    ("search: {random: 3, seed: -1}", &["search.seed"]),
    (
        "search: {random: 3, grid: true}",
        &["search", "expected grid, or"],
    ),
    ("search: {seed: 3}", &["search", "expected grid, or"]),
    (
        "objective: accuracy",
        &["objective", "{maximize: field}", "found the text"],
    ),
    (
        "objective: {maximise: accuracy}",
        &["s.yaml:3:13:", "did you mean \"maximize\"?"],
    ),
    (
        "objective: {maximize: a, minimize: b}",
        &["objective", "{maximize: field} or"],
    ),
    (
        "objective: {maximize: \"\"}",
        &["objective.maximize", "name of a field"],
    ),
    (
        "early_stop: {halving: {rounds: 3}}",
        &["early_stop.halving", "\"metric\" is missing"],
    ),
    (
        "early_stop: {halving: {metric: a}}",
        &["\"rounds\" is missing"],
    ),
    (
        "early_stop: {halving: {metric: a, rounds: 0}}",
        &["early_stop.halving.rounds", "from 1 to 16"],
    ),
    (
        "early_stop: {halving: {metric: a, rounds: 2, factor: 1}}",
        &["factor", "from 2 to 16"],
    ),
    ("early_stop: {halfing: {}}", &["did you mean \"halving\"?"]),
    (
        "early_stop: {halving: {metric: a, rounds: 2, direction: up}}",
        &["direction", "found \"up\""],
    ),
    (
        "runners: {a: {command: [x]}}",
        &["runners", "together with command or script"],
    ),
    ("aggregate: []", &["aggregate", "an empty command"]),
    (
        "aggregate: {}",
        &["aggregate", "expected a command or a script"],
    ),
    (
        "aggregate: {command: [x], fles: []}",
        &["did you mean \"files\"?"],
    ),
    (
        "files: [{path: params.json, content: x}]",
        &["params.json is written by prism itself"],
    ),
    (
        "aggregate: {command: [x], files: [{path: results.json, content: x}]}",
        &["results.json is written by prism"],
    ),
    ("array: 3", &["unknown field \"array\""]),
];

const SWEEPS: &[(&str, &str, &[&str])] = &[
    (Y, "sweep: a\n", &["expected a command or a script"]),
    (
        Y,
        "sweep: a\nrunners: {}\n",
        &["runners", "0 runners; from 1"],
    ),
    (
        Y,
        "sweep: a\nrunners: [a]\n",
        &["runners", "a table of runners"],
    ),
    (
        Y,
        "sweep: a\nrunners: {\"a b\": {command: [x]}}\n",
        &["cannot name a runner"],
    ),
    (
        Y,
        "sweep: a\nrunners: {b: {}}\n",
        &[
            "s.yaml:2:14:",
            "runners.b",
            "expected a command or a script",
        ],
    ),
    (
        Y,
        "sweep: a\nrunners: {b: {comand: [x]}}\n",
        &["runners.b", "did you mean \"command\"?"],
    ),
    (
        Y,
        "sweep: a\ncommand: [x, \"{rl}\"]\nspace: {lr: [1]}\n",
        &["{rl}", "did you mean {lr}?"],
    ),
    (
        Y,
        "sweep: a\ncommand: [x]\nspace: {p: {range: [1, 1000000]}}\nrunners: {}\n",
        &["together with command"],
    ),
    (
        Y,
        "sweep: a\nspace: {p: {range: [1, 1000000]}}\nrunners: {a: {command: [x]}, b: {command: [x]}, c: {command: [x]}, d: {command: [x]}, e: {command: [x]}, f: {command: [x]}, g: {command: [x]}, h: {command: [x]}, i: {command: [x]}, j: {command: [x]}}\n",
        &["1000000 points for each of 10 runners; at most 10000000"],
    ),
];

#[test]
fn fields_of_sandboxes() {
    check(&[
        (Y, "sandbox: Box\n", &["sandbox", "is not a name"]),
        (Y, "sandbox: a\nname: b\n", &["named twice"]),
        (
            Y,
            "sandbox: a\nsnapshot: ../x\n",
            &["snapshot", "is not a snapshot"],
        ),
        (
            Y,
            "sandbox: a\ntimeout: soon\n",
            &["timeout", "is not a duration"],
        ),
        (
            Y,
            "sandbox: a\ncommand: [x]\n",
            &["s.yaml:2:1:", "unknown field \"command\""],
        ),
        (
            Y,
            "sandbox: a\nresources: {cpu: 5000}\n",
            &["resources.cpu", "up to 4096 cores"],
        ),
    ]);
}
