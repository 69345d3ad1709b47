//! Promise: of a job with `single_instance: true` no two runs are ever there at the same time: not when a machine is cut off, not when
//! `prismd` on it stands still, and each later run has the greater number. The machines are network namespaces that the test makes.

use std::fs;
use std::process::Command;

use prism_e2e::{Place, Running, Server, until};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Set for the process inside the server's namespace.
const INSIDE: &str = "PRISM_TEST_SINGLE_INSIDE";

/// What each run does to the outside: a line with its number and the time, again and again.
const STAMPS: &str = "while :; do echo \"$PRISM_FENCE $(date +%s%N)\"; sleep 0.05; done";

/// Longer than a lease, nanoseconds.
const BEYOND_A_LEASE: u64 = 18_000_000_000;

#[test]
fn no_two_runs_are_there_at_once_and_the_later_has_the_greater_number() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let me = std::env::current_exe().expect("this test is a program");
    let name = "no_two_runs_are_there_at_once_and_the_later_has_the_greater_number";
    let done = Command::new("unshare")
        .arg("--net")
        .arg(me)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare is part of every Debian");
    let out = String::from_utf8_lossy(&done.stdout);
    let err = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success() && out.contains("no two at once"),
        "{out}{err}"
    );
    println!("{out}");
}

fn shell(line: &str, other: u32) {
    let done = Command::new("sh")
        .args(["-euc", line])
        .env("w", other.to_string())
        .output()
        .expect("there is a shell");
    let err = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{line}: {err}");
}

/// A namespace, held by a process that waits.
fn namespace(place: &Place) -> Running {
    let mut command = Command::new("unshare");
    command
        .args(["--net", "sleep", "900"])
        .env("PLACE", place.path());
    let running = place.launch(command);
    let own = fs::read_link("/proc/self/ns/net").expect("we have one");
    until("a namespace", || {
        let ns = fs::read_link(format!("/proc/{}/ns/net", running.pid())).ok()?;
        (ns != own).then_some(())
    });
    running
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
    place: Place,
    within: Option<u32>,
}

impl Machine {
    fn start(&self, server: &Server) -> Running {
        let made = server.ctl(&["server", "join-token", "-o", "json"]);
        let made: Value = serde_json::from_str(&made.expect(0).stdout).expect("JSON");
        let token = made["token"].as_str().expect("a token");
        let file = self.place.write("token", token);
        let prismd = self.place.command("prismd");
        let mut command = match self.within {
            Some(pid) => {
                let mut command = Command::new("nsenter");
                command.args(["-t", &pid.to_string(), "-n"]);
                command.arg(prismd.get_program());
                command
            }
            None => Command::new(prismd.get_program()),
        };
        let name = format!("--name={}", self.name);
        command
            .args(["--role=worker", "--join=10.73.0.1:4200", &name])
            .args(["--token-file", &file, "--data-dir"])
            .arg(self.place.data())
            .current_dir(self.place.work());
        for (key, value) in prismd.get_envs() {
            if let Some(value) = value {
                command.env(key, value);
            }
        }
        let running = self.place.launch(command);
        self.is_well(server);
        running
    }

    fn is_well(&self, server: &Server) {
        until(&format!("{} to be there", self.name), || {
            let page = server.api().get("/api/v1/nodes").expect(200).json();
            let nodes = page["items"].as_array().expect("a list").clone();
            let well = |n: &Value| n["name"] == self.name && n["state"] == "HEALTHY";
            nodes.iter().any(well).then_some(())
        });
    }

    /// What an attempt has done so far: its number as it knows it, and the times.
    fn stamps(&self, job: &str, attempt: u32) -> Vec<(u32, u64)> {
        let dir = self
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

fn inside() {
    let place = Place::new();
    let ns = namespace(&place);
    shell(WIRES, ns.pid());
    let server = Server::start_with(&["--serf=10.73.0.1:4200"]);
    let page = server.api().get("/api/v1/nodes").expect(200).json();
    let own = page["items"][0]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    server.ctl(&["node", "cordon", &own]).expect(0);
    let far = Machine {
        name: "far",
        place: Place::new(),
        within: Some(ns.pid()),
    };
    let near = Machine {
        name: "near",
        place: Place::new(),
        within: None,
    };
    let mut on_far = far.start(&server);
    let job = server.submit(&json!({
        "job": "only", "single_instance": true, "command": ["sh", "-c", STAMPS],
        "resources": {"cpu": "100m", "memory": "32Mi"},
    }));
    far.runs(&job, 1);
    let on_near = near.start(&server);
    the_bound_is_told(&server, &job);

    // The machine is cut off: no word comes to its prismd, which goes on as it does.
    shell("ip link set tow down", ns.pid());
    let gap = handed_over(&job, &far, &near, 1);
    println!("cut off: nothing ran for {gap} ms");
    let ended = far.last(&job, 1);
    shell("ip link set tow up", ns.pid());
    far.is_well(&server);
    assert_eq!(far.last(&job, 1), ended, "it does not come back to life");

    // prismd stands still: its supervisor ends the run all the same.
    on_near.signal(Signal::STOP);
    let gap = handed_over(&job, &near, &far, 2);
    println!("stopped: nothing ran for {gap} ms");
    let ended = near.last(&job, 2);
    on_near.signal(Signal::CONT);
    near.is_well(&server);
    assert_eq!(near.last(&job, 2), ended, "it does not come back to life");

    // prismd is killed and started again: within its lease the run goes on, and then has more time.
    let killed = far.last(&job, 3);
    prism_e2e::kill(on_far.pid());
    until("its end", || on_far.is_over().then_some(()));
    let _again = far.start(&server);
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
    for place in [&server.place, &far.place, &near.place] {
        place.assert_no_panic();
    }
    println!("no two at once");
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
