//! TOML, by its own parser; this only turns its spans into places and puts fields back into the order of the file.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Budget, Entry, Node, Place, Trouble, Value, too_deep};
use crate::limits::{DEPTH_MAX, TOML_MAX};

pub(super) fn read<'a>(text: &'a str, budget: &mut Budget) -> Result<Node<'a>, Trouble> {
    if text.len() > TOML_MAX {
        let message = format!("larger than {} MiB, the most for TOML", TOML_MAX >> 20);
        return Err((Place::default(), message));
    }
    let lines = Lines::new(text);
    let table = DeTable::parse(text).map_err(|e| match e.span() {
        Some(span) => (
            lines.place(span.start),
            format!("not TOML: {}", e.message()),
        ),
        // The one error without a place is that of the depth; the line with the most to nest is a good guess.
        None => (deepest_line(text), too_deep()),
    })?;
    let mut reader = Reader { lines, budget };
    let value = reader.table(table.into_inner(), 0)?;
    let at = Place::new(1, 1);
    Ok(Node { value, at })
}

struct Reader<'a, 'b> {
    lines: Lines<'a>,
    budget: &'b mut Budget,
}

impl<'a> Reader<'a, '_> {
    fn table(&mut self, table: DeTable<'a>, depth: usize) -> Result<Value<'a>, Trouble> {
        let mut fields: Vec<_> = table.into_iter().collect();
        fields.sort_by_key(|(key, _)| key.span().start);
        let mut entries = Vec::with_capacity(fields.len());
        for (key, value) in fields {
            let key_at = self.lines.place(key.span().start);
            let node = self.node(value, depth + 1)?;
            let key = key.into_inner();
            entries.push(Entry { key, key_at, node });
        }
        Ok(Value::Table(entries))
    }

    fn node(&mut self, value: Spanned<DeValue<'a>>, depth: usize) -> Result<Node<'a>, Trouble> {
        let at = self.lines.place(value.span().start);
        if depth > DEPTH_MAX {
            return Err((at, too_deep()));
        }
        self.budget.take(1, 0).map_err(|m| (at, m))?;
        let value = match value.into_inner() {
            DeValue::String(text) => Value::Text(text),
            DeValue::Integer(n) => Value::Number(Cow::Owned(n.to_string())),
            DeValue::Float(n) => Value::Number(Cow::Owned(n.to_string())),
            DeValue::Boolean(b) => Value::Bool(b),
            DeValue::Datetime(date) => Value::Text(Cow::Owned(date.to_string())),
            DeValue::Array(items) => {
                let mut list = Vec::with_capacity(items.len());
                for item in items {
                    list.push(self.node(item, depth + 1)?);
                }
                Value::List(list)
            }
            DeValue::Table(table) => self.table(table, depth)?,
        };
        Ok(Node { value, at })
    }
}

/// Where each line starts.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, b)| *b == b'\n');
        let starts = std::iter::once(0).chain(ends.map(|(i, _)| i + 1)).collect();
        Self { text, starts }
    }

    fn place(&self, byte: usize) -> Place {
        let byte = byte.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= byte);
        Place::new(line, byte - self.starts[line - 1] + 1)
    }
}

fn deepest_line(text: &str) -> Place {
    let nests = |line: &str| line.bytes().filter(|b| b"[{.".contains(b)).count();
    let line = text.lines().position(|line| nests(line) > DEPTH_MAX);
    line.map_or(Place::default(), |i| Place::new(i + 1, 1))
}
