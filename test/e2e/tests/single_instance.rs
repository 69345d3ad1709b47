//! Promise: of a job with `single_instance: true` no two runs are ever there at the same time: not when a machine is cut off, not when
//! `prismd` on it stands still, and each later run has the greater number. The machines are network namespaces that the test makes.

use std::fs;

use prism_e2e::cluster::{Worker, healthy, nodes, token};
use prism_e2e::net::{self, inside_one, wire};
use prism_e2e::{Place, Server, until};
use rustix::process::Signal;
use serde_json::{Value, json};

/// What each run does to the outside: a line with its number and the time, again and again.
const STAMPS: &str = "while :; do echo \"$PRISM_FENCE $(date +%s%N)\"; sleep 0.05; done";

/// Longer than a lease, nanoseconds.
const BEYOND_A_LEASE: u64 = 18_000_000_000;

#[test]
fn no_two_runs_are_there_at_once_and_the_later_has_the_greater_number() {
    let name = "no_two_runs_are_there_at_once_and_the_later_has_the_greater_number";
    inside_one(name, inside);
}

const WIRES: &str = "
ip link set lo up
ip link add tow type veth peer name out netns $w
ip addr add 10.73.0.1/24 dev tow
ip link set tow up
nsenter -t $w -n ip link set lo up
nsenter -t $w -n ip addr add 10.73.0.2/24 dev out
nsenter -t $w -n ip link set out up";

/// A machine that runs work, perhaps in a namespace of its own.
struct Machine {
    name: &'static str,
    worker: Worker,
    within: Option<net::Machine>,
}

impl Machine {
    fn new(name: &'static str, within: Option<net::Machine>) -> Self {
        let worker = Worker::new(name);
        Self {
            name,
            worker,
            within,
        }
    }

    fn start(&mut self, server: &Server) {
        let (token, _) = token(server, &[]);
        let place = &self.worker.place;
        let prismd = match &self.within {
            Some(machine) => machine.prism(place, "prismd"),
            None => place.command("prismd"),
        };
        let at = "10.73.0.1:4200";
        self.worker.launch_by(prismd, at, Some(&token), &[]);
        self.is_well(server);
    }

    fn is_well(&self, server: &Server) {
        healthy(server, self.name);
    }

    /// What an attempt has done so far: its number as it knows it, and the times.
    fn stamps(&self, job: &str, attempt: u32) -> Vec<(u32, u64)> {
        let dir = self
            .worker
            .place
            .data()
            .join(format!("worker/logs/{job}/0.{attempt}"));
        let mut files: Vec<_> = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|f| f.path())
            .filter(|p| p.to_string_lossy().contains("stdout."))
            .collect();
        files.sort();
        let bytes = files.iter().flat_map(|f| fs::read(f).unwrap_or_default());
        let bytes: Vec<u8> = bytes.collect();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // The last line may be cut short.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| {
                let (fence, at) = line.split_once(' ').expect("two words");
                (
                    fence.parse().expect("a number"),
                    at.parse().expect("a time"),
                )
            })
            .collect()
    }

    fn last(&self, job: &str, attempt: u32) -> u64 {
        self.stamps(job, attempt).last().map_or(0, |(_, at)| *at)
    }

    /// Waits until an attempt does something here.
    fn runs(&self, job: &str, attempt: u32) {
        until(&format!("attempt {attempt} on {}", self.name), || {
            (self.stamps(job, attempt).len() > 5).then_some(())
        });
    }
}

/// The run `attempt` of `old` was over before the next one on `new` began; answers how long before, in milliseconds.
fn handed_over(job: &str, old: &Machine, new: &Machine, attempt: u32) -> u64 {
    new.runs(job, attempt + 1);
    let (before, after) = (old.stamps(job, attempt), new.stamps(job, attempt + 1));
    let (last, first) = (before.last().expect("it ran").1, after[0].1);
    assert!(
        last < first,
        "attempt {attempt} was there at {last}, the next began at {first}"
    );
    let fenced = |stamps: &[(u32, u64)], fence| stamps.iter().all(|(f, _)| *f == fence);
    assert!(fenced(&before, attempt) && fenced(&after, attempt + 1));
    (first - last) / 1_000_000
}

fn task(server: &Server, job: &str) -> Value {
    let page = server.api().get(&format!("/api/v1/jobs/{job}/tasks"));
    page.expect(200).json()["items"][0].clone()
}

fn inside() -> String {
    let place = Place::new();
    let elsewhere = net::Machine::new(&place);
    wire(&[("w", &elsewhere)], WIRES).expect("a network");
    let server = Server::start_with(&["--serf=10.73.0.1:4200"]);
    let own = nodes(&server)[0]["name"].clone();
    let own = own.as_str().expect("a name");
    server.ctl(&["node", "cordon", own]).expect(0);
    let mut far = Machine::new("far", Some(elsewhere));
    let mut near = Machine::new("near", None);
    far.start(&server);
    let job = server.submit(&json!({
        "job": "only", "single_instance": true, "command": ["sh", "-c", STAMPS],
        "resources": {"cpu": "100m", "memory": "32Mi"},
    }));
    far.runs(&job, 1);
    near.start(&server);
    the_bound_is_told(&server, &job);

    // The machine is cut off: no word comes to its prismd, which goes on as it does.
    wire(&[], "ip link set tow down").expect("it goes down");
    let gap = handed_over(&job, &far, &near, 1);
    println!("cut off: nothing ran for {gap} ms");
    let ended = far.last(&job, 1);
    wire(&[], "ip link set tow up").expect("it comes up");
    far.is_well(&server);
    assert_eq!(far.last(&job, 1), ended, "it does not come back to life");

    // prismd stands still: its supervisor ends the run all the same.
    near.worker.running().signal(Signal::STOP);
    let gap = handed_over(&job, &near, &far, 2);
    println!("stopped: nothing ran for {gap} ms");
    let ended = near.last(&job, 2);
    near.worker.running().signal(Signal::CONT);
    near.is_well(&server);
    assert_eq!(near.last(&job, 2), ended, "it does not come back to life");

    // prismd is killed and started again: within its lease the run goes on, and then has more time.
    let killed = far.last(&job, 3);
    far.worker.kill();
    far.start(&server);
    until("it to run beyond its lease", || {
        (far.last(&job, 3) > killed + BEYOND_A_LEASE).then_some(())
    });
    let view = task(&server, &job);
    assert_eq!(
        (&view["attempt"], &view["fence"]),
        (&json!(3), &json!(3)),
        "{view}"
    );

    server.ctl(&["job", "cancel", &job]).expect(0);
    assert_eq!(server.finished(&job)["status"], "CANCELLED");
    for place in [&server.place, &far.worker.place, &near.worker.place] {
        place.assert_no_panic();
    }
    "no two at once".to_owned()
}

/// `job get` and `explain` say for how long what may happen.
fn the_bound_is_told(server: &Server, job: &str) {
    let (get, explain) = (["job", "get", job], ["explain", job]);
    for args in [&get[..], &explain[..]] {
        let said = server.ctl(args).expect(0).stdout;
        let flat = said.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in ["single instance", "12s", "17s"] {
            assert!(flat.contains(word), "{word}: {said}");
        }
    }
}
