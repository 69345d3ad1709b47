//! Commands, and the scripts and files that travel with them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::cursor::Cursor;
use crate::draft::{FileDraft, Program};
use crate::error::{SpecError, quoted};
use crate::{limits, paths};

/// Reads `command`, `script` and (where the owner has its own) `files`.
pub(super) fn program(owner: &Cursor<'_>, own_files: bool) -> Result<Program, SpecError> {
    Ok(Program {
        command: owner.get("command").map(|c| command(&c)).transpose()?,
        script: owner.get("script").map(|c| file(&c)).transpose()?,
        files: if own_files { files(owner)? } else { Vec::new() },
        at: owner.spot(),
    })
}

/// A list of arguments, or a line for the shell.
pub(super) fn command(c: &Cursor<'_>) -> Result<Vec<String>, SpecError> {
    if !c.is_list() {
        let line = c.text(
            "a list of arguments, or a line for the shell",
            limits::ARG_MAX,
        )?;
        if line.trim().is_empty() {
            return Err(c.error("an empty command"));
        }
        return Ok(vec!["sh".to_owned(), "-c".to_owned(), line.to_owned()]);
    }
    let mut args = Vec::new();
    let mut bytes = 0;
    for item in c.items("a list of arguments", limits::ARGS_MAX)? {
        let arg = item.scalar("a text or number", limits::ARG_MAX)?;
        bytes += arg.len() + 1;
        args.push(arg.to_owned());
    }
    if args.first().is_none_or(|program| program.trim().is_empty()) {
        return Err(c.error("an empty command: expected a program and its arguments"));
    }
    if bytes > limits::ARGS_BYTES_MAX {
        let most = limits::ARGS_BYTES_MAX;
        return Err(c.error(format!("{bytes} bytes of arguments; at most {most}")));
    }
    Ok(args)
}

/// The `files` of an owner.
pub(super) fn files(owner: &Cursor<'_>) -> Result<Vec<FileDraft>, SpecError> {
    match owner.get("files") {
        None => Ok(Vec::new()),
        Some(list) => list
            .items("a list of files", limits::FILES_MAX)?
            .map(|item| file(&item))
            .collect(),
    }
}

/// A path, or `{path, mode, content | content_base64}`.
pub(super) fn file(c: &Cursor<'_>) -> Result<FileDraft, SpecError> {
    if let Some(path) = c.as_text() {
        if c.request {
            return Err(c.error(format!(
                "the server cannot read {} on your machine; send {{path, content}} or {{path, content_base64}}",
                quoted(path)
            )));
        }
        return Ok(FileDraft {
            path: path_of(c)?,
            mode: None,
            content: None,
            at: c.spot(),
        });
    }
    c.only(
        "a path, or a table of path, mode and content",
        &["path", "mode", "content", "content_base64"],
    )?;
    let content = content(c)?;
    if content.is_none() && c.request {
        return Err(c.error(
            "no content: the server cannot read files of your machine; send content or content_base64",
        ));
    }
    Ok(FileDraft {
        path: path_of(&c.need("path")?)?,
        mode: c.get("mode").map(|m| mode(&m)).transpose()?,
        content,
        at: c.spot(),
    })
}

/// A path beneath the spec's own directory.
pub(super) fn path_of(c: &Cursor<'_>) -> Result<String, SpecError> {
    let text = c.text("a path", usize::MAX)?;
    paths::clean(text).map_err(|m| c.error(m))
}

fn content(c: &Cursor<'_>) -> Result<Option<Vec<u8>>, SpecError> {
    match (c.get("content"), c.get("content_base64")) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(c.error("both content and content_base64: expected one of them")),
        // A NUL is no trouble in a file, so this does not go through `text`.
        (Some(text), None) => match fits(&text, text.text_len()).map(|()| text.long_text())? {
            Some(content) => Ok(Some(content.into_owned().into_bytes())),
            None => text.text("a text", 0).map(|_| None),
        },
        (None, Some(coded)) => {
            fits(&coded, coded.text_len() / 4 * 3)?;
            let text = match coded.long_text() {
                Some(text) => text,
                None => coded.text("a text in base 64", usize::MAX)?.into(),
            };
            let bytes = STANDARD
                .decode(&*text)
                .map_err(|e| coded.error(format!("not base 64: {e}")))?;
            Ok(Some(bytes))
        }
    }
}

/// Refuses a content that is larger than all of a job's may be, before it is copied.
fn fits(c: &Cursor<'_>, bytes: usize) -> Result<(), SpecError> {
    let most = limits::CONTENTS_MAX;
    match u64::try_from(bytes).is_ok_and(|n| n <= most + 3) {
        true => Ok(()),
        false => Err(c.error(format!(
            "{bytes} bytes; all contents together have at most {} MiB",
            most >> 20
        ))),
    }
}

/// Permission bits, always in octal: `"0755"`, `755`, `0o755`.
fn mode(c: &Cursor<'_>) -> Result<u32, SpecError> {
    let text = c.scalar("permission bits in octal, such as \"0755\"", 16)?;
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if plain && mode <= 0o777 => Ok(mode),
        _ => Err(c.error(format!(
            "{} is not a mode: expected permission bits in octal, from \"0000\" to \"0777\"",
            quoted(text)
        ))),
    }
}
