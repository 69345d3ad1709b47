//! `events`: what happened.

use clap::Args;
use prism_api::{AuditCheck, EventView, Op};
use prism_types::TimeMs;
use serde_json::Value;

use crate::exit::{Done, Exit, Failure};
use crate::output::{Format, Out, Table, doc, human, text};
use crate::server::{Server, now, typed};
use prism_client::{Ask, EventsQuery};

/// Print what happened, and go on printing with --follow.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  prismctl events
  prismctl events --follow -o ndjson
  prismctl events --subject 01k8z3v6m0000000000000000a
  prismctl events --kind audit
  prismctl events --verify")]
pub struct EventsArgs {
    /// Go on with what happens from now on, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Only events about this id
    #[arg(long, value_name = "ID")]
    subject: Option<String>,
    /// Only events of this kind, such as job.completed, or of this family, such as job; audit for administrators
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Look through all stored events, whether any audit event was altered or taken out
    #[arg(long, conflicts_with_all = ["follow", "subject", "kind", "since"])]
    verify: bool,
    /// Only events after this number
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    since: u64,
}

/// Prints them.
///
/// # Errors
/// What the server says, or when the output cannot be written.
pub async fn run(args: &EventsArgs, server: &Server, out: &Out) -> Done {
    if args.verify {
        return verify(server, out).await;
    }
    let since = known(args, server, out).await?;
    if !args.follow {
        return Ok(Exit::Ok);
    }
    let query = EventsQuery {
        since: Some(since),
        subject: args.subject.clone(),
        namespace: server.target().namespace.as_ref().map(ToString::to_string),
        kind: args.kind.clone(),
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

/// Says whether the chain of audit events holds; it failed if not.
async fn verify(server: &Server, out: &Out) -> Done {
    let answer = server.ask(Ask::new(Op::EventVerify)).await?;
    let check: AuditCheck = typed(&answer)?;
    out.doc(&answer, || {
        let mut t = Table::fields();
        let said = |n: Option<u64>| n.map_or_else(|| "none".to_owned(), |n| n.to_string());
        t.row(["audit events", &check.events.to_string()]);
        t.row(["first", &said(check.first)]);
        t.row(["last", &said(check.last)]);
        t.row(["head", &check.head]);
        let whole = "each follows from the one before".to_owned();
        let broken = check.why.as_ref().map(|why| {
            let at = check.broken_at.unwrap_or_default();
            format!("broken at event {at}: {why}")
        });
        t.row(["chain", &broken.unwrap_or(whole)]);
        t
    })?;
    Ok(if check.ok { Exit::Ok } else { Exit::Failure })
}

/// Prints all that is known; answers the last number.
async fn known(args: &EventsArgs, server: &Server, out: &Out) -> Result<u64, Failure> {
    let mut since = args.since;
    let mut cursor: Option<String> = None;
    loop {
        let ask = Ask::new(Op::EventList)
            .query("since", args.since)
            .maybe("subject", args.subject.as_ref())
            .maybe("kind", args.kind.as_ref())
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
