//! The one error of this crate: where in which text, which field, and what was expected there.

use std::fmt;
use std::sync::Arc;

/// A place in a text: line and column, from 1. Line 0 means the text as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl Place {
    pub(crate) fn new(line: usize, column: usize) -> Self {
        Self {
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
        }
    }

    /// The place of a byte of a text, for errors (it reads the text from its start).
    pub(crate) fn of(text: &str, byte: usize) -> Self {
        let mut byte = byte.min(text.len());
        while !text.is_char_boundary(byte) {
            byte -= 1;
        }
        let before = &text[..byte];
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        Self::new(line, before[start..].chars().count() + 1)
    }
}

/// Why a spec file or request was refused. Prints as `sweep.yaml:7:3: field: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    /// The file as the caller named it, or `request` for a request body.
    pub file: String,
    /// Where in it.
    pub place: Place,
    /// Path of the field, such as `tasks[3].env`; empty for the whole document.
    pub field: String,
    /// What is wrong, and what was expected.
    pub message: String,
}

impl SpecError {
    pub(crate) fn new(file: &str, place: Place, field: String, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            place,
            field,
            message: message.into(),
        }
    }
}

/// Where a value was, for errors that are found after its document is gone.
#[derive(Clone, Debug)]
pub(crate) struct Spot {
    pub(crate) file: Arc<str>,
    pub(crate) place: Place,
    pub(crate) field: String,
}

impl Spot {
    pub(crate) fn error(&self, message: impl Into<String>) -> SpecError {
        SpecError::new(&self.file, self.place, self.field.clone(), message)
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.place.line > 0 {
            write!(f, ":{}:{}", self.place.line, self.place.column)?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for SpecError {}

/// At most 60 characters of a text from outside, quoted and escaped, to name it in a message.
pub(crate) fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}
