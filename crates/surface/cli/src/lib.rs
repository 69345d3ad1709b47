//! `prismctl`: its nouns one file each, and output as table, JSON and YAML.
//!
//! Talks to a cluster only through `prism-client`; decides nothing. `src/bin/prismctl.rs` calls [`main`]; `prismd dev` calls
//! [`context::save`].

#![forbid(unsafe_code)]

mod cli;
pub mod context;
mod dirs;
mod exit;
mod listing;
mod output;
mod pages;
mod server;
mod settings;
mod spec_file;
mod verb;
mod wrong;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use cli::{Cli, Command};
use exit::{Done, Exit, Failure};
use output::Out;
use server::Server;
use settings::Globals;

/// Runs the command line of this process. Must be called before any thread or runtime exists.
pub fn main() -> ExitCode {
    let cli = match Cli::read(&std::env::args_os().collect::<Vec<_>>()) {
        Ok(cli) => cli,
        Err(e) => return wrong::line(&e),
    };
    let out = Out::stdio(cli.globals.output, cli.globals.verbose);
    let exit = dispatch(cli, &out).unwrap_or_else(|failure| {
        tell(&failure);
        failure.exit()
    });
    ExitCode::from(exit.code())
}

/// Tells people what failed, on standard error.
fn tell(failure: &Failure) {
    if failure.is_quiet() {
        return;
    }
    let terminal = std::io::stderr().is_terminal();
    let shown = failure.render(
        terminal.then(output::columns),
        terminal && output::colours(),
    );
    // Standard error may be closed; then the exit code says it.
    let _ = writeln!(std::io::stderr(), "{shown}");
}

/// Tells that a program could not do its work, as `prismctl` tells it; answers the exit code. For `prismd`.
pub fn fail(code: &'static str, exit: u8, message: &str, next: Option<&str>) -> ExitCode {
    let mut failure = Failure::defect(message).code(code);
    if let Some(next) = next {
        failure = failure.next(next);
    }
    tell(&failure);
    ExitCode::from(exit)
}

/// Help and version as they are; a wrong command line as `prismctl` tells it. For `prismd`.
pub fn wrong_line(e: &clap::Error) -> ExitCode {
    wrong::line(e)
}

/// `prismctl server recover` on a directory. For `prismd`.
pub fn recover(data: &std::path::Path, yes: bool) -> ExitCode {
    let out = Out::stdio(output::Format::Table, false);
    let done = runtime().and_then(|r| finish(r, verb::recover::recover(data, yes, &out)));
    let exit = done.unwrap_or_else(|failure| {
        tell(&failure);
        failure.exit()
    });
    ExitCode::from(exit.code())
}

/// What needs no server is done first, without a runtime.
fn dispatch(cli: Cli, out: &Out) -> Done {
    let globals = cli.globals;
    match cli.command {
        Command::Completion(args) => verb::completion::run(&args, out),
        Command::Context(command) => verb::context::run(command, &globals, out),
        Command::Explain(args) => match args.page(out) {
            Some(done) => done,
            None => with_server(Command::Explain(args), &globals, out),
        },
        Command::Doctor(args) => runtime()?.block_on(verb::doctor::run(&args, &globals, out)),
        Command::Backup(args) if args.check => verb::backup::check(&args, out),
        Command::Server(verb::server::ServerCommand::Recover(args)) => {
            finish(runtime()?, verb::recover::run(&args, out))
        }
        Command::Run(args) => finish(runtime()?, verb::run::run(&args, &globals, out)),
        Command::Server(verb::server::ServerCommand::BootstrapToken) => {
            verb::server::bootstrap_token(out)
        }
        other => with_server(other, &globals, out),
    }
}

fn with_server(command: Command, globals: &Globals, out: &Out) -> Done {
    let target = globals.target()?.ok_or_else(settings::no_server)?;
    let about = command.about();
    finish(runtime()?, async {
        let server = Server::new(&target, globals.patience(), out)?;
        ask(command, &server, out)
            .await
            .map_err(|failure| server.hint(failure, &about))
    })
}

async fn ask(command: Command, server: &Server, out: &Out) -> Done {
    match command {
        Command::Job(command) => verb::job::run(command, server, out).await,
        Command::Sweep(command) => verb::sweep::run(command, server, out).await,
        Command::Sandbox(command) => verb::sandbox::run(command, server, out).await,
        Command::Image(command) => verb::image::run(command, server, out).await,
        Command::Node(command) => verb::node::run(command, server, out).await,
        Command::Peer(command) => verb::peer::run(command, server, out).await,
        Command::Info(args) => verb::info::run(&args, server, out).await,
        Command::Events(args) => verb::events::run(&args, server, out).await,
        Command::Explain(args) => verb::explain::run(&args, server, out).await,
        Command::Ca(command) => verb::ca::run(command, server, out).await,
        Command::Server(command) => verb::server::run(command, server, out).await,
        Command::Backup(args) => verb::backup::backup(&args, server, out).await,
        Command::Restore(args) => verb::backup::restore(&args, server, out).await,
        Command::Namespace(command) => verb::namespace::run(command, server, out).await,
        Command::Token(command) => verb::token::run(command, server, out).await,
        Command::Run(_) | Command::Doctor(_) | Command::Context(_) | Command::Completion(_) => {
            Ok(Exit::Ok)
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| {
            Failure::failed(
                prism_types::Fault::Output,
                format!("cannot start threads: {e}; nothing was done"),
            )
        })
}

/// Waits for the work only: a thread that still reads standard input ends with the process.
fn finish(runtime: tokio::runtime::Runtime, work: impl Future<Output = Done>) -> Done {
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}
