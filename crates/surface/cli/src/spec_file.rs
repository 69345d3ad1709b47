//! Reading a job, sweep or sandbox file and the files that it names, which must lie beneath its own directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use prism_spec::{Document, Submission, Wanted, limits, parse_file};
use prism_types::{Name, nearest};

use crate::exit::Failure;

/// Reads a file; `-` is standard input, whose files are taken from the working directory.
///
/// # Errors
/// When it cannot be read, or is wrong: with line and field.
pub fn document(path: &Path) -> Result<(Document, PathBuf), Failure> {
    if path.as_os_str() == "-" {
        let bytes = at_most(std::io::stdin().lock(), limits::DOCUMENT_MAX as u64)
            .map_err(|e| Failure::file(format!("cannot read standard input: {e}")))?;
        return Ok((parse("standard input", &bytes)?, PathBuf::from(".")));
    }
    let shown = path.display();
    let file = open(path).map_err(|e| {
        let near = near(path).map_or(String::new(), |n| {
            format!("; did you mean {}?", n.display())
        });
        Failure::file(format!("cannot read {shown}: {e}{near}"))
    })?;
    let bytes = at_most(file, limits::DOCUMENT_MAX as u64)
        .map_err(|e| Failure::file(format!("cannot read {shown}: {e}")))?;
    let directory = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_owned(),
        _ => PathBuf::from("."),
    };
    Ok((parse(&shown.to_string(), &bytes)?, directory))
}

/// Reads a job or sweep file with all that it names.
///
/// # Errors
/// As [`document`], and when a file that it names is missing, too large or elsewhere.
pub fn submission(path: &Path) -> Result<Submission, Failure> {
    let (document, directory) = document(path)?;
    resolve(document, &directory).map_err(|e| match e {
        Unresolved::Spec(e) => Failure::invalid(e),
        Unresolved::File(why) => Failure::file(format!("{}: {why}", path.display())),
    })
}

/// A job given on the command line, as the JSON of a file.
///
/// # Errors
/// When it is wrong.
pub fn inline(json: &serde_json::Value) -> Result<Submission, Failure> {
    let document = parse("command line", json.to_string().as_bytes())?;
    resolve(document, Path::new(".")).map_err(|e| match e {
        Unresolved::Spec(e) | Unresolved::File(e) => Failure::invalid(e),
    })
}

/// Puts it into the namespace to work in, unless the file names one.
pub fn place(submission: &mut Submission, namespace: Option<&Name>) {
    if let Some(namespace) = namespace.filter(|_| submission.spec.namespace.as_str() == "default") {
        submission.spec.namespace = namespace.clone();
    }
}

enum Unresolved {
    Spec(String),
    File(String),
}

fn parse(name: &str, bytes: &[u8]) -> Result<Document, Failure> {
    parse_file(name, bytes).map_err(|e| Failure::invalid(e.to_string()))
}

fn resolve(document: Document, directory: &Path) -> Result<Submission, Unresolved> {
    if let Document::Sandbox(_) = document {
        let text = "it holds a sandbox; make it with `prismctl sandbox create FILE`";
        return Err(Unresolved::File(text.to_owned()));
    }
    let mut contents = BTreeMap::new();
    for wanted in document.wanted_files() {
        let read = wanted_file(directory, &wanted).map_err(|e| {
            Unresolved::File(format!(
                "{}: cannot read {}: {e}",
                wanted.field, wanted.path
            ))
        })?;
        contents.insert(wanted.path, read);
    }
    document
        .resolve(contents)
        .map_err(|e| Unresolved::Spec(e.to_string()))
}

fn wanted_file(directory: &Path, wanted: &Wanted) -> Result<(u32, Vec<u8>), String> {
    let base = directory.canonicalize().map_err(|e| e.to_string())?;
    let path = base.join(&wanted.path);
    let real = path.canonicalize().map_err(|e| {
        let near = near(&path)
            .and_then(|n| n.file_name().map(|f| f.to_string_lossy().into_owned()))
            .map_or(String::new(), |n| format!("; did you mean {n}?"));
        format!("{e}{near}")
    })?;
    if !real.starts_with(&base) {
        return Err(format!("it leads out of {}", directory.display()));
    }
    let file = open(&real).map_err(|e| e.to_string())?;
    let mode = file
        .metadata()
        .map_err(|e| e.to_string())?
        .permissions()
        .mode()
        & 0o777;
    let bytes = at_most(file, wanted.max_bytes).map_err(|e| e.to_string())?;
    Ok((mode, bytes))
}

/// Opens a regular file; never waits for a pipe.
fn open(path: &Path) -> std::io::Result<File> {
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_dir() {
        return Err(std::io::Error::other("it is a directory"));
    }
    if !kind.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    File::open(path)
}

fn at_most(reader: impl Read, max: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(std::io::Error::other(format!(
            "it is larger than {max} bytes"
        )));
    }
    Ok(bytes)
}

/// The file beside a missing one whose name is nearest.
fn near(path: &Path) -> Option<PathBuf> {
    let directory = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let wanted = path.file_name()?.to_str()?;
    let names: Vec<String> = std::fs::read_dir(directory)
        .ok()?
        .take(1000)
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .collect();
    let found = nearest(wanted, names.iter().map(String::as_str)).filter(|n| *n != wanted)?;
    Some(path.with_file_name(found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    fn put(dir: &Path, name: &str, text: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn refused(path: &Path) -> String {
        let e = submission(path).unwrap_err();
        assert_eq!(e.exit(), Exit::Usage);
        e.message().to_owned()
    }

    #[test]
    fn a_file_is_read_with_the_files_it_names() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "in.txt", "hello");
        let path = put(
            dir.path(),
            "job.yaml",
            "job: a\ncommand: [cat, in.txt]\nfiles: [in.txt]\n",
        );
        let s = submission(&path).unwrap();
        assert_eq!(s.spec.files[0].path, "in.txt");
        assert_eq!(s.blobs.values().next().map(|b| &b[..]), Some(&b"hello"[..]));
    }

    #[test]
    fn wrong_files_say_what_and_the_nearest() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path();
        put(base, "in.txt", "");
        put(
            base,
            "job.yaml",
            "job: a\ncommand: [cat]\nfiles: [im.txt]\n",
        );
        assert!(refused(&base.join("job.yml")).contains("did you mean"));
        assert!(refused(&base.join("job.yaml")).contains("did you mean in.txt?"));
        assert!(refused(base).contains("it is a directory"));
        assert!(refused(Path::new("/dev/zero")).contains("not a regular file"));
        std::os::unix::fs::symlink("/etc/hostname", base.join("link")).unwrap();
        let path = put(base, "link.yaml", "job: a\ncommand: [cat]\nfiles: [link]\n");
        assert!(refused(&path).contains("leads out of"));
        let path = put(base, "box.yaml", "sandbox: box\n");
        assert!(refused(&path).contains("prismctl sandbox create"));
        let path = put(base, "bad.yaml", "job: a\ncomand: [cat]\n");
        let text = refused(&path);
        assert!(
            text.contains("bad.yaml:2") && text.contains("command"),
            "{text}"
        );
    }
}
