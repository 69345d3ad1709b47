//! Promise: a sweep that is killed at any moment and started again goes on, and records every beam exactly once.

use std::time::Duration;

use prism_e2e::{Place, Running, until};
use serde_json::Value;

const SWEEP: Duration = Duration::from_secs(400);

/// xorshift64: the same moments in every run of the test.
fn moments(mut seed: u64) -> impl Iterator<Item = Duration> {
    std::iter::repeat_with(move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        Duration::from_millis(300 + seed % 2_200)
    })
}

/// Starts the same sweep again and again, ends it by `kill` after a while, three times, and then lets it finish.
fn killed_three_times(seed: u64, kill: impl Fn(&Place, &mut Running)) {
    let place = Place::new();
    let file = Place::repo("examples/digits/sweep.yaml");
    let start = || place.start("prismctl", &["run", &file, "-o", "json"]);
    for moment in moments(seed).take(3) {
        let mut running = start();
        until("the sweep to say that it runs", || {
            (running.is_over() || !running.stderr().is_empty()).then_some(())
        });
        assert!(
            !running.is_over(),
            "too quick to be killed:\n{}",
            running.stderr()
        );
        // The moment is the test's input; what follows holds for every moment.
        std::thread::sleep(moment);
        kill(&place, &mut running);
    }
    let sweep: Value = start().wait(SWEEP).expect(0).json();
    let beams = sweep["completed"].as_array().expect("completed is a list");
    let indices: Vec<u64> = beams.iter().filter_map(|b| b["index"].as_u64()).collect();
    assert_eq!(indices, (0..24).collect::<Vec<_>>(), "every beam once");
    assert_eq!(sweep["pending"], Value::Array(Vec::new()));
    assert_eq!(sweep["status"], "COMPLETED");
    assert!(
        sweep["best"]["result"]["accuracy"]
            .as_f64()
            .is_some_and(|a| a >= 0.93)
    );
    let listed = sweep["counts"]["completed"].as_u64();
    assert_eq!(listed, Some(24), "{}", sweep["counts"]);
    place.assert_no_panic();
}

#[test]
fn a_sweep_whose_process_group_is_killed_three_times_records_every_beam_once() {
    killed_three_times(0x5eed_0001, |_, running| running.kill_group());
}

#[test]
fn a_sweep_killed_three_times_with_its_supervisor_records_every_beam_once() {
    killed_three_times(0x5eed_0002, |place, running| {
        running.kill_group();
        place.kill_all();
    });
}
