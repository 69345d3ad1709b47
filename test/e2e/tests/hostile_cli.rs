//! Promise: arguments and configuration that are wrong or hostile end with a sentence and the code for it, and print nothing
//! that a terminal obeys.

use std::os::unix::fs::PermissionsExt;

use prism_e2e::{Output, Place};

/// Command lines of `prismctl` that are wrong.
const LINES: &[&[&str]] = &[
    &["nope"],
    &["--nope"],
    &["job"],
    &["job", "nope"],
    &["job", "get"],
    &["job", "get", ""],
    &["job", "get", "a", "b"],
    &["job", "ls", "--limit", "-1"],
    &["job", "ls", "--limit", "many"],
    &["job", "ls", "--output", "xml"],
    &["job", "submit"],
    &["job", "submit", "/no/such/file.yaml"],
    &["job", "submit", "\u{1b}[31m.yaml"],
    &["job", "submit", "a\nb.yaml"],
    &["run"],
    &["run", ""],
    &["run", "/dev/null"],
    &["run", "/proc/self/mem"],
    &["run", "no\u{202e}such.yaml"],
    &["sandbox", "exec"],
    &["sandbox", "create", "--memory", "lots"],
    &["sandbox", "create", "--cpu", "-1"],
    &["sandbox", "cp", "a"],
    &["token", "create"],
    &["token", "create", "x", "--role", "god"],
    &["explain"],
    &["context", "use", "no-such"],
    &["context", "use", "../x"],
    &["--context", "no-such", "job", "ls"],
    &["completion", "tcsh-9000"],
];

/// Contexts files that are none.
const FILES: &[&[u8]] = &[
    b"current = ",
    b"current = 5\n",
    b"current = \"a\"\n[contexts.a]\n",
    b"current = \"a\"\n[contexts.a]\napi = 5\n",
    b"current = \"a\"\n[contexts.a]\napi = \"ftp://x\"\ntoken = \"x\"\n",
    b"current = \"a\"\n[contexts.a]\napi = \"http://\"\ntoken = \"x\"\n",
    b"current = \"a\"\n[contexts.a]\napi = \"http://127.0.0.1:99999\"\ntoken = \"x\"\n",
    b"current = \"a\"\n[contexts.a]\napi = \"http://127.0.0.1:1\"\ntoken = \"a\\nb\"\n",
    b"current = \"a\"\n[contexts.a]\napi = \"http://127.0.0.1:1/\\u001b[31m\"\ntoken = \"x\"\n",
    b"current = \"../a\"\n",
    b"\xff\xfe",
    b"\0\0\0\0",
    b"[[contexts]]\n",
    b"contexts = [1, 2]\n",
    b"[contexts.a]\n[contexts.a]\n",
];

/// What is true of every refusal.
fn check(what: &str, out: &Output) {
    assert!(
        out.code.is_some_and(|c| c != 0 && c != 101),
        "{what}: {out:?}"
    );
    assert!(
        !out.stderr.is_empty() && out.stderr.len() < 4_000,
        "{what}: {out:?}"
    );
    let bad = |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!out.stderr.contains(bad), "{what}: {:?}", out.stderr);
    assert!(!out.stderr.contains("panicked"), "{what}: {}", out.stderr);
}

#[test]
fn wrong_command_lines_end_with_a_sentence() {
    let place = Place::new();
    for line in LINES {
        check(&format!("{line:?}"), &place.ctl(line));
    }
    let long = "a".repeat(100_000);
    check("a long name", &place.ctl(&["job", "get", &long]));
    assert!(place.processes().is_empty());
}

#[test]
fn wrong_contexts_files_end_with_a_sentence() {
    let place = Place::new();
    let path = place.path().join("config/prism/contexts.toml");
    std::fs::create_dir_all(path.parent().expect("it has one")).expect("our own directory");
    for content in FILES {
        std::fs::write(&path, content).expect("our own directory");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
            .expect("it is ours");
        check(
            &String::from_utf8_lossy(content),
            &place.ctl(&["job", "ls"]),
        );
    }
    let deep = format!("a = {}", "[".repeat(100_000));
    std::fs::write(&path, deep).expect("our own directory");
    check("a deep file", &place.ctl(&["job", "ls"]));
    std::fs::write(&path, vec![b'#'; 20 << 20]).expect("our own directory");
    check("a large file", &place.ctl(&["job", "ls"]));
    std::fs::remove_file(&path).expect("it is ours");
    std::fs::create_dir(&path).expect("our own directory");
    check("a directory", &place.ctl(&["job", "ls"]));
}

#[test]
fn wrong_lines_of_the_daemon_end_with_a_sentence() {
    let place = Place::new();
    for line in [
        &["nope"][..],
        &["--nope"],
        &["dev", "--api", "nowhere"],
        &["dev", "--api", "127.0.0.1:99999"],
        &["dev", "--api", "http://0.0.0.0:0", "--data-dir", "d"],
        &["dev", "--data-dir", "/proc/1/x"],
        &["dev", "--data-dir", "/dev/null"],
        &["dev", "--name", "A B"],
        &["dev", "--config", "/no/such.toml"],
    ] {
        let out = place.start("prismd", line).wait(prism_e2e::LIMIT);
        // Its log may have colours only on a terminal, which this is not.
        check(&format!("{line:?}"), &out);
    }
}
