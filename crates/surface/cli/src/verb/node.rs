//! `node`: the machines.

use clap::Subcommand;
use prism_api::{NodeReadings, NodeView, Op};
use prism_types::TimeMs;
use serde_json::Value;

use crate::exit::{Done, Exit, Failure};
use crate::listing::{ListArgs, WatchArgs, show};
use crate::output::{Column, Format, Out, Table, human};
use crate::server::{Server, now, typed, typed_all};
use prism_client::Ask;

/// Look at the machines, and say which take new work.
#[derive(Subcommand, Debug)]
#[command(after_help = "\
Examples:
  prismctl node ls
  prismctl node top --watch
  prismctl node cordon n2        # what runs there goes on, nothing new comes
  prismctl node rm n2            # when nothing runs there any more")]
pub enum NodeCommand {
    /// List the nodes
    Ls(ListArgs),
    /// Show what each node measures now
    Top(WatchArgs),
    /// Show one node
    Info {
        /// Name or id
        node: String,
    },
    /// Place nothing new on a node; what runs there goes on
    Cordon {
        /// Name or id
        node: String,
    },
    /// Place work on a node again
    Uncordon {
        /// Name or id
        node: String,
    },
    /// Forget a node that has no work; one that has joined is kept out from then on
    Rm {
        /// Name or id
        node: String,
    },
}

impl NodeCommand {
    /// The node it names, and whether it changes something.
    pub fn about(&self) -> (Option<String>, bool) {
        match self {
            Self::Ls(_) | Self::Top(_) => (None, false),
            Self::Info { node } => (Some(node.clone()), false),
            Self::Cordon { node } | Self::Uncordon { node } | Self::Rm { node } => {
                (Some(node.clone()), true)
            }
        }
    }
}

/// Does it.
///
/// # Errors
/// What the server says, or when the output cannot be written.
pub async fn run(command: NodeCommand, server: &Server, out: &Out) -> Done {
    match command {
        NodeCommand::Ls(list) => {
            let ask = list.narrow(Ask::new(Op::NodeList));
            show(server, out, ask, list.limit, list.watch, listing).await?;
        }
        NodeCommand::Top(watch) => {
            show(server, out, Ask::new(Op::NodeList), 1_000_000, watch, top).await?;
        }
        NodeCommand::Info { node } => {
            let answer = server.ask(Ask::new(Op::NodeGet).at(node)).await?;
            one(&answer, out)?;
        }
        NodeCommand::Cordon { node } => {
            let answer = server.ask(Ask::new(Op::NodeCordon).at(&*node)).await?;
            changed(&answer, out)?;
            out.note(&format!(
                "node {node} takes no new work; what runs there goes on. Undo it with: prismctl node uncordon {node}"
            ));
        }
        NodeCommand::Uncordon { node } => {
            let answer = server.ask(Ask::new(Op::NodeUncordon).at(&*node)).await?;
            changed(&answer, out)?;
            out.note(&format!("node {node} takes new work"));
        }
        NodeCommand::Rm { node } => {
            server.ask(Ask::new(Op::NodeRemove).at(&*node)).await?;
            out.note(&format!("node {node} is forgotten"));
        }
    }
    Ok(Exit::Ok)
}

fn state(n: &NodeView) -> String {
    match (n.cordoned, n.state.as_str()) {
        (true, "HEALTHY") => "CORDONED".to_owned(),
        (true, state) => format!("{state},CORDONED"),
        (false, state) => state.to_owned(),
    }
}

fn listing(items: &[Value]) -> Result<Table, Failure> {
    let mut t = Table::new([
        ("name", Column::Cut),
        ("state", Column::Whole),
        ("cpu", Column::Right),
        ("memory", Column::Right),
        ("running", Column::Right),
        ("heard", Column::Right),
        ("id", Column::Extra),
        ("system", Column::Extra),
    ]);
    let now = now();
    for n in typed_all::<NodeView>(items)? {
        t.row([
            n.name.clone(),
            state(&n),
            format!("{}/{}", n.allocated.cpu, n.capacity.cpu),
            format!(
                "{}/{}",
                human::size(n.allocated.memory.0),
                human::size(n.capacity.memory.0)
            ),
            n.readings
                .as_ref()
                .map_or(String::new(), |r| (r.running + r.sandboxes).to_string()),
            n.last_heartbeat
                .map_or("never".into(), |at| human::age(at, now)),
            n.id.to_string(),
            n.facts.as_ref().map_or(String::new(), |f| f.os.clone()),
        ]);
    }
    Ok(t)
}

fn top(items: &[Value]) -> Result<Table, Failure> {
    let mut t = Table::new([
        ("name", Column::Cut),
        ("state", Column::Whole),
        ("cpu", Column::Right),
        ("load", Column::ExtraRight),
        ("memory", Column::Right),
        ("disk", Column::Right),
        ("running", Column::Right),
        ("waiting", Column::ExtraRight),
        ("boxes", Column::Right),
        ("pressure", Column::ExtraRight),
    ]);
    for n in typed_all::<NodeView>(items)? {
        let r = n.readings.as_ref();
        t.row([
            n.name.clone(),
            state(&n),
            r.and_then(|r| r.cpu).map_or(String::new(), human::percent),
            r.and_then(|r| r.load)
                .map_or(String::new(), |l| format!("{:.2}", l[0])),
            r.map_or(String::new(), |r| share(r.memory_used, r.memory_total)),
            r.map_or(String::new(), |r| share(r.disk_used, r.disk_total)),
            count(r, |r| r.running),
            count(r, |r| r.waiting),
            count(r, |r| r.sandboxes),
            r.map_or(String::new(), |r| {
                if r.pressure { "yes" } else { "no" }.to_owned()
            }),
        ]);
    }
    Ok(t)
}

fn count(r: Option<&NodeReadings>, f: impl Fn(&NodeReadings) -> u32) -> String {
    r.map_or(String::new(), |r| f(r).to_string())
}

/// `3.1 GiB (13%)`, or nothing where the host does not tell.
fn share(used: Option<u64>, total: Option<u64>) -> String {
    match (used, total) {
        (Some(used), Some(total)) if total > 0 => {
            format!(
                "{} ({})",
                human::size(used),
                human::percent(used as f64 / total as f64)
            )
        }
        (Some(used), _) => human::size(used),
        (None, _) => String::new(),
    }
}

/// People are told in a sentence; programs get the node.
fn changed(answer: &Value, out: &Out) -> Result<(), Failure> {
    match out.format {
        Format::Table => Ok(()),
        _ => one(answer, out),
    }
}

fn one(answer: &Value, out: &Out) -> Result<(), Failure> {
    let n: NodeView = typed(answer)?;
    out.doc(answer, || fields(&n, now()))
}

fn fields(n: &NodeView, now: TimeMs) -> Table {
    let mut t = Table::fields();
    let labels: Vec<String> = n.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    t.row(["name", &n.name]);
    t.row(["id", &n.id.to_string()]);
    t.row(["state", &state(n)]);
    t.row(["labels", &labels.join(", ")]);
    t.row([
        "cpu",
        &format!("{} allocated of {}", n.allocated.cpu, n.capacity.cpu),
    ]);
    for (name, used, all) in [
        ("memory", n.allocated.memory.0, n.capacity.memory.0),
        ("disk", n.allocated.disk.0, n.capacity.disk.0),
    ] {
        t.row([
            name,
            &format!("{} allocated of {}", human::size(used), human::size(all)),
        ]);
    }
    let heard = n.last_heartbeat.map_or("never".to_owned(), |at| {
        match human::age(at, now).as_str() {
            "now" => "just now".to_owned(),
            age => format!("{age} ago"),
        }
    });
    t.row(["heard of", &heard]);
    if let Some(f) = &n.facts {
        t.row(["host", &f.hostname]);
        t.row([
            "system",
            &format!("{}, kernel {}, {}", f.os, f.kernel, f.arch),
        ]);
        t.row(["processors", &f.cpus.to_string()]);
        t.row(["version", &f.version]);
        for (i, line) in f.sandbox.iter().enumerate() {
            t.row([if i == 0 { "sandbox" } else { "" }, line]);
        }
    }
    if let Some(r) = &n.readings {
        let load = r.load.map_or("not available".into(), |l| {
            format!("{:.2} {:.2} {:.2}", l[0], l[1], l[2])
        });
        t.row([
            "cpu in use",
            &r.cpu.map_or("not available".into(), human::percent),
        ]);
        t.row(["load", &load]);
        t.row(["memory in use", &share(r.memory_used, r.memory_total)]);
        t.row(["disk in use", &share(r.disk_used, r.disk_total)]);
        t.row([
            "tasks",
            &format!("{} running, {} waiting", r.running, r.waiting),
        ]);
        t.row(["sandboxes", &r.sandboxes.to_string()]);
        t.row([
            "pressure",
            if r.pressure {
                "yes: takes no new work"
            } else {
                "no"
            },
        ]);
    }
    t
}
