//! `job logs`: the output of one task as it is, or as it comes.

use clap::Args;
use prism_api::Stream;
use prism_client::{ByteStream, LogsQuery};

use crate::exit::{Done, Exit, Failure};
use crate::output::Out;
use crate::server::Server;

/// Print the output of one task.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  prismctl job logs digits --task 3
  prismctl job logs digits --task 3 --stderr --follow
  prismctl job logs digits --task 3 --attempt 1 > first-try.log

On a terminal, control characters in the output are spelled out; piped, it is
as the task wrote it.")]
pub struct LogsArgs {
    /// Id or name
    pub(super) job: String,
    /// Index of the task
    #[arg(long, value_name = "N", default_value_t = 0)]
    task: u32,
    /// Which attempt, from 1 [default: the last]
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,
    /// Its standard error instead of its standard output
    #[arg(long)]
    stderr: bool,
    /// Go on until it ends
    #[arg(short, long)]
    follow: bool,
}

/// Times that a broken stream is taken up again without anything new in between.
const TRIES: u32 = 5;

/// Prints it.
///
/// # Errors
/// What the server says, or when the output cannot be written.
pub async fn run(args: &LogsArgs, server: &Server, out: &Out) -> Done {
    let mut query = LogsQuery {
        task: Some(args.task),
        attempt: args.attempt,
        stream: Some(if args.stderr {
            Stream::Stderr
        } else {
            Stream::Stdout
        }),
        offset: Some(0),
        follow: args.follow,
    };
    copy(out, &mut query, async |q| {
        Ok(server.client().jobs().logs(&args.job, q).await?)
    })
    .await?;
    Ok(Exit::Ok)
}

/// Prints a stream to its end; takes it up where it stood when the connection breaks.
///
/// # Errors
/// What the server says, or when the output cannot be written.
pub async fn copy(
    out: &Out,
    query: &mut LogsQuery,
    open: impl AsyncFn(&LogsQuery) -> Result<ByteStream, Failure>,
) -> Result<(), Failure> {
    let mut tries = 0;
    loop {
        let mut bytes = open(query).await?;
        let mut at = query.offset.unwrap_or(0);
        if let Some(first) = bytes.offset().filter(|first| *first > at) {
            out.note(&format!(
                "{} bytes before this were dropped: the log has a limit",
                first - at
            ));
            at = first;
        }
        loop {
            match bytes.next().await {
                Ok(Some(data)) => {
                    out.foreign(&data)?;
                    at += data.len() as u64;
                    tries = 0;
                }
                Ok(None) => return Ok(()),
                Err(e) if tries < TRIES => {
                    tries += 1;
                    out.detail(&e.to_string());
                    break;
                }
                Err(e) => return Err(e.into()),
            }
        }
        query.offset = Some(at);
    }
}
