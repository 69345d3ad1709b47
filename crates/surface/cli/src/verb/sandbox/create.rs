//! `sandbox create`: from flags or a file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use prism_api::{Op, SandboxCreate, SandboxView};
use prism_client::Ask;
use prism_spec::{Document, sandbox_to_wire};
use prism_types::{Bytes, MilliCpu, Name, SandboxState};
use serde_json::{Value, json};

use crate::exit::{Done, Exit, Failure};
use crate::output::{Format, Out, Table};
use crate::server::{Server, typed};
use crate::spec_file;
use crate::verb::token::duration_text;

/// How long a start may take on top of the usual patience (unpacking a snapshot).
pub const START_MAX: Duration = Duration::from_secs(120);

/// Make a sandbox, and wait until it runs.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  prismctl sandbox create
  prismctl sandbox create --name box --memory 1Gi --lifetime 2h
  prismctl sandbox create --snapshot ID
  prismctl sandbox create box.yaml

The id is printed on standard output.")]
pub struct CreateArgs {
    /// Sandbox file in YAML, JSON or TOML; flags come before what it says
    file: Option<PathBuf>,
    /// Its name; unique among the living
    #[arg(long)]
    name: Option<Name>,
    /// Root file system: `host`, or a loaded image [default: host]
    #[arg(long)]
    image: Option<String>,
    /// Start from this snapshot
    #[arg(long, value_name = "ID")]
    snapshot: Option<String>,
    /// Processor time, such as 500m
    #[arg(long)]
    cpu: Option<MilliCpu>,
    /// Memory, such as 256Mi
    #[arg(long)]
    memory: Option<Bytes>,
    /// Disk for its files, such as 1Gi [default: they live in its memory]
    #[arg(long)]
    disk: Option<Bytes>,
    /// Remove it after this time, such as 30m [default: it lives until it is removed]
    #[arg(long, value_name = "TIME", value_parser = duration_text)]
    lifetime: Option<String>,
    /// Environment of every command; may be repeated
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// For finding it again; may be repeated
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Do not wait until it runs
    #[arg(long)]
    no_wait: bool,
}

/// `NAME=VALUE` in two.
pub fn pair(s: &str) -> Result<(String, String), String> {
    match s.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// Makes it.
///
/// # Errors
/// When the file is wrong, what the server says, or when it could not start.
pub async fn run(args: CreateArgs, server: &Server, out: &Out) -> Done {
    let wait = !args.no_wait;
    let body = body(args, server.target().namespace.as_ref())?;
    let ask = Ask::new(Op::SandboxCreate)
        .query("wait", wait)
        .json(&body)
        .patient(START_MAX);
    let answer = server.ask(ask).await?;
    let view: SandboxView = typed(&answer)?;
    if out.format == Format::Table {
        out.print(&format!("{}\n", view.id))?;
    } else {
        out.doc(&answer, Table::fields)?;
    }
    if view.status == SandboxState::Failed {
        let why = view
            .message
            .unwrap_or_else(|| "the server does not say why".to_owned());
        let failure = Failure::defect(format!("sandbox {} could not start: {why}", view.id))
            .next(format!("prismctl explain {}", view.id));
        return Err(match view.reason {
            Some(reason) => failure.because(reason, ""),
            None => failure,
        });
    }
    if !view.status.is_final() && view.status != SandboxState::Running && wait {
        let id = view.id;
        out.note(&format!(
            "it is still {}; see why: prismctl explain {id}",
            view.status
        ));
    }
    Ok(Exit::Ok)
}

/// The file's fields with the flags laid over them.
fn body(args: CreateArgs, namespace: Option<&Name>) -> Result<Value, Failure> {
    let mut body = match &args.file {
        None => json!({}),
        Some(path) => match spec_file::document(path)?.0 {
            Document::Sandbox(spec) => sandbox_to_wire(&spec),
            other => {
                let text = format!("{} holds a {}, not a sandbox", path.display(), other.noun());
                return Err(Failure::invalid(text).next(format!("prismctl run {}", path.display())));
            }
        },
    };
    let map = |pairs: Vec<(String, String)>| {
        Some(pairs.into_iter().collect::<BTreeMap<_, _>>()).filter(|m| !m.is_empty())
    };
    let flags = SandboxCreate {
        name: args.name.map(|n| n.to_string()),
        namespace: namespace.map(ToString::to_string),
        image: args.image,
        snapshot: args.snapshot,
        resources: None,
        pids: None,
        env: map(args.env),
        timeout: args.lifetime,
        labels: map(args.labels),
    };
    let flags = serde_json::to_value(flags).expect("wire types have only text keys");
    for (name, value) in flags.as_object().into_iter().flatten() {
        if !value.is_null() {
            body[name] = value.clone();
        }
    }
    let resources = [
        ("cpu", args.cpu.map(|v| json!(v))),
        ("memory", args.memory.map(|v| json!(v))),
        ("disk", args.disk.map(|v| json!(v))),
    ];
    for (name, value) in resources {
        if let Some(value) = value {
            body["resources"][name] = value;
        }
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: CreateArgs,
    }

    #[test]
    fn flags_come_before_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("box.yaml");
        std::fs::write(&path, "sandbox: box\nresources: {cpu: 1, memory: 64Mi}\n").unwrap();
        let line = [
            "create",
            path.to_str().unwrap(),
            "--memory",
            "128Mi",
            "-e",
            "A=b=c",
            "--lifetime",
            "5m",
        ];
        let body = body(Line::try_parse_from(line).unwrap().args, None).unwrap();
        assert_eq!(body["name"], "box");
        assert_eq!(body["resources"]["memory"], "128Mi");
        assert_eq!(body["resources"]["cpu"], "1");
        assert_eq!(body["env"]["A"], "b=c");
        assert_eq!(body["timeout"], "5m");
        assert!(Line::try_parse_from(["create", "-e", "x"]).is_err());
        assert!(Line::try_parse_from(["create", "--lifetime", "soon"]).is_err());
    }
}
