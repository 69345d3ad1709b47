//! `events`: what happened.

use clap::Args;
use prism_api::{EventView, Op};
use prism_types::TimeMs;
use serde_json::Value;

use crate::exit::{Done, Exit, Failure};
use crate::output::{Format, Out, doc, human, text};
use crate::server::{Server, now, typed};
use prism_client::{Ask, EventsQuery};

/// Print what happened, and go on printing with --follow.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  prismctl events
  prismctl events --follow -o ndjson
  prismctl events --subject 01k8z3v6m0000000000000000a")]
pub struct EventsArgs {
    /// Go on with what happens from now on, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Only events about this id
    #[arg(long, value_name = "ID")]
    subject: Option<String>,
    /// Only events after this number
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    since: u64,
}

/// Prints them.
///
/// # Errors
/// What the server says, or when the output cannot be written.
pub async fn run(args: &EventsArgs, server: &Server, out: &Out) -> Done {
    let since = known(args, server, out).await?;
    if !args.follow {
        return Ok(Exit::Ok);
    }
    let query = EventsQuery {
        since: Some(since),
        subject: args.subject.clone(),
        limit: None,
    };
    // It takes itself up again when the connection breaks, and ends only with an error or an interrupt.
    let mut events = server.client().events_follow(query).await?;
    loop {
        let event = events.next().await?;
        print(
            out,
            &serde_json::to_value(&event).expect("wire types have only text keys"),
        )?;
    }
}

/// Prints all that is known; answers the last number.
async fn known(args: &EventsArgs, server: &Server, out: &Out) -> Result<u64, Failure> {
    let mut since = args.since;
    let mut cursor: Option<String> = None;
    loop {
        let ask = Ask::new(Op::EventList)
            .query("since", args.since)
            .maybe("subject", args.subject.as_ref())
            .query("limit", prism_api::LIMIT_MAX)
            .maybe("cursor", cursor.as_ref());
        let answer = server.ask(ask).await?;
        let items = answer["items"].as_array().map_or(&[][..], Vec::as_slice);
        match out.format {
            Format::Json | Format::Yaml if !args.follow => {
                out.doc(&answer, crate::output::Table::fields)?;
            }
            _ => items.iter().try_for_each(|e| print(out, e))?,
        }
        if let Some(last) = items.last() {
            since = since.max(last["seq"].as_u64().unwrap_or(0));
        }
        cursor = answer["next"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return Ok(since);
        }
    }
}

/// The time of a moment of the last day, and the date of an older one.
fn clock(at: TimeMs, now: TimeMs) -> String {
    let whole = human::moment(at);
    let (date, time) = whole.split_once(' ').unwrap_or((&whole, ""));
    if now.since(at).0 < 86_400_000 {
        time.to_owned()
    } else {
        date.to_owned()
    }
}

fn print(out: &Out, event: &Value) -> Result<(), Failure> {
    match out.format {
        Format::Table => {
            let e: EventView = typed(event)?;
            if let Some(columns) = out.width() {
                let label = format!("{}  {:<23}  ", clock(e.at, now()), text::escape(&e.kind));
                let said = format!(
                    "{} ({})",
                    text::escape(&e.message),
                    text::escape(&e.subject)
                );
                return out.print(&format!("{}\n", text::fill(&said, &label, Some(columns))));
            }
            let line = format!(
                "{}  {:<23} {}  {}",
                human::moment(e.at),
                text::escape(&e.kind),
                text::escape(&e.subject),
                text::escape(&e.message)
            );
            out.print(&format!("{}\n", line.trim_end()))
        }
        Format::Yaml => out.print(&format!("---\n{}", doc::yaml(event))),
        Format::Json | Format::Ndjson => out.print(&doc::json_line(event)),
    }
}
