//! Names of archive entries: cleaned, bounded, and split into parent and last component.
//!
//! Never touches a file: what these rules let through is still opened beneath the root by the
//! kernel. Used by the unpacker.

use super::error::Refusal;

/// The most directories inside one another, small enough to hold a descriptor for each.
pub(crate) const DEPTH_MAX: usize = 128;
pub(crate) const PATH_MAX: usize = 4096;
pub(crate) const NAME_MAX: usize = 255;

/// A relative path without empty, `.` or `..` components; empty for the root itself.
pub(crate) fn clean(raw: &[u8]) -> Result<Vec<u8>, Refusal> {
    if raw.is_empty() {
        return Err(Refusal::EmptyName);
    }
    if raw.contains(&0) {
        return Err(Refusal::NulInPath);
    }
    if raw[0] == b'/' {
        return Err(Refusal::AbsolutePath);
    }
    if raw.len() > PATH_MAX {
        return Err(Refusal::PathTooLong);
    }
    let mut path = Vec::with_capacity(raw.len());
    let mut depth = 0;
    for component in raw.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err(Refusal::ParentPath),
            _ if component.len() > NAME_MAX => return Err(Refusal::PathTooLong),
            _ => {}
        }
        depth += 1;
        if depth > DEPTH_MAX {
            return Err(Refusal::TooDeep { max: DEPTH_MAX });
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component);
    }
    Ok(path)
}

/// The parent (empty for the root) and the last component.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// What a name means in an OCI layer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning<'a> {
    /// A file to unpack.
    File,
    /// Hides this name of the layers below.
    Hides(&'a [u8]),
    /// Hides everything the layers below have in the parent directory.
    Opaque,
    /// Housekeeping of an old storage driver, without meaning here.
    Ignored,
}

/// Reads the `.wh.` conventions in the components of a clean path.
pub(crate) fn meaning(path: &[u8]) -> Result<Meaning<'_>, Refusal> {
    let (parent, name) = split(path);
    for component in path.split(|byte| *byte == b'/') {
        if matches!(
            component,
            b".wh..wh.plnk" | b".wh..wh.aufs" | b".wh..wh.orph"
        ) {
            return Ok(Meaning::Ignored);
        }
    }
    if parent
        .split(|byte| *byte == b'/')
        .any(|component| component.starts_with(b".wh."))
    {
        return Err(Refusal::BadWhiteout);
    }
    match name.strip_prefix(b".wh.") {
        None => Ok(Meaning::File),
        Some(b".wh..opq") => Ok(Meaning::Opaque),
        Some(b"" | b"." | b"..") => Err(Refusal::BadWhiteout),
        Some(hidden) if hidden.starts_with(b".wh.") => Err(Refusal::BadWhiteout),
        Some(hidden) => Ok(Meaning::Hides(hidden)),
    }
}
