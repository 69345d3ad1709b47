//! What every `ls` has: how many, which, and watching.

use clap::Args;
use serde_json::{Value, json};
use std::time::Duration;

use crate::exit::Failure;
use crate::output::{Format, Out, Table, doc};
use crate::server::Server;
use prism_client::Ask;

/// How often a watched list is asked for again.
const EVERY: Duration = Duration::from_secs(2);

/// Flags of every list that is shown in pages.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Show at most so many
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub limit: u32,
    /// Only those with this label; may be repeated
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    #[command(flatten)]
    /// Watching.
    pub watch: WatchArgs,
}

/// The flag of everything that can be watched.
#[derive(Args, Clone, Copy, Debug)]
pub struct WatchArgs {
    /// Show it again and again until interrupted
    #[arg(short, long)]
    pub watch: bool,
}

impl ListArgs {
    /// Adds what is wanted to a question.
    pub fn narrow(&self, mut ask: Ask) -> Ask {
        for label in &self.labels {
            ask = ask.query("label", label);
        }
        ask
    }
}

/// Asks for a list page by page, at most `limit` items: the answer as if it were one page.
///
/// # Errors
/// What the server says.
pub async fn pages(server: &Server, ask: &Ask, limit: u32) -> Result<Value, Failure> {
    let mut items = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let left = limit as usize - items.len();
        let page_limit = left.min(prism_api::LIMIT_MAX as usize);
        let mut page = ask.clone().query("limit", page_limit);
        if let Some(cursor) = &cursor {
            page = page.query("cursor", cursor);
        }
        let mut answer = server.ask(page).await?;
        match answer.get_mut("items").map(Value::take) {
            Some(Value::Array(some)) => items.extend(some),
            _ => {
                return Err(Failure::failed(
                    prism_types::Fault::NotPrism,
                    "the server answered a list without items",
                ));
            }
        }
        cursor = answer
            .get("next")
            .and_then(Value::as_str)
            .map(str::to_owned);
        if cursor.is_none() || items.len() >= limit as usize {
            return Ok(json!({"items": items, "next": cursor}));
        }
    }
}

/// Shows a list once, or again and again.
///
/// # Errors
/// What the server says, or when the output cannot be written.
pub async fn show(
    server: &Server,
    out: &Out,
    ask: Ask,
    limit: u32,
    watch: WatchArgs,
    table: impl Fn(&[Value]) -> Result<Table, Failure>,
) -> Result<(), Failure> {
    // The last word of the list's path is what it lists.
    let path = prism_api::Route::of(ask.op()).path;
    let what = path.rsplit('/').next().unwrap_or("items");
    repeat(out, watch, async || {
        let list = pages(server, &ask, limit).await?;
        let items = list["items"].as_array().map_or(&[][..], Vec::as_slice);
        let text = match out.format {
            Format::Ndjson => items.iter().map(doc::json_line).collect(),
            Format::Table => out.rendered(&table(items)?),
            Format::Json | Format::Yaml => out.shown(&list, Table::fields),
        };
        if !watch.watch && items.is_empty() && out.format == Format::Table {
            out.note(&format!("there are no {what}"));
            return Ok(String::new());
        }
        if !watch.watch && list["next"].is_string() {
            out.note("there are more: ask for them with --limit");
        }
        Ok(text)
    })
    .await
}

/// Prints what `make` makes: once; or when watching, each time that it differs, on a cleared terminal. A server that
/// cannot be reached for a moment does not end the watching.
///
/// # Errors
/// What `make` says the first time, or when the output cannot be written.
pub async fn repeat(
    out: &Out,
    watch: WatchArgs,
    make: impl AsyncFn() -> Result<String, Failure>,
) -> Result<(), Failure> {
    let mut last = make().await?;
    if !watch.watch {
        return out.print(&last);
    }
    let clear = if out.terminal { "\x1b[H\x1b[2J" } else { "" };
    out.print(&format!("{clear}{last}"))?;
    loop {
        tokio::time::sleep(EVERY).await;
        match make().await {
            Ok(text) if text == last => {}
            Ok(text) => {
                out.print(&format!("{clear}{text}"))?;
                last = text;
            }
            Err(e) if e.exit() == crate::exit::Exit::Unreachable => out.note(&e.to_string()),
            Err(e) => return Err(e),
        }
    }
}
