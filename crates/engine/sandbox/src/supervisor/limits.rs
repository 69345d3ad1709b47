//! What a report says of the limits that a run hit: which, how large it was, and how far the run went.

use prism_types::{RunReport, StopCause};

use super::output::Stream;
use super::run::Run;
use crate::cgroup::Outcome;

/// A size for people.
pub fn size(bytes: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift {
            let tenths = (bytes >> (shift - 10)) * 10 / 1024;
            return match tenths % 10 {
                0 => format!("{} {unit}", tenths / 10),
                tenth => format!("{}.{tenth} {unit}", tenths / 10),
            };
        }
    }
    format!("{bytes} bytes")
}

/// Names, in the report of a run that is over, each limit that it hit.
pub fn name_them(report: &mut RunReport, run: &Run, outcome: Outcome, left: &str) {
    let mut notes = Vec::new();
    if !report.detail.is_empty() {
        notes.push(std::mem::take(&mut report.detail));
    }
    if report.cause == StopCause::OutOfMemory {
        let limit = match run.limits.memory.0 {
            // A program's in a sandbox is the sandbox's.
            0 => "that of its sandbox".to_owned(),
            bytes => size(bytes),
        };
        notes.push(format!("limit {limit}, peak {}", size(report.memory_peak)));
    }
    let limit = run.limits.memory.0;
    let unhappy = report.failure().is_some() && report.cause != StopCause::Requested;
    let reached = outcome.peak.is_some_and(|peak| peak >= limit - limit / 100);
    if limit > 0 && unhappy && reached && report.cause != StopCause::OutOfMemory {
        // Short of the end, the kernel has a run read its own program from disk over and over.
        notes.push(format!("its memory reached the limit of {}", size(limit)));
    }
    if outcome.pids_refused > 0 {
        let limit = match run.limits.pids {
            0 => "the sandbox's limit".to_owned(),
            pids => format!("the limit of {pids}"),
        };
        notes.push(format!(
            "{limit} processes and threads was hit {} times",
            outcome.pids_refused
        ));
    }
    if !left.is_empty() {
        notes.push(left.to_owned());
    }
    notes.extend(run.cut.iter().flatten().cloned());
    report.detail = notes.join("; ");
}

/// What is to be told of a stream of which not all was kept.
pub fn cut(stream: &Stream) -> Option<String> {
    let (dropped, all) = (stream.dropped(), stream.bytes());
    (dropped > 0).then(|| {
        format!(
            "the first {dropped} of {all} bytes of {} were not kept (log limit)",
            stream.name()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_read_well() {
        for (bytes, text) in [
            (12, "12 bytes"),
            (1 << 20, "1 MiB"),
            ((3 << 20) + (1 << 19), "3.5 MiB"),
            (10 << 30, "10 GiB"),
            (1_500, "1.4 KiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
