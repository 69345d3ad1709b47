//! The fields that jobs, sweeps and sandboxes share.

use std::collections::BTreeMap;

use prism_types::{Bytes, Labels, MilliCpu, Millis, Name, Resources};

use crate::cursor::Cursor;
use crate::error::{SpecError, quoted};
use crate::job::{Backoff, ImageRef, IsolationSpec, JobSpec, Work};
use crate::limits;

/// The spec of a job or sweep without its work and files. `noun` is the top-level field with its name.
pub(super) fn base(top: &Cursor<'_>, noun: &str) -> Result<JobSpec, SpecError> {
    let (retries, backoff) = retries(top)?;
    let isolation = isolation(top)?;
    Ok(JobSpec {
        name: top.need(noun)?.name()?,
        namespace: namespace(top)?,
        group: top.get("group").map(|c| c.name()).transpose()?,
        task: task_text(top)?,
        work: Work::List { tasks: Vec::new() },
        env: env(top)?,
        files: Vec::new(),
        image: image(top)?,
        isolation,
        resources: resources(top)?,
        pids: pids(top)?,
        retries,
        backoff,
        timeout: top
            .get("timeout")
            .map(|c| c.duration())
            .transpose()?
            .filter(|t| t.0 > 0),
        concurrency: top
            .get("concurrency")
            .map(|c| c.count(1, u32::MAX))
            .transpose()?,
        priority: match top.get("priority") {
            None => 0,
            Some(c) => i32::try_from(c.whole(-100, 100)?).expect("it is from -100 to 100"),
        },
        max_failures: top
            .get("max_failures")
            .map(|c| c.count(0, u32::MAX))
            .transpose()?,
        after: after(top)?,
        labels: labels(top)?,
        single_instance: single_instance(top, isolation)?,
    })
}

pub(super) fn namespace(top: &Cursor<'_>) -> Result<Name, SpecError> {
    match top.get("namespace") {
        Some(c) => c.name(),
        None => Ok("default".parse().expect("it is a name")),
    }
}

fn task_text(top: &Cursor<'_>) -> Result<String, SpecError> {
    let Some(c) = top.get("task") else {
        return Ok(String::new());
    };
    let text = c.text("a sentence", limits::TASK_TEXT_MAX * 4)?;
    let length = text.chars().count();
    if length > limits::TASK_TEXT_MAX {
        let most = limits::TASK_TEXT_MAX;
        return Err(c.error(format!("{length} characters; at most {most}")));
    }
    Ok(text.to_owned())
}

/// `NAME: value` pairs; numbers and truth values as they are written.
pub(super) fn env(owner: &Cursor<'_>) -> Result<BTreeMap<String, String>, SpecError> {
    let Some(table) = owner.get("env") else {
        return Ok(BTreeMap::new());
    };
    let entries = table.entries("a table of variables")?;
    if entries.len() > limits::ENV_MAX {
        let most = limits::ENV_MAX;
        return Err(table.error(format!("{} variables; at most {most}", entries.len())));
    }
    let mut env = BTreeMap::new();
    let mut bytes = 0;
    for entry in entries {
        let c = table.enter(entry);
        if !is_identifier(&entry.key, 255) {
            return Err(c.error(format!(
                "{} cannot be a variable: expected letters, digits and _, not starting with a digit",
                quoted(&entry.key)
            )));
        }
        if entry.key.starts_with("PRISM_") {
            return Err(c.error("variables that start with PRISM_ are set by prism itself"));
        }
        let value = c.scalar("a text or number", limits::ENV_BYTES_MAX)?;
        bytes += entry.key.len() + value.len();
        env.insert(entry.key.to_string(), value.to_owned());
    }
    if bytes > limits::ENV_BYTES_MAX {
        let most = limits::ENV_BYTES_MAX;
        return Err(table.error(format!("{bytes} bytes of names and values; at most {most}")));
    }
    Ok(env)
}

/// Whether a text is `[a-zA-Z_][a-zA-Z0-9_]*` of at most so many bytes.
pub(crate) fn is_identifier(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len())
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

pub(super) fn image(top: &Cursor<'_>) -> Result<ImageRef, SpecError> {
    let Some(c) = top.get("image") else {
        return Ok(ImageRef::Host);
    };
    let text = c.text("host or the name of an image", 256)?;
    let ok = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !text.contains("..")
        && !text.contains("//")
        && !text.ends_with('/')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-/:@+".contains(&b));
    match text {
        "host" => Ok(ImageRef::Host),
        _ if ok => Ok(ImageRef::Named(text.to_owned())),
        _ => Err(c.error(format!(
            "{} is not an image: expected host, or a name such as debian:13",
            quoted(text)
        ))),
    }
}

fn isolation(top: &Cursor<'_>) -> Result<IsolationSpec, SpecError> {
    let Some(c) = top.get("isolation") else {
        return Ok(IsolationSpec::Sandbox);
    };
    match c.text("sandbox or none", 64)? {
        "sandbox" => Ok(IsolationSpec::Sandbox),
        "none" => Ok(IsolationSpec::None),
        other => Err(c.error(format!("expected sandbox or none, found {}", quoted(other)))),
    }
}

/// Whether no task may run twice at once. What a plain process leaves behind may outlive it, so that cannot be promised of one.
fn single_instance(top: &Cursor<'_>, isolation: IsolationSpec) -> Result<bool, SpecError> {
    let Some(c) = top.get("single_instance") else {
        return Ok(false);
    };
    let on = c.truth()?;
    match isolation {
        IsolationSpec::None if on => Err(
            c.error("not with isolation: none: what a plain process leaves behind may outlive it")
        ),
        _ => Ok(on),
    }
}

/// Cores, memory and disk, with their defaults of 1 core and 256 MiB.
pub(super) fn resources(top: &Cursor<'_>) -> Result<Resources, SpecError> {
    let mut resources = Resources {
        cpu: MilliCpu(1_000),
        memory: Bytes::mib(256),
        disk: Bytes(0),
    };
    let Some(table) = top.get("resources") else {
        return Ok(resources);
    };
    table.only(
        "a table of cpu, memory and disk",
        &["cpu", "memory", "disk"],
    )?;
    if let Some(c) = table.get("cpu") {
        resources.cpu = c.parse("an amount of cpu such as 2, 0.5 or 500m")?;
        if resources.cpu.0 == 0 {
            return Err(c.error("no cpu at all: expected at least 1m"));
        }
        if resources.cpu > limits::CPU_MAX {
            let most = limits::CPU_MAX;
            let message = format!("more cpu than one may ask for: expected up to {most} cores");
            return Err(c.error(message));
        }
    }
    if let Some(c) = table.get("memory") {
        resources.memory = c.parse("a size such as 256Mi, 1G or 4096")?;
        if resources.memory < Bytes::mib(1) {
            return Err(c.error("too little memory to start anything: expected at least 1Mi"));
        }
    }
    if let Some(c) = table.get("disk") {
        resources.disk = c.parse("a size such as 256Mi, 1G or 4096")?;
    }
    Ok(resources)
}

pub(super) fn pids(top: &Cursor<'_>) -> Result<u32, SpecError> {
    top.get("pids")
        .map_or(Ok(256), |c| c.count(1, limits::PIDS_MAX))
}

/// `retries: N` with `backoff: {…}`, or both in one table.
fn retries(top: &Cursor<'_>) -> Result<(u32, Backoff), SpecError> {
    let mut backoff = Backoff::default();
    if let Some(c) = top.get("backoff") {
        c.only(
            "a table of initial, factor, max and jitter",
            &["initial", "factor", "max", "jitter"],
        )?;
        read_backoff(&c, "max", &mut backoff)?;
    }
    let Some(c) = top.get("retries") else {
        return Ok((0, backoff));
    };
    if !c.is_table() {
        return Ok((c.count(0, JobSpec::RETRIES_MAX)?, backoff));
    }
    c.only(
        "a number, or a table of max, initial, factor, max_delay and jitter",
        &["max", "initial", "factor", "max_delay", "jitter"],
    )?;
    read_backoff(&c, "max_delay", &mut backoff)?;
    Ok((c.need("max")?.count(0, JobSpec::RETRIES_MAX)?, backoff))
}

fn read_backoff(table: &Cursor<'_>, longest: &str, to: &mut Backoff) -> Result<(), SpecError> {
    if let Some(c) = table.get("initial") {
        to.initial = c.duration()?;
        to.max = Millis(to.max.0.max(to.initial.0));
    }
    if let Some(c) = table.get("factor") {
        to.factor = c.number(1.0, 10.0)?;
    }
    if let Some(c) = table.get(longest) {
        to.max = c.duration()?;
        if to.max < to.initial {
            return Err(c.error(format!("shorter than the first wait of {}", to.initial)));
        }
    }
    if let Some(c) = table.get("jitter") {
        to.jitter = c.number(0.0, 1.0)?;
    }
    Ok(())
}

fn after(top: &Cursor<'_>) -> Result<Vec<String>, SpecError> {
    let Some(c) = top.get("after") else {
        return Ok(Vec::new());
    };
    if c.as_text().is_some() {
        return Ok(vec![c.name()?.to_string()]);
    }
    c.items(
        "a list of names or ids of jobs, or names of groups",
        limits::AFTER_MAX,
    )?
    .map(|item| Ok(item.name()?.to_string()))
    .collect()
}

pub(super) fn labels(top: &Cursor<'_>) -> Result<Labels, SpecError> {
    let Some(table) = top.get("labels") else {
        return Ok(Labels::new());
    };
    let entries = table.entries("a table of labels")?;
    if entries.len() > limits::LABELS_MAX {
        let most = limits::LABELS_MAX;
        return Err(table.error(format!("{} labels; at most {most}", entries.len())));
    }
    let mut labels = Labels::new();
    for entry in entries {
        let c = table.enter(entry);
        let ok = (1..=63).contains(&entry.key.len())
            && entry.key.starts_with(|c: char| c.is_ascii_alphanumeric())
            && entry
                .key
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._/-".contains(&b));
        if !ok {
            return Err(c.error(format!(
                "{} cannot be a label: expected 1 to 63 letters, digits, ., _, / and -",
                quoted(&entry.key)
            )));
        }
        let value = c.scalar("a text or number", limits::LABEL_VALUE_MAX)?;
        if value.chars().any(char::is_control) {
            return Err(c.error("a control character: expected plain text"));
        }
        labels.insert(entry.key.to_string(), value.to_owned());
    }
    Ok(labels)
}
