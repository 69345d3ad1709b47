//! `node`: the machines.

use std::time::Duration;

use clap::Subcommand;
use prism_api::{DrainBody, DrainView, NodeReadings, NodeView, Op};
use prism_types::{Fault, Reason, TimeMs};
use serde_json::Value;

use crate::exit::{Done, Exit, Failure};
use crate::listing::{ListArgs, WatchArgs, show};
use crate::output::{Column, Format, Out, Table, human};
use crate::server::{Server, now, typed, typed_all};
use prism_client::Ask;

/// How often it is looked whether a node is empty.
const LOOK: Duration = Duration::from_secs(1);

/// Look at the machines, and say which take new work.
#[derive(Subcommand, Debug)]
#[command(after_help = "\
Examples:
  prismctl node ls
  prismctl node top --watch
  prismctl node cordon n2        # what runs there goes on, nothing new comes
  prismctl node drain n2 --deadline 10m
                                 # empty it: what still runs after 10 minutes
                                 # is run elsewhere; waits until it is empty
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
    /// Empty a node: what runs there may end until a deadline, and is run elsewhere then
    #[command(after_help = "\
Nothing new is placed on the node, and tasks that wait there go elsewhere at
once. At the deadline tasks that still run are stopped and run elsewhere (that
uses up none of their retries), and sandboxes end. The command waits until the
node is empty; Ctrl-C ends the waiting only. Undo: prismctl node uncordon NODE")]
    Drain {
        /// Name or id
        node: String,
        /// How long what runs may go on; `none`: until it ends, `0`: not at all
        #[arg(long, default_value = "1h", value_name = "DURATION")]
        deadline: String,
        /// Do not wait until it is empty
        #[arg(short, long)]
        detach: bool,
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
            Self::Drain { node, .. }
            | Self::Cordon { node }
            | Self::Uncordon { node }
            | Self::Rm { node } => (Some(node.clone()), true),
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
        NodeCommand::Drain {
            node,
            deadline,
            detach,
        } => drain(server, out, &node, deadline, detach).await?,
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

/// Asks for it, and says how it goes until the node is empty.
async fn drain(
    server: &Server,
    out: &Out,
    node: &str,
    deadline: String,
    detach: bool,
) -> Result<(), Failure> {
    let body = DrainBody {
        deadline: Some(deadline),
    };
    let ask = Ask::new(Op::NodeDrain).at(node).json(&body);
    let mut answer = server.ask(ask).await?;
    let mut said = String::new();
    loop {
        let n: NodeView = typed(&answer)?;
        let Some(drain) = n.drain else {
            let why = format!("node {node} is not emptied any more: somebody uncordoned it");
            return Err(Failure::failed(Fault::Output, why).because(Reason::WrongState, ""));
        };
        if drain.phase == "done" {
            changed(&answer, out)?;
            out.note(&format!(
                "node {node} is empty and takes nothing new; take it away, or undo it with: prismctl node uncordon {node}"
            ));
            return Ok(());
        }
        if detach {
            changed(&answer, out)?;
            out.note(&format!(
                "node {node} is being emptied; see how far with: prismctl node info {node}"
            ));
            return Ok(());
        }
        let left = left_on(&n.name, &drain, now());
        if left != said {
            out.note(&left);
            said = left;
        }
        tokio::time::sleep(LOOK).await;
        answer = server.ask(Ask::new(Op::NodeGet).at(node)).await?;
    }
}

fn left_on(name: &str, drain: &DrainView, now: TimeMs) -> String {
    let what = format!(
        "node {name}: {} tasks and {} sandboxes are left",
        drain.tasks, drain.sandboxes
    );
    match (&*drain.phase, drain.deadline) {
        ("stopping", _) => format!("{what}, and are being stopped"),
        (_, Some(at)) => {
            let minutes = at.since(now).0.div_ceil(60_000);
            format!("{what}; they may go on for {minutes} minutes more")
        }
        (_, None) => format!("{what}; they go on until they end"),
    }
}

fn state(n: &NodeView) -> String {
    let flag = match (&n.drain, n.cordoned) {
        (Some(drain), _) if drain.phase == "done" => "DRAINED",
        (Some(_), _) => "DRAINING",
        (None, true) => "CORDONED",
        (None, false) => return n.state.as_str().to_owned(),
    };
    match n.state.as_str() {
        "HEALTHY" => flag.to_owned(),
        state => format!("{state},{flag}"),
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
        ("rtt", Column::ExtraRight),
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
            n.rtt_ms.map_or(String::new(), rtt),
            r.map_or(String::new(), |r| {
                if r.pressure { "yes" } else { "no" }.to_owned()
            }),
        ]);
    }
    Ok(t)
}

/// `0.3 ms`
fn rtt(ms: f64) -> String {
    format!("{ms:.1} ms")
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
    if let Some(drain) = n.drain.as_ref().filter(|d| d.phase != "done") {
        t.row(["drain", &left_on(&n.name, drain, now)]);
    }
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
    if let Some(ms) = n.rtt_ms {
        t.row(["round trip", &rtt(ms)]);
    }
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
