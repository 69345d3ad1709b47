//! `doctor`: what this machine can do, found by trying. Works without a server.

use std::time::Duration;

use clap::Args;
use prism_client::Client;
use prism_runtime::Capability;
use serde_json::{Value, json};

use crate::context::{self, Context};
use crate::exit::{Done, Exit, Failure};
use crate::output::{Column, Format, Out, Table, human, text};
use crate::settings::{Globals, Target};

/// Say what this machine can do, what is missing, and what is lost without it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  prismctl doctor
  prismctl doctor -o json

Everything is tried rather than read from version numbers. It ends with 1 when
something is missing without which no sandbox can run.")]
pub struct DoctorArgs {}

/// How long a server is given to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whether a known cluster answers.
struct Reach {
    name: String,
    api: String,
    works: bool,
    found: String,
}

/// Looks and reports.
///
/// # Errors
/// When the output cannot be written. What is missing on the machine is no error but the exit code 1.
pub async fn run(_: &DoctorArgs, globals: &Globals, out: &Out) -> Done {
    let host = host();
    let capabilities = tokio::task::spawn_blocking(prism_sandbox::probe)
        .await
        .map_err(|e| Failure::defect(format!("the look at this machine broke off: {e}")))?;
    let (contexts, file_trouble) = contexts(globals).await;
    let missing = capabilities.iter().any(|c| c.required && !c.works);
    if out.format == Format::Table {
        out.table(&host_table(&host))?;
        out.print("\n")?;
        out.table(&capability_table(&capabilities))?;
        out.print(&losses(&capabilities, out.width()))?;
        if !contexts.is_empty() {
            out.print("\n")?;
            out.table(&context_table(&contexts))?;
        }
        out.print(&format!("\n{}\n", verdict(&capabilities)))?;
    } else {
        out.doc(&document(&host, &capabilities, &contexts), Table::fields)?;
    }
    if let Some(trouble) = file_trouble {
        out.note(&trouble);
    }
    Ok(if missing { Exit::Failure } else { Exit::Ok })
}

/// Facts of this machine, by name.
fn host() -> Vec<(&'static str, String)> {
    let uname = rustix::system::uname();
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let release = read("/etc/os-release");
    let os = release
        .lines()
        .find_map(|l| l.strip_prefix("PRETTY_NAME="))
        .map_or_else(|| "Linux".to_owned(), |n| n.trim_matches('"').to_owned());
    let memory = read("/proc/meminfo")
        .lines()
        .find_map(|l| {
            l.strip_prefix("MemTotal:")?
                .trim()
                .strip_suffix("kB")?
                .trim()
                .parse::<u64>()
                .ok()
        })
        .map_or_else(|| "not available".to_owned(), |kib| human::size(kib * 1024));
    let uid = rustix::process::getuid().as_raw();
    let user = if uid == 0 {
        "root".to_owned()
    } else {
        format!("uid {uid}, not root")
    };
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    vec![
        ("system", os),
        ("kernel", uname.release().to_string_lossy().into_owned()),
        ("machine", uname.machine().to_string_lossy().into_owned()),
        ("processors", cpus.to_string()),
        ("memory", memory),
        ("user", user),
        ("prismctl", env!("CARGO_PKG_VERSION").to_owned()),
    ]
}

/// Every known cluster, and what is wrong with the file if something is.
async fn contexts(globals: &Globals) -> (Vec<Reach>, Option<String>) {
    let mut all: Vec<(String, Context)> = Vec::new();
    let mut trouble = None;
    match context::path().and_then(|p| context::load(&p)) {
        Ok(file) => all.extend(file.contexts.into_iter().map(|(n, c)| (n.to_string(), c))),
        Err(e) => trouble = Some(e.to_string()),
    }
    if let Ok(Some(target)) = globals.target()
        && target.context.is_none()
    {
        let Target {
            api,
            token,
            trusted,
            ..
        } = target;
        all.push((
            "--api".to_owned(),
            Context {
                api,
                token,
                namespace: None,
                pin: trusted.pin,
                ca: trusted.ca,
                cert: trusted.cert,
                key: trusted.key,
            },
        ));
    }
    let asked: Vec<_> = all
        .into_iter()
        .map(|(name, c)| tokio::spawn(reach(name, c)))
        .collect();
    let mut found = Vec::new();
    for each in asked {
        found.extend(each.await);
    }
    (found, trouble)
}

async fn reach(name: String, context: Context) -> Reach {
    let token = context.token.as_deref();
    let client = match context.trusted().read() {
        Ok(security) => {
            Client::secured(&context.api, token, PATIENCE, &security).map_err(|e| e.to_string())
        }
        Err(e) => Err(e.to_string()),
    };
    let found = match client {
        Err(e) => Err(e),
        Ok(client) => match client.health().await {
            Err(e) => Err(e.to_string()),
            Ok(health) if !health.ready => Err(format!("not ready: {}", health.reasons.join("; "))),
            Ok(health) => match client.cluster().await {
                Ok(_) => Ok(format!("version {}", health.version)),
                Err(e) => Err(format!("it answers, but: {e}")),
            },
        },
    };
    Reach {
        name,
        api: context.api,
        works: found.is_ok(),
        found: found.unwrap_or_else(|e| e),
    }
}

fn status(c: &Capability) -> &'static str {
    match (c.works, c.required) {
        (true, _) => "ok",
        (false, true) => "missing",
        (false, false) => "degraded",
    }
}

fn host_table(host: &[(&str, String)]) -> Table {
    let mut t = Table::fields();
    for (name, value) in host {
        t.row([*name, value]);
    }
    t
}

fn capability_table(all: &[Capability]) -> Table {
    let mut t = Table::new([
        ("check", Column::Whole),
        ("status", Column::Whole),
        ("found", Column::Cut),
    ]);
    for c in all {
        t.row([c.name.as_str(), status(c), &c.found]);
    }
    t
}

fn context_table(all: &[Reach]) -> Table {
    let mut t = Table::new([
        ("context", Column::Cut),
        ("status", Column::Whole),
        ("api", Column::Cut),
        ("found", Column::Cut),
    ]);
    for r in all {
        t.row([
            r.name.as_str(),
            if r.works { "ok" } else { "unreachable" },
            &r.api,
            &r.found,
        ]);
    }
    t
}

/// For each thing that is missing, what is lost without it and what to do: whole, never cut.
fn losses(all: &[Capability], columns: Option<usize>) -> String {
    let mut shown = String::new();
    for c in all.iter().filter(|c| !c.works) {
        let label = format!("{} {}: ", text::escape(&c.name), status(c));
        // Beneath each other as an own paragraph: the label is a word of it.
        let told = text::fill(&format!("{label}{}", text::escape(&c.lost)), "", columns);
        shown.push_str(&format!("\n{told}\n"));
    }
    shown
}

fn verdict(all: &[Capability]) -> String {
    let required = all.iter().filter(|c| !c.works && c.required).count();
    let other = all.iter().filter(|c| !c.works && !c.required).count();
    match (required, other) {
        (0, 0) => "sandboxes run here with everything that isolates them".to_owned(),
        (0, n) => format!(
            "sandboxes run here, without {}",
            human::plural(n as u64, "thing")
        ),
        (n, _) => format!(
            "sandboxes cannot run here: {} missing",
            human::plural(n as u64, "required thing")
        ),
    }
}

fn document(host: &[(&str, String)], all: &[Capability], contexts: &[Reach]) -> Value {
    let host: serde_json::Map<String, Value> = host
        .iter()
        .map(|(n, v)| ((*n).to_owned(), json!(v)))
        .collect();
    let contexts: Vec<Value> = contexts
        .iter()
        .map(|r| json!({"name": r.name, "api": r.api, "works": r.works, "found": r.found}))
        .collect();
    json!({
        "host": host,
        "checks": all,
        "contexts": contexts,
        "sandboxes": all.iter().all(|c| c.works || !c.required),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, works: bool, required: bool) -> Capability {
        Capability {
            name: name.into(),
            works,
            found: "found".into(),
            lost: if works {
                String::new()
            } else {
                format!("no {name}; install it")
            },
            required,
        }
    }

    #[test]
    fn what_is_missing_is_told_with_what_is_lost() {
        let all = [
            check("a", true, true),
            check("b", false, true),
            check("c", false, false),
        ];
        assert_eq!(all.each_ref().map(status), ["ok", "missing", "degraded"]);
        assert_eq!(
            losses(&all, None),
            "\nb missing: no b; install it\n\nc degraded: no c; install it\n"
        );
        assert!(verdict(&all).contains("cannot run here: 1 required thing missing"));
        assert!(verdict(&all[..1]).contains("everything"));
        assert_eq!(document(&host(), &all, &[])["sandboxes"], false);
    }

    #[test]
    fn the_facts_of_this_machine_are_real() {
        let facts = host();
        let get = |name| {
            facts
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| v.clone())
                .unwrap()
        };
        assert!(!get("kernel").is_empty() && get("processors") != "0");
        assert!(get("memory").ends_with("iB"), "{}", get("memory"));
    }
}
