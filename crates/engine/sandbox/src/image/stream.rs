//! The pipe between a blob and the tar reader: digests, decompression, and the limit on what
//! comes out.
//!
//! One level of compression, found by content. Never trusts a declared media type.
//! Used by the image store and the snapshots.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::error::Refusal;
use super::limits::Limits;

/// zstd frames may ask for at most this window (2^27 = 128 MiB), the reference decoder's default.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
    Unsupported(&'static str),
}

impl Compression {
    /// Recognises the first bytes.
    pub(crate) fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Unsupported("xz"),
            [b'B', b'Z', b'h', ..] => Self::Unsupported("bzip2"),
            _ => Self::None,
        }
    }
}

/// Reading on without looking.
pub(crate) trait Skip: Read + Sized {
    /// Passes over exactly `count` bytes.
    fn skip(&mut self, count: u64) -> io::Result<()> {
        let passed = io::copy(&mut self.by_ref().take(count), &mut io::sink())?;
        if passed < count {
            Err(io::ErrorKind::UnexpectedEof.into())
        } else {
            Ok(())
        }
    }
}

impl<R: Read> Skip for BufReader<R> {}

/// A part of a file, read by position so that many can be open on one descriptor.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Slice {
    pub(crate) fn new(file: Arc<File>, offset: u64, size: u64) -> Self {
        Self {
            file,
            offset,
            left: size,
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.left
    }
}

impl Read for Slice {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

impl Skip for Slice {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        if count > self.left {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += count;
        self.left -= count;
        Ok(())
    }
}

/// Counts and digests what passes; shared between a stream's owner and its innermost reader.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    hasher: RefCell<Sha256>,
    bytes: Cell<u64>,
}

impl Meter {
    fn add(&self, bytes: &[u8]) {
        self.hasher.borrow_mut().update(bytes);
        self.bytes.set(self.bytes.get() + bytes.len() as u64);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// The digest of what passed so far, as hex.
    pub(crate) fn hex(&self) -> String {
        hex(&self.hasher.borrow().clone().finalize())
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A reader under a [`Meter`].
#[derive(Debug)]
pub(crate) struct Metered<R> {
    inner: R,
    meter: Rc<Meter>,
}

impl<R: Read> Metered<R> {
    pub(crate) fn new(inner: R) -> (Self, Rc<Meter>) {
        let meter = Rc::new(Meter::default());
        (
            Self {
                inner,
                meter: Rc::clone(&meter),
            },
            meter,
        )
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.meter.add(&buffer[..read]);
        Ok(read)
    }
}

/// Ends a stream that grows beyond what was agreed.
#[derive(Debug)]
pub(crate) struct Limited<R> {
    inner: R,
    source: Rc<Meter>,
    produced: u64,
    stream_max: u64,
    limits: Limits,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.produced += read as u64;
        if self.produced > self.stream_max {
            return Err(io::Error::other(Refusal::TooManyBytes {
                max: self.limits.bytes_max,
            }));
        }
        let honest = self.source.bytes().saturating_mul(self.limits.ratio_max);
        if self.produced > self.limits.ratio_floor_bytes && self.produced > honest {
            return Err(io::Error::other(Refusal::ExpandsTooMuch {
                max: self.limits.ratio_max,
            }));
        }
        Ok(read)
    }
}

/// What [`plain`] makes of a compressed stream.
pub(crate) struct Plain {
    pub(crate) reader: Limited<Box<dyn Read>>,
    /// Digest and size of the stream as stored.
    pub(crate) stored: Rc<Meter>,
}

/// Decompresses `source` if it is compressed, within `limits` and `stream_max` bytes.
pub(crate) fn plain(
    source: impl Read + 'static,
    limits: Limits,
    stream_max: u64,
) -> Result<Plain, Refusal> {
    let (metered, stored) = Metered::new(source);
    let mut buffered = BufReader::with_capacity(128 << 10, metered);
    let compression = Compression::of(buffered.fill_buf().map_err(Refusal::reading)?);
    let inner: Box<dyn Read> = match compression {
        Compression::None => Box::new(buffered),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
        Compression::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(buffered).map_err(Refusal::reading)?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG_MAX)
                .map_err(Refusal::reading)?;
            Box::new(decoder)
        }
        Compression::Unsupported(name) => return Err(Refusal::Compression(name)),
    };
    let reader = Limited {
        inner,
        source: Rc::clone(&stored),
        produced: 0,
        stream_max,
        limits,
    };
    Ok(Plain { reader, stored })
}
