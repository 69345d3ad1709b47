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
        Err(e) => {
            // Help and version go to standard output, errors to standard error; a closed pipe is nobody's loss.
            let _ = e.print();
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    let out = Out::stdio(cli.globals.output, cli.globals.verbose);
    let exit = dispatch(cli, &out).unwrap_or_else(|failure| {
        if !failure.is_quiet() {
            eprintln!("{failure}");
        }
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
        Command::Run(args) => finish(runtime()?, verb::run::run(&args, &globals, out)),
        other => with_server(other, &globals, out),
    }
}

fn with_server(command: Command, globals: &Globals, out: &Out) -> Done {
    let target = globals.target()?.ok_or_else(settings::no_server)?;
    finish(runtime()?, async {
        let server = Server::new(&target, globals.patience(), out)?;
        ask(command, &server, out)
            .await
            .map_err(|failure| server.hint(failure))
    })
}

async fn ask(command: Command, server: &Server, out: &Out) -> Done {
    match command {
        Command::Job(command) => verb::job::run(command, server, out).await,
        Command::Sweep(command) => verb::sweep::run(command, server, out).await,
        Command::Sandbox(command) => verb::sandbox::run(command, server, out).await,
        Command::Image(command) => verb::image::run(command, server, out).await,
        Command::Node(command) => verb::node::run(command, server, out).await,
        Command::Info(args) => verb::info::run(&args, server, out).await,
        Command::Events(args) => verb::events::run(&args, server, out).await,
        Command::Explain(args) => verb::explain::run(&args, server, out).await,
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
        .map_err(|e| Failure::failed(format!("cannot start threads: {e}")))
}

/// Waits for the work only: a thread that still reads standard input ends with the process.
fn finish(runtime: tokio::runtime::Runtime, work: impl Future<Output = Done>) -> Done {
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}
