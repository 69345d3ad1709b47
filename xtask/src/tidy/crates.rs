//! What every crate has in common: lints, versions from one place, and a first line that says what it is for.

use anyhow::Result;
use serde_json::Value;

use crate::repo::Repo;

/// Checks every manifest and crate root.
pub fn check(repo: &Repo) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let metadata = repo.metadata(&["--no-deps", "--offline"])?;
    let tested = repo.texts(&[".rs"])?;
    let tested: Vec<&str> = tested
        .iter()
        .filter(|t| has_tests(&t.text))
        .map(|t| t.path.as_str())
        .collect();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        let path = relative(repo, manifest);
        problems.extend(of_manifest(&path, &repo.read(&path)?));
        for target in package["targets"].as_array().into_iter().flatten() {
            let source = relative(repo, target["src_path"].as_str().unwrap_or_default());
            if !repo.read(&source)?.starts_with("//! ") {
                problems.push(format!(
                    "{source}:1: expected a `//!` line that says what it is for"
                ));
            }
            problems.extend(of_tests(&source, target, &tested));
        }
        if package["name"] == "prism" && package["default_run"] != "prismctl" {
            problems.push(format!(
                "{path}: default-run is not prismctl, which the README relies on"
            ));
        }
    }
    problems.extend(clippy_lists(
        &repo.read("clippy.toml")?,
        &repo.read("crates/core/clippy.toml")?,
    ));
    Ok(problems)
}

fn has_tests(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim_start);
    lines.any(|l| {
        ["#[test]", "#[tokio::test", "proptest!"]
            .iter()
            .any(|t| l.starts_with(t))
    })
}

/// A library or a program without tests within is not compiled as one of tests as well, and one that has some is.
fn of_tests(source: &str, target: &Value, tested: &[&str]) -> Option<String> {
    let kinds = target["kind"].as_array()?;
    if !kinds.iter().any(|k| k == "lib" || k == "bin") {
        return None;
    }
    let directory = match source.rsplit_once('/') {
        Some((directory, "lib.rs" | "main.rs")) => format!("{directory}/"),
        _ => source.to_owned(),
    };
    let has = tested.iter().any(|path| path.starts_with(&directory));
    match (has, target["test"] == true) {
        (true, false) => Some(format!(
            "{source}: has tests that never run: `test = false` is in its manifest"
        )),
        (false, true) => Some(format!(
            "{source}: is compiled a second time for tests that it does not have; put `test = false` into its manifest"
        )),
        _ => None,
    }
}

fn relative(repo: &Repo, path: &str) -> String {
    let path = path
        .strip_prefix(&*repo.root.to_string_lossy())
        .unwrap_or(path);
    path.trim_start_matches('/').to_owned()
}

fn of_manifest(path: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut section = "";
    let mut lints = false;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
            continue;
        }
        lints |= section == "lints" && line == "workspace = true";
        let dependency = section.ends_with("dependencies") && section != "workspace.dependencies";
        let named = !line.is_empty() && !line.starts_with('#');
        if dependency && named && !line.contains("workspace = true") && !line.contains("path = ") {
            problems.push(format!(
                "{path}:{}: versions live in the root Cargo.toml; expected `workspace = true`",
                at + 1
            ));
        }
    }
    if !lints {
        problems.push(format!("{path}: expected [lints] with workspace = true"));
    }
    problems
}

/// Clippy reads only the nearest clippy.toml, so the core's has to repeat what holds everywhere.
fn clippy_lists(common: &str, core: &str) -> Vec<String> {
    common
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#') && !l.starts_with("path = \"tokio"))
        .filter(|l| !l.contains("\"tokio::"))
        .filter(|l| !core.lines().any(|c| c.trim() == *l))
        .map(|l| format!("crates/core/clippy.toml: lacks what clippy.toml says: {l}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_or_missing_lints_in_a_member_is_found() {
        let good = "[lints]\nworkspace = true\n[dependencies]\n# why\nserde.workspace = true\n";
        assert_eq!(of_manifest("a", good), Vec::<String>::new());
        let bad = "[dependencies]\nserde = \"1\"\n";
        assert_eq!(of_manifest("a", bad).len(), 2);
    }

    #[test]
    fn a_rule_that_the_core_forgot_is_found() {
        assert_eq!(clippy_lists("a = 1\nb = 2\n", "a = 1\n").len(), 1);
    }
}
