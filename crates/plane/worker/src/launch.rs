//! From a task or sandbox spec to what the runtime is asked to launch.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use prism_link::AssignedTask;
use prism_runtime::{
    BootMs, HostFiles, Image, InlineFile, Isolation, Launch, Limits, Program, RuntimeError, Scratch,
};
use prism_spec::{ImageRef, IsolationSpec, JobSpec, SandboxSpec};
use prism_types::{Bytes, JobId, Resources, RunId, SandboxId, TaskRef};

use crate::{Config, inputs};

/// Smallest memory limit: below it not even a shell starts.
const MEMORY_MIN: Bytes = Bytes::mib(8);
/// What a sandbox may write to disk when it does not say. Its files are always there, for snapshots.
const SANDBOX_DISK: Bytes = Bytes::mib(10 << 10);
/// Open files per process.
const NOFILE: u32 = 4096;

/// Where a task's output is kept.
pub(crate) fn task_logs(data_dir: &Path, task: TaskRef) -> PathBuf {
    data_dir
        .join("logs")
        .join(task.job.to_string())
        .join(format!("{}.{}", task.index, task.attempt))
}

/// Where the output of a sandbox's exec is kept.
pub(crate) fn exec_logs(data_dir: &Path, sandbox: SandboxId, exec: &str) -> PathBuf {
    data_dir.join("logs").join(sandbox.to_string()).join(exec)
}

/// Where a run's writes are kept, if on disk.
pub(crate) fn scratch(data_dir: &Path, id: &RunId) -> PathBuf {
    data_dir.join("scratch").join(id.as_str())
}

/// The image of a spec, with the environment it brings.
type ImageAndEnv = (Image, Vec<(String, String)>);

fn image(files: &dyn HostFiles, image: &ImageRef) -> Result<ImageAndEnv, RuntimeError> {
    match image {
        ImageRef::Host => Ok((Image::Host, Vec::new())),
        ImageRef::Named(name) => {
            let found = files.image(name)?;
            Ok((Image::Layers(found.layers), found.env))
        }
    }
}

fn limits(config: &Config, resources: &Resources, pids: u32) -> Limits {
    Limits {
        cpu: resources.cpu,
        memory: resources.memory.max(MEMORY_MIN),
        pids,
        nofile: NOFILE,
        io_bytes_per_s: 0,
        timeout: None,
        log_bytes: config.log_bytes,
    }
}

/// `over` laid over `base` by name.
fn merged(base: Vec<(String, String)>, over: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut env: Vec<_> = base
        .into_iter()
        .filter(|(k, _)| !over.iter().any(|(o, _)| o == k))
        .collect();
    env.extend(over);
    env
}

/// What a task's machine is called inside.
fn hostname(spec: &JobSpec, index: u32) -> String {
    let name = format!("{}-{index}", spec.name);
    name.chars().take(63).collect()
}

/// What to launch for a task.
pub(crate) fn task(
    config: &Config,
    files: &dyn HostFiles,
    job: JobId,
    spec: &JobSpec,
    task: &AssignedTask,
    (lanes, lease): (u32, Option<BootMs>),
) -> Result<Launch, RuntimeError> {
    let reference = TaskRef {
        job,
        index: task.index,
        attempt: task.attempt,
    };
    let id = RunId::task(reference);
    let isolation = match spec.isolation {
        IsolationSpec::Sandbox => Isolation::Sandboxed,
        IsolationSpec::None if config.allow_plain => Isolation::Plain,
        IsolationSpec::None => {
            return Err(RuntimeError::Unsupported(
                "this node does not run tasks with `isolation: none`; start it with --allow-plain, or leave the line out".to_owned(),
            ));
        }
    };
    let command = spec
        .command_of(task.index, job, task.attempt)
        .ok_or_else(|| RuntimeError::Invalid(format!("the job has no task {}", task.index)))?;
    let (image, image_env) = image(files, &spec.image)?;
    let mut inline: Vec<InlineFile> = command
        .inline_files
        .into_iter()
        .map(|f| InlineFile {
            path: f.path,
            content: Arc::from(f.content),
            mode: f.mode,
        })
        .collect();
    if let Some(results) = &task.results {
        inline.push(InlineFile {
            path: "results.json".to_owned(),
            content: Arc::from(&results[..]),
            mode: 0o644,
        });
    }
    let scratch = if spec.resources.disk.0 == 0 {
        Scratch::Memory {
            bytes: spec.resources.memory.max(MEMORY_MIN),
        }
    } else {
        Scratch::Disk {
            dir: scratch(&config.data_dir, &id),
            bytes: spec.resources.disk,
        }
    };
    Ok(Launch {
        logs: task_logs(&config.data_dir, reference),
        isolation,
        image,
        layers: inputs::layers(&config.data_dir, job, spec, task.index),
        scratch,
        program: Some(Program {
            argv: command.argv,
            env: merged(image_env, command.env),
            cwd: command.cwd.to_owned(),
            stdin: false,
            tty: None,
        }),
        files: inline,
        limits: Limits {
            timeout: spec.timeout,
            ..limits(config, &spec.resources, spec.pids)
        },
        hostname: hostname(spec, task.index),
        id,
        lanes,
        lease,
    })
}

/// What to launch for a sandbox.
pub(crate) fn sandbox(
    config: &Config,
    files: &dyn HostFiles,
    id: SandboxId,
    spec: &SandboxSpec,
) -> Result<Launch, RuntimeError> {
    let run = RunId::sandbox(id);
    let (image, _) = image(files, &spec.image)?;
    Ok(Launch {
        isolation: Isolation::Sandboxed,
        image,
        layers: Vec::new(),
        scratch: Scratch::Disk {
            dir: scratch(&config.data_dir, &run),
            bytes: match spec.resources.disk {
                Bytes(0) => SANDBOX_DISK,
                bytes => bytes,
            },
        },
        program: None,
        files: Vec::new(),
        limits: limits(config, &spec.resources, spec.pids),
        hostname: spec
            .name
            .as_ref()
            .map_or_else(|| "sandbox".to_owned(), ToString::to_string),
        logs: exec_logs(&config.data_dir, id, "init"),
        id: run,
        lanes: 0,
        lease: None,
    })
}

/// The environment of an exec: a path and a home, then what the image and the sandbox set, then what the caller sets.
pub(crate) fn exec_env(
    files: &dyn HostFiles,
    spec: &SandboxSpec,
    own: Vec<(String, String)>,
) -> Result<Vec<(String, String)>, RuntimeError> {
    let base = [
        (
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ),
        ("HOME", "/root"),
        ("LANG", "C.UTF-8"),
    ];
    let base = base
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let (_, image_env) = image(files, &spec.image)?;
    let spec_env = spec
        .env
        .iter()
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    Ok(merged(merged(merged(base, image_env), spec_env), own))
}
