//! The contents of files, found by path, kept by digest, and what they say about how scripts run. Used by `draft`.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::draft::{FileDraft, Program};
use crate::error::{SpecError, quoted};
use crate::job::FileSpec;
use crate::lines::Lines;
use crate::{limits, paths};

/// What has been read, and what of it is used.
pub(crate) struct Store {
    contents: BTreeMap<String, (u32, Vec<u8>)>,
    blobs: BTreeMap<String, Arc<[u8]>>,
    /// Files that were read once and named more often.
    digests: BTreeMap<String, String>,
    total: u64,
}

impl Store {
    pub(crate) fn new(contents: BTreeMap<String, (u32, Vec<u8>)>) -> Self {
        Self {
            contents,
            blobs: BTreeMap::new(),
            digests: BTreeMap::new(),
            total: 0,
        }
    }

    /// The contents that are used, by digest.
    pub(crate) fn into_blobs(self) -> BTreeMap<String, Arc<[u8]>> {
        self.blobs
    }

    pub(crate) fn all(&mut self, files: &[FileDraft]) -> Result<Vec<FileSpec>, SpecError> {
        files.iter().map(|file| self.take(file)).collect()
    }

    fn take(&mut self, file: &FileDraft) -> Result<FileSpec, SpecError> {
        let (disk_mode, bytes) = match (&file.content, self.contents.get(&file.path)) {
            (Some(content), _) => (0o644, content.as_slice()),
            (None, Some((mode, bytes))) => (*mode, bytes.as_slice()),
            (None, None) => {
                return Err(file
                    .at
                    .error(format!("{} was not read", quoted(&file.path))));
            }
        };
        // Only whether it may be run: the rest of the bits depends on the umask of the one who made the file.
        let usual = if disk_mode & 0o111 != 0 { 0o755 } else { 0o644 };
        let size = bytes.len() as u64;
        let known = self
            .digests
            .get(&file.path)
            .filter(|_| file.content.is_none());
        let sha256 = known.cloned().unwrap_or_else(|| digest(bytes));
        if !self.blobs.contains_key(&sha256) {
            self.total += size;
            if self.total > limits::CONTENTS_MAX {
                return Err(file.at.error(format!(
                    "with {} the files are larger than {} MiB: put large data into the image",
                    quoted(&file.path),
                    limits::CONTENTS_MAX >> 20
                )));
            }
            self.blobs.insert(sha256.clone(), bytes.into());
        }
        if file.content.is_none() {
            self.digests.insert(file.path.clone(), sha256.clone());
        }
        Ok(FileSpec {
            path: file.path.clone(),
            mode: file.mode.unwrap_or(usual),
            sha256,
            size,
        })
    }

    /// The command of a program; its script joins `files`.
    pub(crate) fn command(
        &mut self,
        program: &Program,
        files: &mut Vec<FileSpec>,
    ) -> Result<Vec<String>, SpecError> {
        let Some(script) = &program.script else {
            let missing = || program.at.error("expected a command or a script");
            return program.command.clone().ok_or_else(missing);
        };
        let mut file = self.take(script)?;
        let command = match &program.command {
            Some(command) => command.clone(),
            None => self.script_command(script, &mut file)?,
        };
        match files.iter().find(|f| f.path == file.path) {
            // Named as a script and once more among the files.
            Some(same) if same.sha256 == file.sha256 => {}
            _ => files.push(file),
        }
        Ok(command)
    }

    /// How a script runs: by its ending, else by its first line, else as the program that it is.
    fn script_command(
        &self,
        script: &FileDraft,
        file: &mut FileSpec,
    ) -> Result<Vec<String>, SpecError> {
        let path = file.path.clone();
        let head = self
            .blobs
            .get(&file.sha256)
            .map_or(&[][..], |b| &b[..b.len().min(4)]);
        let ending = paths::base(&path).rsplit_once('.').map(|(_, e)| e);
        match ending {
            Some("py") => return Ok(vec!["python3".to_owned(), path]),
            Some("sh") => return Ok(vec!["sh".to_owned(), path]),
            _ => {}
        }
        if head.starts_with(b"#!") || head == b"\x7fELF" {
            file.mode |= 0o111;
            return Ok(vec![format!("./{path}")]);
        }
        Err(script.at.error(format!(
            "how to run {} is not known: expected a name that ends with .py or .sh, a first line with #!, or a command",
            quoted(&path)
        )))
    }
}

/// SHA-256 in hexadecimal.
fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
    }
    text
}

/// The lines of a map file. The end of the last line does not begin another.
pub(crate) fn map_lines(
    file: &FileDraft,
    contents: &BTreeMap<String, (u32, Vec<u8>)>,
) -> Result<Lines, SpecError> {
    let fail = |line: usize, why: String| {
        let name = quoted(&file.path);
        Err(file.at.error(match line {
            0 => format!("{name}: {why}"),
            n => format!("{name}, line {n}: {why}"),
        }))
    };
    let Some((_, bytes)) = contents.get(&file.path) else {
        return fail(0, "was not read".to_owned());
    };
    if bytes.len() > limits::LINES_BYTES_MAX {
        let most = limits::LINES_BYTES_MAX >> 20;
        return fail(0, format!("larger than {most} MiB"));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(e) => {
            let before = &bytes[..e.valid_up_to()];
            let line = before.iter().filter(|b| **b == b'\n').count() + 1;
            return fail(line, "not UTF-8".to_owned());
        }
    };
    let mut lines = Lines::default();
    for (i, line) in text.lines().enumerate() {
        if i == limits::LISTED_MAX {
            return fail(0, format!("more than {i} lines"));
        }
        if line.len() > limits::LINE_MAX {
            return fail(i + 1, format!("longer than {} KiB", limits::LINE_MAX >> 10));
        }
        if line.contains('\0') {
            return fail(i + 1, "a NUL byte".to_owned());
        }
        lines.push(line);
    }
    if lines.is_empty() {
        return fail(0, "has no lines: expected at least one".to_owned());
    }
    Ok(lines.fit())
}
