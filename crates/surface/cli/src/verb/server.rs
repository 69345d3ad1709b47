//! `server`: who may join the cluster, and what is done when most servers are lost (`recover`).

use clap::{Args, Subcommand};
use prism_api::{JoinTokenCreate, JoinTokenCreated, JoinTokenView, MemberRole, Op};
use prism_client::Ask;
use prism_node::CommonToken;
use prism_types::{Labels, Name};
use serde_json::Value;

use super::recover::RecoverArgs;
use super::token::duration_text;
use crate::exit::{Done, Exit, Failure};
use crate::listing::{WatchArgs, show};
use crate::output::{Column, Format, Out, Table, human};
use crate::server::{Server, now, typed, typed_all};

/// Let machines join, and recover when most servers are lost.
#[derive(Subcommand, Debug)]
#[command(after_help = "\
Examples:
  prismctl server join-token > token-file
  prismctl server join-token --uses 20 --expires-in 1d --from 10.0.0.0/8
  prismctl server join-token --role server > token-file
  prismctl server join-token --ls
  prismctl server join-token --revoke 01k8z3v6m0000000000000000a
  prismctl server bootstrap-token > token-file   # the same for each of them
  prismctl server recover --data-dir /var/lib/prism/server")]
pub enum ServerCommand {
    /// Make a token with which a machine joins; its text is printed once and kept nowhere
    JoinToken(JoinTokenArgs),
    /// Make the token that servers have in common which found a cluster together; needs no server
    BootstrapToken,
    /// Make the one server that is left the only one, after most were lost for good; needs no server
    Recover(RecoverArgs),
}

/// Flags of `join-token`.
#[derive(Args, Debug)]
pub struct JoinTokenArgs {
    /// How many machines may join with it [default: 1]
    #[arg(long, value_name = "N")]
    uses: Option<u32>,
    /// What joins with it: a worker, or another server [default: worker]
    #[arg(long, value_name = "ROLE")]
    role: Option<JoinRole>,
    /// How long it is good, at most 30d [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = duration_text)]
    expires_in: Option<String>,
    /// The only name that may join with it
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    /// Labels that whoever joins gets, k=v,k=v
    #[arg(long, value_name = "LABELS", value_parser = labels)]
    labels: Option<Labels>,
    /// Addresses from which it is good, such as 10.0.0.0/8; may be repeated
    #[arg(long, value_name = "RANGE")]
    from: Vec<String>,
    /// List the join tokens instead, without their secrets
    #[arg(long, exclusive = true)]
    ls: bool,
    /// Revoke the join token of this whole id instead
    #[arg(long, value_name = "ID", exclusive = true)]
    revoke: Option<String>,
}

/// What may join.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum JoinRole {
    /// Runs work and nothing else
    Worker,
    /// Keeps the cluster's state with the others, and runs work
    Server,
}

fn labels(text: &str) -> Result<Labels, String> {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| {
        let split = pair.split_once('=');
        let (key, value) = split.ok_or_else(|| format!("{pair:?} is not key=value"))?;
        Ok((key.trim().to_owned(), value.trim().to_owned()))
    });
    pairs.collect()
}

impl ServerCommand {
    /// Whether it changes anything.
    pub fn changes(&self) -> bool {
        match self {
            Self::JoinToken(args) => !args.ls,
            Self::Recover(_) => true,
            Self::BootstrapToken => false,
        }
    }
}

/// Does it.
///
/// # Errors
/// What the server says, or when the output cannot be written.
pub async fn run(command: ServerCommand, server: &Server, out: &Out) -> Done {
    let args = match command {
        ServerCommand::JoinToken(args) => args,
        ServerCommand::BootstrapToken => return bootstrap_token(out),
        ServerCommand::Recover(args) => return super::recover::run(&args, out).await,
    };
    if args.ls {
        let ask = Ask::new(Op::JoinTokenList);
        let once = WatchArgs { watch: false };
        show(server, out, ask, 1_000_000, once, listing).await?;
        return Ok(Exit::Ok);
    }
    if let Some(id) = args.revoke {
        server.ask(Ask::new(Op::JoinTokenRevoke).at(&*id)).await?;
        out.note(&format!(
            "join token {id} is revoked; who has joined with it stays"
        ));
        return Ok(Exit::Ok);
    }
    let body = JoinTokenCreate {
        uses: args.uses,
        expires_in: args.expires_in,
        name: args.name,
        role: args.role.map(|role| match role {
            JoinRole::Worker => MemberRole::Worker,
            JoinRole::Server => MemberRole::Server,
        }),
        labels: args.labels,
        from: (!args.from.is_empty()).then_some(args.from),
    };
    let answer = server
        .ask(Ask::new(Op::JoinTokenCreate).json(&body))
        .await?;
    created(&answer, out)?;
    Ok(Exit::Ok)
}

/// The token that servers have in common which found a cluster together. Nothing is asked of any server.
///
/// # Errors
/// When the system gives no random numbers, or the output cannot be written.
pub fn bootstrap_token(out: &Out) -> Done {
    let token = CommonToken::generate();
    let token = token
        .map_err(|why| Failure::defect(why.to_string()))?
        .expose();
    if out.format != Format::Table {
        out.doc(&serde_json::json!({ "token": token }), Table::fields)?;
        return Ok(Exit::Ok);
    }
    out.note(
        "the same token for each of them, kept nowhere else; on each:\n  \
         prismd --bootstrap-expect=N --join=A:4200,B:4200,... --token-file=FILE",
    );
    out.print(&format!("{token}\n"))?;
    Ok(Exit::Ok)
}

/// The token alone on standard output, so that it can go straight into a file.
fn created(answer: &Value, out: &Out) -> Result<(), Failure> {
    let t: JoinTokenCreated = typed(answer)?;
    if out.format != Format::Table {
        return out.doc(answer, Table::fields);
    }
    let text = t.token.ok_or_else(|| {
        Failure::defect(format!(
            "join token {} was made before; its text is shown only once",
            t.id
        ))
        .because(prism_types::Reason::WrongState, "")
        .next(format!(
            "prismctl server join-token --revoke {}, then make a new one",
            t.id
        ))
    })?;
    let many = if t.uses == 1 {
        "one machine".to_owned()
    } else {
        format!("{} machines", t.uses)
    };
    let role = match t.role {
        MemberRole::Worker => "--role=worker ",
        MemberRole::Server => "",
    };
    out.note(&format!(
        "join token {} lets {many} join until {}; it is shown only this once\n  \
         on the machine: prismd {role}--join={} --token-file=FILE",
        t.id,
        human::moment(t.expires),
        t.address
    ));
    out.print(&format!("{text}\n"))
}

fn listing(items: &[Value]) -> Result<Table, Failure> {
    let mut t = Table::new([
        ("id", Column::Whole),
        ("role", Column::Whole),
        ("uses left", Column::Right),
        ("name", Column::Cut),
        ("from", Column::Cut),
        ("age", Column::Right),
        ("good until", Column::Whole),
    ]);
    let now = now();
    for token in typed_all::<JoinTokenView>(items)? {
        t.row([
            token.id.to_string(),
            token.role.to_string(),
            token.uses.to_string(),
            token.name.map_or("any".to_owned(), |name| name.to_string()),
            if token.from.is_empty() {
                "anywhere".to_owned()
            } else {
                token.from.join(" ")
            },
            human::age(token.created, now),
            human::moment(token.expires),
        ]);
    }
    Ok(t)
}
