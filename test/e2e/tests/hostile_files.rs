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
    (
        "bom-twice.yaml",
        "\u{feff}\u{feff}job: a\n",
        "bom-twice.yaml:1:",
    ),
    (
        "crlf.yaml",
        "job: a\r\ncommand: [x]\r\narray: x\r\n",
        "crlf.yaml:3:",
    ),
    ("cr.yaml", "job: a\rcommand: [x]\rarray: x\r", "array"),
    ("escape.yaml", "job: \"\\x1b[31m\"\ncommand: [x]\n", "job"),
    (
        "control.yaml",
        "job: a\u{1b}b\ncommand: [x]\n",
        "control.yaml:1:",
    ),
    ("bidi.yaml", "job: a\u{202e}b\ncommand: [x]\n", "job"),
    ("null-name.yaml", "job: ~\ncommand: [x]\n", "job"),
    ("bool-command.yaml", "job: a\ncommand: true\n", "command"),
    ("map-command.yaml", "job: a\ncommand: {a: b}\n", "command"),
    ("octal.yaml", "job: a\ncommand: [x]\narray: 0o0\n", "array"),
    (
        "hex.yaml",
        "job: a\ncommand: [x]\narray: 0xffffffffff\n",
        "array",
    ),
    ("exp.yaml", "job: a\ncommand: [x]\narray: 1e9\n", "array"),
    (
        "under.yaml",
        "job: a\ncommand: [x]\narray: 1_000\n",
        "array",
    ),
    ("nan.yaml", "job: a\ncommand: [x]\narray: .nan\n", "array"),
    (
        "inf.yaml",
        "job: a\ncommand: [x]\ntimeout: .inf\n",
        "timeout",
    ),
    (
        "date.yaml",
        "job: a\ncommand: [x]\ntimeout: 2026-01-01\n",
        "timeout",
    ),
    (
        "sexagesimal.yaml",
        "job: a\ncommand: [x]\npriority: 1:30\n",
        "priority",
    ),
    ("yes.yaml", "job: a\ncommand: [x]\narray: yes\n", "array"),
    (
        "binary-tag.yaml",
        "job: a\ncommand: [!!binary aGk=]\n",
        "tag",
    ),
    (
        "python-tag.yaml",
        "job: a\ncommand: !!python/object/apply:os.system [id]\n",
        "tag",
    ),
    (
        "directive.yaml",
        "%YAML 9.9\n---\njob: a\ncommand: [x]\narray: 0\n",
        "directive.yaml:",
    ),
    (
        "tag-directive.yaml",
        "%TAG ! tag:x,2000:\n---\njob: !y a\n",
        "tag",
    ),
    (
        "merge-self.yaml",
        "job: a\ncommand: [x]\nenv: &e {<<: *e}\n",
        "merge-self.yaml:3:",
    ),
    (
        "merge-text.yaml",
        "job: a\ncommand: [x]\nenv: {<<: text}\n",
        "merge-text.yaml:3:",
    ),
    (
        "merge-list.yaml",
        "job: a\ncommand: [x]\n<<: [1, 2]\n",
        "merge-list.yaml:3:",
    ),
    ("key-list.yaml", "? [a, b]\n: c\n", "key"),
    ("key-map.yaml", "{a: b}: c\n", "key"),
    ("key-twice.yaml", "job: a\n\"job\": b\n", "given twice"),
    (
        "key-twice-env.yaml",
        "job: a\ncommand: [x]\nenv:\n  A: 1\n  \"A\": 2\n",
        "given twice",
    ),
    ("indent.yaml", "job: a\n  command: [x]\n", "indent.yaml:2:"),
    ("quote.yaml", "job: \"a\ncommand: [x]\n", "quote.yaml:"),
    (
        "flow.yaml",
        "{job: a, command: [x], array: }}\n",
        "flow.yaml:1:",
    ),
    (
        "anchor-twice.yaml",
        "job: &a &b c\n",
        "anchor-twice.yaml:1:",
    ),
    (
        "alias-late.yaml",
        "job: *x\nenv: &x {}\n",
        "alias-late.yaml:1:",
    ),
    ("reserved.yaml", "job: @a\n", "reserved.yaml:1:"),
    ("backtick.yaml", "job: `id`\n", "backtick.yaml:1:"),
    ("percent.yaml", "%job: a\n", "percent.yaml:"),
    ("block.yaml", "job: |9\n a\n", "block.yaml:2:"),
    (
        "cpu-unit.yaml",
        "job: a\ncommand: [x]\nresources: {cpu: 1000u}\n",
        "cpu",
    ),
    (
        "cpu-minus.yaml",
        "job: a\ncommand: [x]\nresources: {cpu: -1}\n",
        "cpu",
    ),
    (
        "cpu-large.yaml",
        "job: a\ncommand: [x]\nresources: {cpu: 99999999999999}\n",
        "cpu",
    ),
    (
        "memory-unit.yaml",
        "job: a\ncommand: [x]\nresources: {memory: 5Zi}\n",
        "memory",
    ),
    (
        "memory-large.yaml",
        "job: a\ncommand: [x]\nresources: {memory: 99999999999Ti}\n",
        "memory",
    ),
    (
        "memory-words.yaml",
        "job: a\ncommand: [x]\nresources: {memory: 1 G}\n",
        "memory",
    ),
    (
        "disk-nan.yaml",
        "job: a\ncommand: [x]\nresources: {disk: .nan}\n",
        "disk",
    ),
    (
        "timeout-large.yaml",
        "job: a\ncommand: [x]\ntimeout: 99999999999999d\n",
        "timeout",
    ),
    (
        "timeout-unit.yaml",
        "job: a\ncommand: [x]\ntimeout: 5 parsecs\n",
        "timeout",
    ),
    (
        "backoff.yaml",
        "job: a\ncommand: [x]\nretries: {max: 1, factor: .inf}\n",
        "factor",
    ),
    (
        "after-types.yaml",
        "job: a\ncommand: [x]\nafter: [{a: b}]\n",
        "after",
    ),
    (
        "file-nul.yaml",
        "job: a\ncommand: [x]\nfiles: [\"a\\0b\"]\n",
        "files",
    ),
    (
        "file-dot.yaml",
        "job: a\ncommand: [x]\nfiles: [a/../../b]\n",
        "files",
    ),
    (
        "file-mode.yaml",
        "job: a\ncommand: [x]\nfiles: [{path: a, content: b, mode: 4755}]\n",
        "mode",
    ),
    (
        "file-twice.yaml",
        "job: a\ncommand: [x]\nfiles: [{path: a, content: b}, {path: a, content: c}]\n",
        "twice",
    ),
    (
        "file-under.yaml",
        "job: a\ncommand: [x]\nfiles: [{path: a, content: b}, {path: a/b, content: c}]\n",
        "both a file",
    ),
    (
        "file-own.yaml",
        "sweep: a\ncommand: [x]\nspace: {n: {choice: [1]}}\nsearch: grid\nfiles: [{path: params.json, content: x}]\n",
        "params.json",
    ),
    (
        "script-kind.yaml",
        "job: a\nscript: {path: x.exe, content: x}\n",
        "x.exe",
    ),
    (
        "map-up.yaml",
        "job: a\ncommand: [x]\nmap: ../../etc/passwd\n",
        "map",
    ),
    ("map-dir.yaml", "job: a\ncommand: [x]\nmap: .\n", "map"),
    (
        "map-types.yaml",
        "job: a\ncommand: [x]\nmap: {lines: [{a: b}]}\n",
        "lines",
    ),
    (
        "map-expands.yaml",
        "job: a\ncommand: [x]\nmap: {lines: [x], more: 1}\n",
        "more",
    ),
    (
        "choice-deep.yaml",
        "sweep: a\ncommand: [x]\nspace: {n: {choice: [[1]]}}\nsearch: grid\n",
        "choice",
    ),
    (
        "choice-nan.yaml",
        "sweep: a\ncommand: [x]\nspace: {n: {choice: [.nan]}}\nsearch: grid\n",
        "n",
    ),
    (
        "steps.yaml",
        "sweep: a\ncommand: [x]\nspace: {n: {uniform: [0, 1], steps: 99999999}}\nsearch: grid\n",
        "n",
    ),
    (
        "uniform-grid.yaml",
        "sweep: a\ncommand: [x]\nspace: {n: {uniform: [0, 1]}}\nsearch: grid\n",
        "n",
    ),
    (
        "explode.yaml",
        "sweep: a\ncommand: [x]\nspace: {a: {range: [1, 1000]}, b: {range: [1, 1000]}, c: {range: [1, 1000]}}\nsearch: grid\n",
        "1000000",
    ),
    (
        "halving.yaml",
        "sweep: a\ncommand: [x]\nspace: {n: {choice: [1]}}\nsearch: grid\nearly_stop: {halving: {metric: m, rounds: 99999}}\n",
        "rounds",
    ),
    (
        "random-all.yaml",
        "sweep: a\ncommand: [x]\nspace: {n: {choice: [1]}}\nsearch: {random: 9999999}\n",
        "random",
    ),
    (
        "placeholder-open.yaml",
        "sweep: a\ncommand: [x, \"{n}{m}\"]\nspace: {n: {choice: [1]}}\nsearch: grid\n",
        "{m}",
    ),
    (
        "deep-field-2.json",
        "{\"job\": \"a\", \"command\": [\"x\"], \"resources\": {\"Memory\": 1}}",
        "did you mean \"memory\"",
    ),
    (
        "trailing.json",
        "{\"job\": \"a\", \"command\": [\"x\"],}",
        "trailing.json:1:",
    ),
    (
        "comment.json",
        "{\"job\": \"a\" /* x */}",
        "comment.json:1:",
    ),
    (
        "nan.json",
        "{\"job\": \"a\", \"command\": [\"x\"], \"array\": NaN}",
        "nan.json:1:",
    ),
    ("surrogate.json", "{\"job\": \"\\ud800\"}", "surrogate"),
    (
        "twice.json",
        "{\"job\": \"a\", \"job\": \"b\"}",
        "given twice",
    ),
    ("twice.toml", "job = \"a\"\njob = \"b\"\n", "twice.toml:"),
    ("date.toml", "job = 2026-01-01T00:00:00Z\n", "date.toml:1:"),
    (
        "big.toml",
        "job = \"a\"\ncommand = [\"x\"]\narray = 99999999999999999999\n",
        "big.toml:",
    ),
    ("table.toml", "job = \"a\"\n[job]\nx = 1\n", "table.toml:"),
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

/// What is wrong with the refusal of a file, if anything.
fn fault(place: &Place, name: &str, content: &[u8], says: &str) -> Option<String> {
    let file = place.write(name, content);
    let out = place.ctl(&["run", &file]);
    let good = out.code == Some(2)
        && out.stderr.contains(says)
        && out.stderr.contains(name)
        && out.stderr.len() < 4_000
        && !out.stderr.contains("panicked")
        && !out.stderr.contains(|c: char| c.is_control() && c != '\n')
        && out.stdout.is_empty();
    let shown: String = format!("{:?} {}{}", out.code, out.stdout, out.stderr)
        .chars()
        .take(400)
        .collect();
    (!good).then(|| format!("{name}: not {says:?}: {shown}"))
}

#[test]
fn every_wrong_file_is_refused_with_its_place_and_begins_nothing() {
    let place = Place::new();
    let cases = CASES
        .iter()
        .map(|(n, c, s)| (*n, c.as_bytes().to_vec(), *s));
    let faults: Vec<String> = cases
        .chain(grown())
        .filter_map(|(name, content, says)| fault(&place, name, &content, says))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
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
