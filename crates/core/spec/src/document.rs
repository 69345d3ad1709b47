//! Reading a file that people write, in YAML, JSON or TOML. The caller reads the bytes; this only looks at them.

use std::collections::BTreeMap;

use crate::cursor::Cursor;
use crate::decode::{self, Decoded};
use crate::draft::{Draft, Submission, Wanted};
use crate::error::{Place, SpecError};
use crate::limits;
use crate::sandbox::SandboxSpec;
use crate::tree::{self, Language};

/// What a file holds.
#[derive(Debug)]
pub enum Document {
    /// `job:`
    Job(Draft),
    /// `sweep:`
    Sweep(Draft),
    /// `sandbox:`
    Sandbox(SandboxSpec),
}

/// Reads a file. `name` is how the caller calls it: it leads every error, and its ending says the language (`.yaml`,
/// `.yml`, `.json`, `.toml`; otherwise the text is looked at).
///
/// # Errors
/// When it cannot be read as its language, is too large or too deep, or breaks the schema; with line, column and field.
pub fn parse_file(name: &str, bytes: &[u8]) -> Result<Document, SpecError> {
    if bytes.len() > limits::DOCUMENT_MAX {
        let most = limits::DOCUMENT_MAX >> 20;
        let message = format!("{} bytes; a spec file has at most {most} MiB", bytes.len());
        return Err(SpecError::new(
            name,
            Place::default(),
            String::new(),
            message,
        ));
    }
    let text = tree::text_of(name, bytes)?;
    let language = Language::of(name, text);
    let node = tree::read(name, text, language, limits::FILE_VALUES_MAX)?;
    Ok(match decode::document(&Cursor::root(name, false, &node))? {
        Decoded::Job(draft) => Document::Job(draft),
        Decoded::Sweep(draft) => Document::Sweep(draft),
        Decoded::Sandbox(spec) => Document::Sandbox(spec),
    })
}

impl Document {
    /// The word at its top: `job`, `sweep` or `sandbox`.
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Job(_) => "job",
            Self::Sweep(_) => "sweep",
            Self::Sandbox(_) => "sandbox",
        }
    }

    /// The job or sweep, if it is one.
    pub fn draft(&self) -> Option<&Draft> {
        match self {
            Self::Job(draft) | Self::Sweep(draft) => Some(draft),
            Self::Sandbox(_) => None,
        }
    }

    /// The files that must be read before [`Document::resolve`], each once.
    pub fn wanted_files(&self) -> Vec<Wanted> {
        self.draft().map(Draft::wanted_files).unwrap_or_default()
    }

    /// Puts the contents in, by path: each wanted file's permission bits and bytes.
    ///
    /// # Errors
    /// As [`Draft::resolve`], and when it is a sandbox, which has no files and is not submitted as work.
    pub fn resolve(
        self,
        contents: BTreeMap<String, (u32, Vec<u8>)>,
    ) -> Result<Submission, SpecError> {
        match self {
            Self::Job(draft) | Self::Sweep(draft) => draft.resolve(contents),
            Self::Sandbox(_) => Err(SpecError::new(
                "spec",
                Place::default(),
                "sandbox".to_owned(),
                "expected a job or sweep; a sandbox is created, not run",
            )),
        }
    }
}
