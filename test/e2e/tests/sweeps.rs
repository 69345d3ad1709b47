//! Promise: a sweep file runs on this machine without a server and gives its aggregated result.

use std::collections::BTreeSet;
use std::time::Duration;

use prism_e2e::{Place, until};
use serde_json::Value;

/// Longest time of a sweep here; the digits take about half a minute on two cores.
const SWEEP: Duration = Duration::from_secs(400);

fn run(place: &Place, file: &str, code: i32) -> Value {
    let args = ["run", file, "-o", "json"];
    place
        .start("prismctl", &args)
        .wait(SWEEP)
        .expect(code)
        .json()
}

fn beams(sweep: &Value) -> &Vec<Value> {
    sweep["completed"].as_array().expect("completed is a list")
}

#[test]
fn the_digits_sweep_gives_its_aggregated_result_and_leaves_nothing_running() {
    let place = Place::new();
    let sweep = run(&place, &Place::repo("examples/digits/sweep.yaml"), 0);
    assert!(sweep["id"].is_string(), "{sweep}");
    assert!(
        sweep["task"].as_str().is_some_and(|t| t.contains("digits")),
        "{sweep}"
    );
    assert_eq!(sweep["status"], "COMPLETED");
    assert_eq!(sweep["pending"], Value::Array(Vec::new()));
    let indices: Vec<u64> = beams(&sweep)
        .iter()
        .filter_map(|b| b["index"].as_u64())
        .collect();
    assert_eq!(
        indices,
        (0..24).collect::<Vec<_>>(),
        "every beam once, in order"
    );
    for beam in beams(&sweep) {
        assert!(
            beam["point"]["lr"].is_f64() && beam["point"]["hidden"].is_u64(),
            "{beam}"
        );
        assert!(
            matches!(beam["status"].as_str(), Some("done" | "early_stopped")),
            "{beam}"
        );
    }
    let best = &sweep["best"];
    assert!(
        best["result"]["accuracy"]
            .as_f64()
            .is_some_and(|a| a >= 0.93),
        "{best}"
    );
    assert!(best["point"]["lr"].is_f64(), "{best}");
    until("prismctl run to leave nothing running", || {
        place.processes().is_empty().then_some(())
    });
    place.assert_no_panic();
}

#[test]
fn several_runners_work_on_one_task_and_the_aggregate_ranks_them() {
    let place = Place::new();
    let sweep = run(&place, &Place::repo("examples/runners/sweep.yaml"), 0);
    let runners: BTreeSet<&str> = beams(&sweep)
        .iter()
        .filter_map(|b| b["runner"].as_str())
        .collect();
    assert_eq!(runners, BTreeSet::from(["grid", "random-search", "sgd"]));
    assert_eq!(
        sweep["aggregate"]["status"], "done",
        "{}",
        sweep["aggregate"]
    );
    assert_eq!(sweep["aggregate"]["result"]["winner"], "sgd");
    assert_eq!(sweep["best"]["runner"], "sgd");
    let results = sweep["results"]
        .as_array()
        .expect("one line for each runner");
    assert!(
        results
            .iter()
            .all(|r| r["status"] == "done" && r["output"]["best"].is_number()),
        "{results:?}"
    );
}

#[test]
fn a_beam_that_fails_is_a_reason_in_the_result_and_not_the_end_of_the_sweep() {
    let place = Place::new();
    let file = place.write(
        "partial.yaml",
        "sweep: partial\n\
         command: [sh, -c, 'echo \"{\\\"v\\\": {x}}\"; exit {x}']\n\
         space:\n  x: {choice: [0, 3]}\n\
         search: grid\n\
         objective: {maximize: v}\n\
         resources: {cpu: 100m, memory: 16Mi}\n",
    );
    let sweep = run(&place, &file, 3);
    assert_eq!(sweep["status"], "PARTIALLY_COMPLETED");
    assert_eq!(beams(&sweep).len(), 2);
    assert_eq!(beams(&sweep)[0]["status"], "done");
    assert_eq!(beams(&sweep)[1]["status"], "failed");
    assert_eq!(beams(&sweep)[1]["reason"], "exit_code");
    assert_eq!(sweep["best"]["result"]["v"], 0);
}

#[test]
fn a_sweep_of_which_nothing_succeeds_fails() {
    let place = Place::new();
    let file = place.write(
        "bad.yaml",
        "sweep: bad\ncommand: [sh, -c, 'exit 9']\nspace:\n  x: {range: [1, 2]}\nsearch: grid\n\
         resources: {cpu: 100m, memory: 16Mi}\n",
    );
    let sweep = run(&place, &file, 1);
    assert_eq!(sweep["status"], "FAILED");
    assert!(sweep["best"].is_null());
}

#[test]
fn points_reach_the_script_as_variables_file_and_placeholders() {
    let place = Place::new();
    place.write(
        "show.sh",
        "printf '{\"variable\": \"%s\", \"placeholder\": \"%s\", \"file\": %s}\\n' \"$PRISM_PARAM_SIZE\" \"$1\" \"$(cat params.json)\"\n",
    );
    let file = place.write(
        "points.yaml",
        "sweep: points\ncommand: [sh, show.sh, 'size-{size}']\nfiles: [show.sh]\n\
         space:\n  size: {choice: [7, 8]}\nsearch: grid\nresources: {cpu: 100m, memory: 16Mi}\n",
    );
    let sweep = run(&place, &file, 0);
    for (beam, size) in beams(&sweep).iter().zip([7, 8]) {
        assert_eq!(beam["result"]["variable"], size.to_string());
        assert_eq!(beam["result"]["placeholder"], format!("size-{size}"));
        assert_eq!(beam["result"]["file"]["size"], size);
    }
}
