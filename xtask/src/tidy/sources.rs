//! What the source may not hold: endless files, impurity in the core, unfinished work, names of machines.

use anyhow::Result;

use crate::repo::{Repo, Text};

/// Longest file, in lines.
const LINES: usize = 800;

/// Longer files that are left for now, with their length. The list may only shrink.
const LONG: &[(&str, usize)] = &[];

/// Needles are written in two halves, so that this file does not hold them.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("#[ig", "nore"),
];

const MACHINES: &[&str] = &[
    concat!("/work", "/main"),
    concat!("/work", "/shared"),
    concat!("/fa", "rm/"),
    concat!("/ro", "ot/."),
    concat!("crates", ".io/api"),
    concat!("index.", "crates"),
    concat!("files.", "pythonhosted"),
    concat!("deb.", "debian"),
    concat!("registry.", "npmjs"),
];

/// The world, as it is called in source.
const IMPURE: &[&str] = &[
    "tokio::",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::env",
    "SystemTime",
    "Instant::",
    "thread_rng",
    "HashMap",
    "HashSet",
];

/// Checks every text of the tree.
pub fn check(repo: &Repo) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for text in repo.texts(&[])? {
        if text.path == "Cargo.lock" {
            continue;
        }
        lines_with(
            &text,
            MACHINES,
            "a machine's path or a registry's host",
            &mut problems,
        );
        let code = [".rs", ".py", ".sh"].iter().any(|e| text.path.ends_with(e));
        if code || text.path.starts_with("scripts/") || text.path.starts_with(".ci/") {
            lines_with(
                &text,
                UNFINISHED,
                "unfinished work, or a test that never runs",
                &mut problems,
            );
        }
        if text.path.ends_with(".rs") {
            length(&text, &mut problems);
            rust(&text, &mut problems);
        }
    }
    Ok(problems)
}

fn rust(text: &Text, problems: &mut Vec<String>) {
    if text.path.starts_with("crates/core/") && text.path.contains("/src/") {
        lines_with(
            text,
            IMPURE,
            "the core is pure: no I/O, clock, randomness or unordered maps",
            problems,
        );
    }
    let word = concat!("un", "safe");
    if !text.path.starts_with("crates/engine/sys/") {
        for (at, line) in text.text.lines().enumerate() {
            let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            if !is_comment(line) && words.into_iter().any(|w| w == word) {
                problems.push(format!(
                    "{}:{}: {word} outside crates/engine/sys",
                    text.path,
                    at + 1
                ));
            }
        }
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

fn lines_with(text: &Text, needles: &[&str], what: &str, problems: &mut Vec<String>) {
    // Only the tidy checks themselves have to spell out what they look for.
    if text.path.starts_with("xtask/src/tidy/") {
        return;
    }
    for (at, line) in text.text.lines().enumerate() {
        if let Some(needle) = needles.iter().find(|n| line.contains(**n)) {
            problems.push(format!("{}:{}: {needle:?}: {what}", text.path, at + 1));
        }
    }
}

fn length(text: &Text, problems: &mut Vec<String>) {
    let lines = text.text.lines().count();
    let path = &text.path;
    match LONG.iter().find(|(p, _)| p == path) {
        Some((_, known)) if lines < *known => problems.push(format!(
            "{path}: {lines} lines, shorter than its exception of {known}; lower or remove that in xtask/src/tidy/sources.rs"
        )),
        Some((_, known)) if lines == *known && lines > LINES => {}
        None if lines <= LINES => {}
        _ => problems.push(format!("{path}: {lines} lines; at most {LINES}, so split it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(path: &str, text: &str) -> Vec<String> {
        let text = Text {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let mut problems = Vec::new();
        rust(&text, &mut problems);
        length(&text, &mut problems);
        lines_with(&text, UNFINISHED, "unfinished", &mut problems);
        problems
    }

    #[test]
    fn each_ban_is_found_where_it_holds() {
        let word = concat!("un", "safe");
        assert_eq!(
            problems("crates/core/a/src/b.rs", "use std::fs;\n").len(),
            1
        );
        assert_eq!(
            problems("crates/plane/a/src/b.rs", "use std::fs;\n").len(),
            0
        );
        assert_eq!(
            problems("crates/plane/a/src/b.rs", &format!("{word} {{}}\n")).len(),
            1
        );
        assert_eq!(
            problems(
                "crates/plane/a/src/b.rs",
                &format!("#![forbid({word}_code)]\n")
            )
            .len(),
            0
        );
        assert_eq!(
            problems("crates/engine/sys/src/b.rs", &format!("{word} {{}}\n")).len(),
            0
        );
        assert_eq!(problems("src/b.rs", &"a\n".repeat(801)).len(), 1);
        assert_eq!(problems("x/tests/b.rs", &"a\n".repeat(801)).len(), 1);
        assert_eq!(
            problems("src/b.rs", &format!("// {}\n", UNFINISHED[0])).len(),
            1
        );
    }
}
