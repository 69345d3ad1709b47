//! Work of other kinds than quick jobs, each with its check: sweeps, a killed `prismctl run`, jobs that are cancelled and paused.

use serde_json::{Value, json};

use crate::http::Api;
use crate::place::Place;
use crate::wait::{LIMIT, until};

use super::Random;

/// Tasks of a job that `prismctl run` is killed over.
const RUN_TASKS: u64 = 600;

fn resources() -> Value {
    json!({"cpu": "50m", "memory": "32Mi"})
}

/// Submits a sweep of eight beams; its id.
///
/// # Panics
/// When it is refused.
pub fn sweep(api: &Api) -> String {
    let spec = json!({
        "sweep": "points", "task": "the best of a few points",
        "command": ["sh", "-c", "printf '%s\\n' \"$PRISM_PARAMS\""],
        "space": {"x": {"choice": [1, 2, 3, 4, 5, 6, 7, 8]}},
        "objective": {"maximize": "x"}, "resources": resources(),
    });
    let view = api.post("/api/v1/sweeps", &spec).expect(201).json();
    view["id"].as_str().expect("a sweep has an id").to_owned()
}

/// Waits for the end of a sweep of [`sweep`]; each beam is there once, and the best is the best.
///
/// # Panics
/// When it is not so.
pub fn check_sweep(api: &Api, id: &str) {
    let view = until("the end of a sweep", || {
        let view = api.get(&format!("/api/v1/sweeps/{id}")).expect(200).json();
        (!matches!(view["status"].as_str(), Some("QUEUED" | "RUNNING"))).then_some(view)
    });
    assert_eq!(view["status"], "COMPLETED", "{view}");
    let beams = view["completed"].as_array().expect("a list");
    let indices: Vec<_> = beams.iter().filter_map(|b| b["index"].as_u64()).collect();
    assert_eq!(indices, (0..8).collect::<Vec<_>>(), "{view}");
    assert_eq!(view["best"]["result"]["x"], 8, "{view}");
}

/// `prismctl run` of a job, killed so often at random moments, half of the times with its supervisor, then left to finish: every
/// task is there once. How many there are.
///
/// # Panics
/// When it is not so.
pub fn run_killed(random: &mut Random, place: &Place, name: &str, kills: u32) -> u64 {
    let text = format!(
        "job: {name}\ncommand: [sh, -c, 'sleep 0.1; echo done']\narray: {RUN_TASKS}\nresources: {{cpu: 50m, memory: 32Mi}}\n"
    );
    let file = place.write(&format!("{name}.yaml"), text);
    // It must not find the server of the context that a daemon here may have written.
    let start = || {
        let mut command = place.command("prismctl");
        command
            .env("XDG_CONFIG_HOME", place.path().join("run"))
            .args(["run", &file, "-o", "ndjson"]);
        place.launch(command)
    };
    for n in 0..kills {
        let mut running = start();
        until("the run to say that it runs", || {
            (running.is_over() || !running.stderr().is_empty()).then_some(())
        });
        assert!(!running.is_over(), "kill {n}:\n{}", running.stderr());
        std::thread::sleep(random.moment(60));
        running.kill_group();
        if random.below(2) == 0 {
            kill_supervisors(place);
        }
    }
    let results = start().wait(LIMIT).expect(0).json_or_lines();
    assert!(
        results.iter().all(|r| r["status"] == "COMPLETED"),
        "{results:?}"
    );
    let mut indices: Vec<u64> = results.iter().filter_map(|r| r["index"].as_u64()).collect();
    indices.sort_unstable();
    assert!(indices.iter().copied().eq(0..RUN_TASKS), "{indices:?}");
    RUN_TASKS
}

/// Kills the supervisors of embedded nodes of a place.
fn kill_supervisors(place: &Place) {
    let runs = place.path().join("state/prism/run");
    for entry in std::fs::read_dir(runs).into_iter().flatten().flatten() {
        if let Some(supervisor) = crate::procs::supervisor(&entry.path().join("node")) {
            crate::procs::kill(supervisor.pid);
        }
    }
}

fn ended(api: &Api, id: &str) -> Value {
    until("the end of a job", || {
        let view = api.get(&format!("/api/v1/jobs/{id}")).expect(200).json();
        (!matches!(view["status"].as_str(), Some("QUEUED" | "RUNNING"))).then_some(view)
    })
}

/// A job is cancelled and ends so; another is paused and resumed and completes.
///
/// # Panics
/// When it is not so.
pub fn control(api: &Api, number: usize) {
    let submit = |name: &str, command: &str| {
        let spec = json!({"job": format!("{name}-{number}"), "command": ["sh", "-c", command],
            "array": 60, "resources": resources()});
        let view = api.post("/api/v1/jobs", &spec).expect(201).json();
        view["id"].as_str().expect("an id").to_owned()
    };
    let act = |id: &str, what: &str| {
        let answer = api.post(&format!("/api/v1/jobs/{id}/{what}"), &json!({}));
        assert!(answer.status < 300, "{what}: {}", answer.text());
    };
    let (cancelled, paused) = (
        submit("cancelled", "sleep 300"),
        submit("paused", "sleep 0.1"),
    );
    act(&paused, "pause");
    act(&cancelled, "cancel");
    assert_eq!(ended(api, &cancelled)["status"], "CANCELLED");
    act(&paused, "resume");
    let view = ended(api, &paused);
    assert_eq!(view["status"], "COMPLETED", "{view}");
    assert_eq!(view["counts"]["completed"], 60, "{view}");
}
