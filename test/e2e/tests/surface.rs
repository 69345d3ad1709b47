//! Promise: the server and the command line explain themselves: help, health, metrics, readings, OpenAPI, doctor.

use prism_e2e::{Place, Shared, until};
use serde_json::Value;

static SERVER: Shared = Shared::new();

#[test]
fn every_verb_has_help_with_an_exit_code_of_0() {
    let place = Place::new();
    for line in [
        "--help",
        "--version",
        "help",
        "run --help",
        "job --help",
        "job submit --help",
        "sweep --help",
        "sandbox --help",
        "sandbox exec --help",
        "image --help",
        "node --help",
        "info --help",
        "events --help",
        "explain --help",
        "doctor --help",
        "token --help",
        "context --help",
        "completion --help",
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let out = place.ctl(&args).expect(0);
        assert!(!out.stdout.is_empty(), "{line}");
    }
    let out = place
        .start("prismd", &["--help"])
        .wait(prism_e2e::LIMIT)
        .expect(0);
    assert!(out.stdout.contains("dev"), "{}", out.stdout);
}

#[test]
fn a_wrong_command_line_is_told_the_nearest_right_one() {
    let place = Place::new();
    for (line, near) in [
        ("jbo ls", "job"),
        ("job sumbit x", "submit"),
        ("job ls --outptu json", "--output"),
        ("job ls -o tabel", "table"),
        ("completion bsh", "bash"),
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let out = place.ctl(&args).expect(2);
        assert!(out.stderr.contains(near), "{line}: {}", out.stderr);
    }
    let out = place
        .ctl(&["job", "ls", "--api", "http://127.0.0.1:9"])
        .expect(4);
    assert!(out.stderr.contains("127.0.0.1:9"), "{}", out.stderr);
}

#[test]
fn completion_scripts_are_printed_for_every_shell() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = place.ctl(&["completion", shell]).expect(0).stdout;
        assert!(
            script.contains("sandbox") && script.contains("sweep"),
            "{shell}"
        );
    }
}

#[test]
fn doctor_says_what_this_machine_can_do() {
    let place = Place::new();
    let report = place.ctl(&["doctor", "-o", "json"]).expect(0).json();
    assert!(
        !report.as_object().is_none_or(serde_json::Map::is_empty) || report.is_array(),
        "{report}"
    );
    let text = place.ctl(&["doctor"]).expect(0).stdout;
    for word in ["namespace", "cgroup", "seccomp"] {
        assert!(text.to_lowercase().contains(word), "{word}: {text}");
    }
}

#[test]
fn explain_knows_every_code_and_what_the_server_knows() {
    let server = SERVER.get();
    for subject in ["PRISM-T003", "PRISM-R001", "out_of_memory"] {
        let out = server.ctl(&["explain", subject]).expect(0);
        assert!(out.stdout.len() > 100, "{}", out.stdout);
    }
    let out = server.ctl(&["explain", "PRISM-X999"]);
    assert_ne!(out.code, Some(0));
    let spec =
        serde_json::json!({"job": "explained", "command": ["true"], "resources": {"cpu": "4000"}});
    let id = server.submit(&spec);
    let why = server.ctl(&["explain", &id]).expect(0).stdout;
    assert!(
        why.contains("cpu"),
        "it can never be placed, and the reason is cpu: {why}"
    );
    server.ctl(&["job", "cancel", &id]).expect(0);
}

#[test]
fn health_metrics_and_openapi_are_served_and_true() {
    let server = SERVER.get();
    let health = server.api().get("/health").expect(200).json();
    assert_eq!(
        (&health["live"], &health["ready"]),
        (&Value::Bool(true), &Value::Bool(true))
    );
    let metrics = server.api().get("/metrics").expect(200).text();
    for name in [
        "prism_build_info",
        "prism_tasks{",
        "prism_jobs{",
        "prism_sandboxes{",
    ] {
        assert!(metrics.contains(name), "{name}");
    }
    for line in metrics
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        let value = line.rsplit(' ').next().unwrap_or_default();
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    let document = server.api().get("/openapi.json").expect(200).json();
    assert!(
        document["openapi"]
            .as_str()
            .is_some_and(|v| v.starts_with("3."))
    );
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() > 25, "{}", paths.len());
    for (path, methods) in paths {
        if methods.get("get").is_none() || path.contains('{') {
            continue;
        }
        assert_eq!(server.api().get(path).status, 200, "{path}");
    }
}

#[test]
fn readings_are_of_this_machine() {
    let server = SERVER.get();
    let nodes = prism_e2e::until("the node's readings", || {
        let nodes = server.api().get("/api/v1/nodes").expect(200).json()["items"].clone();
        nodes[0]["readings"]["memory_total"]
            .is_u64()
            .then_some(nodes)
    });
    assert_eq!(nodes.as_array().map(Vec::len), Some(1));
    let node = &nodes[0];
    assert_eq!(node["state"], "HEALTHY");
    let meminfo = std::fs::read_to_string("/proc/meminfo").expect("this is Linux");
    let total: u64 = meminfo
        .lines()
        .find_map(|l| {
            l.strip_prefix("MemTotal:")?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        })
        .expect("it says how much there is");
    assert_eq!(node["facts"]["memory_bytes"].as_u64(), Some(total << 10));
    let cpus = std::thread::available_parallelism().map_or(0, |n| n.get() as u64);
    assert!(node["facts"]["cpus"].as_u64() >= Some(cpus), "{node}");
    let load = node["readings"]["load"][0].as_f64().expect("a load");
    assert!((0.0..10_000.0).contains(&load));
}

#[test]
fn every_list_prints_as_table_json_and_yaml() {
    let server = SERVER.get();
    for noun in [
        "node ls",
        "node top",
        "job ls",
        "sweep ls",
        "sandbox ls",
        "image ls",
        "token ls",
        "context ls",
        "info",
        "events",
    ] {
        for format in ["table", "json", "yaml"] {
            let args: Vec<&str> = noun.split(' ').chain(["-o", format]).collect();
            let out = server.ctl(&args).expect(0);
            if format == "json" {
                out.json_or_lines();
            }
        }
    }
    let name = server.api().get("/api/v1/nodes").expect(200).json()["items"][0]["name"].clone();
    server
        .ctl(&["node", "info", name.as_str().expect("a name")])
        .expect(0);
}

#[test]
fn a_cordoned_node_takes_nothing_new_until_it_is_uncordoned() {
    let server = prism_e2e::Server::start();
    let name = server.api().get("/api/v1/nodes").expect(200).json()["items"][0]["name"].clone();
    let name = name.as_str().expect("a name");
    server.ctl(&["node", "cordon", name]).expect(0);
    let id = server.submit(
        &serde_json::json!({"job": "waits", "command": ["true"], "resources": {"cpu": "50m"}}),
    );
    let why = server.ctl(&["explain", &id]).expect(0).stdout;
    assert!(why.contains("cordon"), "{why}");
    server.ctl(&["node", "uncordon", name]).expect(0);
    assert_eq!(server.finished(&id)["status"], "COMPLETED");
}

#[test]
fn a_data_directory_may_be_relative() {
    let place = Place::new();
    let mut command = place.command("prismd");
    command.args(["dev", "--api=127.0.0.1:0", "--data-dir=here"]);
    let mut server = place.launch(command);
    until("the server to answer", || {
        assert!(!server.is_over(), "{}", server.stderr());
        (place.ctl(&["info"]).code == Some(0)).then_some(())
    });
    let submit = ["job", "submit", "--array=2", "--wait", "--", "true"];
    place.ctl(&submit).expect(0);
    assert!(place.work().join("here/node.json").is_file());
    server.signal(rustix::process::Signal::TERM);
    server.wait(std::time::Duration::from_secs(30)).expect(0);
}
