//! A value being read together with the way to it, so that every refusal names file, line and field. Used by `decode`.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::str::FromStr;

use prism_types::{Millis, Name, nearest, parse_duration};

use crate::error::{Place, SpecError, Spot, quoted};
use crate::limits;
use crate::tree::{Entry, Node, Value};

/// A value, the file it is in, and the fields that lead to it.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'p> {
    file: &'p str,
    /// Whether it came in a request: then nothing can be read from the sender's machine.
    pub(crate) request: bool,
    node: &'p Node<'p>,
    parent: Option<&'p Cursor<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Root,
    Key(&'p str),
    Index(usize),
}

impl Display for Cursor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
            if matches!(self.step, Step::Key(_)) && !matches!(parent.step, Step::Root) {
                f.write_str(".")?;
            }
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Key(key) if key.chars().count() > 64 => {
                write!(f, "{}…", key.chars().take(64).collect::<String>())
            }
            Step::Key(key) => f.write_str(key),
            Step::Index(i) => write!(f, "[{i}]"),
        }
    }
}

impl<'p> Cursor<'p> {
    pub(crate) fn root(file: &'p str, request: bool, node: &'p Node<'p>) -> Self {
        Self {
            file,
            request,
            node,
            parent: None,
            step: Step::Root,
        }
    }

    fn child(&'p self, step: Step<'p>, node: &'p Node<'p>) -> Self {
        Self {
            file: self.file,
            request: self.request,
            node,
            parent: Some(self),
            step,
        }
    }

    /// Where this is, kept for errors that are found later.
    pub(crate) fn spot(&self) -> Spot {
        Spot {
            file: self.file.into(),
            place: self.node.at,
            field: self.to_string(),
        }
    }

    /// An error at this value.
    pub(crate) fn error(&self, message: impl Into<String>) -> SpecError {
        SpecError::new(self.file, self.node.at, self.to_string(), message)
    }

    /// An error at a field's name.
    fn error_at(&self, at: Place, message: String) -> SpecError {
        SpecError::new(self.file, at, self.to_string(), message)
    }

    fn expected<T>(&self, what: &str) -> Result<T, SpecError> {
        Err(self.error(format!("expected {what}, found {}", self.kind())))
    }

    fn kind(&self) -> String {
        match &self.node.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(b) => b.to_string(),
            Value::Number(text) => {
                format!("the number {}", text.chars().take(40).collect::<String>())
            }
            Value::Text(text) => format!("the text {}", quoted(text)),
            Value::Long(_) => "a long text".to_owned(),
            Value::List(_) | Value::Rows(_) => "a list".to_owned(),
            Value::Table(_) => "a table".to_owned(),
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.node.value, Value::Null)
    }

    /// The fields of a table, whatever they are called.
    pub(crate) fn entries(&self, what: &str) -> Result<&'p [Entry<'p>], SpecError> {
        match &self.node.value {
            Value::Table(entries) => Ok(entries),
            _ => self.expected(what),
        }
    }

    /// Checks that this is a table with no other fields than these.
    pub(crate) fn only(&self, what: &str, known: &[&str]) -> Result<(), SpecError> {
        for entry in self.entries(what)? {
            if known.contains(&entry.key.as_ref()) {
                continue;
            }
            let hint = match nearest(&entry.key, known.iter().copied()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("expected one of {}", known.join(", ")),
            };
            let message = format!("unknown field {}; {hint}", quoted(&entry.key));
            return Err(self.error_at(entry.key_at, message));
        }
        Ok(())
    }

    /// The cursor of an entry of this table.
    pub(crate) fn enter(&'p self, entry: &'p Entry<'p>) -> Cursor<'p> {
        self.child(Step::Key(&entry.key), &entry.node)
    }

    /// A field of this table, if it is there and not null.
    pub(crate) fn get(&'p self, key: &str) -> Option<Cursor<'p>> {
        self.get_or_null(key).filter(|c| !c.is_null())
    }

    /// A field of this table, if it is there.
    pub(crate) fn get_or_null(&'p self, key: &str) -> Option<Cursor<'p>> {
        let Value::Table(entries) = &self.node.value else {
            return None;
        };
        let entry = entries.iter().find(|e| e.key == key)?;
        Some(self.enter(entry))
    }

    /// A field of this table that must be there.
    pub(crate) fn need(&'p self, key: &str) -> Result<Cursor<'p>, SpecError> {
        self.get(key)
            .ok_or_else(|| self.error(format!("{key:?} is missing")))
    }

    pub(crate) fn is_table(&self) -> bool {
        matches!(self.node.value, Value::Table(_))
    }

    pub(crate) fn is_true(&self) -> bool {
        matches!(self.node.value, Value::Bool(true))
    }

    /// Yes or no.
    pub(crate) fn truth(&self) -> Result<bool, SpecError> {
        match self.node.value {
            Value::Bool(yes) => Ok(yes),
            _ => self.expected("true or false"),
        }
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_) | Value::Rows(_))
    }

    /// The text, if this is one.
    pub(crate) fn as_text(&self) -> Option<&'p str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The values of a list of at most `most`.
    pub(crate) fn items(
        &'p self,
        what: &str,
        most: usize,
    ) -> Result<impl ExactSizeIterator<Item = Cursor<'p>>, SpecError> {
        let items = match &self.node.value {
            Value::List(items) => items,
            Value::Rows(rows) => return Err(self.too_many(rows.len(), most)),
            _ => return self.expected(what),
        };
        if items.len() > most {
            return Err(self.too_many(items.len(), most));
        }
        let enter = move |(i, node)| self.child(Step::Index(i), node);
        Ok(items.iter().enumerate().map(enter))
    }

    fn too_long(&self, bytes: usize, most: usize) -> SpecError {
        // Where any length goes, a long text is read with `long_text`.
        let most = most.min(limits::PATH_MAX.max(limits::ARG_MAX));
        self.error(format!("{bytes} bytes long; at most {most}"))
    }

    /// The text, if this is one, however long.
    pub(crate) fn long_text(&self) -> Option<Cow<'p, str>> {
        match &self.node.value {
            Value::Text(text) => Some(Cow::Borrowed(text)),
            Value::Long(text) => Some(text.decoded()),
            _ => None,
        }
    }

    /// Bytes of the text, if this is one.
    pub(crate) fn text_len(&self) -> usize {
        match &self.node.value {
            Value::Text(text) => text.len(),
            Value::Long(text) => text.len(),
            _ => 0,
        }
    }

    fn too_many(&self, entries: usize, most: usize) -> SpecError {
        self.error(format!("{entries} entries; at most {most}"))
    }

    /// Gives each value of a list of 1 to `most` to `take`; long lists are read on the way.
    pub(crate) fn each(
        &self,
        what: &str,
        empty: &str,
        most: usize,
        mut take: impl FnMut(&Cursor<'_>) -> Result<(), SpecError>,
    ) -> Result<(), SpecError> {
        let len = match &self.node.value {
            Value::List(items) => items.len(),
            Value::Rows(rows) => rows.len(),
            _ => return self.expected(what),
        };
        match len {
            0 => return Err(self.error(empty)),
            n if n > most => return Err(self.too_many(n, most)),
            _ => {}
        }
        let mut enter = |i, node: &Node<'_>| take(&self.child(Step::Index(i), node));
        match &self.node.value {
            Value::Rows(rows) => rows.each(enter),
            Value::List(items) => items.iter().enumerate().try_for_each(|(i, n)| enter(i, n)),
            _ => Ok(()),
        }
    }

    /// A text of at most `most` bytes without NUL.
    pub(crate) fn text(&self, what: &str, most: usize) -> Result<&'p str, SpecError> {
        match &self.node.value {
            Value::Text(text) => self.checked(text, most),
            Value::Long(text) => Err(self.too_long(text.len(), most)),
            _ => self.expected(what),
        }
    }

    /// A text, or a number or truth value as it was written.
    pub(crate) fn scalar(&self, what: &str, most: usize) -> Result<&'p str, SpecError> {
        match &self.node.value {
            Value::Text(text) | Value::Number(text) => self.checked(text, most),
            Value::Long(text) => Err(self.too_long(text.len(), most)),
            Value::Bool(true) => Ok("true"),
            Value::Bool(false) => Ok("false"),
            Value::Null | Value::List(_) | Value::Rows(_) | Value::Table(_) => self.expected(what),
        }
    }

    fn checked(&self, text: &'p str, most: usize) -> Result<&'p str, SpecError> {
        if text.len() > most {
            return Err(self.too_long(text.len(), most));
        }
        if text.contains('\0') {
            return Err(self.error("a NUL byte: expected text"));
        }
        Ok(text)
    }

    /// A scalar read by a type's own rules, such as a name or a quantity.
    pub(crate) fn parse<T: FromStr<Err: Display>>(&self, what: &str) -> Result<T, SpecError> {
        let text = self.scalar(what, 4_096)?;
        text.parse().map_err(|e: T::Err| self.error(e.to_string()))
    }

    pub(crate) fn name(&self) -> Result<Name, SpecError> {
        self.parse("a name of a-z, 0-9 and -")
    }

    pub(crate) fn duration(&self) -> Result<Millis, SpecError> {
        let text = self.scalar("a duration such as 90s or 5m", 4_096)?;
        parse_duration(text).map_err(|m| self.error(m))
    }

    /// A whole number within limits.
    pub(crate) fn whole(&self, low: i64, high: i64) -> Result<i64, SpecError> {
        let what = || format!("a whole number from {low} to {high}");
        let Value::Number(text) = &self.node.value else {
            return self.expected(&what());
        };
        match whole(text) {
            Some(n) if (low..=high).contains(&n) => Ok(n),
            _ => self.expected(&what()),
        }
    }

    /// A whole number within limits.
    pub(crate) fn count(&self, low: u32, high: u32) -> Result<u32, SpecError> {
        let n = self.whole(i64::from(low), i64::from(high))?;
        Ok(u32::try_from(n).expect("it is within the limits of an u32"))
    }

    /// A finite number within limits.
    pub(crate) fn number(&self, low: f64, high: f64) -> Result<f64, SpecError> {
        let what = || match low.max(high) < 1e15 {
            true => format!("a number from {low} to {high}"),
            false if low > 0.0 => "a finite number above 0".to_owned(),
            false => "a finite number".to_owned(),
        };
        let Value::Number(text) = &self.node.value else {
            return self.expected(&what());
        };
        match number(text) {
            Some(n) if (low..=high).contains(&n) => Ok(n),
            _ => self.expected(&what()),
        }
    }

    /// A scalar as JSON text, for values that the schema leaves open.
    pub(crate) fn json_scalar(&self, what: &str) -> Result<String, SpecError> {
        match &self.node.value {
            Value::Bool(b) => Ok(b.to_string()),
            Value::Text(text) => {
                Ok(serde_json::Value::from(self.checked(text, 4_096)?).to_string())
            }
            Value::Number(text) => whole(text)
                .map(|n| n.to_string())
                .or_else(|| {
                    let float = text.contains(['.', 'e', 'E']);
                    let n = number(text).filter(|_| float)?;
                    serde_json::Number::from_f64(n).map(|n| n.to_string())
                })
                .map_or_else(|| self.expected("a finite number of at most 64 bits"), Ok),
            Value::Long(text) => Err(self.too_long(text.len(), 4_096)),
            Value::Null | Value::List(_) | Value::Rows(_) | Value::Table(_) => self.expected(what),
        }
    }
}

/// A whole number as any of the languages writes it.
fn whole(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.get(..2) {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        _ => (10, digits),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let n = i128::from_str_radix(digits, radix).ok()?;
    i64::try_from(sign * n).ok()
}

/// A finite number as any of the languages writes it.
fn number(text: &str) -> Option<f64> {
    if text.starts_with("0x") || text.starts_with("0o") || text.starts_with("0b") {
        #[expect(
            clippy::cast_precision_loss,
            reason = "nobody writes such a large factor in hexadecimal"
        )]
        return whole(text).map(|n| n as f64);
    }
    text.parse().ok().filter(|n: &f64| n.is_finite())
}
