//! `peer`: the servers that keep the cluster's state.

use clap::Subcommand;
use prism_api::{Op, PeerView};
use prism_client::Ask;
use serde_json::Value;

use crate::exit::{Done, Exit, Failure};
use crate::listing::{ListArgs, show};
use crate::output::{Column, Out, Table};
use crate::server::{Server, typed_all};

/// Look at the servers that keep the cluster's state, and take one out.
#[derive(Subcommand, Debug)]
#[command(after_help = "\
Examples:
  prismctl peer ls
  prismctl peer rm n3            # for good; it may join again, with nothing
  prismctl peer key ls           # the keys of the servers' gossip")]
pub enum PeerCommand {
    /// List the servers: who leads, who votes, who is behind
    Ls(ListArgs),
    /// Take a server out of the cluster for good
    Rm {
        /// Name, id or number
        peer: String,
    },
    /// Look at the keys of the servers' gossip, and replace them
    #[command(subcommand)]
    Key(super::peer_key::KeyCommand),
}

impl PeerCommand {
    /// The server it names, and whether it changes something.
    pub fn about(&self) -> (Option<String>, bool) {
        match self {
            Self::Ls(_) => (None, false),
            Self::Rm { peer } => (Some(peer.clone()), true),
            Self::Key(command) => (None, command.changes()),
        }
    }
}

/// Does it.
///
/// # Errors
/// What the server says, or when the output cannot be written.
pub async fn run(command: PeerCommand, server: &Server, out: &Out) -> Done {
    match command {
        PeerCommand::Ls(list) => {
            let ask = list.narrow(Ask::new(Op::PeerList));
            show(server, out, ask, list.limit, list.watch, listing).await?;
        }
        PeerCommand::Rm { peer } => {
            server.ask(Ask::new(Op::PeerRemove).at(&*peer)).await?;
            out.note(&format!("server {peer} is taken out of the cluster"));
        }
        PeerCommand::Key(command) => return super::peer_key::run(command, server, out).await,
    }
    Ok(Exit::Ok)
}

fn round_trip(us: u64) -> String {
    let (whole, tenths) = (us / 1_000, us % 1_000 / 100);
    format!("{whole}.{tenths} ms")
}

fn listing(items: &[Value]) -> Result<Table, Failure> {
    let mut t = Table::new([
        ("name", Column::Cut),
        ("number", Column::Right),
        ("state", Column::Whole),
        ("behind", Column::Right),
        ("gossip", Column::Whole),
        ("rtt", Column::Right),
        ("address", Column::Whole),
        ("stays because", Column::Cut),
        ("id", Column::Extra),
    ]);
    for p in typed_all::<PeerView>(items)? {
        let away = p.heard_ms.is_none_or(|ms| ms > 3_000);
        let state = match (p.leader, away, p.voter) {
            (true, ..) => "leader",
            (false, true, _) => "away",
            (false, false, true) => "voter",
            // It lacks entries, or, where an etcd keeps the state, there is nothing for it to lack.
            (false, false, false) if p.behind.is_some() => "learns",
            (false, false, false) => "follows",
        };
        t.row([
            p.name.map_or_else(|| "-".to_owned(), |n| n.to_string()),
            p.number.to_string(),
            state.to_owned(),
            p.behind.map_or_else(|| "-".to_owned(), |n| n.to_string()),
            p.gossip.map_or_else(|| "-".to_owned(), |g| g.to_string()),
            p.round_trip_us.map_or_else(|| "-".to_owned(), round_trip),
            p.address,
            p.stays.unwrap_or_else(|| "-".to_owned()),
            p.id.map_or_else(|| "-".to_owned(), |id| id.to_string()),
        ]);
    }
    Ok(t)
}
