//! A job's files on this node: written once, laid read-only over the image of each of its tasks.
//!
//! `jobs/<job>/common/work/…` holds what every task gets, `jobs/<job>/runner-<n>/work/…` and `jobs/<job>/aggregate/work/…`
//! what only some do. A directory appears under its final name only when it is complete.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use prism_faults::point;
use prism_link::JobBundle;
use prism_spec::{FileSpec, JobSpec, Work};
use prism_types::JobId;

/// The directory of a job's files.
pub(crate) fn dir(data_dir: &Path, job: JobId) -> PathBuf {
    data_dir.join("jobs").join(job.to_string())
}

/// Writes the files of a job.
pub(crate) fn write(data_dir: &Path, bundle: &JobBundle) -> io::Result<()> {
    let target = dir(data_dir, bundle.job);
    let parts = parts(&bundle.spec);
    if parts.iter().all(|(_, files)| files.is_empty()) || target.exists() {
        return Ok(());
    }
    let blobs: BTreeMap<&str, &Bytes> = bundle.blobs.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let temporary = data_dir.join("jobs").join(format!(".{}", bundle.job));
    if temporary.exists() {
        fs::remove_dir_all(&temporary)?;
    }
    point!("worker.inputs.before_write")?;
    for (part, files) in parts.iter().filter(|(_, files)| !files.is_empty()) {
        let root = temporary.join(part).join("work");
        for file in *files {
            let content = blobs.get(file.sha256.as_str()).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("the content of {} did not come with the job", file.path),
                )
            })?;
            write_file(&root, file, content)?;
        }
    }
    point!("worker.inputs.before_rename")?;
    fs::rename(&temporary, &target)?;
    point!("worker.inputs.after_rename")
}

fn write_file(root: &Path, file: &FileSpec, content: &[u8]) -> io::Result<()> {
    let relative = Path::new(&file.path);
    // Specs are checked when they are accepted; a path is checked again where it is used.
    if !relative
        .components()
        .all(|c| matches!(c, Component::Normal(_)))
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{:?} leaves the working directory", file.path),
        ));
    }
    let path = root.join(relative);
    let parent = path.parent().unwrap_or(root);
    fs::create_dir_all(parent)?;
    let mut out = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&path)?;
    out.write_all(content)?;
    out.set_permissions(fs::Permissions::from_mode(file.mode & 0o755 | 0o444))
}

/// The named parts of a job's files.
fn parts(spec: &JobSpec) -> Vec<(String, &[FileSpec])> {
    let mut parts = vec![("common".to_owned(), spec.files.as_slice())];
    if let Work::Sweep(sweep) = &spec.work {
        for (i, runner) in sweep.runners.iter().enumerate() {
            parts.push((format!("runner-{i}"), runner.files.as_slice()));
        }
        if let Some(aggregate) = &sweep.aggregate {
            parts.push(("aggregate".to_owned(), aggregate.files.as_slice()));
        }
    }
    parts
}

/// The layers that task `index` gets, topmost first.
pub(crate) fn layers(data_dir: &Path, job: JobId, spec: &JobSpec, index: u32) -> Vec<PathBuf> {
    let own = spec.sweep().map(|sweep| {
        if sweep.aggregate_index() == Some(index) {
            "aggregate".to_owned()
        } else {
            format!("runner-{}", index as usize % sweep.runners.len().max(1))
        }
    });
    let base = dir(data_dir, job);
    parts(spec)
        .into_iter()
        .rev()
        .filter(|(part, files)| {
            !files.is_empty() && (part == "common" || Some(part) == own.as_ref())
        })
        .map(|(part, _)| base.join(part))
        .collect()
}

/// Removes the files of a job.
pub(crate) fn remove(data_dir: &Path, job: JobId) {
    match fs::remove_dir_all(dir(data_dir, job)) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => {
            tracing::warn!(%job, error = %e, "could not remove the files of a job; they are removed at the next start")
        }
    }
}
