//! Strict JSON (RFC 8259) with places, no repeated keys, and a bound on depth. Reads what clients send, so it must not
//! grow with anything but the text.

use std::borrow::Cow;

use super::{Budget, Entry, Node, Place, Trouble, Value, too_deep};
use crate::error::quoted;
use crate::limits::{DEPTH_MAX, KEPT_LIST_MAX};

pub(super) fn read<'a>(text: &'a str, budget: &mut Budget) -> Result<Node<'a>, Trouble> {
    let mut reader = Reader {
        text,
        at: 0,
        line: 1,
        line_start: 0,
        budget,
    };
    reader.space();
    if reader.at == text.len() {
        return reader.fail("empty: expected a JSON object");
    }
    let node = reader.value(0)?;
    reader.space();
    if reader.at < text.len() {
        return reader.fail("something after the end of the JSON value");
    }
    Ok(node)
}

/// A text with escapes that decodes to more than this many bytes is decoded only when it is wanted. Longer than any text
/// but the content of a file may be.
const LONG: usize = 256 << 10;

/// A long text with escapes, checked but not decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Long<'a> {
    raw: &'a str,
    length: usize,
}

impl<'a> Long<'a> {
    /// Bytes once decoded.
    pub(crate) fn len(self) -> usize {
        self.length
    }

    /// The text itself.
    pub(crate) fn decoded(self) -> Cow<'a, str> {
        decoded(self.raw, self.length)
    }
}

/// A place in a text to go on from.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: usize,
    line: usize,
    line_start: usize,
}

/// A long list that was checked once and is read again value by value.
#[derive(Clone, Debug)]
pub(crate) struct Rows<'a> {
    text: &'a str,
    start: Mark,
    len: usize,
    depth: usize,
}

impl<'a> Rows<'a> {
    /// How many values it has.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Gives each value to `take`, until one is refused.
    pub(crate) fn each<E>(
        &self,
        mut take: impl FnMut(usize, &Node<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut budget = Budget::new(usize::MAX);
        let mut reader = Reader {
            text: self.text,
            at: self.start.at,
            line: self.start.line,
            line_start: self.start.line_start,
            budget: &mut budget,
        };
        for index in 0..self.len {
            reader.space();
            reader.budget.kept = 0;
            // It was read once without trouble.
            let Ok(node) = reader.value(self.depth) else {
                break;
            };
            take(index, &node)?;
            reader.space();
            // The comma.
            reader.at += 1;
        }
        Ok(())
    }
}

struct Reader<'a, 'b> {
    text: &'a str,
    at: usize,
    line: usize,
    line_start: usize,
    budget: &'b mut Budget,
}

impl<'a> Reader<'a, '_> {
    fn place(&self) -> Place {
        // Bytes, not characters, within a line: requests are one long line, and counting it again for each value would
        // take quadratic time.
        Place::new(self.line, self.at - self.line_start + 1)
    }

    fn mark(&self) -> Mark {
        Mark {
            at: self.at,
            line: self.line,
            line_start: self.line_start,
        }
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T, Trouble> {
        Err((self.place(), message.into()))
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b) = self.peek() {
            match b {
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'\n' => {
                    self.at += 1;
                    self.line += 1;
                    self.line_start = self.at;
                }
                _ => return,
            }
        }
    }

    fn found(&self) -> String {
        match self.text[self.at..].chars().next() {
            Some(c) => format!("found {c:?}"),
            None => "found the end".to_owned(),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node<'a>, Trouble> {
        let at = self.place();
        if depth > DEPTH_MAX {
            return Err((at, too_deep()));
        }
        self.budget.take(1, 0).map_err(|m| (at, m))?;
        self.budget.keep(1).map_err(|m| (at, m))?;
        let value = match self.peek() {
            Some(b'{') => self.table(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => self.text()?,
            Some(b'-' | b'0'..=b'9') => Value::Number(Cow::Borrowed(self.number()?)),
            Some(b't') => self.word("true", Value::Bool(true))?,
            Some(b'f') => self.word("false", Value::Bool(false))?,
            Some(b'n') => self.word("null", Value::Null)?,
            _ => return self.fail(format!("expected a JSON value, {}", self.found())),
        };
        Ok(Node { value, at })
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, Trouble> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            Ok(value)
        } else {
            self.fail(format!("expected a JSON value, {}", self.found()))
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value<'a>, Trouble> {
        self.at += 1;
        let mut items = Vec::new();
        let (kept, mut len) = (self.budget.kept, 0);
        let start = self.mark();
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::List(items));
        }
        loop {
            self.space();
            let item = self.value(depth + 1)?;
            len += 1;
            if len <= KEPT_LIST_MAX {
                items.push(item);
            } else {
                items = Vec::new();
                self.budget.kept = kept;
            }
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(match len > KEPT_LIST_MAX {
                        true => Value::Rows(Rows {
                            text: self.text,
                            start,
                            len,
                            depth: depth + 1,
                        }),
                        false => Value::List(items),
                    });
                }
                _ => {
                    return self.fail(format!("expected , or ] in a list, {}", self.found()));
                }
            }
        }
    }

    fn table(&mut self, depth: usize) -> Result<Value<'a>, Trouble> {
        self.at += 1;
        // Most have one entry or a few; four at once would be most of what a small table takes.
        let mut entries: Vec<Entry<'a>> = Vec::with_capacity(1);
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Table(entries));
        }
        loop {
            self.space();
            let key_at = self.place();
            if self.peek() != Some(b'"') {
                return self.fail(format!("expected a key in quotes, {}", self.found()));
            }
            let (raw, length) = self.string()?;
            let key = decoded(raw, length);
            self.space();
            if self.peek() != Some(b':') {
                return self.fail(format!("expected : after a key, {}", self.found()));
            }
            self.at += 1;
            self.space();
            let node = self.value(depth + 1)?;
            entries.push(Entry { key, key_at, node });
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    super::no_repeats(&entries)?;
                    return Ok(Value::Table(entries));
                }
                _ => {
                    return self.fail(format!("expected , or }} in an object, {}", self.found()));
                }
            }
        }
    }

    fn number(&mut self) -> Result<&'a str, Trouble> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut end = start;
        while end < bytes.len()
            && matches!(bytes[end], b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
        {
            end += 1;
        }
        let text = &self.text[start..end];
        if !is_number(text) {
            return self.fail(format!("{} is not a JSON number", quoted(text)));
        }
        self.at = end;
        Ok(text)
    }

    /// A text: as it stands, decoded, or left for later when that would take much.
    fn text(&mut self) -> Result<Value<'a>, Trouble> {
        let (raw, length) = self.string()?;
        Ok(if raw.len() > length && length > LONG {
            Value::Long(Long { raw, length })
        } else {
            Value::Text(decoded(raw, length))
        })
    }

    /// Checks a string; gives what is between its quotes, and how long it is once decoded (shorter, if it has escapes).
    fn string(&mut self) -> Result<(&'a str, usize), Trouble> {
        self.at += 1;
        let start = self.at;
        let mut length = 0;
        loop {
            let from = self.at;
            let bytes = self.text.as_bytes();
            while self.at < bytes.len() && !matches!(bytes[self.at], b'"' | b'\\' | 0..=0x1f) {
                self.at += 1;
            }
            length += self.at - from;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok((&self.text[start..self.at - 1], length));
                }
                Some(b'\\') => length += self.escape()?.len_utf8(),
                Some(_) => {
                    return self.fail("a control character in a string: write it as an escape");
                }
                None => return self.fail("a string without its closing quote"),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Trouble> {
        self.at += 1;
        let c = match self.peek() {
            Some(b'u') => {
                self.at += 1;
                return self.unicode();
            }
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            _ => return self.fail("an unknown escape in a string"),
        };
        self.at += 1;
        Ok(c)
    }

    fn unicode(&mut self) -> Result<char, Trouble> {
        let high = self.four_digits()?;
        let code = if (0xd800..0xdc00).contains(&high) {
            if !self.text[self.at..].starts_with("\\u") {
                return self.fail("half of a surrogate pair in a string");
            }
            self.at += 2;
            let low = self.four_digits()?;
            if !(0xdc00..0xe000).contains(&low) {
                return self.fail("half of a surrogate pair in a string");
            }
            0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
        } else {
            high
        };
        match char::from_u32(code) {
            Some(c) => Ok(c),
            None => self.fail("half of a surrogate pair in a string"),
        }
    }

    fn four_digits(&mut self) -> Result<u32, Trouble> {
        let digits = self.text.get(self.at..self.at + 4).unwrap_or("");
        let ok = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        match u32::from_str_radix(digits, 16) {
            Ok(code) if ok => {
                self.at += 4;
                Ok(code)
            }
            _ => self.fail("expected four hexadecimal digits after \\u"),
        }
    }
}

/// The text of a string that was checked, from what is between its quotes.
fn decoded(raw: &str, length: usize) -> Cow<'_, str> {
    if raw.len() == length {
        return Cow::Borrowed(raw);
    }
    let mut budget = Budget::new(0);
    let mut reader = Reader {
        text: raw,
        at: 0,
        line: 1,
        line_start: 0,
        budget: &mut budget,
    };
    let mut text = String::with_capacity(length);
    while let Some(escape) = raw[reader.at..].find('\\') {
        text.push_str(&raw[reader.at..reader.at + escape]);
        reader.at += escape;
        // It was read once without trouble.
        let Ok(c) = reader.escape() else { break };
        text.push(c);
    }
    text.push_str(&raw[reader.at..]);
    Cow::Owned(text)
}

/// Whether a text is a number of JSON's grammar.
fn is_number(text: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((m, e)) => (m, Some(e.strip_prefix(['+', '-']).unwrap_or(e))),
        None => (text, None),
    };
    let (whole, part) = match mantissa.split_once('.') {
        Some((w, p)) => (w, Some(p)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && part.is_none_or(digits)
        && exponent.is_none_or(digits)
}
