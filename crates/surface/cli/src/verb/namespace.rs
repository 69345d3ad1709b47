//! `namespace`: what belongs together, and how much of it may be in use at once.

use clap::{Args, Subcommand};
use prism_api::{NamespaceView, Op, Quota};
use prism_client::Ask;
use prism_types::{Bytes, MilliCpu, Name};
use serde_json::Value;

use crate::exit::{Done, Exit, Failure};
use crate::listing::{WatchArgs, show};
use crate::output::{Column, Out, Table, human};
use crate::server::{Server, now, typed, typed_all};

/// Make namespaces, and say how much of the machines each may use.
#[derive(Subcommand, Debug)]
#[command(after_help = "\
Examples:
  prismctl namespace create team --cpu 8 --memory 16Gi --sandboxes 10
  prismctl namespace set team --cpu 16 --sandboxes none
  prismctl namespace ls
  prismctl namespace rm team")]
pub enum NamespaceCommand {
    /// Make one
    Create {
        /// Its name
        name: Name,
        #[command(flatten)]
        /// Its quota.
        quota: QuotaArgs,
    },
    /// List them, with what is in use of what
    Ls(WatchArgs),
    /// Change the quota of one; what is not said stays as it is
    Set {
        /// Its name
        name: Name,
        #[command(flatten)]
        /// What changes of its quota.
        quota: QuotaArgs,
    },
    /// Remove one in which nothing lives
    Rm {
        /// Its name
        name: Name,
    },
}

/// A quota on the command line; `none` is no limit.
#[derive(Args, Clone, Debug)]
pub struct QuotaArgs {
    /// Processor time that its tasks and sandboxes may be given at once, such as 8 or 500m; `none` for no limit
    #[arg(long, value_name = "CPU", value_parser = limit::<MilliCpu>)]
    cpu: Option<Limit<MilliCpu>>,
    /// Memory that they may be given at once, such as 16Gi
    #[arg(long, value_name = "SIZE", value_parser = limit::<Bytes>)]
    memory: Option<Limit<Bytes>>,
    /// Disk that they may be given at once
    #[arg(long, value_name = "SIZE", value_parser = limit::<Bytes>)]
    disk: Option<Limit<Bytes>>,
    /// Tasks that may run at once
    #[arg(long, value_name = "N", value_parser = limit::<u32>)]
    instances: Option<Limit<u32>>,
    /// Sandboxes that may live at once
    #[arg(long, value_name = "N", value_parser = limit::<u32>)]
    sandboxes: Option<Limit<u32>>,
}

/// An amount, or none: no limit.
#[derive(Clone, Copy, Debug)]
struct Limit<T>(Option<T>);

fn limit<T: std::str::FromStr>(text: &str) -> Result<Limit<T>, String>
where
    T::Err: std::fmt::Display,
{
    match text {
        "none" => Ok(Limit(None)),
        text => {
            let amount = text.parse().map_err(|why: T::Err| why.to_string());
            amount.map(|amount| Limit(Some(amount)))
        }
    }
}

impl QuotaArgs {
    /// A quota in which what is said here replaces what was.
    fn over(&self, old: Quota) -> Quota {
        Quota {
            cpu: self.cpu.map_or(old.cpu, |limit| limit.0),
            memory: self.memory.map_or(old.memory, |limit| limit.0),
            disk: self.disk.map_or(old.disk, |limit| limit.0),
            instances: self.instances.map_or(old.instances, |limit| limit.0),
            sandboxes: self.sandboxes.map_or(old.sandboxes, |limit| limit.0),
        }
    }
}

const UNLIMITED: Quota = Quota {
    cpu: None,
    memory: None,
    disk: None,
    instances: None,
    sandboxes: None,
};

impl NamespaceCommand {
    /// What it is about, and whether it changes anything.
    pub fn about(&self) -> (Option<String>, bool) {
        match self {
            Self::Create { name, .. } | Self::Set { name, .. } | Self::Rm { name } => {
                (Some(name.to_string()), true)
            }
            Self::Ls(_) => (None, false),
        }
    }
}

/// Does it.
///
/// # Errors
/// What the server says, or when the output cannot be written.
pub async fn run(command: NamespaceCommand, server: &Server, out: &Out) -> Done {
    match command {
        NamespaceCommand::Create { name, quota } => {
            let answer = put(server, &name, &quota.over(UNLIMITED), true).await?;
            out.doc(&answer, || fields(&answer))?;
        }
        NamespaceCommand::Set { name, quota } => {
            let known = Ask::new(Op::NamespaceGet).at(name.as_str());
            let known: NamespaceView = typed(&server.ask(known).await?)?;
            let old = Quota {
                cpu: known.quota.cpu,
                memory: known.quota.memory,
                disk: known.quota.disk,
                instances: known.quota.instances,
                sandboxes: known.quota.sandboxes,
            };
            let answer = put(server, &name, &quota.over(old), false).await?;
            out.doc(&answer, || fields(&answer))?;
        }
        NamespaceCommand::Ls(watch) => {
            let ask = Ask::new(Op::NamespaceList);
            show(server, out, ask, 1_000_000, watch, listing).await?;
        }
        NamespaceCommand::Rm { name } => {
            let ask = Ask::new(Op::NamespaceRemove).at(name.as_str());
            server.ask(ask).await?;
            out.note(&format!("namespace {name} is removed"));
        }
    }
    Ok(Exit::Ok)
}

async fn put(server: &Server, name: &Name, quota: &Quota, new: bool) -> Result<Value, Failure> {
    let ask = Ask::new(Op::NamespacePut).at(name.as_str());
    server.ask(ask.query("new", new).json(quota)).await
}

/// Such as `2 of 8`; what is not limited is the amount alone.
fn of(used: String, most: Option<String>) -> String {
    match most {
        Some(most) => format!("{used} of {most}"),
        None => used,
    }
}

fn columns(n: &NamespaceView) -> [(&'static str, String); 5] {
    let (u, q) = (&n.used, &n.quota);
    let size = |bytes: Bytes| human::size(bytes.0);
    [
        ("cpu", of(u.cpu.to_string(), q.cpu.map(|c| c.to_string()))),
        ("memory", of(size(u.memory), q.memory.map(size))),
        ("disk", of(size(u.disk), q.disk.map(size))),
        (
            "instances",
            of(u.instances.to_string(), q.instances.map(|n| n.to_string())),
        ),
        (
            "sandboxes",
            of(u.sandboxes.to_string(), q.sandboxes.map(|n| n.to_string())),
        ),
    ]
}

fn fields(answer: &Value) -> Table {
    let mut t = Table::fields();
    if let Ok(n) = typed::<NamespaceView>(answer) {
        t.row(["name", n.name.as_str()]);
        for (name, text) in columns(&n) {
            t.row([name, &text]);
        }
        t.row(["jobs", &n.used.jobs.to_string()]);
    }
    t
}

fn listing(items: &[Value]) -> Result<Table, Failure> {
    let mut t = Table::new([
        ("name", Column::Whole),
        ("cpu", Column::Whole),
        ("memory", Column::Whole),
        ("disk", Column::Whole),
        ("instances", Column::Whole),
        ("sandboxes", Column::Whole),
        ("jobs", Column::Right),
        ("age", Column::Right),
    ]);
    let now = now();
    for n in typed_all::<NamespaceView>(items)? {
        let [cpu, memory, disk, instances, sandboxes] = columns(&n).map(|(_, text)| text);
        let age = match n.created.0 {
            0 => String::new(),
            _ => human::age(n.created, now),
        };
        let jobs = n.used.jobs.to_string();
        let name = n.name.to_string();
        t.row([name, cpu, memory, disk, instances, sandboxes, jobs, age]);
    }
    Ok(t)
}
