//! Promise: whatever step a process fails at, the next start finds everything that was acknowledged, each thing once.
//!
//! Each failpoint of `prism-faults` is passed by a small workload with a panic, an abort, a `kill -9` or a failing disk there.
//! An ordinary user runs each point with one of the four, root with all. What was seen is in `failpoints.json` of the target.

#[path = "failpoints/case.rs"]
mod case;
#[path = "failpoints/grown.rs"]
mod grown;
#[path = "failpoints/image.rs"]
mod image;
#[path = "failpoints/plan.rs"]
mod plan;
#[path = "failpoints/report.rs"]
mod report;
#[path = "failpoints/work.rs"]
mod work;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use case::Case;
use plan::Action;
use prism_e2e::Place;
use report::Report;

/// Cases that run at once: most of a case is waiting for processes and the disk.
const AT_ONCE: usize = 4;

fn cases() -> Vec<Case> {
    let all =
        rustix::process::geteuid().is_root() || std::env::var_os("PRISM_FAILPOINTS_ALL").is_some();
    let only = std::env::var("PRISM_FAILPOINTS_ONLY").unwrap_or_default();
    let mut cases = Vec::new();
    for (n, point) in prism_faults::POINTS.iter().enumerate() {
        for (m, action) in Action::ALL.into_iter().enumerate() {
            let case = Case { point, action };
            if (all || m == n % Action::ALL.len()) && case.fault().contains(&only) {
                cases.push(case);
            }
        }
    }
    cases
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied())
        .unwrap_or("no text")
        .to_owned()
}

#[test]
fn nothing_acknowledged_is_lost_wherever_a_process_fails() {
    let cases = cases();
    let next = AtomicUsize::new(0);
    let report = Mutex::new(Report::default());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begun = std::time::Instant::now();
                    let run = catch_unwind(AssertUnwindSafe(|| case.run()));
                    eprintln!("{} {:?}", case.fault(), begun.elapsed());
                    let mut failed = failed.lock().expect("no holder panics");
                    match run {
                        Ok(Ok(seen)) => report.lock().expect("no holder panics").add(case, &seen),
                        Ok(Err(e)) => failed.push(format!("{}: {e:#}", case.fault())),
                        Err(p) => failed.push(format!("{}: {}", case.fault(), message(&*p))),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no holder panics");
    assert!(
        failed.is_empty(),
        "{} of {} cases failed:\n{}",
        failed.len(),
        cases.len(),
        failed.join("\n")
    );
    let report = report.into_inner().expect("no holder panics");
    report.write();
    if std::env::var_os("PRISM_FAILPOINTS_ONLY").is_none() {
        let missed = report.never_passed();
        assert!(missed.is_empty(), "never passed: {missed:?}");
    }
}

#[test]
fn a_wrong_failpoint_is_refused_with_the_nearest_and_all_can_be_listed() {
    let place = Place::new();
    let start = |value: &str| {
        let mut command = place.command("prismd");
        command
            .args(["dev", "--data-dir"])
            .arg(place.data())
            .env("PRISM_FAULTS", value);
        place.launch(command).wait(prism_e2e::LIMIT)
    };
    let refused = start("raft.log.before_wrte=kill").expect(2);
    assert!(
        refused
            .stderr
            .contains("did you mean \"raft.log.before_write\""),
        "{}",
        refused.stderr
    );
    assert!(
        refused.stderr.contains("nothing was started"),
        "{}",
        refused.stderr
    );
    let listed = start("list").expect(0).stdout;
    assert_eq!(listed.lines().count(), prism_faults::POINTS.len());
}
