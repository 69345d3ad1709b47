//! Promise: an accepted job of 100,000 tasks is recorded task by task, each once, though `prismd` is killed meanwhile.

use std::time::Duration;

use prism_e2e::{Server, until_within};
use serde_json::Value;

/// Longest time of the whole array.
const ARRAY: Duration = Duration::from_secs(1_200);

/// The size; smaller where the same is run a second time, as another user.
fn size() -> u64 {
    std::env::var("PRISM_E2E_ARRAY")
        .map_or(100_000, |n| n.parse().expect("PRISM_E2E_ARRAY is a number"))
}

fn completed(server: &Server, job: &str) -> u64 {
    let view = server
        .api()
        .get(&format!("/api/v1/jobs/{job}"))
        .expect(200)
        .json();
    assert_eq!(view["counts"]["failed"], 0, "{view}");
    view["counts"]["completed"].as_u64().expect("a number")
}

#[test]
fn every_task_of_a_large_array_is_recorded_once_though_prismd_is_killed_twice() {
    let count = size();
    // In full as plain processes, which are started faster; the smaller array of the second time is one of sandboxes.
    let (mut server, isolation) = if count > 50_000 {
        let mut server = Server::started_as(&["dev", "--allow-plain"]);
        server.restart();
        (server, "none")
    } else {
        (Server::start(), "sandbox")
    };
    let file = server.place.write(
        "array.yaml",
        format!(
            "job: many\ncommand: ['true']\narray: {count}\nresources: {{cpu: 50m, memory: 4Mi}}\nisolation: {isolation}\n"
        ),
    );
    let job = server
        .ctl(&["job", "submit", &file, "-o", "json"])
        .expect(0)
        .json();
    let job = job["id"].as_str().expect("a job has an id").to_owned();
    for part in [10, 3] {
        until_within(ARRAY, "tasks to complete", || {
            (completed(&server, &job) >= count / part).then_some(())
        });
        server.kill();
        server.restart();
    }
    until_within(ARRAY, "all tasks to complete", || {
        (completed(&server, &job) == count).then_some(())
    });
    let results = server.results(&job);
    let mut indices: Vec<u64> = results.iter().filter_map(|r| r["index"].as_u64()).collect();
    indices.sort_unstable();
    assert!(
        indices.iter().copied().eq(0..count),
        "{} results",
        results.len()
    );
    assert!(results.iter().all(|r| r["status"] == "COMPLETED"));
    let view = server
        .api()
        .get(&format!("/api/v1/jobs/{job}"))
        .expect(200)
        .json();
    assert_eq!(view["status"], "COMPLETED");
    let sum: u64 = [
        "queued",
        "assigned",
        "running",
        "completed",
        "failed",
        "retrying",
        "cancelled",
    ]
    .iter()
    .filter_map(|s| view["counts"][*s].as_u64())
    .sum();
    assert_eq!(Some(sum), view["counts"]["total"].as_u64(), "{view}");
    assert_ne!(view["id"], Value::Null);
    server.place.assert_no_panic();
}
