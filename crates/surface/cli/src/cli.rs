//! The command line: its grammar and its help. Each verb's own arguments are beside the verb.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser, Subcommand};
use prism_types::nearest;

use crate::server::About;
use crate::settings::Globals;
use crate::verb;

const ABOUT: &str = "Runs jobs, sweeps and sandboxes on machines you own";

const LONG: &str = "\
Runs jobs, sweeps and sandboxes on machines you own.

A job or sweep file needs no server: `prismctl run FILE` starts what it takes, shows how far it is, prints the \
result and leaves nothing running. All other verbs talk to a server: that of the current context, or the one \
that --api or --context names.";

const AFTER: &str = "\
Examples:
  prismctl run examples/digits/sweep.yaml    a parameter sweep on this machine
  prismctl job submit job.yaml --wait        a job on the cluster, waited for
  prismctl sandbox create --name box         an isolated Linux to work in
  prismctl sandbox exec box -- python3 -c 'print(6*7)'
  prismctl doctor                            what this machine can do

Exit codes:
  0    all went well
  1    it failed
  2    the command line or a file is wrong; nothing was done
  3    some tasks completed and some did not
  4    the server cannot be reached
  130  ended from the keyboard
  `sandbox exec` ends with the status of its command.

Files and environment:
  $XDG_CONFIG_HOME/prism/contexts.toml   the clusters you know
  $XDG_STATE_HOME/prism/run              what `prismctl run` keeps
  PRISM_API PRISM_TOKEN PRISM_CONTEXT PRISM_NAMESPACE PRISM_TIMEOUT PRISM_OUTPUT
  PRISM_PIN PRISM_CA   how the server at https://... is known: a pin, a file
  A flag comes before the environment, that before the file, that before the
  default. NO_COLOR turns colours off.";

/// The whole command line.
#[derive(Parser, Debug)]
#[command(
    name = "prismctl",
    version,
    about = ABOUT,
    long_about = LONG,
    after_help = AFTER,
    max_term_width = 110,
    subcommand_required = true,
    arg_required_else_help = true,
    infer_long_args = false
)]
pub struct Cli {
    /// Flags of every verb.
    #[command(flatten)]
    pub globals: Globals,
    /// The verb.
    #[command(subcommand)]
    pub command: Command,
}

/// Verbs and nouns.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a job or sweep file and print its result; needs no server
    Run(verb::run::RunArgs),
    /// Submit jobs, look at them, and get their results
    #[command(subcommand)]
    Job(verb::job::JobCommand),
    /// Submit parameter sweeps to a server and look at them
    #[command(subcommand)]
    Sweep(verb::sweep::SweepCommand),
    /// Make isolated Linuxes, and run commands and copy files in them
    #[command(subcommand)]
    Sandbox(verb::sandbox::SandboxCommand),
    /// Load images and see which there are
    #[command(subcommand)]
    Image(verb::image::ImageCommand),
    /// Look at the machines, and say which take new work
    #[command(subcommand)]
    Node(verb::node::NodeCommand),
    /// Look at the servers that keep the cluster's state, and take one out
    #[command(subcommand)]
    Peer(verb::peer::PeerCommand),
    /// Let machines join, and recover when most servers are lost
    #[command(subcommand)]
    Server(verb::server::ServerCommand),
    /// See who belongs to the cluster, and keep somebody out
    #[command(subcommand)]
    Ca(verb::ca::CaCommand),
    /// The cluster in one look
    Info(verb::info::InfoArgs),
    /// Print what happened, and go on printing with --follow
    Events(verb::events::EventsArgs),
    /// Say why a thing is as it is, or what an error code means
    Explain(verb::explain::ExplainArgs),
    /// Say what this machine can do, what is missing, and what is lost without it
    Doctor(verb::doctor::DoctorArgs),
    /// Make and revoke access tokens
    #[command(subcommand)]
    Token(verb::token::TokenCommand),
    /// Make namespaces, and say how much of the machines each may use
    #[command(subcommand)]
    Namespace(verb::namespace::NamespaceCommand),
    /// Keep a copy of the cluster's state in a file, or check such a file
    Backup(verb::backup::BackupArgs),
    /// Restore a backup into a new, empty cluster
    Restore(verb::backup::RestoreArgs),
    /// Say which clusters you know and which one is meant
    #[command(subcommand)]
    Context(verb::context::ContextCommand),
    /// Print the completion script of a shell
    Completion(verb::completion::CompletionArgs),
}

impl Command {
    /// What it is about, for advice when it fails.
    pub fn about(&self) -> About {
        let (noun, listed, (subject, changes)) = match self {
            Self::Run(_) => ("job", true, (None, true)),
            Self::Job(c) => ("job", true, c.about()),
            Self::Sweep(c) => ("sweep", true, c.about()),
            Self::Sandbox(c) => ("sandbox", true, c.about()),
            Self::Image(c) => {
                let load = matches!(c, verb::image::ImageCommand::Load { .. });
                ("image", true, (None, load))
            }
            Self::Node(c) => ("node", true, c.about()),
            Self::Token(c) => {
                let ls = matches!(c, verb::token::TokenCommand::Ls(_));
                ("token", true, (None, !ls))
            }
            Self::Peer(c) => ("peer", true, c.about()),
            Self::Namespace(c) => ("namespace", true, c.about()),
            Self::Backup(_) => ("backup", false, (None, false)),
            Self::Restore(_) => ("backup", false, (None, true)),
            Self::Server(c) => ("join token", false, (None, c.changes())),
            Self::Ca(c) => ("node", true, (None, c.changes())),
            Self::Explain(_) => ("job", true, (None, false)),
            Self::Info(_) | Self::Events(_) => ("job", false, (None, false)),
            Self::Doctor(_) | Self::Context(_) | Self::Completion(_) => {
                ("context", false, (None, false))
            }
        };
        About {
            noun,
            listed,
            subject,
            changes,
        }
    }
}

impl Cli {
    /// Reads a command line, the program's name first.
    ///
    /// # Errors
    /// Help and version, and what is wrong with it, with the nearest right word.
    pub fn read(args: &[OsString]) -> Result<Self, clap::Error> {
        Self::try_parse_from(args).map_err(|e| suggest(e, args))
    }
}

/// The parser suggests by likeness, which short verbs with two letters swapped do not reach.
fn suggest(mut e: clap::Error, args: &[OsString]) -> clap::Error {
    let wrong = match e.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) if e.get(ContextKind::SuggestedSubcommand).is_none() => {
            word.clone()
        }
        _ => return e,
    };
    let mut root = Cli::command();
    root.build();
    let mut at = &root;
    for word in args.iter().skip(1).filter_map(|a| a.to_str()) {
        at = at.find_subcommand(word).unwrap_or(at);
    }
    let near =
        nearest(&wrong, at.get_subcommands().map(clap::Command::get_name)).map(str::to_owned);
    if let Some(near) = near {
        e.insert(
            ContextKind::SuggestedSubcommand,
            ContextValue::Strings(vec![near]),
        );
    }
    e
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::error::ErrorKind;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        let words: Vec<OsString> = std::iter::once("prismctl")
            .chain(line.split_whitespace())
            .map(OsString::from)
            .collect();
        Cli::read(&words)
    }

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    const DOCUMENTED: &[&str] = &[
        "run examples/digits/sweep.yaml -o json",
        "run f.yaml --new",
        "job submit job.yaml --wait --name x",
        "job submit --array 100000 -- echo {index}",
        "job ls --watch",
        "job get 01k8z3v6m0000000000000000a",
        "job results x -o ndjson",
        "job logs x --task 3 --follow --stderr",
        "job wait x",
        "job cancel x",
        "job retry x",
        "job pause x",
        "job resume x",
        "sweep run f.yaml",
        "sweep ls",
        "sweep get x -o yaml",
        "sweep cancel x",
        "sweep resume x",
        "sandbox create --name box --lifetime 30m",
        "sandbox ls --watch",
        "sandbox exec box -- sh -c true",
        "sandbox exec -i -t box -- sh",
        "sandbox cp ./a box:/work/a",
        "sandbox snapshot box",
        "sandbox logs box",
        "sandbox rm box",
        "image load ./x.tar --name x",
        "image ls",
        "node ls",
        "node top --watch",
        "node info n1",
        "node drain n1 --deadline 10m --detach",
        "node cordon n1",
        "node uncordon n1",
        "peer ls --watch",
        "peer rm n3",
        "peer key ls",
        "peer key install --key-file f",
        "peer key use 0a0b0c0d",
        "peer key remove 0a0b0c0d",
        "server bootstrap-token",
        "info",
        "events --follow",
        "explain PRISM-T003",
        "doctor -o json",
        "token create ci --role submitter --expires-in 90d",
        "token create eyes --role viewer --namespace team --namespace b --resource jobs --verb read --expires-in 1d",
        "token ls",
        "ca issue ada --role operator --namespace team --expires-in 30d --out ./keys",
        "ca rotate",
        "ca rotate --finish",
        "context add lab --api https://h:8008 --pin 0707070707070707070707070707070707070707070707070707070707070707 --cert a.pem --key a.key",
        "namespace create team --cpu 8 --memory 16Gi",
        "namespace set team --sandboxes none",
        "namespace ls",
        "namespace rm team",
        "events --kind audit",
        "events --verify",
        "token revoke 01k8z3v6m0000000000000000a",
        "context ls",
        "context use dev",
        "context add lab --api http://10.0.0.1:8008",
        "server recover --data-dir /var/lib/prism/server --yes",
        "backup cluster.prism --passphrase-file key",
        "backup --check cluster.prism",
        "restore cluster.prism",
        "completion bash",
        "--api http://h --timeout 5s -v job ls",
    ];

    #[test]
    fn documented_command_lines_parse() {
        for line in DOCUMENTED {
            parse(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    /// The flag that says elsewhere where to work, says here what the token is for.
    #[test]
    fn a_token_is_limited_to_every_namespace_that_is_named() {
        for line in [
            "token create x --namespace team --namespace b",
            "--timeout 5s token create x --namespace team --namespace b",
        ] {
            let said = format!("{:?}", parse(line).unwrap().command);
            let wanted = r#"namespace: [Name("team"), Name("b")]"#;
            assert!(said.contains(wanted), "{said}");
        }
        let none = format!("{:?}", parse("token create x").unwrap().command);
        assert!(none.contains("namespace: []"), "{none}");
    }

    #[test]
    fn what_is_wrong_is_told_with_the_nearest_right_one() {
        for (line, suggested) in [
            ("jbo ls", "job"),
            ("sanbox ls", "sandbox"),
            ("job sl", "ls"),
            ("--api http://h node inof x", "info"),
            ("job sumbit x", "submit"),
            ("job submit --wiat x", "--wait"),
            ("job ls --outptu json", "--output"),
            ("completion bsh", "bash"),
            ("job ls -o tabel", "table"),
        ] {
            let text = parse(line).unwrap_err().to_string();
            assert!(text.contains(suggested), "{line}: {text}");
        }
        let e = parse("job ls --timeout soon").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::ValueValidation);
        assert_eq!(e.exit_code(), 2);
        assert!(e.to_string().contains("such as 90s"), "{e}");
    }

    /// Every `prismctl WORD WORD` in help texts, error pages and sources must parse that far.
    #[test]
    fn help_renders_and_names_only_verbs_that_exist() {
        let mut root = Cli::command();
        root.build();
        let mut texts: Vec<String> = crate::pages::ALL
            .iter()
            .map(|(_, p)| (*p).to_owned())
            .collect();
        render(&root, &mut texts);
        assert!(texts.len() > 60);
        for text in &texts {
            for mention in text.split("prismctl ").skip(1) {
                let words: Vec<&str> = mention
                    .split(|c: char| c.is_whitespace() || matches!(c, '`' | ',' | '.' | '\'' | ')'))
                    .take_while(|w| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase()))
                    .take(2)
                    .collect();
                let Some(first) = words.first() else { continue };
                let noun = root
                    .find_subcommand(first)
                    .unwrap_or_else(|| panic!("prismctl {mention}"));
                if let (true, Some(second)) = (noun.has_subcommands(), words.get(1)) {
                    assert!(noun.find_subcommand(second).is_some(), "prismctl {mention}");
                }
            }
        }
    }

    fn render(command: &clap::Command, texts: &mut Vec<String>) {
        let text = command.clone().render_long_help().to_string();
        assert!(
            command.get_about().is_some(),
            "{} has no help",
            command.get_name()
        );
        let examples = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        let long = examples.lines().find(|l| l.chars().count() > 80);
        assert_eq!(long, None, "too wide for a terminal of 80 columns");
        texts.push(text);
        for sub in command.get_subcommands().filter(|s| s.get_name() != "help") {
            render(sub, texts);
        }
    }
}
