//! Promise: a sandbox is an isolated Linux to run commands in, with files, streams, snapshots, and an end.

use std::collections::BTreeMap;
use std::fs;

use prism_e2e::{Server, Shared, until};
use serde_json::{Value, json};

static SERVER: Shared = Shared::new();

/// A sandbox that is removed at the end of its test.
struct Box<'s> {
    server: &'s Server,
    id: String,
}

impl<'s> Box<'s> {
    fn new(server: &'s Server, mut spec: Value) -> Self {
        spec["resources"] = json!({"cpu": "200m", "memory": "64Mi"});
        let view = server
            .api()
            .post("/api/v1/sandboxes", &spec)
            .expect(201)
            .json();
        assert_eq!(view["status"], "RUNNING", "{view}");
        let id = view["id"].as_str().expect("a sandbox has an id").to_owned();
        Self { server, id }
    }

    fn path(&self, rest: &str) -> String {
        format!("/api/v1/sandboxes/{}{rest}", self.id)
    }

    /// Runs a line and answers exit code, standard output and standard error.
    fn sh(&self, line: &str) -> (i64, String, String) {
        let body = json!({"argv": ["sh", "-c", line], "timeout": "60s"});
        let answer = self
            .server
            .api()
            .post(&self.path("/exec?stream=true"), &body)
            .expect(200);
        let mut text: BTreeMap<String, String> = BTreeMap::new();
        let mut code = None;
        for line in answer.text().lines() {
            let event: Value = serde_json::from_str(line).expect("each line is JSON");
            assert!(event["error"].is_null(), "{event}");
            if let Some(stream) = event["stream"].as_str() {
                text.entry(stream.to_owned())
                    .or_default()
                    .push_str(event["text"].as_str().unwrap_or_default());
            }
            code = event["exit"]["code"].as_i64().or(code);
        }
        let mut take = |stream: &str| text.remove(stream).unwrap_or_default();
        (code.unwrap_or(-1), take("stdout"), take("stderr"))
    }
}

impl Drop for Box<'_> {
    fn drop(&mut self) {
        // A test that removed it itself finds it gone.
        let _ = self
            .server
            .api()
            .try_send("DELETE", &self.path(""), &[], b"");
    }
}

#[test]
fn a_command_streams_its_output_and_ends_with_its_code() {
    let server = SERVER.get();
    let sandbox = Box::new(&server, json!({}));
    let (code, out, err) = sandbox.sh("echo one; echo two >&2; exit 7");
    assert_eq!((code, out.as_str(), err.as_str()), (7, "one\n", "two\n"));
}

#[test]
fn the_command_line_runs_a_program_with_input_and_passes_its_status_on() {
    let server = SERVER.get();
    let id = server
        .ctl(&["sandbox", "create", "--name", "cli-box", "-o", "json"])
        .expect(0)
        .json()["id"]
        .clone();
    assert!(id.is_string());
    let out = server
        .ctl(&[
            "sandbox",
            "exec",
            "cli-box",
            "--",
            "sh",
            "-c",
            "echo $((6*7)); exit 5",
        ])
        .expect(5);
    assert_eq!(out.stdout, "42\n");
    let out = server
        .place
        .ctl_with(
            b"some\ninput\n",
            &["sandbox", "exec", "-i", "cli-box", "--", "wc", "-l"],
        )
        .expect(0);
    assert_eq!(out.stdout.trim(), "2");
    let listed = server.ctl(&["sandbox", "ls"]).expect(0).stdout;
    assert!(listed.contains("cli-box"), "{listed}");
    server.ctl(&["sandbox", "rm", "cli-box"]).expect(0);
    server
        .ctl(&["sandbox", "exec", "cli-box", "--", "true"])
        .expect(1);
}

#[test]
fn files_go_in_and_come_out_as_they_are() {
    let server = SERVER.get();
    let sandbox = Box::new(&server, json!({}));
    let content: Vec<u8> = (0..=255u8).cycle().take(300_000).collect();
    let file = sandbox.path("/files?path=/work/in/data.bin");
    server.api().send(
        "PUT",
        &sandbox.path("/files?path=/work/in&mkdir=true"),
        &[],
        b"",
    );
    let put = server.api().send("PUT", &file, &[], &content);
    assert!(put.status < 300, "{}", put.text());
    assert_eq!(sandbox.sh("wc -c </work/in/data.bin").1.trim(), "300000");
    assert_eq!(server.api().get(&file).expect(200).body, content);
    let list = server
        .api()
        .get(&sandbox.path("/files?path=/work/in&list=true"))
        .expect(200)
        .json();
    assert_eq!(list["entries"][0]["name"], "data.bin", "{list}");
    assert!(server.api().delete(&file).status < 300);
    assert_eq!(server.api().get(&file).status, 404);
}

#[test]
fn files_are_copied_both_ways_by_the_command_line() {
    let server = SERVER.get();
    let sandbox = Box::new(&server, json!({}));
    let local = server.place.write("to-copy.txt", "as it is\n");
    server
        .ctl(&[
            "sandbox",
            "cp",
            &local,
            &format!("{}:/work/there.txt", sandbox.id),
        ])
        .expect(0);
    assert_eq!(sandbox.sh("cat /work/there.txt").1, "as it is\n");
    let relative = format!("{}:beneath.txt", sandbox.id);
    server.ctl(&["sandbox", "cp", &local, &relative]).expect(0);
    let beneath = sandbox.sh("cat /work/beneath.txt").1;
    assert_eq!(beneath, "as it is\n", "relative paths are beneath /work");
    let back = server.place.work().join("back.txt");
    let from = format!("{}:/work/there.txt", sandbox.id);
    server
        .ctl(&["sandbox", "cp", &from, &back.to_string_lossy()])
        .expect(0);
    assert_eq!(
        fs::read_to_string(back).expect("it was copied"),
        "as it is\n"
    );
}

#[test]
fn paths_do_not_lead_out_of_a_sandbox() {
    let server = SERVER.get();
    let sandbox = Box::new(&server, json!({}));
    let secret = server.place.write("secret.txt", "of the host\n");
    sandbox.sh(&format!("mkdir -p /work; ln -s {secret} /work/link; ln -s / /work/root; ln -s /proc/1/root /work/proc"));
    for path in [
        secret.clone(),
        format!("/work/../..{secret}"),
        "/work/link".to_owned(),
        format!("/work/root{secret}"),
        format!("/work/proc{secret}"),
        format!("/proc/self/root{secret}"),
    ] {
        let answer = server
            .api()
            .get(&sandbox.path(&format!("/files?path={path}")));
        assert!(
            (400..500).contains(&answer.status),
            "{path}: {} {}",
            answer.status,
            answer.text()
        );
        assert!(!answer.text().contains("of the host"), "{path}");
    }
    let (code, out, _) = sandbox.sh(&format!("cat {secret}"));
    assert!(code != 0 && out.is_empty(), "{out}");
}

#[test]
fn a_sandbox_sees_no_network_and_no_other_process() {
    let server = SERVER.get();
    let sandbox = Box::new(&server, json!({}));
    let (_, out, _) = sandbox.sh("cut -d: -f1 /proc/net/dev | tail -n +3 | tr -d ' '");
    assert_eq!(out.trim(), "lo");
    let (_, out, _) = sandbox.sh("ls -d /proc/[0-9]* | wc -l");
    assert!(out.trim().parse::<u32>().expect("a number") < 12, "{out}");
    let (_, out, _) = sandbox.sh("grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status");
    assert!(out.contains("CapEff:\t0000000000000000"), "{out}");
    assert!(out.contains("NoNewPrivs:\t1"), "{out}");
    assert!(out.contains("Seccomp:\t2"), "{out}");
}

#[test]
fn a_snapshot_starts_other_sandboxes_where_it_was_taken() {
    let server = SERVER.get();
    let sandbox = Box::new(&server, json!({}));
    assert_eq!(sandbox.sh("echo before > /work/state").0, 0);
    let snapshot = server
        .api()
        .post(&sandbox.path("/snapshots"), &json!({}))
        .expect(201)
        .json();
    assert_eq!(sandbox.sh("echo after > /work/state").0, 0);
    let forks: Vec<Box<'_>> = (0..2)
        .map(|_| Box::new(&server, json!({"snapshot": snapshot["id"]})))
        .collect();
    for fork in &forks {
        assert_eq!(fork.sh("cat /work/state").1, "before\n");
    }
    forks[0].sh("echo mine > /work/state");
    assert_eq!(forks[1].sh("cat /work/state").1, "before\n");
    assert_eq!(sandbox.sh("cat /work/state").1, "after\n");
    let listed = server
        .api()
        .get(&sandbox.path("/snapshots"))
        .expect(200)
        .json();
    assert_eq!(
        listed["items"].as_array().map(Vec::len),
        Some(1),
        "{listed}"
    );
}

#[test]
fn a_sandbox_ends_when_its_time_is_over() {
    let server = SERVER.get();
    let sandbox = Box::new(&server, json!({"timeout": "1s"}));
    let view = until("its end", || {
        let view = server.api().get(&sandbox.path("")).expect(200).json();
        (view["status"] == "STOPPED").then_some(view)
    });
    assert_eq!(view["reason"], "expired", "{view}");
}

#[test]
fn an_exec_can_be_fed_and_signalled() {
    let server = SERVER.get();
    let sandbox = Box::new(&server, json!({}));
    let body = json!({"id": "feeder", "argv": ["cat"], "stdin": true});
    server.api().post(&sandbox.path("/exec"), &body);
    let input = |path: &str, bytes: &[u8]| {
        let answer = server.api().send("POST", &sandbox.path(path), &[], bytes);
        assert!(answer.status < 300, "{}", answer.text());
    };
    input("/execs/feeder/input", b"fed ");
    input("/execs/feeder/input?eof=true", b"twice");
    let view = server
        .api()
        .get(&sandbox.path("/execs/feeder?wait=60"))
        .expect(200)
        .json();
    assert_eq!(view["exit"]["code"], 0, "{view}");
    assert_eq!(
        server
            .api()
            .get(&sandbox.path("/execs/feeder/output"))
            .expect(200)
            .text(),
        "fed twice"
    );
    server.api().post(
        &sandbox.path("/exec"),
        &json!({"id": "sleeper", "argv": ["sleep", "600"]}),
    );
    let signal = server.api().post(
        &sandbox.path("/execs/sleeper/signal"),
        &json!({"signal": "KILL"}),
    );
    assert!(signal.status < 300, "{}", signal.text());
    let view = server
        .api()
        .get(&sandbox.path("/execs/sleeper?wait=60"))
        .expect(200)
        .json();
    assert_eq!(view["exit"]["signal"], 9, "{view}");
}

#[test]
fn more_processes_than_allowed_cannot_be_started() {
    let server = SERVER.get();
    let sandbox = Box::new(&server, json!({"pids": 8}));
    let (_, out, err) =
        sandbox.sh("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; echo made");
    assert!(!err.is_empty() || !out.contains("made"), "{out} {err}");
}
