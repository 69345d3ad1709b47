//! The runtime on the real kernel: what runs, what it tells, what it leaves behind. As root, and as a normal user.

mod support;

use prism_runtime::Isolation::{Plain, Sandboxed};
use prism_types::{ExitStatus, StopCause};
use support::Node;

fn exits_are_told() {
    let node = Node::new();
    for isolation in [Sandboxed, Plain] {
        for (i, (script, exit)) in [
            ("true", ExitStatus::Code(0)),
            ("false", ExitStatus::Code(1)),
            ("exit 42", ExitStatus::Code(42)),
            ("kill -9 $$", ExitStatus::Signal(9)),
            ("kill -6 $$", ExitStatus::Signal(6)),
        ]
        .into_iter()
        .enumerate()
        {
            let name = format!("exit-{isolation:?}-{i}").to_lowercase();
            let report = node.run(node.task(&name, isolation, script));
            assert_eq!(report.exit, exit, "{isolation:?} {script}: {report:?}");
            assert_eq!(report.cause, StopCause::None, "{isolation:?} {script}: {report:?}");
        }
    }
}

fn main() {
    support::run("runtime", &[("exits_are_told", exits_are_told)], &[]);
}
