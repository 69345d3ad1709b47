//! Writes tar entries: a ustar header, and PAX records for what does not fit one.
//!
//! Never looks at the file system. Used by the taking of snapshots.

use std::io::{self, Write};

const BLOCK: usize = 512;

/// What an entry is, with the letter tar has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryType {
    File,
    HardLink,
    Symlink,
    Directory,
    Fifo,
}

impl EntryType {
    fn letter(self) -> u8 {
        match self {
            Self::File => b'0',
            Self::HardLink => b'1',
            Self::Symlink => b'2',
            Self::Directory => b'5',
            Self::Fifo => b'6',
        }
    }
}

/// One entry to write.
#[derive(Debug)]
pub(super) struct TarEntry<'a> {
    pub(super) entry_type: EntryType,
    pub(super) path: &'a [u8],
    pub(super) link: &'a [u8],
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    /// Bytes of content in the archive.
    pub(super) size: u64,
    /// Further PAX records.
    pub(super) records: Vec<(String, Vec<u8>)>,
}

/// Writes the header blocks of `entry`; its content and [`padding`] follow.
pub(super) fn header(to: &mut impl Write, entry: &TarEntry<'_>) -> io::Result<()> {
    let mut records = Vec::new();
    let (seconds, nanos) = entry.mtime;
    record(&mut records, "mtime", time(seconds, nanos).as_bytes());
    let named_otherwise = entry
        .records
        .iter()
        .any(|(key, _)| key == "GNU.sparse.name");
    if entry.path.len() > 100 && !named_otherwise {
        record(&mut records, "path", entry.path);
    }
    if entry.link.len() > 100 {
        record(&mut records, "linkpath", entry.link);
    }
    if entry.size >> 33 != 0 {
        record(&mut records, "size", entry.size.to_string().as_bytes());
    }
    for (key, value) in &entry.records {
        record(&mut records, key, value);
    }
    let pax = block(
        b'x',
        b"././@PaxHeader",
        b"",
        0o644,
        (0, 0),
        0,
        records.len() as u64,
    );
    to.write_all(&pax)?;
    to.write_all(&records)?;
    padding(to, records.len() as u64)?;
    let size = if entry.size >> 33 == 0 { entry.size } else { 0 };
    let seconds = u64::try_from(seconds).unwrap_or_default();
    let owner = (entry.uid, entry.gid);
    let kind = entry.entry_type.letter();
    to.write_all(&block(
        kind, entry.path, entry.link, entry.mode, owner, seconds, size,
    ))
}

/// Fills up the last block of `size` bytes of content.
pub(super) fn padding(to: &mut impl Write, size: u64) -> io::Result<()> {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or_default();
    if over == 0 {
        Ok(())
    } else {
        to.write_all(&[0; BLOCK][over..])
    }
}

/// The two blocks of zeros that end an archive.
pub(super) fn end(to: &mut impl Write) -> io::Result<()> {
    to.write_all(&[0; 2 * BLOCK])
}

fn block(
    kind: u8,
    path: &[u8],
    link: &[u8],
    mode: u32,
    (uid, gid): (u32, u32),
    mtime: u64,
    size: u64,
) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put(&mut block[..100], path);
    octal(&mut block[100..108], u64::from(mode));
    octal(&mut block[108..116], u64::from(uid));
    octal(&mut block[116..124], u64::from(gid));
    octal(&mut block[124..136], size);
    octal(
        &mut block[136..148],
        if mtime >> 33 == 0 { mtime } else { 0 },
    );
    block[148..156].fill(b' ');
    block[156] = kind;
    put(&mut block[157..257], link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut block[148..155], sum);
    block
}

fn put(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    put(field, format!("{value:0digits$o}").as_bytes());
    field[digits] = 0;
}

/// Appends `"<length> <key>=<value>\n"`, where the length counts itself.
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn time(seconds: i64, nanos: u32) -> String {
    if seconds >= 0 || nanos == 0 {
        return format!("{seconds}.{nanos:09}");
    }
    // Before 1970 the fraction counts away from the epoch.
    let whole = seconds + 1;
    let fraction = 1_000_000_000 - nanos;
    if whole == 0 {
        format!("-0.{fraction:09}")
    } else {
        format!("{whole}.{fraction:09}")
    }
}
