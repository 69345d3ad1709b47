//! A strict reader of tar streams: ustar, GNU long names, PAX.
//!
//! Reads one entry after another with bounded memory, and refuses what other readers guess about
//! (two names for one entry, sizes on links, unknown types). It never touches the file system.
//! Called by the unpacker and by the index of image archives.

use std::io::Read;

use super::error::{ArchiveError, Refusal};
use super::pax::{Extension, Extensions};
use super::stream::Skip;

pub(crate) const BLOCK: u64 = 512;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    Directory,
    Fifo,
}

/// One entry. Names are as in the archive: not yet cleaned.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime_s: i64,
    pub(crate) mtime_ns: u32,
    /// Bytes of content in the archive.
    pub(crate) size: u64,
    /// Where the content starts in the stream.
    pub(crate) offset: u64,
    pub(crate) extensions: Extensions,
}

/// Reads a tar stream.
#[derive(Debug)]
pub(crate) struct TarReader<R> {
    inner: R,
    offset: u64,
    left: u64,
    padding: u64,
    strict_end: bool,
    ended: bool,
}

type Block = [u8; BLOCK as usize];

impl<R: Skip> TarReader<R> {
    /// `strict_end` refuses an archive that stops without its closing block of zeros.
    pub(crate) fn new(inner: R, strict_end: bool) -> Self {
        Self {
            inner,
            offset: 0,
            left: 0,
            padding: 0,
            strict_end,
            ended: false,
        }
    }

    /// The next entry; its content is then read from `self`.
    pub(crate) fn next(&mut self) -> Result<Option<Header>, ArchiveError> {
        self.skip_rest()?;
        let mut extensions = Extensions::default();
        loop {
            let start = self.offset;
            let Some(block) = self.block()? else {
                return Ok(None);
            };
            let size = number(&block[124..136], "size").map_err(|why| why.at_byte(start))?;
            let extension = match block[156] {
                b'x' => Extension::Pax,
                b'g' => Extension::PaxGlobal,
                b'L' => Extension::GnuLongName,
                b'K' => Extension::GnuLongLink,
                _ => return self.entry(&block, size, extensions).map(Some),
            };
            let data = self
                .extension_data(size)
                .map_err(|why| why.at_byte(start))?;
            extensions
                .add(extension, &data)
                .map_err(|why| why.at_byte(start))?;
        }
    }

    /// Reads what follows the end of the archive, so that digests cover the whole stream.
    pub(crate) fn drain(&mut self) -> Result<(), ArchiveError> {
        self.skip_rest()?;
        std::io::copy(&mut self.inner, &mut std::io::sink())
            .map_err(|error| Refusal::reading(error).at_byte(self.offset))?;
        Ok(())
    }

    fn entry(
        &mut self,
        block: &Block,
        size: u64,
        extensions: Extensions,
    ) -> Result<Header, ArchiveError> {
        let path = extensions
            .path
            .clone()
            .unwrap_or_else(|| header_path(block));
        let named = path.clone();
        self.fields(block, size, path, extensions)
            .map_err(|why| why.at(&named))
    }

    fn fields(
        &mut self,
        block: &Block,
        size: u64,
        path: Vec<u8>,
        mut extensions: Extensions,
    ) -> Result<Header, Refusal> {
        let kind = match block[156] {
            b'0' | 0 if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' | b'4' => return Err(Refusal::DeviceNode),
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => return Err(Refusal::Sparse("the old GNU format is not supported")),
            other => return Err(Refusal::UnknownType(printable_type(other))),
        };
        let size = extensions.size.unwrap_or(size);
        if kind != Kind::File && size != 0 {
            return Err(Refusal::BadHeader("only files have a size"));
        }
        if size > i64::MAX as u64 {
            return Err(Refusal::BadHeader("the size is out of range"));
        }
        if extensions.sparse_size.is_some() && kind != Kind::File {
            return Err(Refusal::Sparse("only files can be sparse"));
        }
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK) - size;
        let (mtime_s, mtime_ns) = match extensions.mtime {
            Some(time) => time,
            None => (signed(&block[136..148]), 0),
        };
        let link = extensions
            .link
            .take()
            .unwrap_or_else(|| text(&block[157..257]).to_vec());
        Ok(Header {
            path,
            link,
            kind,
            mode: u32::try_from(number(&block[100..108], "mode")? & 0o7777).unwrap_or_default(),
            uid: pick(extensions.uid, &block[108..116], "uid")?,
            gid: pick(extensions.gid, &block[116..124], "gid")?,
            mtime_s,
            mtime_ns,
            size,
            offset: self.offset,
            extensions,
        })
    }

    fn extension_data(&mut self, size: u64) -> Result<Vec<u8>, Refusal> {
        if size > Extensions::BYTES_MAX {
            return Err(Refusal::BadExtension("it is larger than 1 MiB"));
        }
        let mut data = vec![0; usize::try_from(size).unwrap_or_default()];
        self.inner.read_exact(&mut data).map_err(Refusal::reading)?;
        let padding = size.next_multiple_of(BLOCK) - size;
        self.inner.skip(padding).map_err(Refusal::reading)?;
        self.offset += size + padding;
        Ok(data)
    }

    /// The next header, or nothing at the end of the archive.
    fn block(&mut self) -> Result<Option<Block>, ArchiveError> {
        if self.ended {
            return Ok(None);
        }
        let mut block = [0; BLOCK as usize];
        let start = self.offset;
        let filled = self.fill(&mut block).map_err(|why| why.at_byte(start))?;
        if filled == 0 {
            self.ended = true;
            if self.strict_end || start == 0 {
                return Err(Refusal::Truncated.at_byte(start));
            }
            return Ok(None);
        }
        if filled < block.len() {
            let why = if start == 0 {
                not_tar(&block)
            } else {
                Refusal::Truncated
            };
            return Err(why.at_byte(start));
        }
        self.offset += BLOCK;
        if block.iter().all(|byte| *byte == 0) {
            self.ended = true;
            return Ok(None);
        }
        match checksum_matches(&block) {
            true => Ok(Some(block)),
            false if start == 0 => Err(not_tar(&block).at_byte(start)),
            false => Err(Refusal::BadHeader("the checksum does not match").at_byte(start)),
        }
    }

    fn fill(&mut self, block: &mut Block) -> Result<usize, Refusal> {
        let mut filled = 0;
        while filled < block.len() {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Refusal::reading(error)),
            }
        }
        Ok(filled)
    }

    fn skip_rest(&mut self) -> Result<(), ArchiveError> {
        let rest = self.left + self.padding;
        if rest > 0 {
            let skipped = self.inner.skip(rest);
            skipped.map_err(|error| Refusal::reading(error).at_byte(self.offset))?;
            self.offset += rest;
            self.left = 0;
            self.padding = 0;
        }
        Ok(())
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let wanted = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.inner.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        self.offset += read as u64;
        Ok(read)
    }
}

fn pick(extended: Option<u64>, field: &[u8], name: &'static str) -> Result<u64, Refusal> {
    match extended {
        Some(value) => Ok(value),
        None => number(field, name),
    }
}

fn header_path(block: &Block) -> Vec<u8> {
    let name = text(&block[..100]);
    let prefix = text(&block[345..500]);
    if &block[257..263] != b"ustar\0" || prefix.is_empty() {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}

fn text(field: &[u8]) -> &[u8] {
    let end = field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len());
    &field[..end]
}

fn printable_type(byte: u8) -> char {
    if byte.is_ascii_graphic() {
        char::from(byte)
    } else {
        '?'
    }
}

/// Octal text, or big-endian binary when the first bit is set; never negative.
fn number(field: &[u8], name: &'static str) -> Result<u64, Refusal> {
    if field[0] & 0x80 != 0 {
        if field[0] != 0x80 {
            return Err(Refusal::BadHeader(name));
        }
        let (high, low) = field[1..].split_at(field.len() - 1 - 7);
        if high.iter().any(|byte| *byte != 0) {
            return Err(Refusal::BadHeader(name));
        }
        return Ok(low
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)));
    }
    let digits = field.iter().skip_while(|byte| **byte == b' ');
    let mut value: u64 = 0;
    for byte in digits {
        match byte {
            b'0'..=b'7' if value >> 60 == 0 => value = value << 3 | u64::from(byte - b'0'),
            b' ' | 0 => break,
            _ => return Err(Refusal::BadHeader(name)),
        }
    }
    Ok(value)
}

/// A time may be negative or nonsense without harm: then it is the epoch.
fn signed(field: &[u8]) -> i64 {
    number(field, "mtime")
        .ok()
        .and_then(|value| i64::try_from(value).ok())
        .unwrap_or_default()
}

fn checksum_matches(block: &Block) -> bool {
    let Ok(stored) = number(&block[148..156], "checksum") else {
        return false;
    };
    let sum = |as_u64: fn(u8) -> i64| -> i64 {
        let field = 148..156;
        let bytes = block.iter().enumerate();
        bytes
            .map(|(at, byte)| {
                if field.contains(&at) {
                    32
                } else {
                    as_u64(*byte)
                }
            })
            .sum()
    };
    let stored = i64::try_from(stored).unwrap_or(i64::MAX);
    // Some old writers summed signed bytes; every reader accepts both.
    stored == sum(i64::from) || stored == sum(|byte| i64::from(byte.cast_signed()))
}

fn not_tar(block: &Block) -> Refusal {
    match super::stream::Compression::of(block) {
        super::stream::Compression::None => Refusal::NotTar,
        _ => Refusal::NestedCompression,
    }
}
