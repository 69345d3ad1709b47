//! Where everything printed goes through: data to standard output, the rest to standard error.

pub mod doc;
pub mod human;
pub mod live;
pub mod table;
pub mod text;

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use serde_json::Value;

use crate::exit::Failure;
pub use table::{Column, Table};

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables for people.
    #[default]
    Table,
    /// Exactly what the server said, as JSON.
    Json,
    /// The same as YAML.
    Yaml,
    /// JSON with one item per line.
    Ndjson,
}

/// What standard output and standard error are, and how data is printed on them.
#[derive(Clone, Debug)]
pub struct Out {
    /// How data is printed.
    pub format: Format,
    /// Whether standard output is a terminal.
    pub terminal: bool,
    /// Whether standard error is a terminal (progress is drawn there).
    pub live: bool,
    /// More about what is being done.
    pub verbose: bool,
    width: Option<usize>,
    colour: bool,
}

impl Out {
    /// The process's own output.
    pub fn stdio(format: Format, verbose: bool) -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self {
            format,
            terminal,
            live: std::io::stderr().is_terminal()
                && std::env::var_os("TERM").is_none_or(|t| t != "dumb"),
            verbose,
            width: terminal.then(columns),
            colour: terminal && colours(),
        }
    }

    /// Columns of the terminal, when standard output is one.
    pub const fn width(&self) -> Option<usize> {
        self.width
    }

    /// Prints text on standard output.
    ///
    /// # Errors
    /// When it cannot be written; quiet when nobody reads it any more.
    pub fn print(&self, s: &str) -> Result<(), Failure> {
        self.bytes(s.as_bytes())
    }

    /// Prints bytes on standard output, at once.
    ///
    /// # Errors
    /// As [`Out::print`].
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()?;
        Ok(())
    }

    /// Prints output of a program that ran elsewhere: as it is when piped, made safe on a terminal.
    ///
    /// # Errors
    /// As [`Out::print`].
    pub fn foreign(&self, bytes: &[u8]) -> Result<(), Failure> {
        if self.terminal {
            self.print(&text::escape_lines(&String::from_utf8_lossy(bytes)))
        } else {
            self.bytes(bytes)
        }
    }

    /// Prints a table, fitted to the terminal.
    ///
    /// # Errors
    /// As [`Out::print`].
    pub fn table(&self, table: &Table) -> Result<(), Failure> {
        self.print(&self.rendered(table))
    }

    /// A table as [`Out::table`] prints it.
    pub fn rendered(&self, table: &Table) -> String {
        let shown = table.render(self.width, |cell| self.colour.then(|| paint(cell))?);
        if utf8() {
            shown
        } else {
            shown.replace('…', "~")
        }
    }

    /// Prints a document in the chosen format; the table is made only when it is wanted.
    ///
    /// # Errors
    /// As [`Out::print`].
    pub fn doc(&self, value: &Value, table: impl FnOnce() -> Table) -> Result<(), Failure> {
        let shown = self.shown(value, table);
        self.print(&shown)
    }

    /// A document as [`Out::doc`] prints it.
    pub fn shown(&self, value: &Value, table: impl FnOnce() -> Table) -> String {
        match self.format {
            Format::Json => doc::json(value),
            Format::Yaml => doc::yaml(value),
            Format::Ndjson => match value {
                Value::Array(items) => items.iter().map(doc::json_line).collect(),
                one => doc::json_line(one),
            },
            Format::Table => self.rendered(&table()),
        }
    }

    /// Tells the person at the terminal something that is not data.
    pub fn note(&self, s: &str) {
        // Standard error may be closed; then nobody wants notes.
        let _ = writeln!(std::io::stderr(), "{}", text::escape_lines(s));
    }

    /// As [`Out::note`], only with `-v`.
    pub fn detail(&self, s: &str) {
        if self.verbose {
            self.note(s);
        }
    }
}

/// Whether the person wants colours, as far as the environment tells.
pub fn colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// Whether the terminal shows more than ASCII: no locale says that it does not.
pub fn utf8() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.is_empty());
    locale.is_none_or(|l| {
        let l = l.to_ascii_lowercase();
        l.ends_with("utf-8") || l.ends_with("utf8")
    })
}

/// Columns of the terminal: what it says, else `COLUMNS`, else 80.
pub fn columns() -> usize {
    let asked = rustix::termios::tcgetwinsize(std::io::stdout())
        .or_else(|_| rustix::termios::tcgetwinsize(std::io::stderr()))
        .map_or(0, |size| usize::from(size.ws_col));
    let told = || {
        let text = std::env::var("COLUMNS").ok()?;
        text.parse().ok().filter(|n| *n > 0)
    };
    if asked > 0 {
        asked
    } else {
        told().unwrap_or(80)
    }
}

/// States are what the eye looks for: those get a colour.
fn paint(cell: &str) -> Option<&'static str> {
    match cell {
        "HEALTHY" | "COMPLETED" | "ok" => Some("\x1b[32m"),
        "RUNNING" | "ASSIGNED" | "STARTING" => Some("\x1b[36m"),
        "SUSPECT" | "RETRYING" | "PARTIALLY_COMPLETED" | "CORDONED" | "degraded" => {
            Some("\x1b[33m")
        }
        "FAILED" | "OFFLINE" | "LOST" | "failed" | "missing" | "unreachable" => Some("\x1b[31m"),
        _ => None,
    }
}
