//! A sandbox.

use prism_types::Millis;

use super::common;
use crate::cursor::Cursor;
use crate::error::{SpecError, quoted};
use crate::sandbox::SandboxSpec;

const FIELDS: &[&str] = &[
    "sandbox",
    "name",
    "namespace",
    "image",
    "snapshot",
    "resources",
    "pids",
    "env",
    "timeout",
    "labels",
];

/// How long a sandbox lives that does not say: one hour.
const TIMEOUT: Millis = Millis(3_600_000);

pub(super) fn sandbox(top: &Cursor<'_>) -> Result<SandboxSpec, SpecError> {
    top.only("a table of a sandbox's fields", FIELDS)?;
    let name = match (top.get("sandbox"), top.get("name")) {
        (Some(_), Some(c)) => return Err(c.error("named twice: expected sandbox or name")),
        (Some(c), None) | (None, Some(c)) => Some(c.name()?),
        (None, None) => None,
    };
    Ok(SandboxSpec {
        name,
        namespace: common::namespace(top)?,
        image: common::image(top)?,
        snapshot: top.get("snapshot").map(|c| snapshot(&c)).transpose()?,
        resources: common::resources(top)?,
        pids: common::pids(top)?,
        env: common::env(top)?,
        timeout: match top.get_or_null("timeout") {
            None => Some(TIMEOUT),
            Some(c) if c.is_null() => None,
            Some(c) => Some(c.duration()?).filter(|t| t.0 > 0),
        },
        labels: common::labels(top)?,
    })
}

fn snapshot(c: &Cursor<'_>) -> Result<String, SpecError> {
    let text = c.text("the id of a snapshot", 128)?;
    let ok = !text.is_empty()
        && !text.starts_with('.')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if ok {
        Ok(text.to_owned())
    } else {
        Err(c.error(format!(
            "{} is not a snapshot: expected letters, digits, ., _ and -",
            quoted(text)
        )))
    }
}
