//! Schemas of submissions: the fields of the files that people write, as `prism-spec` reads them from a request body.
//!
//! Written by hand, because the reader is one too; `tests/submissions.rs` holds the two together.

use serde_json::{Map, Value, json};

use crate::{Definitions, Described};

/// Puts the schemas that a submission of this kind needs into `defs`; answers with its name.
pub(crate) fn define(kind: &str, defs: &mut Definitions) -> &'static str {
    defs.entry("SubmittedFile".to_owned()).or_insert_with(file);
    defs.entry("SubmittedProgram".to_owned())
        .or_insert_with(program);
    let name = match kind {
        "job" => "JobSubmission",
        "sweep" => "SweepSubmission",
        _ => "SandboxSubmission",
    };
    if !defs.contains_key(name) {
        let schema = match kind {
            "job" => job(defs),
            "sweep" => sweep(defs),
            _ => sandbox(defs),
        };
        defs.insert(name.to_owned(), schema);
    }
    name
}

fn text(doc: &str) -> Value {
    json!({"type": "string", "description": doc})
}

fn count(doc: &str, least: u64) -> Value {
    json!({"type": "integer", "minimum": least, "description": doc})
}

fn name(doc: &str) -> Value {
    json!({"type": "string", "pattern": "^[a-z0-9-]{1,63}$", "description": doc})
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn duration(doc: &str) -> Value {
    json!({"type": ["string", "integer"], "description": format!("{doc}, such as 90s or 5m; a number is seconds")})
}

fn command(doc: &str) -> Value {
    let list =
        json!({"type": "array", "items": {"type": ["string", "number", "boolean"]}, "minItems": 1});
    json!({"anyOf": [list, {"type": "string"}], "description": format!("{doc}; a text is run by /bin/sh -c")})
}

fn table(doc: &str) -> Value {
    json!({
        "type": "object", "description": doc,
        "additionalProperties": {"type": ["string", "number", "boolean"]},
    })
}

fn files(doc: &str) -> Value {
    json!({"type": "array", "items": reference("SubmittedFile"), "description": doc})
}

fn object(doc: &str, required: &[&str], properties: Value) -> Value {
    json!({
        "type": "object", "description": doc, "required": required,
        "properties": properties, "additionalProperties": false,
    })
}

fn file() -> Value {
    object(
        "a file sent along, with its content",
        &["path"],
        json!({
            "path": text("relative path beneath the working directory"),
            "mode": {"type": ["string", "integer"], "description": "permission bits in octal"},
            "content": text("the content, if it is text"),
            "content_base64": text("the content in base 64"),
        }),
    )
}

fn program() -> Value {
    object(
        "something that can be run: a command, a script, or both",
        &[],
        json!({
            "command": command("program and arguments"),
            "script": reference("SubmittedFile"),
            "files": files("files only for it"),
        }),
    )
}

fn shared(defs: &mut Definitions) -> Map<String, Value> {
    let fields = json!({
        "namespace": name("whose it is; default unless said"),
        "env": table("environment; names that start with PRISM_ are refused"),
        "image": text("root file system: host, or a loaded image"),
        "resources": prism_types::Resources::schema(defs),
        "pids": count("most processes and threads", 1),
        "timeout": duration("longest time; 0 for no limit"),
        "labels": table("for finding it again"),
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn batch(defs: &mut Definitions) -> Map<String, Value> {
    let mut fields = shared(defs);
    let wait = || {
        json!({
            "initial": duration("first wait"),
            "factor": {"type": "number", "minimum": 1, "maximum": 10},
            "jitter": {"type": "number", "minimum": 0, "maximum": 1},
        })
    };
    let mut backoff = wait();
    backoff["max"] = duration("longest wait");
    let mut retries = wait();
    retries["max_delay"] = duration("longest wait");
    retries["max"] = count("how often", 0);
    let more = json!({
        "group": name("jobs of one group can be waited for together"),
        "task": text("one sentence: what it is for"),
        "command": command("program and arguments, with placeholders such as {index}"),
        "script": reference("SubmittedFile"),
        "files": files("files for every task"),
        "isolation": {"type": "string", "enum": ["sandbox", "none"]},
        "retries": {
            "anyOf": [count("how often", 0), object("how often, and how long between", &["max"], retries)],
            "description": "how often a failed task is tried again",
        },
        "backoff": object("how long between tries", &[], backoff),
        "concurrency": count("most tasks at once", 1),
        "priority": {"type": "integer", "minimum": -100, "maximum": 100},
        "max_failures": count("failed tasks after which the rest is cancelled", 0),
        "after": {
            "type": ["string", "array"], "items": {"type": "string"},
            "description": "jobs or groups that must complete first",
        },
    });
    if let Value::Object(more) = more {
        fields.extend(more);
    }
    fields
}

fn job(defs: &mut Definitions) -> Value {
    let mut fields = batch(defs);
    let task = object(
        "one task",
        &[],
        json!({"name": name("its name"), "command": command("program and arguments"), "env": table("its environment")}),
    );
    let lines =
        json!({"type": "array", "items": {"type": ["string", "number", "boolean"]}, "minItems": 1});
    fields.insert("job".to_owned(), name("its name"));
    fields.insert(
        "single_instance".to_owned(),
        json!({"type": "boolean", "description": "no task of it ever runs twice at the same time"}),
    );
    fields.insert(
        "array".to_owned(),
        count("the same command so many times", 1),
    );
    fields.insert(
        "tasks".to_owned(),
        json!({"type": "array", "items": task, "minItems": 1, "description": "each task spelled out"}),
    );
    fields.insert(
        "map".to_owned(),
        object(
            "one task for each line",
            &["lines"],
            json!({"lines": lines}),
        ),
    );
    object(
        "a job: array, tasks or map, as in the files of prismctl job submit",
        &["job"],
        Value::Object(fields),
    )
}

fn sweep(defs: &mut Definitions) -> Value {
    let mut fields = batch(defs);
    let metric =
        json!({"maximize": text("field of the result"), "minimize": text("field of the result")});
    let halving = object(
        "successive halving",
        &[],
        json!({
            "metric": text("field of the lines printed while it runs"),
            "direction": {"type": "string", "enum": ["maximize", "minimize"]},
            "rounds": count("rungs", 1),
            "factor": count("which part goes on: one in so many", 2),
            "first": count("lines before the first rung", 1),
        }),
    );
    let random = object(
        "points at random",
        &["random"],
        json!({"random": count("points", 1), "seed": count("the same points for the same seed", 0)}),
    );
    let dimension = json!({
        "description": "a list of values, or one of choice, range, uniform and log_uniform",
        "anyOf": [{"type": "array", "items": {}}, object("", &[], json!({
            "choice": {"type": "array", "items": {}},
            "range": {"type": "array", "items": {"type": "integer"}},
            "uniform": {"type": "array", "items": {"type": "number"}},
            "log_uniform": {"type": "array", "items": {"type": "number"}},
            "steps": count("points on a grid", 1),
        }))],
    });
    let program = reference("SubmittedProgram");
    let more = json!({
        "sweep": name("its name"),
        "runners": {"type": "object", "additionalProperties": program, "description": "runners by name"},
        "space": {"type": "object", "additionalProperties": dimension, "description": "parameters by name"},
        "search": {"anyOf": [{"type": "string", "enum": ["grid"]}, random]},
        "objective": object("what is best", &[], metric),
        "early_stop": object("when to give a beam up", &["halving"], json!({"halving": halving})),
        "aggregate": {"anyOf": [program, command("runs over results.json")]},
    });
    if let Value::Object(more) = more {
        fields.extend(more);
    }
    object(
        "a sweep, as in the files of prismctl sweep run",
        &["sweep"],
        Value::Object(fields),
    )
}

fn sandbox(defs: &mut Definitions) -> Value {
    let mut fields = shared(defs);
    fields.insert("sandbox".to_owned(), name("its name; the same as name"));
    fields.insert("name".to_owned(), name("its name, unique among the living"));
    fields.insert("snapshot".to_owned(), text("snapshot to start from"));
    fields.insert(
        "timeout".to_owned(),
        json!({"anyOf": [duration("its lease of life; 1h unless said, 0 or null for ever"), {"type": "null"}]}),
    );
    object("a sandbox", &[], Value::Object(fields))
}
