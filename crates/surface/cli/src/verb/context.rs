//! `context`: which clusters a person knows. Works without a server.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use prism_client::{Client, Security};
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
  prismctl context add lab --api https://10.0.0.1:8008 --pin PIN < token-file
  prismctl context add lab --api https://lab:8008 --pin PIN \\
      --cert ada.pem --key ada.key
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
        /// How its server is known, and what is shown to it
        #[command(flatten)]
        shown: ShownArgs,
        /// Leave the current context as it is
        #[arg(long)]
        keep_current: bool,
    },
}

/// For a server with https.
#[derive(Args, Debug, Default)]
pub struct ShownArgs {
    /// SHA-256 of its key or of its root's, as `prismctl ca status` shows it
    #[arg(long, value_name = "SHA256", value_parser = pin, conflicts_with = "ca")]
    pin: Option<String>,
    /// Authorities that it is known by instead (PEM)
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// File with the token
    #[arg(long, value_name = "FILE", conflicts_with = "cert")]
    token_file: Option<PathBuf>,
    /// Certificate to show instead of a token (PEM), from `prismctl ca issue`
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

/// Checks a pin, and passes on what was written.
fn pin(text: &str) -> Result<String, String> {
    prism_client::pin(text).map(|_| text.trim().to_owned())
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
        ContextCommand::Add {
            name,
            shown,
            keep_current,
        } => add(&name, (shown, keep_current), globals, out)?,
    }
    Ok(Exit::Ok)
}

fn add(
    name: &Name,
    (shown, keep_current): (ShownArgs, bool),
    globals: &Globals,
    out: &Out,
) -> Result<(), Failure> {
    let api = globals.api.clone().ok_or_else(|| {
        Failure::usage("the address of the cluster is missing").next(format!(
            "prismctl context add {name} --api http://HOST:8008"
        ))
    })?;
    // The command may be run elsewhere next time.
    let whole = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    let token = match (&shown.token_file, &shown.cert) {
        (Some(path), _) => Some(token_of(path)?),
        (None, Some(_)) => None,
        (None, None) => token()?,
    };
    let context = Context {
        api,
        token,
        namespace: globals.namespace.clone(),
        pin: shown.pin,
        ca: shown.ca.map(whole),
        cert: shown.cert.map(whole),
        key: shown.key.map(whole),
    };
    let security = context.trusted().read();
    let security = security.map_err(|e| Failure::file(e.to_string()))?;
    check_address(&context.api, &security)?;
    let tokenless = context.token.is_none() && context.cert.is_none();
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
    checked(&text)
}

/// From a file, which is to hold one.
fn token_of(path: &std::path::Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::file(format!("cannot read {}: {e}", path.display())))?;
    checked(&text)?.ok_or_else(|| Failure::file(format!("{} holds no token", path.display())))
}

fn checked(text: &str) -> Result<Option<String>, Failure> {
    let text = text.trim().to_owned();
    if text.chars().any(|c| !c.is_ascii_graphic()) {
        return Err(Failure::usage(
            "what was given as the token is not one: a token is one line of visible ASCII",
        ));
    }
    Ok(Some(text).filter(|t| !t.is_empty()))
}

/// Refuses what cannot be an address before it is kept.
fn check_address(api: &str, security: &Security) -> Result<(), Failure> {
    Client::secured(api, None, Duration::from_secs(1), security).map_err(Failure::from)?;
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
            "pin": c.pin,
            "has_certificate": c.cert.is_some(),
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
        let token = match (&c.token, &c.cert) {
            (Some(_), _) => "yes",
            (None, Some(_)) => "certificate",
            (None, None) => "no",
        };
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
            assert!(check_address(good, &Security::default()).is_ok(), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1:8008",
            "ftp://x",
            "http://",
            "http://a b",
            "http://h\n",
            // It is not known how that one proves who it is.
            "https://h:8008",
        ] {
            assert_eq!(
                check_address(bad, &Security::default()).unwrap_err().exit(),
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
                    ..Context::default()
                },
            )]
            .into(),
        };
        let shown = document(&all).to_string() + &listing(&all).render(None, |_| None);
        assert!(!shown.contains("secret") && shown.contains("http://h"));
    }
}
