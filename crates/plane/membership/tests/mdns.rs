//! Multicast DNS, inside a network namespace that the test makes itself: nothing is sent to the network of this machine.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

use std::process::Command;
use std::time::{Duration, Instant};

use prism_membership::mdns::{announce, find};
use prism_types::Id;

/// Set for the process inside the namespace.
const INSIDE: &str = "PRISM_TEST_MDNS_INSIDE";

/// Set by xtask, which runs this test only where it can be real.
const XTASK: &str = "PRISM_BIN_DIR";

/// One interface that multicast can go out of, which leads nowhere. A kernel without dummies has pairs, of which both ends have to be up.
const NETWORK: &str = "set -e
ip link set lo up
if ! ip link add mdns0 type dummy; then
    ip link add mdns0 type veth peer name mdns1
    ip link set mdns1 up
fi
ip addr add 10.213.0.1/24 dev mdns0
ip link set mdns0 up multicast on
ip route add 224.0.0.0/4 dev mdns0
exec \"$0\" --exact servers_of_a_local_network_are_found --nocapture";

#[test]
fn servers_of_a_local_network_are_found() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let probe = Command::new("unshare")
        .args(["--net", "ip", "link", "set", "lo", "up"])
        .output();
    let why = match probe {
        Ok(done) if done.status.success() => None,
        Ok(done) => Some(String::from_utf8_lossy(&done.stderr).into_owned()),
        Err(why) => Some(format!("unshare (util-linux) cannot be run: {why}")),
    };
    if let Some(why) = why {
        assert!(
            std::env::var_os(XTASK).is_none(),
            "no network namespace can be made here: {why}"
        );
        println!("skipped: no network namespace can be made here: {why}");
        return;
    }
    let me = std::env::current_exe().unwrap();
    let done = Command::new("unshare")
        .args(["--net", "sh", "-c", NETWORK])
        .arg(&me)
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&done.stdout).into_owned();
    let err = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(
        done.status.success() && out.contains("found both"),
        "{out}{err}"
    );
}

fn inside() {
    let (one, two) = (Id(1 << 100), Id(2 << 100));
    let first = announce(one, &"srv-1".parse().unwrap(), 7946).unwrap();
    let second = announce(two, &"srv-2".parse().unwrap(), 7947).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let found = find(Duration::from_secs(2)).unwrap();
        let has = |cluster, name: &str, address: &str| {
            found.iter().any(|f| {
                f.cluster == cluster
                    && f.name.as_str() == name
                    && f.address == address.parse().unwrap()
            })
        };
        if has(one, "srv-1", "10.213.0.1:7946") && has(two, "srv-2", "10.213.0.1:7947") {
            break;
        }
        assert!(Instant::now() < deadline, "{found:?}");
    }
    println!("found both");
    // Who says goodbye is not found any more.
    drop(first);
    let found = find(Duration::from_secs(2)).unwrap();
    assert!(found.iter().all(|f| f.cluster != one), "{found:?}");
    drop(second);
}
