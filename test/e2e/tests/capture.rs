//! Promise: a worker behind address translation works, and what goes between machines can be read by nobody on the way. The machines are
//! network namespaces that the test makes itself: a server, a worker, and a router between them that translates and is listened on.

use std::fs;

use prism_e2e::cluster::{nodes, state, token};
use prism_e2e::net::{Machine, inside_one, wire};
use prism_e2e::{Place, Running, Server, until};
use serde_json::json;

/// Everything that a network device sees, appended to a file, with the words `listening` on standard output when it begins.
const SNIFFER: &str = r#"
import socket, sys
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 20)
sock.bind((sys.argv[1], 0))
print("listening", flush=True)
with open(sys.argv[2], "wb", buffering=0) as out:
    while True:
        out.write(sock.recv(65535))
"#;

/// What must not be found on the way, in any of the places where people put things.
const CANARY: &str = "canary-f3a91c";

#[test]
fn a_worker_behind_nat_works_and_nobody_on_the_way_reads_along() {
    let name = "a_worker_behind_nat_works_and_nobody_on_the_way_reads_along";
    inside_one(name, inside);
}

/// server 10.71.0.1 — 10.71.0.2 router 192.168.71.1 — 192.168.71.2 worker; the server knows no way to the worker.
const WIRES: &str = "
ip link set lo up
ip link add tor type veth peer name tos netns $r
ip addr add 10.71.0.1/24 dev tor
ip link set tor up
in_r() { nsenter -t $r -n \"$@\"; }
in_w() { nsenter -t $w -n \"$@\"; }
in_r ip link set lo up
in_r ip addr add 10.71.0.2/24 dev tos
in_r ip link set tos up
in_r ip link add tow type veth peer name out netns $w
in_r ip addr add 192.168.71.1/24 dev tow
in_r ip link set tow up
nsenter -t $r -n sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
in_r iptables -t nat -A POSTROUTING -o tos -j MASQUERADE
in_w ip link set lo up
in_w ip addr add 192.168.71.2/24 dev out
in_w ip link set out up
in_w ip route add default via 192.168.71.1";

fn inside() -> String {
    let place = Place::new();
    let (router, worker) = (Machine::new(&place), Machine::new(&place));
    wire(&[("r", &router), ("w", &worker)], WIRES).expect("a network");
    let server = Server::start_with(&["--serf=10.71.0.1:4200"]);
    let sniffer = place.write("sniff.py", SNIFFER);
    let seen = place.work().join("seen");
    let mut command = router.command("python3");
    command
        .args([&sniffer, "tow"])
        .arg(&seen)
        .env("PLACE", place.path());
    let sniffing = place.launch(command);
    until("the sniffer", || {
        sniffing.stdout().contains("listening").then_some(())
    });
    work(&server, &place, &worker, &router);
    let seen = fs::read(&seen).expect("the sniffer wrote it");
    // The contents of a file of 300 KiB went over it, both ways.
    assert!(seen.len() > 600 << 10, "{} bytes were seen", seen.len());
    for secret in [
        CANARY,
        "Bearer",
        "SPIFFE",
        "spiffe://",
        "/bin/sh",
        "node.json",
    ] {
        let at = seen
            .windows(secret.len())
            .position(|w| w == secret.as_bytes());
        assert_eq!(at, None, "{secret} was seen on the way");
    }
    // The check can fail: addresses are not hidden.
    let addresses = [192, 168, 71, 2];
    assert!(seen.windows(4).any(|w| w == addresses));
    server.place.assert_no_panic();
    place.assert_no_panic();
    format!("nothing of ours was seen in {} bytes", seen.len())
}

/// A worker that joins from behind the router; all new work goes there.
fn join(server: &Server, place: &Place, worker: &Machine) -> Running {
    let (token, _) = token(server, &[]);
    let file = place.write("token", token);
    let mut command = worker.prism(place, "prismd");
    command
        .args(["--role=worker", "--join=10.71.0.1:4200", "--name=far"])
        .args(["--token-file", &file, "--data-dir"])
        .arg(place.data());
    let running = place.launch(command);
    until("the worker to come", || is_there(server).then_some(()));
    let all = nodes(server);
    let own = all
        .iter()
        .find(|n| n["name"] != "far")
        .expect("the server's own");
    let own = own["name"].as_str().expect("a name");
    server.ctl(&["node", "cordon", own]).expect(0);
    running
}

fn is_there(server: &Server) -> bool {
    state(server, "far").as_deref() == Some("HEALTHY")
}

/// Gives the worker behind the router work that is full of canaries.
fn work(server: &Server, place: &Place, worker: &Machine, router: &Machine) {
    let running = join(server, place, worker);
    let small = json!({"cpu": "100m", "memory": "32Mi"});
    let body = json!({"name": "box", "resources": small, "env": {"SECRET": CANARY}});
    server.api().post("/api/v1/sandboxes", &body).expect(201);
    let line = format!("echo {CANARY}; echo {CANARY} >&2; echo {CANARY} > /work/{CANARY}");
    let said = server
        .ctl(&["sandbox", "exec", "box", "--", "/bin/sh", "-c", &line])
        .expect(0);
    assert_eq!(said.stdout.trim(), CANARY);
    let big = server.place.write("big", CANARY.repeat(25_000));
    server
        .ctl(&["sandbox", "cp", &big, "box:/work/big"])
        .expect(0);
    let back = server.place.work().join("back");
    let back = back.to_string_lossy();
    server
        .ctl(&["sandbox", "cp", "box:/work/big", &back])
        .expect(0);
    let copied = fs::read_to_string(&*back).expect("it came back");
    assert_eq!(copied.len(), CANARY.len() * 25_000);
    let submit = |name: &str| {
        server.submit(&json!({
            "job": name, "resources": small, "env": {"SECRET": CANARY}, "retries": 3,
            "command": ["/bin/sh", "-c", format!("echo '{{\"secret\": \"{CANARY}\"}}'")],
        }))
    };
    let job = submit("before");
    assert_eq!(server.finished(&job)["status"], "COMPLETED");
    assert_eq!(server.results(&job)[0]["result"]["secret"], CANARY);
    // The router forgets whom it translates for, as one that was restarted does: the worker comes again by itself.
    let again = "ip link set tos down
         ip addr flush dev tos
         ip addr add 10.71.0.3/24 dev tos
         ip link set tos up";
    router.shell(again).expect("a router that starts again");
    let job = submit("after");
    assert_eq!(server.finished(&job)["status"], "COMPLETED");
    assert!(is_there(server));
    running.signal(rustix::process::Signal::TERM);
    running.wait(std::time::Duration::from_secs(60)).expect(0);
}
