//! `sandbox cp`: files and directories, both ways.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use prism_api::FileType;
use prism_client::Files;

use crate::exit::Failure;
use crate::output::{Out, human};
use crate::server::Server;

/// Copy a file or directory into or out of a sandbox.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  prismctl sandbox cp ./data.csv box:data.csv     # into /work
  prismctl sandbox cp ./project box:/work/project   # a directory with all in it
  prismctl sandbox cp box:/work/result.json .       # out of it

A path in a sandbox is NAME:PATH. A copy into a directory that exists keeps its
name. Symbolic links are left out.")]
pub struct CpArgs {
    /// What to copy
    from: String,
    /// Where to
    to: String,
}

/// Deepest directory that is followed.
const DEPTH_MAX: usize = 64;

enum Place {
    Here(PathBuf),
    There(String, String),
}

/// `box:path` is in a sandbox; `./box:path` and `/x:y` are here.
fn place(text: &str) -> Place {
    match text.split_once(':') {
        Some((sandbox, path)) if !sandbox.is_empty() && !sandbox.contains(['/', '.']) => {
            let path = if path.is_empty() { "." } else { path };
            Place::There(sandbox.to_owned(), path.to_owned())
        }
        _ => Place::Here(PathBuf::from(text)),
    }
}

/// Copies.
///
/// # Errors
/// When a path is wrong or cannot be read or written, or what the server says; what was copied before stays.
pub async fn run(args: &CpArgs, server: &Server, out: &Out) -> Result<(), Failure> {
    let mut copied = Copied::default();
    match (place(&args.from), place(&args.to)) {
        (Place::Here(from), Place::There(sandbox, to)) => {
            let files = server.client().sandboxes().files(&sandbox);
            let to = target_there(&files, &from, to).await?;
            copied.put(&files, &from, &to).await?;
        }
        (Place::There(sandbox, from), Place::Here(to)) => {
            let files = server.client().sandboxes().files(&sandbox);
            copied.get(&files, &from, &to).await?;
        }
        _ => {
            return Err(Failure::usage(
                "exactly one of the two paths must be in a sandbox, as NAME:PATH; nothing was copied",
            )
            .next("prismctl sandbox cp ./file box:file"));
        }
    }
    for skipped in &copied.skipped {
        out.note(&format!(
            "left out: {skipped}: neither a file nor a directory"
        ));
    }
    out.note(&format!(
        "{} copied, {}",
        human::plural(copied.files, "file"),
        human::size(copied.bytes)
    ));
    Ok(())
}

/// A directory that exists takes the copy in under its own name.
async fn target_there(files: &Files<'_>, from: &Path, to: String) -> Result<String, Failure> {
    let is_dir = match files.stat(&to).await {
        Ok(list) => list
            .entries
            .first()
            .is_some_and(|e| e.kind == FileType::Dir),
        Err(e) if e.reason() == Some(prism_types::Reason::NotFound) => false,
        Err(e) => return Err(e.into()),
    };
    if !is_dir && !to.ends_with('/') {
        return Ok(to);
    }
    let name = fs::canonicalize(from)
        .map_err(|e| here("read", from, &e))?
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    Ok(format!("{}/{name}", to.trim_end_matches('/')))
}

fn here(what: &str, path: &Path, e: &std::io::Error) -> Failure {
    Failure::file(format!(
        "cannot {what} {}: {e}; what was copied before stays",
        path.display()
    ))
}

#[derive(Default)]
struct Copied {
    files: u64,
    bytes: u64,
    skipped: Vec<String>,
}

impl Copied {
    async fn put(&mut self, files: &Files<'_>, from: &Path, to: &str) -> Result<(), Failure> {
        // What is named is followed when it is a link; what is found beneath it is not.
        let meta = fs::metadata(from).map_err(|e| here("read", from, &e))?;
        let mut todo = vec![(from.to_owned(), to.to_owned(), meta, 0)];
        while let Some((from, to, meta, depth)) = todo.pop() {
            if meta.is_file() {
                let most = prism_api::BODY_MAX_LARGE as u64;
                if meta.len() > most {
                    let text = format!("{} has {}", from.display(), human::size(meta.len()));
                    return Err(Failure::usage(format!("{text}; a file has at most {}", human::size(most)))
                        .next("feed it instead: prismctl sandbox exec -i NAME -- sh -c 'cat > FILE' < FILE"));
                }
                let data = fs::read(&from).map_err(|e| here("read", &from, &e))?;
                self.files += 1;
                self.bytes += data.len() as u64;
                files
                    .write(&to, data, meta.permissions().mode() & 0o777)
                    .await?;
            } else if meta.is_dir() && depth < DEPTH_MAX {
                files.mkdir(&to).await?;
                for entry in fs::read_dir(&from).map_err(|e| here("read", &from, &e))? {
                    let entry = entry.map_err(|e| here("read", &from, &e))?;
                    let Ok(name) = entry.file_name().into_string() else {
                        self.skipped.push(entry.path().display().to_string());
                        continue;
                    };
                    let meta = fs::symlink_metadata(entry.path())
                        .map_err(|e| here("read", &entry.path(), &e))?;
                    todo.push((entry.path(), format!("{to}/{name}"), meta, depth + 1));
                }
            } else {
                self.skipped.push(from.display().to_string());
            }
        }
        Ok(())
    }

    async fn get(&mut self, files: &Files<'_>, from: &str, to: &Path) -> Result<(), Failure> {
        let list = files.stat(from).await?;
        let entry = list.entries.into_iter().next().ok_or_else(|| {
            Failure::defect(format!("the server found {from} but says nothing of it"))
        })?;
        let name = from
            .trim_end_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or_default();
        let to = if to.is_dir() && is_name(name) {
            to.join(name)
        } else {
            to.to_owned()
        };
        let mut todo = vec![(from.trim_end_matches('/').to_owned(), to, entry, 0)];
        while let Some((from, to, entry, depth)) = todo.pop() {
            match entry.kind {
                FileType::File => self.fetch(files, &from, &to, entry.mode).await?,
                FileType::Dir if depth < DEPTH_MAX => {
                    make_directory(&to)?;
                    for child in files.list(&from).await?.entries {
                        // The sandbox chooses these names: none may lead anywhere else.
                        if is_name(&child.name) {
                            todo.push((
                                format!("{from}/{}", child.name),
                                to.join(&child.name),
                                child,
                                depth + 1,
                            ));
                        } else {
                            self.skipped.push(format!("{from}/{}", child.name));
                        }
                    }
                }
                FileType::Dir | FileType::Symlink | FileType::Other => self.skipped.push(from),
            }
        }
        Ok(())
    }

    async fn fetch(
        &mut self,
        files: &Files<'_>,
        from: &str,
        to: &Path,
        mode: u32,
    ) -> Result<(), Failure> {
        let mut bytes = files.read(from).await?;
        // Never with set-user-id bits, and never through a link that stands in the way.
        let mut file = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(mode & 0o777)
            .custom_flags(i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0))
            .open(to)
            .map_err(|e| here("write", to, &e))?;
        while let Some(data) = bytes.next().await? {
            file.write_all(&data).map_err(|e| here("write", to, &e))?;
            self.bytes += data.len() as u64;
        }
        self.files += 1;
        Ok(())
    }
}

/// Whether it is one plain file name.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0'])
}

/// Makes a directory, or takes the one that is there; a link in its place is refused.
fn make_directory(path: &Path) -> Result<(), Failure> {
    match fs::DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => Ok(()),
        Err(e) => match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => Ok(()),
            _ => Err(here("make the directory", path, &e)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_says_where() {
        for (text, there) in [
            ("box:a/b", Some(("box", "a/b"))),
            ("box:", Some(("box", "."))),
            ("./box:a", None),
            ("/tmp/x:y", None),
            (":x", None),
            ("plain", None),
        ] {
            let found = match place(text) {
                Place::There(s, p) => Some((s, p)),
                Place::Here(_) => None,
            };
            let wanted = there.map(|(s, p)| (s.to_owned(), p.to_owned()));
            assert_eq!(found, wanted, "{text}");
        }
    }

    #[test]
    fn names_from_a_sandbox_lead_nowhere_else() {
        assert!(is_name("a") && is_name("..a"));
        for bad in ["", ".", "..", "a/b", "../x", "a\0"] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }
}
