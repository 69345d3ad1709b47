//! Promise: a spec file that is wrong or hostile gets an error with its line or field and exit code 2, and nothing is begun.

use prism_e2e::{Place, Server};

/// Name, content, and what the error has to say.
const CASES: &[(&str, &str, &str)] = &[
    ("empty.yaml", "", "empty"),
    ("comment.yaml", "# nothing\n", "empty"),
    ("list.yaml", "- a\n- b\n", "expected a table"),
    ("words.yaml", "just words", "expected a table"),
    ("two.yaml", "job: a\n---\njob: b\n", "second document"),
    ("open.yaml", "job: [a\n", "not YAML"),
    ("tab.yaml", "job: a\n\tarray: 2\n", "tab"),
    ("tag.yaml", "job: !ruby/object:Gem a\n", "tags"),
    ("alias.yaml", "job: *nothing\n", "not YAML"),
    ("self.yaml", "job: &a [*a]\n", "1:"),
    ("twice.yaml", "job: a\njob: b\n", "given twice"),
    ("noun.yaml", "jbo: a\ncommand: [x]\n", "job"),
    ("both.yaml", "job: a\nsweep: b\n", "only one"),
    ("later.yaml", "workload: web\n", "not supported"),
    (
        "field.yaml",
        "job: a\ncommand: [x]\nretrys: 2\n",
        "did you mean \"retries\"",
    ),
    (
        "deep-field.yaml",
        "job: a\ncommand: [x]\nresources: {cpuu: 1}\n",
        "did you mean \"cpu\"",
    ),
    (
        "name.yaml",
        "job: Not_A_Name\ncommand: [x]\n",
        "name.yaml:1:",
    ),
    (
        "long-name.yaml",
        "job: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\ncommand: [x]\n",
        "long-name.yaml:1:",
    ),
    (
        "path-name.yaml",
        "job: ../../etc\ncommand: [x]\n",
        "path-name.yaml:1:",
    ),
    ("no-command.yaml", "job: a\n", "command"),
    ("empty-command.yaml", "job: a\ncommand: []\n", "command"),
    ("nul.yaml", "job: a\ncommand: [\"a\\0b\"]\n", "NUL"),
    ("zero.yaml", "job: a\ncommand: [x]\narray: 0\n", "array"),
    (
        "many.yaml",
        "job: a\ncommand: [x]\narray: 99999999999\n",
        "array",
    ),
    ("minus.yaml", "job: a\ncommand: [x]\narray: -1\n", "array"),
    ("float.yaml", "job: a\ncommand: [x]\narray: 1.5\n", "array"),
    (
        "ways.yaml",
        "job: a\ncommand: [x]\narray: 2\ntasks: [{command: [x]}]\n",
        "only one",
    ),
    (
        "cpu.yaml",
        "job: a\ncommand: [x]\nresources: {cpu: lots}\n",
        "cpu",
    ),
    (
        "cpu-none.yaml",
        "job: a\ncommand: [x]\nresources: {cpu: 0}\n",
        "cpu",
    ),
    (
        "memory.yaml",
        "job: a\ncommand: [x]\nresources: {memory: -5Mi}\n",
        "memory",
    ),
    (
        "memory-small.yaml",
        "job: a\ncommand: [x]\nresources: {memory: 1}\n",
        "memory",
    ),
    (
        "timeout.yaml",
        "job: a\ncommand: [x]\ntimeout: soon\n",
        "timeout",
    ),
    (
        "retries.yaml",
        "job: a\ncommand: [x]\nretries: 1000\n",
        "retries",
    ),
    (
        "priority.yaml",
        "job: a\ncommand: [x]\npriority: 101\n",
        "priority",
    ),
    (
        "env.yaml",
        "job: a\ncommand: [x]\nenv: {\"A=B\": x}\n",
        "env",
    ),
    (
        "env-own.yaml",
        "job: a\ncommand: [x]\nenv: {PRISM_TASK_INDEX: 1}\n",
        "PRISM_",
    ),
    (
        "file-up.yaml",
        "job: a\ncommand: [x]\nfiles: [../secret]\n",
        "files",
    ),
    (
        "file-root.yaml",
        "job: a\ncommand: [x]\nfiles: [/etc/passwd]\n",
        "files",
    ),
    (
        "file-none.yaml",
        "job: a\ncommand: [x]\nfiles: [not-there.txt]\n",
        "not-there.txt",
    ),
    (
        "map-none.yaml",
        "job: a\ncommand: [x]\nmap: not-there.txt\n",
        "not-there.txt",
    ),
    (
        "image.yaml",
        "job: a\ncommand: [x]\nimage: ../../etc\n",
        "image",
    ),
    (
        "isolation.yaml",
        "job: a\ncommand: [x]\nisolation: strong\n",
        "isolation",
    ),
    (
        "placeholder.yaml",
        "sweep: a\ncommand: [x, '{lrr}']\nspace:\n  lr: {choice: [1]}\nsearch: grid\n",
        "lr",
    ),
    (
        "no-space.yaml",
        "sweep: a\ncommand: [x]\nspace:\n  lr: {log_uniform: [0, 1]}\nsearch: {random: 2}\n",
        "lr",
    ),
    (
        "range.yaml",
        "sweep: a\ncommand: [x]\nspace:\n  n: {range: [5, 1]}\nsearch: grid\n",
        "n",
    ),
    (
        "infinite.yaml",
        "sweep: a\ncommand: [x]\nspace:\n  n: {uniform: [0, .inf]}\nsearch: {random: 2}\n",
        "n",
    ),
    (
        "huge-grid.yaml",
        "sweep: a\ncommand: [x]\nspace:\n  n: {range: [1, 9000000000]}\nsearch: grid\n",
        "points",
    ),
    (
        "random-none.yaml",
        "sweep: a\ncommand: [x]\nspace:\n  n: {choice: [1]}\nsearch: {random: 0}\n",
        "random",
    ),
    (
        "objective.yaml",
        "sweep: a\ncommand: [x]\nspace:\n  n: {choice: [1]}\nsearch: grid\nobjective: {best: x}\n",
        "objective",
    ),
    (
        "halving.yaml",
        "sweep: a\ncommand: [x]\nspace:\n  n: {choice: [1]}\nsearch: grid\nearly_stop: {halving: {metric: m, rounds: 99}}\n",
        "rounds",
    ),
    ("cut.json", "{\"job\": \"a\"", "found the end"),
    ("comma.json", "{\"job\": \"a\",}", "expected a key"),
    ("nan.json", "{\"job\": NaN}", "expected a JSON value"),
    ("broken.toml", "job = \"a\"\narray = \n", "not TOML"),
];

/// Contents that are long, deep, or no text.
fn grown() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let before = format!("*a{}", i - 1);
        bomb += &format!("a{i}: &a{i} [{}]\n", [before.as_str(); 10].join(", "));
    }
    vec![
        ("bomb.yaml", bomb.into_bytes(), "more than"),
        (
            "deep.yaml",
            "[".repeat(200_000).into_bytes(),
            "deep.yaml:1:",
        ),
        (
            "deep.json",
            "[".repeat(200_000).into_bytes(),
            "deep.json:1:",
        ),
        (
            "deep.toml",
            format!("a = {}", "[".repeat(200_000)).into_bytes(),
            "deep.toml:1:",
        ),
        ("large.yaml", vec![b'#'; 17 << 20], "large.yaml"),
        (
            "binary.yaml",
            b"\x7fELF\x02\x01\x01\0\0".to_vec(),
            "binary.yaml:1:",
        ),
        (
            "latin.yaml",
            b"job: a\nenv: {A: \xff\xfe}\n".to_vec(),
            "latin.yaml:2:",
        ),
        (
            "long-line.yaml",
            format!("job: {}\ncommand: [x]\n", "a".repeat(1 << 20)).into_bytes(),
            "long-line.yaml:1:",
        ),
    ]
}

fn refused(place: &Place, name: &str, content: &[u8], says: &str) {
    let file = place.write(name, content);
    let out = place.ctl(&["run", &file]).expect(2);
    assert!(
        out.stderr.contains(says),
        "{name}: expected {says:?} in: {}",
        out.stderr
    );
    assert!(
        out.stderr.contains(name),
        "{name} is not named in: {}",
        out.stderr
    );
    assert!(
        out.stderr.len() < 4_000,
        "{name}: {} bytes of error",
        out.stderr.len()
    );
    assert!(!out.stderr.contains("panicked"), "{name}: {}", out.stderr);
    assert_eq!(out.stdout, "", "{name}");
}

#[test]
fn every_wrong_file_is_refused_with_its_place_and_begins_nothing() {
    let place = Place::new();
    for (name, content, says) in CASES {
        refused(&place, name, content.as_bytes(), says);
    }
    for (name, content, says) in grown() {
        refused(&place, name, &content, says);
    }
    let begun = place.path().join("state/prism/run");
    assert!(!begun.exists(), "a run was begun in {begun:?}");
    assert!(place.processes().is_empty());
}

#[test]
fn files_that_are_no_files_are_refused() {
    let place = Place::new();
    let absent = place.ctl(&["run", "no-such.yaml"]).expect(2);
    assert!(absent.stderr.contains("no-such.yaml"), "{}", absent.stderr);
    let directory = place.ctl(&["run", "."]).expect(2);
    assert!(
        directory.stderr.contains("directory"),
        "{}",
        directory.stderr
    );
    place.ctl(&["run", "/dev/zero"]).expect(2);
}

#[test]
fn links_beside_a_spec_do_not_send_other_files_along() {
    let place = Place::new();
    std::os::unix::fs::symlink("/etc/passwd", place.work().join("innocent.txt"))
        .expect("a link can be made");
    let file = place.write("link.yaml", "job: a\ncommand: [x]\nfiles: [innocent.txt]\n");
    let out = place.ctl(&["run", &file]).expect(2);
    assert!(out.stderr.contains("innocent.txt"), "{}", out.stderr);
}

#[test]
fn a_server_keeps_nothing_of_a_refused_file() {
    let server = Server::start();
    for (name, content, says) in CASES.iter().step_by(5) {
        let file = server.place.write(name, content);
        let out = server.ctl(&["job", "submit", &file]).expect(2);
        assert!(out.stderr.contains(says), "{name}: {}", out.stderr);
    }
    let jobs = server.api().get("/api/v1/jobs").expect(200).json();
    assert_eq!(jobs["items"].as_array().map(Vec::len), Some(0), "{jobs}");
    server.place.assert_no_panic();
}
