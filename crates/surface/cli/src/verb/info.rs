//! `info`: the cluster in one look.

use clap::Args;
use prism_api::{ClusterInfo, Op};
use prism_types::Resources;

use crate::exit::{Done, Exit};
use crate::listing::{WatchArgs, repeat};
use crate::output::{Out, Table, human};
use crate::server::{Server, typed};
use prism_client::Ask;

/// Nodes that do not answer and are named here.
const MISSING: usize = 8;

/// The cluster in one look.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  prismctl info
  prismctl info -o json
  prismctl --context lab info --watch")]
pub struct InfoArgs {
    #[command(flatten)]
    watch: WatchArgs,
}

/// Asks and shows.
///
/// # Errors
/// What the server says, or when the output cannot be written.
pub async fn run(args: &InfoArgs, server: &Server, out: &Out) -> Done {
    repeat(out, args.watch, async || {
        let answer = server.ask(Ask::new(Op::ClusterGet)).await?;
        let info: ClusterInfo = typed(&answer)?;
        Ok(out.shown(&answer, || fields(&info, server.address())))
    })
    .await?;
    Ok(Exit::Ok)
}

fn fields(info: &ClusterInfo, address: &str) -> Table {
    let mut t = Table::fields();
    let n = &info.nodes;
    let mut nodes = vec![format!("{} healthy", n.healthy)];
    for (count, what) in [
        (n.suspect, "suspect"),
        (n.offline, "offline"),
        (n.cordoned, "cordoned"),
    ] {
        if count > 0 {
            nodes.push(format!("{count} {what}"));
        }
    }
    let tasks = &info.tasks;
    let rows = [
        (
            "server",
            format!("{} at {address}, version {}", info.name, info.version),
        ),
        (
            "leader",
            info.leader.clone().unwrap_or_else(|| "none known".into()),
        ),
        ("servers", info.servers.to_string()),
        ("nodes", format!("{} ({})", n.total, nodes.join(", "))),
        (
            "jobs",
            format!(
                "{} active of {}",
                info.jobs_active,
                human::count(info.jobs_total.into())
            ),
        ),
        (
            "tasks",
            format!(
                "{} running, {} waiting, {} done of {}",
                human::count(tasks.running),
                human::count(tasks.queued + tasks.assigned + tasks.retrying),
                human::count(tasks.done()),
                human::count(tasks.total)
            ),
        ),
        ("sandboxes", info.sandboxes.to_string()),
        ("cpu", of(info, |r| r.cpu.to_string())),
        ("memory", of(info, |r| human::size(r.memory.0))),
        ("disk", of(info, |r| human::size(r.disk.0))),
        ("revision", human::count(info.revision)),
        (
            "up since",
            format!(
                "{} ({})",
                human::moment(info.started),
                human::age(info.started, info.now)
            ),
        ),
    ];
    for (name, value) in rows {
        t.row([name, &value]);
        if name == "nodes" {
            missing(&mut t, info);
        }
    }
    t
}

/// `missing  w2 is OFFLINE since 2026-03-01 12:30:05Z (3m)`, a line each, and not more of them than one can read.
fn missing(t: &mut Table, info: &ClusterInfo) {
    for (i, n) in info.missing.iter().take(MISSING).enumerate() {
        let (since, age) = (human::moment(n.since), human::age(n.since, info.now));
        let line = format!("{} is {} since {since} ({age})", n.name, n.state.as_str());
        t.row([if i == 0 { "missing" } else { "" }, &line]);
    }
    if let more @ 1.. = info.missing.len().saturating_sub(MISSING) {
        t.row(["", &format!("and {more} more: prismctl node ls")]);
    }
}

fn of(info: &ClusterInfo, f: impl Fn(&Resources) -> String) -> String {
    format!("{} allocated of {}", f(&info.allocated), f(&info.capacity))
}
