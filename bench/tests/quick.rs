//! Each bench at its smallest: one JSON object with the metrics that are promised, every one of them a number.

use std::process::{Command, Output};

use serde_json::Value;

fn bench(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prism-bench"));
    command.args(args).output().expect("the bench starts")
}

/// Runs a bench and checks its object; `may_be_null` are metrics of things that a machine may lack.
#[track_caller]
fn check(name: &str, metrics: &[&str], may_be_null: &[&str]) -> Value {
    let out = bench(&[name, "--quick"]);
    let (text, said) = (
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    );
    assert!(out.status.success(), "{name}: {}\n{said}", out.status);
    let object: Value =
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}: {text}\n{said}"));
    assert_eq!(object["name"], name);
    for metric in metrics {
        let value = object["metrics"][metric].as_f64();
        assert!(
            value.is_some_and(|v| v.is_finite() && v >= 0.0),
            "{name}: {metric} in {text}"
        );
    }
    for metric in may_be_null {
        let value = object["metrics"].get(metric);
        assert!(
            value.is_some_and(|v| v.is_null() || v.is_number()),
            "{name}: {metric} in {text}"
        );
    }
    let curves = ["task-overhead", "burst", "sandbox-start", "worker-scale"];
    let curve = object["metrics"]["curve"].as_array();
    assert!(
        curve.is_some_and(|c| c.len() >= 3) || !curves.contains(&name),
        "{text}"
    );
    for curve in curve.into_iter().flatten() {
        let numbers = curve.as_object().expect("a point has fields").values();
        assert!(
            numbers
                .into_iter()
                .all(|v| v.as_f64().is_some_and(f64::is_finite)),
            "{name}: {curve}"
        );
    }
    let host = &object["host"];
    assert!(
        host["cpus"].as_u64() > Some(0) && host["memory_bytes"].as_u64() > Some(0),
        "{host}"
    );
    assert!(
        host["kernel"].is_string() && host["os"].is_string() && host["root"].is_boolean(),
        "{host}"
    );
    object
}

#[test]
fn task_overhead() {
    check(
        "task-overhead",
        &["tasks_per_s_10k", "tasks_per_s_1m", "cost_ratio"],
        &[],
    );
}

#[test]
fn task_throughput() {
    let metrics = [
        "bare_per_s",
        "plain_per_s",
        "plain_ratio",
        "sandboxed_per_s",
        "sandboxed_ratio",
    ];
    check("task-throughput", &metrics, &["docker_per_s"]);
}

#[test]
fn sandbox_start() {
    check(
        "sandbox-start",
        &["p50_ms_1", "p99_ms_1", "p50_ms_50", "p99_ms_50"],
        &[],
    );
}

#[test]
fn exhaustion() {
    check("exhaustion", &["worst_p99_ratio"], &[]);
}

#[test]
fn burst() {
    check(
        "burst",
        &["count", "up_s", "down_s", "left_over", "kib_per_sandbox"],
        &[],
    );
}

#[test]
fn store_commit() {
    check(
        "store-commit",
        &[
            "per_s_1",
            "per_s_64",
            "per_s_1024",
            "ratio",
            "per_s_1024_3_servers",
        ],
        &["etcd_per_s_1024"],
    );
}

#[test]
fn placement() {
    check("placement", &["decisions_per_s", "nodes"], &[]);
}

#[test]
fn worker_scale() {
    let metrics = [
        "tasks_per_s_1",
        "tasks_per_s_8",
        "tasks_per_s_64",
        "join_100_s",
        "workers",
        "heartbeat_cpu_percent",
        "node_ls_ms",
        "kib_per_worker",
    ];
    check("worker-scale", &metrics, &[]);
}

/// Needs `prismd`, as the next one.
#[test]
fn slow_members() {
    let metrics = [
        "named_s",
        "asked",
        "max_ms",
        "before_p99_ms",
        "node_ls_p99_ms",
        "image_ls_p99_ms",
    ];
    let object = check("slow-members", &metrics, &[]);
    let metrics = &object["metrics"];
    assert_eq!(metrics["missing"], 5, "{metrics}");
    assert!(
        metrics["p99_ms"].as_f64().is_some_and(|ms| ms < 1_000.0),
        "{metrics}"
    );
}

/// Needs `prismd`: from `PRISM_BIN_DIR`, or where cargo put it beside the bench.
#[test]
fn idle_footprint() {
    check("idle-footprint", &["rss_mib", "cpu_percent"], &[]);
}

#[test]
fn the_benches_are_listed() {
    let out = bench(&["--list"]);
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.lines().count() >= 8, "{text}");
    assert!(
        text.lines().any(|l| l.starts_with("store-commit ")),
        "{text}"
    );
}

#[test]
fn an_unknown_name_is_refused_with_the_nearest() {
    let out = bench(&["store-comit"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(out.stdout.is_empty());
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("did you mean \"store-commit\"?"), "{said}");
    assert_eq!(bench(&[]).status.code(), Some(2));
}
