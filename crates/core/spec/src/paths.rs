//! Paths of files sent along: relative, beneath the working directory, one spelling each.

use crate::error::quoted;
use crate::limits::PATH_MAX;

/// The path without `./` and repeated slashes.
///
/// Refused: absolute paths, `..`, control characters, a trailing slash, and names longer than 255 bytes.
pub(crate) fn clean(path: &str) -> Result<String, String> {
    let bad = |why: &str| {
        Err(format!(
            "{} {why}: expected a relative path of a file, such as data/train.csv",
            quoted(path)
        ))
    };
    if path.is_empty() {
        return bad("is empty");
    }
    if path.len() > PATH_MAX {
        return bad("is too long");
    }
    if path.starts_with('/') {
        return bad("is absolute");
    }
    if path.chars().any(char::is_control) {
        return bad("has a control character");
    }
    if path.contains('\\') {
        return bad("has a backslash");
    }
    if path.ends_with('/') {
        return bad("names a directory");
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return bad("leaves its directory"),
            long if long.len() > 255 => return bad("is too long"),
            part => parts.push(part),
        }
    }
    if parts.is_empty() || path.ends_with("/.") {
        return bad("names a directory");
    }
    Ok(parts.join("/"))
}

/// The last part of a path.
pub(crate) fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn one_spelling_beneath_the_directory() {
        assert_eq!(clean("./a//b/./c.py").unwrap(), "a/b/c.py");
        for bad in [
            "",
            ".",
            "./",
            "/",
            "/etc/passwd",
            "..",
            "../x",
            "a/../../x",
            "a/",
            "a/.",
            "a\nb",
            "a\\b",
            &"x".repeat(300),
            &"x/".repeat(700),
        ] {
            assert!(clean(bad).is_err(), "{bad:?}");
        }
    }
}
