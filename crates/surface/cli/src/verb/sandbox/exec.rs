//! `sandbox exec`: runs a command, streams its output, ends with its status.

use std::io::{IsTerminal, Read, Write};

use bytes::Bytes;
use clap::Args;
use prism_api::{ExecBody, ExitView, Stream};
use prism_client::ExecOutput;
use prism_types::Fault;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::create::pair;
use super::terminal::{Raw, size};
use crate::exit::{Done, Exit, Failure};
use crate::output::Out;
use crate::server::Server;
use crate::verb::token::duration_text;

/// Run a command in a sandbox, and end as it ends.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  prismctl sandbox exec box -- python3 -c 'print(6*7)'
  prismctl sandbox exec -i box -- wc -l < data.csv
  prismctl sandbox exec -i -t box -- bash

It ends with the command's exit code; with 128 and the signal's number when a
signal ended it; with 124 when its time limit passed; with 127 when it did not
start.")]
pub struct ExecArgs {
    /// Id or name
    pub(super) sandbox: String,
    /// Give it our standard input
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give it a terminal
    #[arg(short = 't', long)]
    tty: bool,
    /// Environment on top of the sandbox's; may be repeated
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Working directory [default: /work]
    #[arg(short = 'w', long, value_name = "DIR")]
    cwd: Option<String>,
    /// Kill it after this time
    #[arg(long, value_name = "TIME", value_parser = duration_text)]
    time_limit: Option<String>,
    /// Program and arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Input that is read ahead of what the server has taken, in pieces of at most [`PIECE`].
const AHEAD: usize = 4;
const PIECE: usize = 32 << 10;

/// Runs it.
///
/// # Errors
/// What the server says, or when the output cannot be written.
pub async fn run(args: ExecArgs, server: &Server, out: &Out) -> Done {
    if args.tty && !(std::io::stdin().is_terminal() && out.terminal) {
        return Err(Failure::usage(
            "-t needs a terminal on standard input and output; nothing was started",
        )
        .next("leave out -t when input or output is a pipe or file"));
    }
    let body = ExecBody {
        id: None,
        argv: args.command,
        env: Some(environment(args.env, args.tty)).filter(|e| !e.is_empty()),
        cwd: args.cwd,
        stdin: Some(args.stdin || args.tty),
        tty: args.tty.then(size),
        timeout: args.time_limit,
    };
    let mut stream = server
        .client()
        .sandboxes()
        .exec_stream(&args.sandbox, &body)
        .await?;
    let exec = stream.id().to_owned();
    let raw = if args.tty { Some(Raw::enter()?) } else { None };
    let beside = Beside {
        server,
        sandbox: &args.sandbox,
        exec: &exec,
    };
    let output = async {
        while let Some(output) = stream.next().await? {
            match output {
                ExecOutput::Started(_) => {}
                ExecOutput::Data { stream, data, .. } => write(stream, &data)?,
                ExecOutput::Exit(exit) => return Ok(exit),
            }
        }
        Err(Failure::failed(
            Fault::AnswerLost,
            "the command's output ended without saying how the command ended",
        )
        .next(format!("prismctl sandbox logs {}", args.sandbox)))
    };
    let ended = tokio::select! {
        ended = output => ended,
        failure = beside.input(args.stdin || args.tty) => Err(failure),
        failure = beside.signals(args.tty) => Err(failure),
    };
    drop(raw);
    let exit = ended?;
    match (&exit.message, exit.reason) {
        (Some(why), Some(prism_types::Reason::StartFailed)) => {
            let failure = Failure::new(
                status(&exit),
                Fault::Usage,
                format!("the command did not start: {why}"),
            );
            return Err(failure
                .because(prism_types::Reason::StartFailed, "")
                .next(format!(
                    "see what is there: prismctl sandbox exec {} -- ls /usr/bin",
                    args.sandbox
                )));
        }
        (Some(message), _) if exit.code.is_none() => out.note(message),
        _ => {}
    }
    Ok(status(&exit))
}

/// What was asked for; programs on a terminal are told which kind it is.
fn environment(given: Vec<(String, String)>, tty: bool) -> prism_types::Labels {
    let mut env: prism_types::Labels = given.into_iter().collect();
    if tty && !env.contains_key("TERM") {
        let term = std::env::var("TERM").ok().filter(|t| !t.is_empty());
        env.insert("TERM".to_owned(), term.unwrap_or_else(|| "dumb".to_owned()));
    }
    env
}

/// Its output as it is: whoever asked for the command asked for what it prints.
fn write(stream: Stream, data: &[u8]) -> Result<(), Failure> {
    match stream {
        Stream::Stdout => {
            let mut to = std::io::stdout().lock();
            to.write_all(data)?;
            to.flush()?;
        }
        Stream::Stderr => std::io::stderr().lock().write_all(data)?,
    }
    Ok(())
}

/// As shells do it.
fn status(exit: &ExitView) -> Exit {
    let code = match (exit.code, exit.signal, exit.reason) {
        (_, _, Some(prism_types::Reason::Timeout)) => 124,
        (Some(code), _, _) => u8::try_from(code & 0xff).unwrap_or(1),
        (None, Some(signal), _) => u8::try_from(128 + (signal & 0x7f)).unwrap_or(1),
        (None, None, Some(prism_types::Reason::StartFailed)) => 127,
        (None, None, _) => 1,
    };
    if code == 0 {
        Exit::Ok
    } else {
        Exit::Program(code)
    }
}

/// What goes on while the output comes. Each of these ends only with a failure.
struct Beside<'a> {
    server: &'a Server,
    sandbox: &'a str,
    exec: &'a str,
}

impl Beside<'_> {
    /// Feeds our standard input.
    async fn input(&self, wanted: bool) -> Failure {
        if wanted {
            let mut pieces = read_ahead();
            loop {
                let piece = pieces.recv().await;
                let last = piece.is_none();
                let sandboxes = self.server.client().sandboxes();
                let fed = sandboxes
                    .exec_input(self.sandbox, self.exec, piece.unwrap_or_default(), last)
                    .await;
                // A command that ended or closed its input takes no more; its exit tells the rest.
                if fed.is_err() || last {
                    break;
                }
            }
        }
        std::future::pending().await
    }

    /// Passes on what the keyboard and the window say.
    async fn signals(&self, tty: bool) -> Failure {
        let deaf = |e: std::io::Error| {
            Failure::failed(Fault::Output, format!("cannot receive signals: {e}"))
        };
        let kinds = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
            signal(SignalKind::window_change()),
        );
        let (mut interrupt, mut terminate, mut window) = match kinds {
            (Ok(i), Ok(t), Ok(w)) => (i, t, w),
            (Err(e), _, _) | (_, Err(e), _) | (_, _, Err(e)) => return deaf(e),
        };
        let mut asked = 0;
        loop {
            let name = tokio::select! {
                _ = interrupt.recv() => "INT",
                _ = terminate.recv() => "TERM",
                _ = window.recv() => {
                    if tty {
                        // The next change tells again.
                        let _ = self.server.client().sandboxes().exec_resize(self.sandbox, self.exec, size()).await;
                    }
                    continue;
                }
            };
            asked += 1;
            if asked > 1 {
                return Failure::new(
                    Exit::Interrupted,
                    Fault::AnswerLost,
                    "interrupted; the command may still run in the sandbox",
                )
                .next(format!("prismctl sandbox logs {} --follow", self.sandbox));
            }
            if let Err(e) = self
                .server
                .client()
                .sandboxes()
                .exec_signal(self.sandbox, self.exec, name)
                .await
            {
                return e.into();
            }
        }
    }
}

/// Standard input can only be read by blocking, so a thread of its own does; it ends with the process.
fn read_ahead() -> mpsc::Receiver<Bytes> {
    let (send, pieces) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut piece = vec![0; PIECE];
        loop {
            match stdin.read(&mut piece) {
                Ok(0) | Err(_) => return,
                Ok(n) => {
                    if send
                        .blocking_send(Bytes::copy_from_slice(&piece[..n]))
                        .is_err()
                    {
                        return;
                    }
                }
            }
        }
    });
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use prism_types::{Reason, TimeMs};

    fn exit(code: Option<i32>, signal: Option<i32>, reason: Option<Reason>) -> u8 {
        status(&ExitView {
            code,
            signal,
            reason,
            message: None,
            started: TimeMs(0),
            wall_ms: 0,
            cpu_us: 0,
            memory_peak: 0,
            stdout_bytes: 0,
            stderr_bytes: 0,
        })
        .code()
    }

    #[test]
    fn it_ends_as_its_command() {
        assert_eq!(exit(Some(0), None, None), 0);
        assert_eq!(exit(Some(7), None, Some(Reason::ExitCode)), 7);
        assert_eq!(exit(None, Some(9), Some(Reason::Signal)), 137);
        assert_eq!(exit(None, Some(9), Some(Reason::Timeout)), 124);
        assert_eq!(exit(None, None, Some(Reason::StartFailed)), 127);
        assert_eq!(exit(None, None, None), 1);
    }
}
