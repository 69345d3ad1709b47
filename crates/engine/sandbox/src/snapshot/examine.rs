//! What one file of the upper layer has besides its content: attributes, marks, holes.
//!
//! Reads only through descriptors it is given. Used by the taking of snapshots.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::image::sparse::{EXTENTS_MAX, Extent};
use crate::image::{LITERAL_KEY, XATTR_PREFIX};

/// Attributes of one file that still fit into one extended header.
const ATTRIBUTES_MAX: usize = 256;
const ATTRIBUTE_BYTES_MAX: usize = 960 << 10;

/// A name that would be read as a whiteout is marked as an ordinary one.
pub(super) fn literal(path: &[u8], value: &[u8]) -> Vec<(String, Vec<u8>)> {
    let unusual = path
        .split(|byte| *byte == b'/')
        .any(|part| part.starts_with(b".wh."));
    if unusual {
        vec![(LITERAL_KEY.to_owned(), value.to_vec())]
    } else {
        Vec::new()
    }
}

pub(super) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() {
        name.to_vec()
    } else {
        [parent, b"/", name].concat()
    }
}

pub(super) fn is_opaque(directory: &OwnedFd) -> bool {
    ["trusted.overlay.opaque", "user.overlay.opaque"]
        .iter()
        .any(|name| {
            let mut value = [0; 4];
            rustix::fs::fgetxattr(directory, *name, &mut value)
                .is_ok_and(|length| value.get(..length) == Some(b"y".as_slice()))
        })
}

/// PAX records: key and value.
pub(super) type Records = Vec<(String, Vec<u8>)>;

/// The `user.*` attributes as PAX records, and how many cannot be expressed as such.
pub(super) fn attributes(file: impl AsFd) -> Result<(Records, u64), Errno> {
    let file = file.as_fd();
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::flistxattr(file, &mut names) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error),
    };
    names.truncate(length);
    let mut records = Vec::new();
    let (mut bytes, mut unfit) = (0, 0);
    for name in names.split(|byte| *byte == 0) {
        if !name.starts_with(b"user.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let text = std::str::from_utf8(name)
            .ok()
            .filter(|text| !text.contains('='));
        let Some(text) = text else {
            unfit += 1;
            continue;
        };
        let mut value = vec![0; 64 << 10];
        let length = match rustix::fs::fgetxattr(file, text, &mut value) {
            Ok(length) => length,
            Err(Errno::NODATA) => continue,
            Err(error) => return Err(error),
        };
        value.truncate(length);
        bytes += text.len() + length + 64;
        if records.len() >= ATTRIBUTES_MAX || bytes > ATTRIBUTE_BYTES_MAX {
            unfit += 1;
            continue;
        }
        records.push((format!("{XATTR_PREFIX}{text}"), value));
    }
    Ok((records, unfit))
}

/// Where the content is. Beyond the most extents, or without support for holes, all of the rest.
pub(super) fn extents(file: &File, size: u64) -> Result<Vec<Extent>, Errno> {
    let mut extents = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start.min(size),
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            Err(error) => return Err(error),
        };
        let end = match rustix::fs::seek(file, SeekFrom::Hole(start)) {
            Ok(end) if extents.len() + 1 < EXTENTS_MAX => end.min(size),
            Ok(_) | Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => size,
            Err(error) => return Err(error),
        };
        if end > start {
            extents.push(Extent {
                offset: start,
                size: end - start,
            });
        }
        at = end.max(at + 1);
    }
    Ok(extents)
}
