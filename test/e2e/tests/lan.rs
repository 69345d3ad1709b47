//! Promise: machines on one local network find their servers when they are told to look, and only then. Inside a network namespace that
//! the test makes itself: nothing is sent to the network of this machine.

use prism_e2e::cluster::{founder, healthy, token, voters};
use prism_e2e::net::{inside_one, wire};
use prism_e2e::{Place, Server, until};

/// One interface that multicast can go out of, which leads nowhere. A kernel without dummies has pairs, of which both ends have to be up.
const NETWORK: &str = "
ip link set lo up
if ! ip link add lan0 type dummy; then
    ip link add lan0 type veth peer name lan1
    ip link set lan1 up
fi
ip addr add 10.213.7.1/24 dev lan0
ip link set lan0 up multicast on
ip route add 224.0.0.0/4 dev lan0";

#[test]
fn machines_find_their_servers_by_mdns() {
    inside_one("machines_find_their_servers_by_mdns", inside);
}

fn inside() -> String {
    wire(&[], NETWORK).expect("a network");
    let mut first = founder("s1", &["--serf=0.0.0.0:4200"]);
    let worker = Place::new();
    let (text, _) = token(&first, &[]);
    let file = format!("--token-file={}", worker.write("token", text));
    let data = format!("--data-dir={}", worker.data().display());
    let args = ["--role=worker", "--name=w1", "--join=mdns", &file, &data];
    // Nobody is announced who was not told to be.
    let said = worker.start("prismd", &args).wait(prism_e2e::LIMIT);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert!(said.stderr.contains("--announce-mdns"), "{}", said.stderr);
    first.stop();
    let told = ["--announce-mdns"];
    assert!(first.try_start(&told, &[]).is_ok());
    let _working = worker.start("prismd", &args);
    healthy(&first, "w1");
    let mut second = Server::started_as(&["--name=s2", "--join=mdns", "--serf=0.0.0.0:4201"]);
    let (text, _) = token(&first, &["--role=server"]);
    let file = format!("--token-file={}", second.place.write("token", text));
    let started = second.try_start(&[&file], &[]);
    assert!(started.is_ok(), "{started:?}");
    until("both to vote", || (voters(&first) == 2).then_some(()));
    "all were found".to_owned()
}
