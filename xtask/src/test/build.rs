//! The one build that all groups run: every binary and every test program, in the release profile.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

/// A test program that cargo built.
pub struct TestProgram {
    /// Its package, such as `prism-raft`.
    pub package: String,
    /// Its target: the library's name, or the file's in `tests/`.
    pub target: String,
    /// The program.
    pub path: PathBuf,
    /// Directory of the package, where its tests run.
    pub directory: PathBuf,
}

/// What the build made.
#[derive(Default)]
pub struct Built {
    /// Every test program, in order of package and target.
    pub tests: Vec<TestProgram>,
    /// Directory of `prismd` and `prismctl`.
    pub binaries: PathBuf,
}

/// Arguments of the build.
pub const ARGS: &[&str] = &[
    "build",
    "--release",
    "--quiet",
    "--workspace",
    "--bins",
    "--tests",
    "--message-format=json-render-diagnostics",
];

/// Reads what the build printed.
pub fn read(output: &str) -> Result<Built> {
    let mut built = Built::default();
    for line in output.lines().filter(|l| l.starts_with('{')) {
        let message: Value = serde_json::from_str(line).context("cargo printed broken JSON")?;
        let Some(path) = message["executable"].as_str().map(PathBuf::from) else {
            continue;
        };
        let target = message["target"]["name"].as_str().unwrap_or_default();
        let manifest = Path::new(message["manifest_path"].as_str().unwrap_or_default());
        let directory = manifest.parent().unwrap_or(manifest).to_owned();
        if message["profile"]["test"] == Value::Bool(true) {
            built.tests.push(TestProgram {
                package: package(message["package_id"].as_str().unwrap_or_default()),
                target: target.to_owned(),
                path,
                directory,
            });
        } else if target == "prismd" {
            built.binaries = path.parent().unwrap_or(&path).to_owned();
        }
    }
    built
        .tests
        .sort_by(|a, b| (&a.package, &a.target).cmp(&(&b.package, &b.target)));
    Ok(built)
}

/// The name in a package id: `path+file:///x/prism-raft#0.1.0` or `path+file:///x/raft#prism-raft@0.1.0`.
fn package(id: &str) -> String {
    let (path, version) = id.rsplit_once('#').unwrap_or((id, ""));
    match version.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => path.rsplit('/').next().unwrap_or(path).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_both_forms_of_a_package_id() {
        assert_eq!(
            package("path+file:///x/raft#prism-raft@0.1.0"),
            "prism-raft"
        );
        assert_eq!(package("path+file:///x/prism-raft#0.1.0"), "prism-raft");
    }
}
