//! `peer key`: the keys that the servers' gossip is sealed with, replaced one step at a time.

use std::path::PathBuf;

use clap::Subcommand;
use prism_api::{GossipKeyInstall, GossipKeysView, Op};
use prism_client::Ask;
use serde_json::Value;

use crate::exit::{Done, Exit, Failure};
use crate::output::{Column, Format, Out, Table};
use crate::server::{Server, typed};

/// Look at the keys of the servers' gossip, and replace them.
#[derive(Subcommand, Debug)]
#[command(after_help = "\
A key is replaced in three steps; each is refused while a server has not
followed the one before:
  prismctl peer key install          # all open with it, none seals with it yet
  prismctl peer key use NEW          # all seal with it
  prismctl peer key remove OLD")]
pub enum KeyCommand {
    /// List the servers, and which keys each has; the one that it seals with first
    Ls,
    /// Give all servers another key, which seals nothing yet; its name is printed
    Install {
        /// File with the key as `pk1.KEY.CHECK` [default: a new key is made]
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
    },
    /// Let all servers seal with a key that all have
    Use {
        /// Name of the key, 8 hex digits
        key: String,
    },
    /// Let all servers forget a key that none seals with
    Remove {
        /// Name of the key, 8 hex digits
        key: String,
    },
}

impl KeyCommand {
    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        !matches!(self, Self::Ls)
    }
}

/// Does it.
///
/// # Errors
/// What the server says, or when a file cannot be read or the output not written.
pub async fn run(command: KeyCommand, server: &Server, out: &Out) -> Done {
    match command {
        KeyCommand::Ls => {
            let answer = server.ask(Ask::new(Op::KeyList)).await?;
            show(&answer, out)?;
        }
        KeyCommand::Install { key_file } => {
            let key = key_file.map(|path| {
                std::fs::read_to_string(&path).map_err(|e| {
                    Failure::defect(format!("cannot read {}: {e}", path.display()))
                        .because(prism_types::Reason::Invalid, "")
                })
            });
            let body = GossipKeyInstall {
                key: key.transpose()?,
            };
            let answer = server.ask(Ask::new(Op::KeyInstall).json(&body)).await?;
            let view: GossipKeysView = typed(&answer)?;
            followed(&view, out);
            match view.keys.last() {
                Some(new) if out.format == Format::Table => out.print(&format!("{}\n", new.id))?,
                _ => out.doc(&answer, Table::fields)?,
            }
        }
        KeyCommand::Use { key } => {
            let answer = server.ask(Ask::new(Op::KeyUse).at(&*key)).await?;
            followed(&typed(&answer)?, out);
            show(&answer, out)?;
        }
        KeyCommand::Remove { key } => {
            server.ask(Ask::new(Op::KeyRemove).at(&*key)).await?;
            out.note(&format!("gossip key {key} is forgotten by all servers"));
        }
    }
    Ok(Exit::Ok)
}

/// Says who has not followed yet.
fn followed(view: &GossipKeysView, out: &Out) {
    let wanted: Vec<&String> = view.keys.iter().map(|k| &k.id).collect();
    let behind = view.servers.iter().filter(|s| {
        let keys = s.keys.as_deref().unwrap_or_default();
        keys.first() != wanted.first().copied() || wanted.iter().any(|w| !keys.contains(w))
    });
    let names: Vec<String> = behind
        .map(|s| {
            s.name
                .as_ref()
                .map_or_else(|| s.id.to_string(), ToString::to_string)
        })
        .collect();
    if names.is_empty() {
        out.note("all servers have followed");
    } else {
        out.note(&format!(
            "not yet followed by {}, which does so when it is back",
            names.join(", ")
        ));
    }
}

fn show(answer: &Value, out: &Out) -> Result<(), Failure> {
    if out.format != Format::Table {
        return out.doc(answer, Table::fields);
    }
    let view: GossipKeysView = typed(answer)?;
    let mut t = Table::new([
        ("server", Column::Cut),
        ("seals with", Column::Whole),
        ("opens with", Column::Whole),
    ]);
    for server in view.servers {
        let name = server
            .name
            .map_or_else(|| server.id.to_string(), |n| n.to_string());
        let keys = server.keys.unwrap_or_default();
        let (first, all) = match keys.first() {
            Some(first) => (first.clone(), keys.join(" ")),
            None => ("no answer".to_owned(), "-".to_owned()),
        };
        t.row([name, first, all]);
    }
    out.table(&t)
}
