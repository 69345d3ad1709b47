//! `context`: which clusters a person knows. Works without a server.

use std::io::{IsTerminal, Read};
use std::time::Duration;

use clap::Subcommand;
use prism_client::Client;
use prism_types::{Name, nearest};
use serde_json::{Value, json};

use crate::context::{self, Context, ContextError, Contexts};
use crate::exit::{Done, Exit, Failure};
use crate::output::{Column, Out, Table};
use crate::settings::Globals;

/// Say which clusters you know and which one is meant.
#[derive(Subcommand, Debug)]
#[command(after_help = "\
Examples:
  prismctl context ls
  prismctl context add lab --api http://10.0.0.1:8008 < token-file
  prismctl context use lab

`prismd dev` writes a context `dev` by itself.")]
pub enum ContextCommand {
    /// List them; the current one is marked
    Ls,
    /// Make one the current one
    Use {
        /// Which
        name: Name,
    },
    /// Add or replace one; its address comes from --api, its token from PRISM_TOKEN or from standard input
    Add {
        /// What to call it
        name: Name,
        /// Leave the current context as it is
        #[arg(long)]
        keep_current: bool,
    },
}

/// Does it.
///
/// # Errors
/// When the contexts file is unreadable, or the name or address is wrong; then nothing is changed.
pub fn run(command: ContextCommand, globals: &Globals, out: &Out) -> Done {
    match command {
        ContextCommand::Ls => {
            let all = context::load(&context::path().map_err(usage)?).map_err(usage)?;
            if !all.contexts.is_empty() || out.format != crate::output::Format::Table {
                out.doc(&document(&all), || listing(&all))?;
            } else {
                out.note("no contexts; add one with `prismctl context add NAME --api URL`, or start `prismd dev`");
            }
        }
        ContextCommand::Use { name } => {
            let path = context::path().map_err(usage)?;
            context::change(&path, |all| make_current(all, &name)).map_err(usage)?;
            out.note(&format!("the current context is {name}"));
        }
        ContextCommand::Add { name, keep_current } => add(&name, keep_current, globals, out)?,
    }
    Ok(Exit::Ok)
}

fn add(name: &Name, keep_current: bool, globals: &Globals, out: &Out) -> Result<(), Failure> {
    let api = globals.api.clone().ok_or_else(|| {
        Failure::usage("the address of the cluster is missing").next(format!(
            "prismctl context add {name} --api http://HOST:8008"
        ))
    })?;
    check_address(&api)?;
    let context = Context {
        api,
        token: token()?,
        namespace: globals.namespace.clone(),
    };
    let tokenless = context.token.is_none();
    let path = context::save(name, context, !keep_current).map_err(usage)?;
    let current = if keep_current {
        ""
    } else {
        ", and is the current one"
    };
    out.note(&format!("context {name} is in {}{current}", path.display()));
    if tokenless {
        out.note("it has no token: give one in PRISM_TOKEN or on standard input");
    }
    Ok(())
}

/// From the environment, or from a pipe; never from the command line, where others could read it.
fn token() -> Result<Option<String>, Failure> {
    let mut text = std::env::var("PRISM_TOKEN").unwrap_or_default();
    if text.is_empty() && !std::io::stdin().is_terminal() {
        let read = std::io::stdin().take(64 << 10).read_to_string(&mut text);
        read.map_err(|e| Failure::file(format!("cannot read a token from standard input: {e}")))?;
    }
    let text = text.trim().to_owned();
    if text.chars().any(|c| !c.is_ascii_graphic()) {
        return Err(Failure::usage(
            "what was given as the token is not one: a token is one line of visible ASCII",
        ));
    }
    Ok(Some(text).filter(|t| !t.is_empty()))
}

/// Refuses what cannot be an address before it is kept.
fn check_address(api: &str) -> Result<(), Failure> {
    Client::new(api, None, Duration::from_secs(1)).map_err(Failure::from)?;
    Ok(())
}

fn make_current(all: &mut Contexts, name: &Name) -> Result<(), ContextError> {
    if !all.contexts.contains_key(name) {
        let known = all.contexts.keys().map(Name::as_str);
        let near =
            nearest(name.as_str(), known).map_or(String::new(), |n| format!("; did you mean {n}?"));
        return Err(ContextError::new(format!(
            "there is no context {name}{near}"
        )));
    }
    all.current = Some(name.clone());
    Ok(())
}

fn usage(e: ContextError) -> Failure {
    Failure::new(Exit::Usage, prism_types::Fault::Contexts, e.to_string())
        .next("prismctl context ls")
}

/// What `-o json` prints: never the tokens.
fn document(all: &Contexts) -> Value {
    let one = |(name, c): (&Name, &Context)| {
        json!({
            "name": name,
            "api": c.api,
            "namespace": c.namespace,
            "has_token": c.token.is_some(),
            "current": all.current.as_ref() == Some(name),
        })
    };
    Value::Array(all.contexts.iter().map(one).collect())
}

fn listing(all: &Contexts) -> Table {
    let mut t = Table::new([
        ("", Column::Whole),
        ("name", Column::Cut),
        ("api", Column::Cut),
        ("namespace", Column::Cut),
        ("token", Column::Whole),
    ]);
    for (name, c) in &all.contexts {
        let mark = if all.current.as_ref() == Some(name) {
            "*"
        } else {
            " "
        };
        let token = if c.token.is_some() { "yes" } else { "no" };
        let namespace = c.namespace.as_ref().map_or("default", Name::as_str);
        t.row([mark, name.as_str(), &c.api, namespace, token]);
    }
    t
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_before_they_are_kept() {
        for good in ["http://127.0.0.1:8008", "http://[::1]:8008", "http://host/"] {
            assert!(check_address(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1:8008",
            "ftp://x",
            "http://",
            "http://a b",
            "http://h\n",
        ] {
            assert_eq!(
                check_address(bad).unwrap_err().exit(),
                Exit::Usage,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn tokens_are_never_printed() {
        let all = Contexts {
            current: Some("dev".parse().unwrap()),
            contexts: [(
                "dev".parse().unwrap(),
                Context {
                    api: "http://h".into(),
                    token: Some("secret".into()),
                    namespace: None,
                },
            )]
            .into(),
        };
        let shown = document(&all).to_string() + &listing(&all).render(None, |_| None);
        assert!(!shown.contains("secret") && shown.contains("http://h"));
    }
}
