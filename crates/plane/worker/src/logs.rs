//! Reading the output that the runtime keeps in segment files `stdout.<offset>` and `stderr.<offset>`.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prism_link::{Chunk, Stream};

fn prefix(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout.",
        Stream::Stderr => "stderr.",
    }
}

/// Segments of a stream with the offset of their first byte, in order. No directory: none.
fn segments(dir: &Path, stream: Stream) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let offset = name.to_str().and_then(|n| n.strip_prefix(prefix(stream)));
        if let Some(offset) = offset.and_then(|o| o.parse().ok()) {
            found.push((offset, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// At most `max` bytes from `offset`; starts later when older output has been dropped. `end` is left false.
pub(crate) fn read(dir: &Path, stream: Stream, offset: u64, max: usize) -> io::Result<Chunk> {
    let segments = segments(dir, stream)?;
    let Some((oldest, _)) = segments.first() else {
        return Ok(Chunk {
            offset,
            ..Chunk::default()
        });
    };
    let start = offset.max(*oldest);
    let at = segments.partition_point(|(base, _)| *base <= start);
    let mut data = Vec::new();
    for (base, path) in &segments[at.saturating_sub(1)..] {
        let Some(skip) = (start + data.len() as u64).checked_sub(*base) else {
            break;
        };
        let file = match File::open(path) {
            Ok(file) => file,
            // Dropped by rotation between listing and opening: the caller sees the gap in the next chunk's offset.
            Err(e) if e.kind() == io::ErrorKind::NotFound && data.is_empty() => continue,
            Err(e) if e.kind() == io::ErrorKind::NotFound => break,
            Err(e) => return Err(e),
        };
        let length = file.metadata()?.len();
        let want = length.saturating_sub(skip).min((max - data.len()) as u64);
        let from = data.len();
        data.resize(from + usize::try_from(want).expect("at most max"), 0);
        let got = read_full_at(&file, &mut data[from..], skip)?;
        data.truncate(from + got);
        if data.len() >= max {
            break;
        }
    }
    Ok(Chunk {
        offset: start,
        data: Bytes::from(data),
        end: false,
    })
}

fn read_full_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], offset + got as u64)? {
            0 => break,
            n => got += n,
        }
    }
    Ok(got)
}

/// The last `max` bytes of a stream.
pub(crate) fn tail(dir: &Path, stream: Stream, max: usize) -> io::Result<Vec<u8>> {
    let Some((base, path)) = segments(dir, stream)?.pop() else {
        return Ok(Vec::new());
    };
    let end = base + fs::metadata(&path)?.len();
    Ok(read(dir, stream, end.saturating_sub(max as u64), max)?
        .data
        .to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_read_across_segments_and_after_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let seg = |o: u64| dir.path().join(format!("stdout.{o:020}"));
        fs::write(seg(0), b"0123456789").unwrap();
        fs::write(seg(10), b"abcde").unwrap();
        let all = read(dir.path(), Stream::Stdout, 0, 100).unwrap();
        assert_eq!(all.data, Bytes::from_static(b"0123456789abcde"));
        assert_eq!(
            read(dir.path(), Stream::Stdout, 8, 4).unwrap().data,
            Bytes::from_static(b"89ab")
        );
        assert_eq!(
            read(dir.path(), Stream::Stdout, 15, 4).unwrap().data.len(),
            0
        );
        assert_eq!(tail(dir.path(), Stream::Stdout, 7).unwrap(), b"89abcde");
        fs::remove_file(seg(0)).unwrap();
        let late = read(dir.path(), Stream::Stdout, 3, 100).unwrap();
        assert_eq!((late.offset, &late.data[..]), (10, &b"abcde"[..]));
        assert_eq!(
            read(dir.path(), Stream::Stderr, 0, 9).unwrap().data.len(),
            0
        );
        assert!(
            tail(&dir.path().join("none"), Stream::Stdout, 9)
                .unwrap()
                .is_empty()
        );
    }
}
