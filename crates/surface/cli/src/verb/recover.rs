//! `server recover`: lost quorum. Works on the directory of a stopped server, without any server to ask.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use prism_node::{NodeError, Survey};
use prism_types::TimeMs;

use crate::exit::{Done, Exit, Failure};
use crate::output::{Out, human};

/// Flags of `server recover`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  prismctl server recover --data-dir /var/lib/prism/server
  prismctl server recover --data-dir /var/lib/prism/server --yes

When most servers are lost for good: makes the one whose directory this is the
only server of its cluster. Without --yes it only shows what would be kept and
what is left behind. Stop prismd on all servers first. `prismd server recover`
is the same.")]
pub struct RecoverArgs {
    /// The data directory of the server that is left, whose prismd is stopped
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Do it
    #[arg(long)]
    yes: bool,
}

/// Does it, or shows what it would do.
///
/// # Errors
/// When the directory cannot be used for it, or the output cannot be written.
pub async fn run(args: &RecoverArgs, out: &Out) -> Done {
    recover(&args.data_dir, args.yes, out).await
}

/// The same for `prismd`.
///
/// # Errors
/// As of [`run`].
pub async fn recover(data: &Path, yes: bool, out: &Out) -> Done {
    let survivor = prism_node::survey(data).await.map_err(failure)?;
    let survey = survivor.survey.clone();
    let told = out.print(&shown(&survey, SystemTime::now()));
    if !yes || told.is_err() {
        survivor.leave().await;
        told?;
        out.note("nothing was changed; the same with --yes does it");
        return Ok(Exit::Usage);
    }
    survivor.recover().await.map_err(failure)?;
    out.note(&format!(
        "server {} is the only one of its cluster now; start it as before\n  \
         then let others join with empty directories: prismctl server join-token --role server",
        survey.name
    ));
    Ok(Exit::Ok)
}

fn failure(e: NodeError) -> Failure {
    let failure = Failure::defect(e.to_string()).code(e.code());
    let failure = match &e {
        NodeError::Refused(_) => failure,
        _ => failure.next(
            e.next()
                .replace("--data-dir DIR", "--data-dir DIR of a server"),
        ),
    };
    failure.state("nothing was changed")
}

/// When it was, and how long ago.
fn when(at: Option<SystemTime>, now: SystemTime) -> String {
    let ms = |t: SystemTime| {
        let since = t.duration_since(UNIX_EPOCH).unwrap_or_default();
        TimeMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    };
    at.map_or_else(String::new, |at| {
        let (at, now) = (ms(at), ms(now));
        format!(
            ", written {} ({} ago)",
            human::moment(at),
            human::age(at, now)
        )
    })
}

fn shown(s: &Survey, now: SystemTime) -> String {
    let many = |n: usize, noun| human::plural(n as u64, noun);
    let mut text = format!(
        "server {} (number {}) of cluster {}\n",
        s.name, s.number, s.cluster
    );
    let mut line = |name: &str, what: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {name:<13} {what}");
    };
    line("directory", s.data_dir.display().to_string());
    if !s.voter {
        let what = "no: it was still learning, and may lack much; look for another";
        line("votes", what.to_owned());
    }
    line(
        "last entry",
        format!("{} of term {}{}", s.last, s.term, when(s.written, now)),
    );
    line(
        "committed",
        format!(
            "up to {} for certain; what follows is kept as well",
            s.committed
        ),
    );
    line(
        "keeps",
        format!(
            "{}, {} of them not over; living sandboxes: {}",
            many(s.jobs, "job"),
            s.open,
            s.sandboxes
        ),
    );
    line(
        "loses",
        "what the others acknowledged without it after its last entry, if anything".to_owned(),
    );
    for other in &s.others {
        let name = other.name.as_ref().map_or("(no name)", |n| n.as_str());
        let learns = if other.voter { "" } else { ", learning" };
        line(
            "leaves behind",
            format!(
                "{name} (number {}, at {}{learns})",
                other.number, other.address
            ),
        );
    }
    text.push_str(
        "Those that are left behind must not run any more: enough of them would go on without it. One that comes\n\
         back and reaches it ends, and says why; it joins again with an empty directory and a new token.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use prism_node::LeftBehind;
    use std::time::Duration;

    #[test]
    fn what_is_kept_and_left_is_shown_before_anything_is_done() {
        let id = prism_types::Id::new(1_700_000_000_000, 7);
        let text = shown(
            &Survey {
                data_dir: "/data".into(),
                cluster: prism_node::ClusterId(id),
                name: "s3".parse().unwrap(),
                number: 3,
                voter: true,
                last: 120,
                term: 4,
                committed: 118,
                written: Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
                jobs: 2,
                open: 1,
                sandboxes: 1,
                others: vec![LeftBehind {
                    number: 1,
                    name: Some("s1".parse().unwrap()),
                    address: "10.0.0.1:4200".to_owned(),
                    voter: true,
                }],
            },
            UNIX_EPOCH + Duration::from_secs(1_700_000_060),
        );
        for said in [
            "server s3 (number 3) of cluster",
            "last entry    120 of term 4, written 2023-11-14 22:13:20Z",
            "committed     up to 118 for certain",
            "keeps         2 jobs, 1 of them not over; living sandboxes: 1",
            "leaves behind s1 (number 1, at 10.0.0.1:4200)",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
        assert!(!text.contains("votes"), "{text}");
    }
}
