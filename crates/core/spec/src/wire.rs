//! The form of specs in requests: the schema of the files people write, as JSON, with every file's content in it.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::cursor::Cursor;
use crate::draft::{Draft, Submission};
use crate::error::{Place, SpecError};
use crate::job::{FileSpec, ImageRef, IsolationSpec, JobSpec, Work};
use crate::sandbox::SandboxSpec;
use crate::sweep::{Dimension, Direction, EarlyStop, Search, SweepWork};
use crate::tree::{self, Language};
use crate::{decode, limits};

/// Which request a body belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireKind {
    /// `POST /jobs`
    Job,
    /// `POST /sweeps`
    Sweep,
}

/// Reads the body of `POST /jobs` or `POST /sweeps`.
///
/// # Errors
/// When it is not JSON, too large or too deep, or breaks the schema; with column and field. Bare paths are refused: there
/// is nothing here to read them from.
pub fn parse_wire(kind: WireKind, body: impl AsRef<[u8]>) -> Result<Submission, SpecError> {
    let draft = with_body(body.as_ref(), |top| match kind {
        WireKind::Job => decode::job(top),
        WireKind::Sweep => decode::sweep(top),
    })?;
    // Its contents are copied next.
    drop(body);
    Draft::resolve(draft, std::collections::BTreeMap::new())
}

/// Reads the body of `POST /sandboxes`.
///
/// # Errors
/// As [`parse_wire`].
pub fn parse_sandbox_wire(body: &[u8]) -> Result<SandboxSpec, SpecError> {
    with_body(body, decode::sandbox)
}

fn with_body<T>(
    body: &[u8],
    read: impl FnOnce(&Cursor<'_>) -> Result<T, SpecError>,
) -> Result<T, SpecError> {
    const NAME: &str = "request";
    if body.len() > limits::BODY_MAX {
        let most = limits::BODY_MAX >> 20;
        let message = format!("{} bytes; a request has at most {most} MiB", body.len());
        return Err(SpecError::new(
            NAME,
            Place::default(),
            String::new(),
            message,
        ));
    }
    let text = tree::text_of(NAME, body)?;
    let node = tree::read(NAME, text, Language::Json, limits::BODY_VALUES_MAX)?;
    read(&Cursor::root(NAME, true, &node))
}

impl Submission {
    /// The body of the request that submits it. [`parse_wire`] makes the same submission of it.
    pub fn to_wire(&self) -> Value {
        let spec = &self.spec;
        let mut body = Map::new();
        let noun = if spec.sweep().is_some() {
            "sweep"
        } else {
            "job"
        };
        body.insert(noun.to_owned(), json!(spec.name));
        common(spec, &mut body);
        body.insert("files".to_owned(), self.files(&spec.files));
        match &spec.work {
            Work::Array { command, count } => {
                body.insert("command".to_owned(), json!(command));
                body.insert("array".to_owned(), json!(count));
            }
            Work::List { tasks } => {
                let tasks = tasks
                    .iter()
                    .map(|t| json!({"name": t.name, "command": t.command, "env": t.env}));
                body.insert("tasks".to_owned(), tasks.collect());
            }
            Work::Map { command, lines } => {
                body.insert("command".to_owned(), json!(command));
                body.insert("map".to_owned(), json!({ "lines": lines }));
            }
            Work::Sweep(work) => self.sweep(work, &mut body),
        }
        Value::Object(body)
    }

    /// Which request it is for.
    pub fn wire_kind(&self) -> WireKind {
        match self.spec.sweep() {
            Some(_) => WireKind::Sweep,
            None => WireKind::Job,
        }
    }

    fn sweep(&self, work: &SweepWork, body: &mut Map<String, Value>) {
        let runners = work.runners.iter().map(|r| {
            let program = json!({"command": r.command, "files": self.files(&r.files)});
            (r.name.clone(), program)
        });
        body.insert("runners".to_owned(), Value::Object(runners.collect()));
        let space = work
            .space
            .iter()
            .map(|(name, d)| (name.clone(), dimension(d)));
        body.insert("space".to_owned(), Value::Object(space.collect()));
        let search = match work.search {
            Search::Grid => json!("grid"),
            Search::Random { points, seed } => json!({"random": points, "seed": seed}),
        };
        body.insert("search".to_owned(), search);
        if let Some(objective) = &work.objective {
            let way = direction(objective.direction);
            body.insert("objective".to_owned(), json!({way: objective.metric}));
        }
        if let Some(EarlyStop::Halving(h)) = &work.early_stop {
            let halving = json!({
                "metric": h.metric, "direction": direction(h.direction), "rounds": h.rounds,
                "factor": h.factor, "first": h.first,
            });
            body.insert("early_stop".to_owned(), json!({ "halving": halving }));
        }
        if let Some(a) = &work.aggregate {
            let program = json!({"command": a.command, "files": self.files(&a.files)});
            body.insert("aggregate".to_owned(), program);
        }
    }

    fn files(&self, files: &[FileSpec]) -> Value {
        let one = |f: &FileSpec| {
            let bytes = self.blobs.get(&f.sha256).map_or(&[][..], Arc::as_ref);
            let mode = format!("{:04o}", f.mode);
            match std::str::from_utf8(bytes) {
                Ok(text) => json!({"path": f.path, "mode": mode, "content": text}),
                Err(_) => {
                    json!({"path": f.path, "mode": mode, "content_base64": STANDARD.encode(bytes)})
                }
            }
        };
        files.iter().map(one).collect()
    }
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Maximize => "maximize",
        Direction::Minimize => "minimize",
    }
}

fn image(image: &ImageRef) -> &str {
    match image {
        ImageRef::Host => "host",
        ImageRef::Named(name) => name,
    }
}

fn common(spec: &JobSpec, body: &mut Map<String, Value>) {
    let isolation = match spec.isolation {
        IsolationSpec::Sandbox => "sandbox",
        IsolationSpec::None => "none",
    };
    let fields = json!({
        "namespace": spec.namespace,
        "group": spec.group,
        "task": spec.task,
        "env": spec.env,
        "image": image(&spec.image),
        "isolation": isolation,
        "resources": spec.resources,
        "pids": spec.pids,
        "retries": spec.retries,
        "backoff": {
            "initial": format!("{}ms", spec.backoff.initial.0),
            "factor": spec.backoff.factor,
            "max": format!("{}ms", spec.backoff.max.0),
            "jitter": spec.backoff.jitter,
        },
        "timeout": spec.timeout.map(|t| format!("{}ms", t.0)),
        "concurrency": spec.concurrency,
        "priority": spec.priority,
        "max_failures": spec.max_failures,
        "after": spec.after,
        "labels": spec.labels,
        "single_instance": spec.single_instance.then_some(true),
    });
    if let Value::Object(fields) = fields {
        body.extend(fields.into_iter().filter(|(_, v)| !v.is_null()));
    }
}

fn dimension(dimension: &Dimension) -> Value {
    let stepped = |form: &str, low: f64, high: f64, steps: Option<u32>| match steps {
        Some(steps) => json!({form: [low, high], "steps": steps}),
        None => json!({form: [low, high]}),
    };
    match dimension {
        Dimension::Choice(values) => {
            let values: Vec<Value> = values.iter().map(|v| crate::points::value_of(v)).collect();
            json!({ "choice": values })
        }
        Dimension::Range { from, to, step } => json!({"range": [from, to, step]}),
        Dimension::Uniform { low, high, steps } => stepped("uniform", *low, *high, *steps),
        Dimension::LogUniform { low, high, steps } => stepped("log_uniform", *low, *high, *steps),
    }
}

/// The body of `POST /sandboxes`. [`parse_sandbox_wire`] makes the same spec of it.
pub fn sandbox_to_wire(spec: &SandboxSpec) -> Value {
    json!({
        "name": spec.name,
        "namespace": spec.namespace,
        "image": image(&spec.image),
        "snapshot": spec.snapshot,
        "resources": spec.resources,
        "pids": spec.pids,
        "env": spec.env,
        "timeout": spec.timeout.map(|t| format!("{}ms", t.0)),
        "labels": spec.labels,
    })
}
