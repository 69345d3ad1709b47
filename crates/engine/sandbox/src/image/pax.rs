//! Extended headers of a tar entry: PAX records and GNU long names.
//!
//! Bounded in size, and strict where two readers could disagree. Used by the tar reader only.

use super::error::Refusal;

/// How to read an entry of a snapshot that has a `.wh.` name on its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Literal {
    /// The path names an ordinary file.
    File,
    /// The path names what is hidden.
    Whiteout,
    /// Only the last component is a marker, its parents are ordinary directories.
    Mark,
}

/// Which kind of extended header a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extension {
    Pax,
    PaxGlobal,
    GnuLongName,
    GnuLongLink,
}

/// Prefix under which tar programs keep extended attributes.
pub(crate) const XATTR_PREFIX: &str = "SCHILY.xattr.";
/// How an entry of a snapshot with a `.wh.` name on its path is to be read.
pub(crate) const LITERAL_KEY: &str = "PRISM.literal";

/// What the extended headers before an entry say about it.
#[derive(Debug, Default)]
pub(crate) struct Extensions {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) mtime: Option<(i64, u32)>,
    /// The size with holes of a sparse file in PAX format 1.0; its map precedes the content.
    pub(crate) sparse_size: Option<u64>,
    /// How a snapshot wants a name that looks like a whiteout to be read.
    pub(crate) literal: Option<Literal>,
    /// `user.*` attributes; others are dropped, those of the overlay are refused.
    pub(crate) attributes: Vec<(Vec<u8>, Vec<u8>)>,
    seen: u32,
    sparse_version: [Option<u64>; 2],
}

impl Extensions {
    pub(crate) const BYTES_MAX: u64 = 1 << 20;
    const HEADERS_MAX: u32 = 8;
    const ATTRIBUTES_MAX: usize = 256;

    /// Takes one extended header into account.
    pub(crate) fn add(&mut self, kind: Extension, data: &[u8]) -> Result<(), Refusal> {
        self.seen += 1;
        if self.seen > Self::HEADERS_MAX {
            return Err(Refusal::BadExtension("more than 8 before one entry"));
        }
        match kind {
            Extension::Pax => self.records(data, false),
            Extension::PaxGlobal => self.records(data, true),
            Extension::GnuLongName => once(&mut self.path, long(data)),
            Extension::GnuLongLink => once(&mut self.link, long(data)),
        }
    }

    fn records(&mut self, mut data: &[u8], global: bool) -> Result<(), Refusal> {
        while !data.is_empty() {
            let (key, value, rest) =
                record(data).ok_or(Refusal::BadExtension("a broken record"))?;
            data = rest;
            let names_one_entry = matches!(key, "path" | "linkpath" | "size")
                || key.starts_with("GNU.sparse.")
                || key.starts_with(XATTR_PREFIX);
            if global && names_one_entry {
                return Err(Refusal::BadExtension("a global header names one entry"));
            }
            if !global {
                self.record(key, value)?;
            }
        }
        if self.sparse_size.is_some() && self.sparse_version != [Some(1), Some(0)] {
            return Err(Refusal::Sparse("only the PAX format 1.0 is supported"));
        }
        Ok(())
    }

    fn record(&mut self, key: &str, value: &[u8]) -> Result<(), Refusal> {
        match key {
            "path" => once(&mut self.path, value.to_vec()),
            "linkpath" => once(&mut self.link, value.to_vec()),
            "size" => once(&mut self.size, decimal(value)?),
            "uid" => once(&mut self.uid, decimal(value)?),
            "gid" => once(&mut self.gid, decimal(value)?),
            "mtime" => once(&mut self.mtime, time(value)?),
            "GNU.sparse.major" => once(&mut self.sparse_version[0], decimal(value)?),
            "GNU.sparse.minor" => once(&mut self.sparse_version[1], decimal(value)?),
            "GNU.sparse.realsize" => once(&mut self.sparse_size, decimal(value)?),
            "GNU.sparse.name" => {
                // Replaces the made-up path of the same header, by the format's definition.
                self.path = Some(value.to_vec());
                Ok(())
            }
            LITERAL_KEY => match value {
                b"file" => once(&mut self.literal, Literal::File),
                b"whiteout" => once(&mut self.literal, Literal::Whiteout),
                b"mark" => once(&mut self.literal, Literal::Mark),
                _ => Err(Refusal::BadExtension("an unknown kind of name")),
            },
            _ if key.starts_with("GNU.sparse.") => {
                Err(Refusal::Sparse("only the PAX format 1.0 is supported"))
            }
            _ => match key.strip_prefix(XATTR_PREFIX) {
                Some(name) => self.attribute(name, value),
                None => Ok(()),
            },
        }
    }

    fn attribute(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        if name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.") {
            return Err(Refusal::OverlayAttribute(
                name.escape_default().take(80).collect(),
            ));
        }
        if !name.starts_with("user.") {
            return Ok(());
        }
        if self.attributes.len() >= Self::ATTRIBUTES_MAX || name.contains('\0') {
            return Err(Refusal::BadExtension("too many or misnamed attributes"));
        }
        self.attributes
            .push((name.as_bytes().to_vec(), value.to_vec()));
        Ok(())
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Refusal> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Refusal::BadExtension("one property is given twice")),
    }
}

fn long(data: &[u8]) -> Vec<u8> {
    data.strip_suffix(b"\0").unwrap_or(data).to_vec()
}

/// Splits `"<length> <key>=<value>\n"` off.
fn record(data: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let space = data.iter().take(10).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
    if length <= space + 1 || length > data.len() {
        return None;
    }
    let (line, rest) = data.split_at(length);
    let line = line[space + 1..].strip_suffix(b"\n")?;
    let equals = line.iter().position(|byte| *byte == b'=')?;
    let key = std::str::from_utf8(&line[..equals]).ok()?;
    Some((key, &line[equals + 1..], rest))
}

fn decimal(value: &[u8]) -> Result<u64, Refusal> {
    let bad = Refusal::BadExtension("a number is not a number");
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(bad);
    }
    let text = std::str::from_utf8(value).map_err(|_| Refusal::BadExtension("not text"))?;
    text.parse().map_err(|_| bad)
}

/// Seconds with an optional fraction; nothing finer than a nanosecond is kept.
fn time(value: &[u8]) -> Result<(i64, u32), Refusal> {
    let bad = || Refusal::BadExtension("a time is not a time");
    let text = std::str::from_utf8(value).map_err(|_| bad())?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = seconds.parse().map_err(|_| bad())?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    if seconds.starts_with('-') && nanos > 0 {
        return Ok((whole.saturating_sub(1), 1_000_000_000 - nanos));
    }
    Ok((whole, nanos))
}
