//! The checkout: where it is, its files, and what cargo says about it. Read-only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Directories that hold nothing of ours.
const SKIPPED: &[&str] = &["target", ".git", "__pycache__"];

/// The checkout that this xtask was built from.
pub struct Repo {
    /// Its root, absolute.
    pub root: PathBuf,
}

/// A text file of the checkout.
pub struct Text {
    /// Path from the root, with `/`.
    pub path: String,
    /// What is in it.
    pub text: String,
}

impl Repo {
    /// Finds the root from where cargo says xtask's package is.
    pub fn find() -> Result<Self> {
        let package = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package.parent().context("xtask has no parent directory")?;
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// `cargo`, to be run at the root.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .current_dir(&self.root)
            .env("CARGO_TERM_COLOR", "never");
        // Set by `cargo run` for xtask itself; a nested cargo and the tests must not see xtask's.
        for name in [
            "CARGO_MANIFEST_DIR",
            "CARGO_PKG_NAME",
            "CARGO_MANIFEST_PATH",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// What `cargo metadata` says.
    pub fn metadata(&self, args: &[&str]) -> Result<Value> {
        let output = self
            .cargo()
            .args(["metadata", "--format-version=1"])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .context("cargo metadata could not be started")?;
        if !output.status.success() {
            bail!(
                "cargo metadata failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")
    }

    /// Every text file whose name ends so (all when empty), by path.
    pub fn texts(&self, endings: &[&str]) -> Result<Vec<Text>> {
        let mut paths = Vec::new();
        walk(&self.root, &mut paths)?;
        paths.sort();
        let mut texts = Vec::new();
        for path in paths {
            let name = path.to_string_lossy();
            if !endings.is_empty() && !endings.iter().any(|e| name.ends_with(e)) {
                continue;
            }
            let bytes = fs::read(&path).with_context(|| format!("reading {name}"))?;
            if let Ok(text) = String::from_utf8(bytes) {
                let path = path.strip_prefix(&self.root).unwrap_or(&path);
                texts.push(Text {
                    path: path.to_string_lossy().into_owned(),
                    text,
                });
            }
        }
        Ok(texts)
    }

    /// One file as text.
    pub fn read(&self, path: &str) -> Result<String> {
        fs::read_to_string(self.root.join(path)).with_context(|| format!("reading {path}"))
    }
}

fn walk(directory: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("listing {directory:?}"))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let kind = entry.file_type()?;
        if kind.is_dir() && !SKIPPED.iter().any(|s| name == *s) {
            walk(&entry.path(), into)?;
        } else if kind.is_file() {
            into.push(entry.path());
        }
    }
    Ok(())
}
