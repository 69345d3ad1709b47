//! `ca`: who belongs to the cluster, and who is kept out.

use clap::{Args, Subcommand};
use prism_api::{CaAllow, CaDeny, CaRotate, CaView, Op, RotationView};
use prism_client::Ask;
use serde_json::Value;

use crate::exit::{Done, Exit, Failure};
use crate::output::{Column, Format, Out, Table, human};
use crate::server::{Server, now, typed};
use crate::verb::issue::{self, IssueArgs};

/// See who belongs to the cluster, and keep somebody out.
#[derive(Subcommand, Debug)]
#[command(after_help = "\
Examples:
  prismctl ca status
  prismctl ca deny w7 --why 'stolen'     # within seconds, connected or not
  prismctl ca allow w7
  prismctl ca issue ada --role operator --expires-in 30d
  prismctl ca rotate                     # a new root, while all goes on
  prismctl ca rotate --finish            # end it; who is missing joins again")]
pub enum CaCommand {
    /// Show the cluster's root, its members, and who is kept out
    Status,
    /// Make a certificate that is shown to the API instead of a token
    Issue(IssueArgs),
    /// Change the cluster's root while everything goes on
    Rotate {
        /// End it now: whoever has no certificate of the new root joins again
        #[arg(long, conflicts_with = "again")]
        finish: bool,
        /// Begin again with another root: the server that made the new one is lost
        #[arg(long)]
        again: bool,
    },
    /// Keep a machine or a certificate out; its connections are closed
    Deny {
        /// Who
        #[command(flatten)]
        whom: WhomArgs,
        /// Why, for those who see the list
        #[arg(
            long,
            value_name = "TEXT",
            default_value = "denied by an administrator"
        )]
        why: String,
    },
    /// Let it come again
    Allow {
        /// Who
        #[command(flatten)]
        whom: WhomArgs,
    },
}

/// A machine or a certificate.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct WhomArgs {
    /// Name or id of the machine
    node: Option<String>,
    /// SHA-256 of the certificate, 64 hex digits
    #[arg(long, value_name = "SHA256")]
    certificate: Option<String>,
}

impl WhomArgs {
    fn text(&self) -> &str {
        let either = self.node.as_ref().or(self.certificate.as_ref());
        either.map_or("", String::as_str)
    }
}

impl CaCommand {
    /// Whether it changes anything.
    pub fn changes(&self) -> bool {
        !matches!(self, Self::Status)
    }
}

/// Does it.
///
/// # Errors
/// What the server says, or when the output cannot be written.
pub async fn run(command: CaCommand, server: &Server, out: &Out) -> Done {
    match command {
        CaCommand::Issue(args) => issue::run(args, server, out).await?,
        CaCommand::Rotate { finish, again } => {
            let said = |flag: bool| flag.then_some(true);
            let body = CaRotate {
                finish: said(finish),
                again: said(again),
            };
            let answer = server.ask(Ask::new(Op::CaRotate).json(&body)).await?;
            status(&answer, out)?;
            let by_vault = typed::<CaView>(&answer)?.issuer.is_some();
            out.note(match (finish, by_vault) {
                (true, _) => "the change of the root is over",
                (false, false) => {
                    "the root is being changed; see how far it is with: prismctl ca status"
                }
                (false, true) => {
                    "both roots are trusted. When a day has gone by, let Vault sign with the new one: vault write MOUNT/root/replace \
                     default=next; see how far it is with: prismctl ca status"
                }
            });
        }
        CaCommand::Status => status(&server.ask(Ask::new(Op::CaGet)).await?, out)?,
        CaCommand::Deny { whom, why } => {
            let said = whom.text().to_owned();
            let body = CaDeny {
                node: whom.node,
                certificate: whom.certificate,
                why,
            };
            server.ask(Ask::new(Op::CaDeny).json(&body)).await?;
            out.note(&format!(
                "{said} is kept out. Undo it with: prismctl ca allow"
            ));
        }
        CaCommand::Allow { whom } => {
            let said = whom.text().to_owned();
            let body = CaAllow {
                node: whom.node,
                certificate: whom.certificate,
            };
            server.ask(Ask::new(Op::CaAllow).json(&body)).await?;
            out.note(&format!("{said} may come again"));
        }
    }
    Ok(Exit::Ok)
}

/// How far a change of the root is, in lines for people.
fn told(rotation: &RotationView, by_vault: bool, now: prism_types::TimeMs) -> String {
    let age = |at| human::age(at, now);
    let RotationView {
        old_root, moved, ..
    } = rotation;
    if let Some(ended) = rotation.ended {
        return format!("changed   {} ago, from {old_root}\n", age(ended));
    }
    let names: Vec<&str> = rotation
        .waiting
        .iter()
        .take(8)
        .map(|n| n.as_str())
        .collect();
    let more = rotation.waiting.len().saturating_sub(names.len());
    let waiting = match (names.is_empty(), more) {
        (true, _) => "nobody".to_owned(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    };
    let until = match by_vault {
        true => "nobody is missing".to_owned(),
        false => format!("{} at the latest", human::moment(rotation.latest)),
    };
    format!(
        "new root  {}\nchanging  since {} ago, until {until}: {moved} members have certificates of it\nmissing   {waiting}\n",
        rotation.root,
        age(rotation.started),
    )
}

fn status(answer: &Value, out: &Out) -> Result<(), Failure> {
    if out.format != Format::Table {
        return out.doc(answer, Table::fields);
    }
    let ca: CaView = typed(answer)?;
    let now = now();
    out.print(&format!("cluster   {}\n", ca.cluster))?;
    if let Some(root) = &ca.root {
        out.print(&format!("root      {root}\n"))?;
    }
    if let Some(issuer) = &ca.issuer {
        out.print(&format!("issuer    Vault: {issuer}\n"))?;
    }
    if let Some(api) = &ca.api {
        out.print(&format!("api       pinned by its own key: {api}\n"))?;
    }
    match &ca.address {
        Some(address) => out.print(&format!("members   come to {address}\n"))?,
        None => out.print("members   cannot come: this server was started without --serf\n")?,
    }
    if let Some(rotation) = &ca.rotation {
        out.print(&told(rotation, ca.issuer.is_some(), now))?;
    }
    let mut members = Table::new([
        ("member", Column::Cut),
        ("role", Column::Whole),
        ("joined", Column::Right),
        ("id", Column::Whole),
    ]);
    for m in &ca.members {
        members.row([
            m.name.to_string(),
            m.role.to_string(),
            human::age(m.joined, now),
            m.id.to_string(),
        ]);
    }
    let mut denied = Table::new([
        ("kept out", Column::Whole),
        ("since", Column::Right),
        ("why", Column::Cut),
    ]);
    for d in &ca.denied {
        let node = d.node.map(|id| id.to_string());
        denied.row([
            node.or(d.certificate.clone()).unwrap_or_default(),
            human::age(d.since, now),
            d.why.clone(),
        ]);
    }
    for table in [members, denied] {
        if !table.is_empty() {
            out.print("\n")?;
            out.table(&table)?;
        }
    }
    Ok(())
}
