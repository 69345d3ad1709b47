//! `explain`: why a thing is as it is, or what a code means. Codes need no server.

use clap::Args;
use prism_api::{ExplainView, Op};
use prism_types::Reason;
use serde_json::json;

use crate::exit::{Done, Exit, Failure};
use crate::output::{Column, Format, Out, Table, text};
use crate::pages;
use crate::server::{Server, typed};
use prism_client::Ask;

/// Say why a thing is as it is, or what an error code means.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  prismctl explain 01k8z3v6m0000000000000000a      # why does it wait?
  prismctl explain 01k8z3v6m0000000000000000a.3    # the same for its task 3
  prismctl explain PRISM-T003                      # what does this code mean?
  prismctl explain out_of_memory                   # the same by its name")]
pub struct ExplainArgs {
    /// A job, task (JOB.INDEX), sandbox or node; or a code such as PRISM-T003, or a reason such as out_of_memory
    subject: String,
}

impl ExplainArgs {
    /// Prints the page of a code; `None` when the subject is something that a server knows.
    pub fn page(&self, out: &Out) -> Option<Done> {
        if let Some((code, page)) = pages::find(&self.subject) {
            let printed = match out.format {
                Format::Table => match out.width() {
                    Some(columns) => out.print(&text::page(page, columns)),
                    None => out.print(page),
                },
                _ => out.doc(&json!({"code": code, "page": page}), Table::fields),
            };
            return Some(printed.map(|()| Exit::Ok));
        }
        pages::looks_like_code(&self.subject).then(|| {
            let near = pages::near(&self.subject)
                .map_or(String::new(), |n| format!("; did you mean {n}?"));
            Err(
                Failure::usage(format!("there is no code {}{near}", self.subject))
                    .next("see them all in docs/errors, or name a reason such as out_of_memory"),
            )
        })
    }
}

/// The page about why nothing takes it now, if nothing does.
fn waiting(e: &ExplainView) -> Option<&'static str> {
    let nowhere = !e.candidates.is_empty() && e.candidates.iter().all(|c| !c.fits);
    nowhere.then(|| {
        let pressed = |c: &prism_api::CandidateView| {
            c.reason.as_ref().is_some_and(|r| r.contains("pressure"))
        };
        if e.candidates.iter().all(pressed) {
            Reason::Pressure.as_code()
        } else {
            Reason::NoPlacement.as_code()
        }
    })
}

/// Asks the server.
///
/// # Errors
/// What the server says, or when the output cannot be written.
pub async fn run(args: &ExplainArgs, server: &Server, out: &Out) -> Done {
    let answer = server.ask(Ask::new(Op::Explain).at(&*args.subject)).await?;
    if out.format != Format::Table {
        out.doc(&answer, Table::fields)?;
        return Ok(Exit::Ok);
    }
    let e: ExplainView = typed(&answer)?;
    let mut t = Table::fields();
    t.row([e.kind.as_str(), &e.subject]);
    t.row(["status", &e.status]);
    t.row(["why", &e.summary]);
    if !e.advice.is_empty() {
        t.row(["next", &e.advice]);
    }
    // Whoever waits is told what about; where it would fit says nothing of what is over.
    let waits = matches!(e.status.as_str(), "QUEUED" | "PENDING");
    let code = if waits {
        waiting(&e)
    } else {
        e.details["code"].as_str()
    };
    if e.kind == "job" && matches!(e.status.as_str(), "FAILED" | "PARTIALLY_COMPLETED") {
        t.row([
            "next",
            &format!("prismctl job results {} --state FAILED", e.subject),
        ]);
    }
    if let Some(code) = code {
        t.row(["more", &format!("prismctl explain {code}")]);
    }
    out.table(&t)?;
    if waits && !e.candidates.is_empty() {
        let mut t = Table::new([
            ("node", Column::Cut),
            ("fits", Column::Whole),
            ("score", Column::Right),
            ("why not", Column::Cut),
        ]);
        for c in &e.candidates {
            t.row([
                c.node.clone(),
                if c.fits { "yes" } else { "no" }.to_owned(),
                c.score.map_or(String::new(), |s| format!("{s:.3}")),
                c.reason.clone().unwrap_or_default(),
            ]);
        }
        out.print("\n")?;
        out.table(&t)?;
    }
    Ok(Exit::Ok)
}
