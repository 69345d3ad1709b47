//! `sandbox`: isolated Linuxes to run commands in and copy files to and from.

mod cp;
mod create;
mod exec;
mod terminal;

use clap::Subcommand;
use prism_api::{Op, SandboxView, SnapshotView, Stream};
use prism_client::{Ask, LogsQuery};
use prism_types::{SandboxState, TimeMs};
use serde_json::Value;

use super::job::copy;
use crate::exit::{Done, Exit, Failure};
use crate::listing::{ListArgs, show};
use crate::output::{Column, Out, Table, human};
use crate::server::{Server, now, typed, typed_all};

/// Make isolated Linuxes, and run commands and copy files in them.
#[derive(Subcommand, Debug)]
#[command(after_help = "\
Examples:
  prismctl sandbox create --name box --lifetime 30m
  prismctl sandbox exec box -- python3 -c 'print(6*7)'
  prismctl sandbox exec -i -t box -- bash
  prismctl sandbox cp ./data.csv box:data.csv
  prismctl sandbox snapshot box
  prismctl sandbox rm box

A sandbox is named by its id, or by its name.")]
pub enum SandboxCommand {
    /// Make a sandbox, and wait until it runs
    Create(create::CreateArgs),
    /// List sandboxes, newest first
    Ls {
        #[command(flatten)]
        list: ListArgs,
        /// Those that are over as well
        #[arg(short, long)]
        all: bool,
    },
    /// Show one sandbox
    Get {
        /// Id or name
        sandbox: String,
    },
    /// Run a command in a sandbox, and end as it ends
    Exec(exec::ExecArgs),
    /// Copy a file or directory into or out of a sandbox
    Cp(cp::CpArgs),
    /// Save the file system of a sandbox, to start others from
    Snapshot {
        /// Id or name
        sandbox: String,
        /// List what was saved before instead
        #[arg(long)]
        ls: bool,
    },
    /// Print the output of a sandbox's last command, or of another
    Logs {
        /// Id or name
        sandbox: String,
        /// Which command, by the id of its exec [default: the last]
        #[arg(long, value_name = "ID")]
        exec: Option<String>,
        /// Its standard error instead of its standard output
        #[arg(long)]
        stderr: bool,
        /// Go on until it ends
        #[arg(short, long)]
        follow: bool,
    },
    /// End sandboxes and remove their files
    Rm {
        /// Ids or names, whole
        #[arg(required = true)]
        sandboxes: Vec<String>,
    },
}

impl SandboxCommand {
    /// The sandbox it names, and whether it changes something.
    pub fn about(&self) -> (Option<String>, bool) {
        match self {
            Self::Create(_) => (None, true),
            Self::Ls { .. } | Self::Cp(_) => (None, false),
            Self::Get { sandbox } | Self::Logs { sandbox, .. } => (Some(sandbox.clone()), false),
            Self::Snapshot { sandbox, ls } => (Some(sandbox.clone()), !ls),
            Self::Exec(args) => (Some(args.sandbox.clone()), false),
            // Of several, the first ones are gone when a later one cannot be removed.
            Self::Rm { sandboxes } => (sandboxes.first().cloned(), sandboxes.len() == 1),
        }
    }
}

/// Does it.
///
/// # Errors
/// What the server says, or when the output cannot be written.
pub async fn run(command: SandboxCommand, server: &Server, out: &Out) -> Done {
    match command {
        SandboxCommand::Create(args) => return create::run(args, server, out).await,
        SandboxCommand::Ls { list, all } => {
            let ask = list
                .narrow(Ask::new(Op::SandboxList))
                .maybe("all", all.then_some(true));
            show(server, out, ask, list.limit, list.watch, listing).await?;
        }
        SandboxCommand::Get { sandbox } => {
            let answer = server.ask(Ask::new(Op::SandboxGet).at(sandbox)).await?;
            let view: SandboxView = typed(&answer)?;
            out.doc(&answer, || fields(&view, now()))?;
        }
        SandboxCommand::Exec(args) => return exec::run(args, server, out).await,
        SandboxCommand::Cp(args) => cp::run(&args, server, out).await?,
        SandboxCommand::Snapshot { sandbox, ls } => snapshot(&sandbox, ls, server, out).await?,
        SandboxCommand::Logs {
            sandbox,
            exec,
            stderr,
            follow,
        } => {
            let stream = if stderr {
                Stream::Stderr
            } else {
                Stream::Stdout
            };
            let mut query = LogsQuery {
                stream: Some(stream),
                offset: Some(0),
                follow,
                ..LogsQuery::default()
            };
            copy(out, &mut query, async |q| {
                Ok(server
                    .client()
                    .sandboxes()
                    .logs(&sandbox, exec.as_deref(), q)
                    .await?)
            })
            .await?;
        }
        SandboxCommand::Rm { sandboxes } => {
            for sandbox in sandboxes {
                server
                    .ask(Ask::new(Op::SandboxDelete).at(&*sandbox))
                    .await?;
                out.note(&format!("sandbox {sandbox} is removed"));
            }
        }
    }
    Ok(Exit::Ok)
}

async fn snapshot(sandbox: &str, ls: bool, server: &Server, out: &Out) -> Result<(), Failure> {
    if ls {
        let ask = Ask::new(Op::SnapshotList).at(sandbox);
        let watch = crate::listing::WatchArgs { watch: false };
        return show(server, out, ask, 1_000_000, watch, |items| {
            Ok(snapshots(&typed_all(items)?))
        })
        .await;
    }
    let ask = Ask::new(Op::SnapshotCreate)
        .at(sandbox)
        .patient(create::START_MAX);
    let answer = server.ask(ask).await?;
    let saved: SnapshotView = typed(&answer)?;
    out.doc(&answer, || snapshots(std::slice::from_ref(&saved)))?;
    out.note(&format!(
        "start another from it with `prismctl sandbox create --snapshot {}`",
        saved.id
    ));
    Ok(())
}

fn snapshots(all: &[SnapshotView]) -> Table {
    let mut t = Table::new([
        ("id", Column::Whole),
        ("sandbox", Column::Cut),
        ("size", Column::Right),
        ("files", Column::Right),
        ("created", Column::Whole),
    ]);
    for s in all {
        t.row([
            s.id.clone(),
            s.sandbox.to_string(),
            human::size(s.bytes),
            human::count(s.files),
            human::moment(s.created),
        ]);
    }
    t
}

fn listing(items: &[Value]) -> Result<Table, Failure> {
    let mut t = Table::new([
        ("id", Column::Whole),
        ("name", Column::Cut),
        ("status", Column::Whole),
        ("image", Column::Cut),
        ("node", Column::Cut),
        ("age", Column::ExtraRight),
        ("ends in", Column::ExtraRight),
    ]);
    let now = now();
    for s in typed_all::<SandboxView>(items)? {
        t.row([
            s.id.to_string(),
            s.name.unwrap_or_default(),
            s.status.to_string(),
            s.image,
            s.node.unwrap_or_default(),
            human::age(s.created, now),
            s.expires.map_or(String::new(), |at| human::age(now, at)),
        ]);
    }
    Ok(t)
}

fn fields(s: &SandboxView, now: TimeMs) -> Table {
    let mut t = Table::fields();
    t.row(["id", &s.id.to_string()]);
    if let Some(name) = &s.name {
        t.row(["name", name]);
    }
    t.row(["namespace", &s.namespace]);
    t.row(["status", s.status.as_str()]);
    if let Some(message) = s
        .message
        .as_ref()
        .filter(|_| s.status != SandboxState::Running)
    {
        t.row(["why", message]);
    }
    t.row(["image", &s.image]);
    if let Some(snapshot) = &s.snapshot {
        t.row(["snapshot", snapshot]);
    }
    t.row(["node", s.node.as_deref().unwrap_or("none yet")]);
    t.row(["cpu", &s.resources.cpu.to_string()]);
    t.row(["memory", &human::size(s.resources.memory.0)]);
    if s.resources.disk.0 > 0 {
        t.row(["disk", &human::size(s.resources.disk.0)]);
    }
    let labels: Vec<String> = s.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    if !labels.is_empty() {
        t.row(["labels", &labels.join(", ")]);
    }
    t.row(["created", &human::moment(s.created)]);
    if let Some(at) = s.expires {
        let left = at.since(now);
        let when = if left.0 > 0 {
            format!(" (in {})", human::duration(left))
        } else {
            String::new()
        };
        t.row(["ends", &format!("{}{when}", human::moment(at))]);
    }
    if let Some(at) = s.finished {
        t.row(["ended", &human::moment(at)]);
    }
    t
}
