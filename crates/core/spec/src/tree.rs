//! A document as values with their places, whatever it was written in. Bounded in size and depth; made by the three
//! readers beneath, read by `cursor`.

mod json;
mod toml;
mod yaml;

use std::borrow::Cow;

use crate::error::{Place, SpecError};
use crate::limits;

pub(crate) use json::{Long, Rows};

/// A value and where it starts.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    pub(crate) value: Value<'a>,
    pub(crate) at: Place,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    /// As written, so that nothing is lost before it is known what it should be.
    Number(Cow<'a, str>),
    Text(Cow<'a, str>),
    /// A long text of JSON with escapes.
    Long(Long<'a>),
    List(Vec<Node<'a>>),
    /// A long list of JSON, checked but not kept.
    Rows(Rows<'a>),
    Table(Vec<Entry<'a>>),
}

/// One field of a table.
#[derive(Clone, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) key: Cow<'a, str>,
    pub(crate) key_at: Place,
    pub(crate) node: Node<'a>,
}

/// What a text is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Yaml,
    Json,
    Toml,
}

impl Language {
    /// By the end of the file's name, else by how the text begins.
    pub(crate) fn of(name: &str, text: &str) -> Self {
        let ending = name.rsplit_once('.').map(|(_, e)| e.to_ascii_lowercase());
        match ending.as_deref() {
            Some("json") => return Self::Json,
            Some("toml") => return Self::Toml,
            Some("yaml" | "yml") => return Self::Yaml,
            _ => {}
        }
        let first = text
            .lines()
            .map(str::trim_start)
            .find(|l| !l.is_empty() && !l.starts_with('#'))
            .unwrap_or("");
        let word = first.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
        if first.starts_with('{') {
            Self::Json
        } else if word.len() < first.len() && word.trim_start().starts_with('=') {
            Self::Toml
        } else {
            Self::Yaml
        }
    }
}

/// Counts what a document is made of, so that a small text cannot become a large tree.
#[derive(Debug)]
pub(crate) struct Budget {
    values: usize,
    bytes: usize,
    values_max: usize,
    /// Values that are in memory; only counted where lists can be read value by value.
    kept: usize,
}

impl Budget {
    pub(crate) fn new(values_max: usize) -> Self {
        Self {
            values: 0,
            bytes: 0,
            values_max,
            kept: 0,
        }
    }

    /// Takes room for so many values with so many bytes of text.
    fn take(&mut self, values: usize, bytes: usize) -> Result<(), String> {
        self.values = self.values.saturating_add(values);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.values > self.values_max {
            return Err(format!("more than {} values", self.values_max));
        }
        if self.bytes > limits::TEXT_MAX {
            return Err(format!("more than {} MiB of text", limits::TEXT_MAX >> 20));
        }
        Ok(())
    }
}

impl Budget {
    /// Takes room for values that stay in memory.
    fn keep(&mut self, values: usize) -> Result<(), String> {
        self.kept += values;
        match self.kept > limits::KEPT_VALUES_MAX {
            true => Err(format!(
                "more than {} values beside those of long lists",
                limits::KEPT_VALUES_MAX
            )),
            false => Ok(()),
        }
    }
}

fn too_deep() -> String {
    format!("nested deeper than {} levels", limits::DEPTH_MAX)
}

/// Checks that bytes are text without NUL.
pub(crate) fn text_of<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str, SpecError> {
    let fail = |text: &str, byte, message: &str| {
        Err(SpecError::new(
            name,
            Place::of(text, byte),
            String::new(),
            message,
        ))
    };
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => {
            let good = std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or("");
            return fail(good, good.len(), "not UTF-8: expected text");
        }
    };
    if let Some(at) = text.find('\0') {
        return fail(text, at, "a NUL byte: expected text");
    }
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Reads a text into a tree.
pub(crate) fn read<'a>(
    name: &str,
    text: &'a str,
    language: Language,
    values_max: usize,
) -> Result<Node<'a>, SpecError> {
    let mut budget = Budget::new(values_max);
    match language {
        Language::Json => json::read(text, &mut budget),
        Language::Yaml => yaml::read(text, &mut budget),
        Language::Toml => toml::read(text, &mut budget),
    }
    .map_err(|(at, message)| SpecError::new(name, at, String::new(), message))
}

/// Why a text could not be read, and where.
type Trouble = (Place, String);

/// Refuses a table with the same key twice. Sorts places only, so it is fast for large tables.
fn no_repeats(entries: &[Entry<'_>]) -> Result<(), Trouble> {
    let mut order: Vec<&Entry<'_>> = entries.iter().collect();
    order.sort_by(|a, b| a.key.cmp(&b.key).then(a.key_at.cmp(&b.key_at)));
    match order.windows(2).find(|pair| pair[0].key == pair[1].key) {
        None => Ok(()),
        Some(pair) => Err((
            pair[1].key_at,
            format!(
                "{} is given twice (first on line {})",
                crate::error::quoted(&pair[0].key),
                pair[0].key_at.line
            ),
        )),
    }
}
