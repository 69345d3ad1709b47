//! YAML 1.2 (core schema), from the events of its parser. One document, keys that are scalars, no repeated keys; aliases
//! and merge keys (`<<`) are followed, and what they copy is counted, so that they cannot grow a small text into a large
//! tree. Tags other than `!!str` are refused.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::{Budget, Entry, Node, Place, Trouble, Value, too_deep};
use crate::limits::DEPTH_MAX;

pub(super) fn read<'a>(text: &'a str, budget: &mut Budget) -> Result<Node<'a>, Trouble> {
    let mut options = granit_parser::options! { disallow_directives: true };
    options.set_emit_comments(false);
    let mut builder = Builder {
        open: Vec::new(),
        anchors: BTreeMap::new(),
        root: None,
        documents: 0,
        budget,
    };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|e| {
            let at = Place::new(e.marker().line(), e.marker().col() + 1);
            tab(text, at).unwrap_or_else(|| (at, format!("not YAML: {}", e.info())))
        })?;
        builder.on(event, place(&span))?;
    }
    match builder.root {
        Some(node) => Ok(node),
        None => Err((Place::new(1, 1), "empty: expected a table".to_owned())),
    }
}

/// The tab in an indentation that may be what a parser's error at `at` is about.
fn tab(text: &str, at: Place) -> Option<Trouble> {
    let first = usize::try_from(at.line).ok()?.saturating_sub(1);
    let near = text.lines().enumerate().skip(first).take(2);
    let indent = |line: &str| {
        line.find(|c| c != ' ')
            .filter(|i| line[*i..].starts_with('\t'))
    };
    let (line, column) = near.into_iter().find_map(|(i, l)| Some((i, indent(l)?)))?;
    let message = "not YAML: a tab in the indentation; indent with spaces";
    Some((Place::new(line + 1, column + 1), message.to_owned()))
}

fn place(span: &Span) -> Place {
    Place::new(span.start.line(), span.start.col() + 1)
}

/// A list or table that is not closed yet.
struct Open<'a> {
    kind: Kind<'a>,
    at: Place,
    anchor: usize,
}

enum Kind<'a> {
    List(Vec<Node<'a>>),
    Table {
        entries: Vec<Entry<'a>>,
        merged: Vec<Node<'a>>,
        key: Option<(Cow<'a, str>, Place)>,
    },
}

struct Builder<'a, 'b> {
    open: Vec<Open<'a>>,
    anchors: BTreeMap<usize, Node<'a>>,
    root: Option<Node<'a>>,
    documents: usize,
    budget: &'b mut Budget,
}

impl<'a> Builder<'a, '_> {
    fn on(&mut self, event: Event<'a>, at: Place) -> Result<(), Trouble> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let message = "a second document: expected one in each file";
                    return Err((at, message.to_owned()));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(text, style, tag.as_deref()).map_err(|m| (at, m))?;
                self.budget.take(1, 0).map_err(|m| (at, m))?;
                self.add(Node { value, at }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.begin(Kind::List(Vec::new()), at, anchor, tag.as_deref())
            }
            Event::MappingStart(_, anchor, tag) => {
                let kind = Kind::Table {
                    entries: Vec::new(),
                    merged: Vec::new(),
                    key: None,
                };
                self.begin(kind, at, anchor, tag.as_deref())
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(at),
            Event::Alias(anchor) => self.alias(anchor, at),
            _ => Ok(()),
        }
    }

    fn begin(
        &mut self,
        kind: Kind<'a>,
        at: Place,
        anchor: usize,
        tag: Option<&Tag>,
    ) -> Result<(), Trouble> {
        if self.open.len() >= DEPTH_MAX {
            return Err((at, too_deep()));
        }
        if tag.is_some_and(|t| !matches!(t.core_suffix(), Some("map" | "seq"))) {
            return Err((at, "tags (!…) are not supported".to_owned()));
        }
        self.budget.take(1, 0).map_err(|m| (at, m))?;
        self.open.push(Open { kind, at, anchor });
        Ok(())
    }

    fn end(&mut self, at: Place) -> Result<(), Trouble> {
        let Some(open) = self.open.pop() else {
            return Err((at, "not YAML: an end without a start".to_owned()));
        };
        let value = match open.kind {
            Kind::List(items) => Value::List(items),
            Kind::Table {
                mut entries,
                merged,
                ..
            } => {
                super::no_repeats(&entries)?;
                if !merged.is_empty() {
                    merge(&mut entries, merged)?;
                }
                Value::Table(entries)
            }
        };
        let at = open.at;
        self.add(Node { value, at }, open.anchor)
    }

    fn alias(&mut self, anchor: usize, at: Place) -> Result<(), Trouble> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err((at, "an alias inside of what it stands for".to_owned()));
        };
        let size = weigh(node);
        if self.open.len() + size.depth > DEPTH_MAX {
            return Err((at, too_deep()));
        }
        self.budget
            .take(size.values, size.bytes)
            .map_err(|m| (at, format!("aliases that stand for {m}")))?;
        let node = node.clone();
        self.add(node, 0)
    }

    /// Puts a finished value where it belongs.
    fn add(&mut self, node: Node<'a>, anchor: usize) -> Result<(), Trouble> {
        if anchor != 0 {
            let size = weigh(&node);
            self.budget
                .take(size.values, size.bytes)
                .map_err(|m| (node.at, format!("anchors that hold {m}")))?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.kind {
            Kind::List(items) => items.push(node),
            Kind::Table {
                entries,
                merged,
                key,
            } => match key.take() {
                None => *key = Some((key_of(&node)?, node.at)),
                Some((name, _)) if name == "<<" => merged.push(node),
                Some((key, key_at)) => entries.push(Entry { key, key_at, node }),
            },
        }
        Ok(())
    }
}

fn key_of<'a>(node: &Node<'a>) -> Result<Cow<'a, str>, Trouble> {
    match &node.value {
        Value::Text(text) | Value::Number(text) => Ok(text.clone()),
        Value::Bool(true) => Ok(Cow::Borrowed("true")),
        Value::Bool(false) => Ok(Cow::Borrowed("false")),
        Value::Null => Ok(Cow::Borrowed("null")),
        Value::List(_) | Value::Rows(_) | Value::Long(_) | Value::Table(_) => Err((
            node.at,
            "a list or table as a key: expected a text".to_owned(),
        )),
    }
}

/// Adds the fields that `<<` brings, where the table has none of that name.
fn merge<'a>(entries: &mut Vec<Entry<'a>>, merged: Vec<Node<'a>>) -> Result<(), Trouble> {
    let mut known: BTreeSet<Cow<'a, str>> = entries.iter().map(|e| e.key.clone()).collect();
    let mut sources = Vec::with_capacity(merged.len());
    for node in merged {
        match node.value {
            Value::List(items) => sources.extend(items),
            _ => sources.push(node),
        }
    }
    for source in sources {
        let Value::Table(more) = source.value else {
            let message = "<< takes a table or a list of tables";
            return Err((source.at, message.to_owned()));
        };
        entries.extend(more.into_iter().filter(|e| known.insert(e.key.clone())));
    }
    Ok(())
}

struct Size {
    values: usize,
    bytes: usize,
    depth: usize,
}

fn weigh(node: &Node<'_>) -> Size {
    let mut size = Size {
        values: 1,
        bytes: 0,
        depth: 0,
    };
    let mut inside = |child: &Node<'_>, key: usize| {
        let child = weigh(child);
        size.values += child.values;
        size.bytes += child.bytes + key;
        size.depth = size.depth.max(child.depth + 1);
    };
    match &node.value {
        // YAML has neither rows nor long texts.
        Value::Null | Value::Bool(_) | Value::Rows(_) | Value::Long(_) => {}
        Value::Number(text) | Value::Text(text) => size.bytes = text.len(),
        Value::List(items) => items.iter().for_each(|item| inside(item, 0)),
        Value::Table(entries) => entries.iter().for_each(|e| inside(&e.node, e.key.len())),
    }
    size
}

/// A scalar by the core schema.
fn scalar<'a>(
    text: Cow<'a, str>,
    style: ScalarStyle,
    tag: Option<&Tag>,
) -> Result<Value<'a>, String> {
    let tag = match tag {
        None => None,
        Some(tag) => match tag.core_suffix() {
            Some("str") => return Ok(Value::Text(text)),
            Some(known) => Some(known),
            None => return Err("tags (!…) are not supported".to_owned()),
        },
    };
    if style != ScalarStyle::Plain && tag.is_none() {
        return Ok(Value::Text(text));
    }
    Ok(match text.as_ref() {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        word if is_number(word) => Value::Number(text),
        _ => Value::Text(text),
    })
}

fn is_number(word: &str) -> bool {
    let all = |s: &str, ok: fn(&u8) -> bool| !s.is_empty() && s.as_bytes().iter().all(ok);
    if let Some(digits) = word.strip_prefix("0x") {
        return all(digits, u8::is_ascii_hexdigit);
    }
    if let Some(digits) = word.strip_prefix("0o") {
        return all(digits, |b| matches!(b, b'0'..=b'7'));
    }
    let word = word.strip_prefix(['-', '+']).unwrap_or(word);
    if matches!(word, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = match word.split_once(['e', 'E']) {
        Some((m, e)) => (m, Some(e.strip_prefix(['-', '+']).unwrap_or(e))),
        None => (word, None),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    digits(whole)
        && digits(part)
        && !(whole.is_empty() && part.is_empty())
        && exponent.is_none_or(|e| !e.is_empty() && digits(e))
}
