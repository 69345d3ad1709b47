//! What bounds a run, and what is counted of it.

use prism_runtime::Isolation::{Plain, Sandboxed};
use prism_runtime::Scratch;
use prism_types::{Bytes, ExitStatus, Millis, StopCause};

use super::support::{Node, is_root, segments};

pub fn every_byte_of_output_is_kept() {
    let node = Node::new();
    for isolation in [Sandboxed, Plain] {
        let name = format!("out-{isolation:?}").to_lowercase();
        let script =
            "seq 1 200000 | head -c 1048576; seq 200001 400000 | head -c 1048576 >&2; printf end";
        let report = node.run(node.task(&name, isolation, script));
        let seq = |from: u32, to: u32| -> Vec<u8> {
            let text: String = (from..=to).map(|n| format!("{n}\n")).collect();
            text.into_bytes()[..1 << 20].to_vec()
        };
        let mut out = seq(1, 200_000);
        out.extend(b"end");
        assert_eq!(report.stdout_bytes, (1 << 20) + 3);
        assert_eq!(report.stderr_bytes, 1 << 20);
        assert!(node.output(&name, "stdout") == out, "stdout differs");
        assert!(
            node.output(&name, "stderr") == seq(200_001, 400_000),
            "stderr differs"
        );
    }
    let report = node.run(node.task("silent", Sandboxed, "true"));
    assert_eq!(report.stdout_bytes, 0);
    assert!(
        !node.logs("silent").exists(),
        "a silent run made its log directory"
    );
}

pub fn output_is_bounded_on_disk() {
    let node = Node::new();
    let mut launch = node.task("flood", Sandboxed, "head -c 5000000 /dev/zero; printf tail");
    launch.limits.log_bytes = 256 << 10;
    let report = node.run(launch);
    assert_eq!(report.stdout_bytes, 5_000_004);
    let kept = node.output("flood", "stdout");
    assert!(kept.len() <= 256 << 10, "{} bytes", kept.len());
    assert!(kept.ends_with(b"tail"));
    let (first, _) = segments(&node.logs("flood"), "stdout").pop_first().unwrap();
    assert_eq!(first + kept.len() as u64, 5_000_004);
}

pub fn limits_end_runs_for_their_own_reasons() {
    let node = Node::new();
    for isolation in [Sandboxed, Plain] {
        let name = |what: &str| format!("{what}-{isolation:?}").to_lowercase();
        let mut slow = node.task(&name("slow"), isolation, "sleep 100 & sleep 100");
        slow.limits.timeout = Some(Millis(100));
        let report = node.run(slow);
        assert_eq!(report.cause, StopCause::Timeout, "{report:?}");
        assert_eq!(report.exit, ExitStatus::Signal(9), "{report:?}");
        assert!(
            report.wall >= Millis(100) && report.wall < Millis(20_000),
            "{report:?}"
        );
        let hog = "exec python3 -c 'x = bytearray(400 << 20); print(len(x))'";
        let mut hog = node.task(&name("hog"), isolation, hog);
        hog.limits.memory = Bytes(64 << 20);
        if is_root() {
            let report = node.run(hog);
            assert_eq!(report.cause, StopCause::OutOfMemory, "{report:?}");
            assert!(report.memory_peak > 32 << 20, "{report:?}");
            assert!(report.memory_peak <= 66 << 20, "{report:?}");
        } else if isolation == Sandboxed {
            // Without cgroups the allocation itself fails.
            let report = node.run(hog);
            assert_eq!(report.exit, ExitStatus::Code(1), "{report:?}");
        }
    }
}

pub fn limits_hold() {
    let node = Node::new();
    let mut launch = node.task(
        "forks",
        Sandboxed,
        "i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i+1)); done 2>/dev/null; echo $i",
    );
    launch.limits.pids = 20;
    node.run(launch);
    assert_ne!(node.stdout("forks"), "60\n");
    let mut launch = node.task("files", Sandboxed, "ulimit -n");
    launch.limits.nofile = 77;
    node.run(launch);
    assert_eq!(node.stdout("files"), "77\n");
    let mut launch = node.task("disk", Sandboxed, "head -c 9000000 /dev/zero > /work/x");
    launch.scratch = Scratch::Memory {
        bytes: Bytes(4 << 20),
    };
    assert_eq!(node.run(launch).exit, ExitStatus::Code(1));
    if is_root() {
        // A tenth of a processor for 200 ms of work takes at least a second of wall time.
        let work = "exec python3 -c 'import time
end = time.process_time() + 0.2
while time.process_time() < end: pass'";
        let mut launch = node.task("cpu", Sandboxed, work);
        launch.limits.cpu = prism_types::MilliCpu(100);
        let report = node.run(launch);
        assert_eq!(report.exit, ExitStatus::Code(0), "{report:?}");
        assert!(report.wall >= Millis(1_000), "{report:?}");
    }
}

pub fn figures_are_plausible() {
    let node = Node::new();
    let script = "exec python3 -c '
x = bytearray(50 << 20)
n = 0
import time
end = time.process_time() + 0.3
while time.process_time() < end: n += 1
'";
    let report = node.run(node.task("busy", Sandboxed, script));
    assert_eq!(report.exit, ExitStatus::Code(0), "{report:?}");
    assert!(
        report.cpu_us >= 300_000 && report.cpu_us < 10_000_000,
        "{report:?}"
    );
    assert!(
        report.memory_peak >= 50 << 20 && report.memory_peak < 200 << 20,
        "{report:?}"
    );
    assert!(report.wall >= Millis(300), "{report:?}");
}
