//! `token`: who may ask the server.

use clap::{Subcommand, ValueEnum};
use prism_api::{Op, Role, TokenCreate, TokenCreated, TokenView};
use prism_types::{Name, Noun, Verb, parse_duration};
use serde_json::Value;

use crate::exit::{Done, Exit, Failure};
use crate::listing::{WatchArgs, show};
use crate::output::{Column, Format, Out, Table, human};
use crate::server::{Server, now, typed, typed_all};
use prism_client::Ask;

/// What a token may do; each role may do what the ones before it may.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RoleArg {
    /// Look
    Viewer,
    /// Run jobs, sweeps and sandboxes
    Submitter,
    /// Run the machines as well: nodes, images
    Operator,
    /// Hand out tokens as well
    Admin,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Viewer => Self::Viewer,
            RoleArg::Submitter => Self::Submitter,
            RoleArg::Operator => Self::Operator,
            RoleArg::Admin => Self::Admin,
        }
    }
}

/// Make and revoke access tokens.
#[derive(Subcommand, Debug)]
#[command(after_help = "\
Examples:
  prismctl token create ci --role submitter --expires-in 90d > token-file
  prismctl token create eyes --role viewer --namespace team --verb read
  prismctl token create lead --role admin --namespace team --expires-in 7d
  prismctl token ls
  prismctl token revoke 01k8z3v6m0000000000000000a")]
pub enum TokenCommand {
    /// Make a token; its text is printed once and kept nowhere
    Create {
        /// What it is for
        name: String,
        /// What it may do
        #[arg(long, value_enum, default_value = "submitter")]
        role: RoleArg,
        /// Only in this namespace; may be repeated [default: in all]
        #[arg(long = "namespace", value_name = "NAME")]
        namespace: Vec<Name>,
        /// Only to these things; may be repeated [default: to all]
        #[arg(long = "resource", value_name = "RESOURCE", value_parser = words(Noun::ALL))]
        resources: Vec<Noun>,
        /// Only so; may be repeated [default: in every way of the role]
        #[arg(long = "verb", value_name = "VERB", value_parser = words(Verb::ALL))]
        verbs: Vec<Verb>,
        /// How long it is good [default: for ever]
        #[arg(long, value_name = "TIME", value_parser = duration_text)]
        expires_in: Option<String>,
    },
    /// List the tokens, without their secrets
    Ls(WatchArgs),
    /// Revoke a token, at once
    Revoke {
        /// Its whole id
        id: String,
    },
}

/// Checks a duration, and passes on what was written.
pub fn duration_text(s: &str) -> Result<String, String> {
    parse_duration(s).map(|_| s.to_owned())
}

/// What is said, or nothing at all.
pub fn some<T>(said: Vec<T>) -> Option<Vec<T>> {
    (!said.is_empty()).then_some(said)
}

/// Takes one of these words.
pub fn words<T>(all: &'static [T]) -> impl clap::builder::TypedValueParser<Value = T>
where
    T: Copy + std::fmt::Display + std::str::FromStr<Err = String> + Send + Sync + 'static,
{
    use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
    let words = all
        .iter()
        .map(|word| PossibleValue::new(word.to_string().leak() as &'static str));
    PossibleValuesParser::new(words).try_map(|text| text.parse::<T>())
}

/// Does it.
///
/// # Errors
/// What the server says, or when the output cannot be written.
pub async fn run(command: TokenCommand, server: &Server, out: &Out) -> Done {
    match command {
        TokenCommand::Create {
            name,
            role,
            namespace,
            resources,
            verbs,
            expires_in,
        } => {
            let body = TokenCreate {
                name,
                role: role.into(),
                namespaces: some(namespace),
                resources: some(resources),
                verbs: some(verbs),
                expires_in,
            };
            let answer = server.ask(Ask::new(Op::TokenCreate).json(&body)).await?;
            created(&answer, out)?;
        }
        TokenCommand::Ls(watch) => {
            show(
                server,
                out,
                Ask::new(Op::TokenList),
                1_000_000,
                watch,
                listing,
            )
            .await?;
        }
        TokenCommand::Revoke { id } => {
            server.ask(Ask::new(Op::TokenRevoke).at(&*id)).await?;
            out.note(&format!("token {id} is revoked"));
        }
    }
    Ok(Exit::Ok)
}

/// The token alone on standard output, so that it can go straight into a file.
fn created(answer: &Value, out: &Out) -> Result<(), Failure> {
    let t: TokenCreated = typed(answer)?;
    if out.format != Format::Table {
        return out.doc(answer, Table::fields);
    }
    let text = t.token.ok_or_else(|| {
        Failure::defect(format!(
            "token {} was made before; its text is shown only once",
            t.id
        ))
        .because(prism_types::Reason::WrongState, "")
        .next(format!(
            "prismctl token revoke {}, then make a new one",
            t.id
        ))
    })?;
    out.note(&format!(
        "token {} ({}, {}); it is shown only this once",
        t.id, t.name, t.role
    ));
    out.print(&format!("{text}\n"))
}

fn listing(items: &[Value]) -> Result<Table, Failure> {
    let mut t = Table::new([
        ("id", Column::Whole),
        ("name", Column::Cut),
        ("role", Column::Whole),
        ("for", Column::Cut),
        ("age", Column::Right),
        ("good until", Column::Whole),
    ]);
    let now = now();
    for token in typed_all::<TokenView>(items)? {
        t.row([
            token.id.to_string(),
            token.name.clone(),
            token.role.to_string(),
            scope_of(&token),
            human::age(token.created, now),
            token.expires.map_or("for ever".to_owned(), human::moment),
        ]);
    }
    Ok(t)
}

/// What a token is for, such as `in team: read of jobs, events`.
fn scope_of(token: &TokenView) -> String {
    let joined = |words: Vec<String>| words.join(", ");
    let texts = |all: &[Noun]| joined(all.iter().map(ToString::to_string).collect());
    let verbs = token.verbs.as_ref();
    let verbs = verbs.map(|all| joined(all.iter().map(ToString::to_string).collect()));
    let nouns = token.resources.as_deref().map(texts);
    let what = match (verbs, nouns) {
        (None, None) => None,
        (Some(verbs), None) => Some(format!("{verbs} of all")),
        (None, Some(nouns)) => Some(nouns),
        (Some(verbs), Some(nouns)) => Some(format!("{verbs} of {nouns}")),
    };
    let spaces = token.namespaces.as_ref();
    let spaces = spaces.map(|all| joined(all.iter().map(ToString::to_string).collect()));
    match (spaces, what) {
        (None, None) => "all".to_owned(),
        (None, Some(what)) => what,
        (Some(spaces), None) => format!("in {spaces}"),
        (Some(spaces), Some(what)) => format!("in {spaces}: {what}"),
    }
}
