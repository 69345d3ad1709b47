//! `ca`: who belongs to the cluster, and who is kept out.

use clap::{Args, Subcommand};
use prism_api::{CaAllow, CaDeny, CaView, Op};
use prism_client::Ask;
use serde_json::Value;

use crate::exit::{Done, Exit, Failure};
use crate::output::{Column, Format, Out, Table, human};
use crate::server::{Server, now, typed};

/// See who belongs to the cluster, and keep somebody out.
#[derive(Subcommand, Debug)]
#[command(after_help = "\
Examples:
  prismctl ca status
  prismctl ca deny w7 --why 'stolen'     # within seconds, connected or not
  prismctl ca allow w7")]
pub enum CaCommand {
    /// Show the cluster's root, its members, and who is kept out
    Status,
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

fn status(answer: &Value, out: &Out) -> Result<(), Failure> {
    if out.format != Format::Table {
        return out.doc(answer, Table::fields);
    }
    let ca: CaView = typed(answer)?;
    let now = now();
    out.print(&format!("cluster   {}\n", ca.cluster))?;
    match (ca.root, ca.address) {
        (Some(root), Some(address)) => {
            out.print(&format!("root      {root}\nmembers   come to {address}\n"))?;
        }
        _ => out.print("members   cannot come: this server was started without --serf\n")?,
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
