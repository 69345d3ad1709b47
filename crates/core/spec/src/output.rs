//! What tasks say on standard output: the result in the last JSON line, and metrics while they run. Pure; the worker feeds
//! it bytes.

use serde_json::Value;

/// Longest line that is looked at, in bytes.
pub const LINE_MAX: usize = 64 << 10;

/// The last line that is a JSON object. Lines after it that are none do not matter.
pub fn last_json_line(tail: &[u8]) -> Option<Value> {
    tail.rsplit(|b| *b == b'\n').find_map(object)
}

/// A line as a JSON object, if it is one.
fn object(line: &[u8]) -> Option<Value> {
    let line = line.trim_ascii();
    if line.len() > LINE_MAX || !line.starts_with(b"{") || !line.ends_with(b"}") {
        return None;
    }
    serde_json::from_slice(line).ok().filter(Value::is_object)
}

/// One report of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricPoint {
    /// Its number among the lines that have the metric, from 1.
    pub step: u32,
    /// Its value, finite.
    pub value: f64,
    /// The line, as it was printed.
    pub line: String,
}

/// Finds a metric in standard output as it comes, in chunks of any size. Holds at most one line.
#[derive(Debug)]
pub struct MetricScanner {
    metric: String,
    line: Vec<u8>,
    /// Inside of a line that is too long.
    skipping: bool,
    steps: u32,
}

impl MetricScanner {
    /// A scanner for a field of the JSON lines.
    pub fn new(metric: impl Into<String>) -> Self {
        Self {
            metric: metric.into(),
            line: Vec::new(),
            skipping: false,
            steps: 0,
        }
    }

    /// Takes a chunk, and gives what the lines that it completes report.
    pub fn feed(&mut self, chunk: &[u8]) -> Vec<MetricPoint> {
        let mut found = Vec::new();
        let mut parts = chunk.split(|b| *b == b'\n').peekable();
        while let Some(part) = parts.next() {
            self.append(part);
            if parts.peek().is_some() {
                found.extend(self.end_line());
            }
        }
        found
    }

    /// Takes the last line, if the output ended without its end.
    pub fn finish(&mut self) -> Option<MetricPoint> {
        self.end_line()
    }

    fn append(&mut self, part: &[u8]) {
        if self.skipping {
            return;
        }
        if self.line.len() + part.len() > LINE_MAX {
            self.skipping = true;
            self.line = Vec::new();
        } else {
            self.line.extend_from_slice(part);
        }
    }

    fn end_line(&mut self) -> Option<MetricPoint> {
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.skipping) {
            return None;
        }
        let value = object(&line)?.get(&self.metric)?.as_f64()?;
        if !value.is_finite() {
            return None;
        }
        self.steps = self.steps.saturating_add(1);
        Some(MetricPoint {
            step: self.steps,
            value,
            line: String::from_utf8_lossy(&line).into_owned(),
        })
    }
}
