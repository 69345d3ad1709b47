//! Fields of jobs.

use super::{Y, check};

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
    (
        "single_instance: maybe",
        &["single_instance", "true or false"],
    ),
    (
        "single_instance: true\nisolation: none",
        &["single_instance", "isolation: none"],
    ),
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
