//! From a report and the output that is kept, what is told of a task.

use std::path::Path;

use prism_link::{Stream, TaskOutcome};
use prism_types::{RunReport, StopCause, TaskRef};

use crate::logs;

/// Longest result line.
const RESULT_MAX: usize = 64 << 10;
/// Bytes of standard error told of a failed task.
const TAIL_MAX: usize = 2 << 10;

/// Collects the outcome of a task whose output is in `dir`. Blocking.
pub(crate) fn collect(task: TaskRef, report: RunReport, dir: &Path) -> TaskOutcome {
    let read = |stream, max| {
        logs::tail(dir, stream, max).unwrap_or_else(|e| {
            tracing::warn!(?task, error = %e, "could not read a task's output; its result is reported without it");
            Vec::new()
        })
    };
    let result = (report.stdout_bytes > 0)
        .then(|| read(Stream::Stdout, RESULT_MAX + 4096))
        .and_then(|tail| prism_spec::last_json_line(&tail))
        .map(|value| value.to_string())
        .filter(|text| text.len() <= RESULT_MAX);
    let failed = report.failure().is_some() && report.cause != StopCause::Requested;
    let tail = match (failed, report.stderr_bytes, report.stdout_bytes) {
        (true, 1.., _) => printable(&read(Stream::Stderr, TAIL_MAX)),
        (true, 0, 1..) => printable(&read(Stream::Stdout, TAIL_MAX)),
        _ => String::new(),
    };
    TaskOutcome {
        task,
        report,
        result,
        tail,
    }
}

/// Text of bytes that may be cut in the middle of a character.
fn printable(bytes: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    while text.len() > TAIL_MAX {
        text.remove(0);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use prism_types::{ExitStatus, JobId, TimeMs};
    use std::fs;

    fn report(exit: ExitStatus, out: u64, err: u64) -> RunReport {
        RunReport {
            exit,
            cause: StopCause::None,
            stdout_bytes: out,
            stderr_bytes: err,
            ..RunReport::not_started(TimeMs(0), "")
        }
    }

    #[test]
    fn the_last_json_line_is_the_result_and_a_failure_brings_its_stderr() {
        let dir = tempfile::tempdir().unwrap();
        let task = TaskRef {
            job: JobId::new(1, 1),
            index: 0,
            attempt: 1,
        };
        fs::write(
            dir.path().join(format!("stdout.{:020}", 0)),
            "hello\n{\"a\": 1}\n{\"a\": 2}\nbye\n",
        )
        .unwrap();
        fs::write(dir.path().join(format!("stderr.{:020}", 0)), "it broke\n").unwrap();
        let ok = collect(task, report(ExitStatus::Code(0), 30, 9), dir.path());
        assert_eq!(ok.result.as_deref(), Some("{\"a\":2}"));
        assert_eq!(ok.tail, "");
        let bad = collect(task, report(ExitStatus::Code(1), 30, 9), dir.path());
        assert_eq!(bad.tail, "it broke\n");
    }
}
