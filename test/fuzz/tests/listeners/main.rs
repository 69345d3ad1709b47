//! Every listener of a running server, with what comes to it changed, cut short, slow and huge, by strangers, by members of another cluster
//! and by members: nothing gets in, nothing crashes, memory stays bounded, and each refusal is counted and says why in the log.

mod api;
mod gossip;
mod members;
mod net;
mod site;

use std::time::{Duration, Instant};

use net::Tally;
use site::Site;

/// By how much the server may have grown.
const GROWN_MAX: u64 = 64 << 20;
/// Longest time that who says nothing is borne, and a little.
const SILENT: Duration = Duration::from_secs(11);

#[test]
fn what_comes_to_the_listeners_gets_nowhere() {
    let site = Site::start();
    let began = Instant::now();
    let runtime = net::runtime();
    let mut all = Tally::default();
    // They hold their places in silence while the others come.
    let silent = runtime.block_on(net::silent(&[site.members, site.api, site.tls]));
    let before = site.memory();
    let counts = site.refused();
    for round in 0..2 {
        all += runtime.block_on(api::plain(&site, round));
        all += runtime.block_on(api::tls(&site, round));
        all += runtime.block_on(members::strangers(&site, round));
        all += runtime.block_on(members::foreign(&site));
        all += runtime.block_on(members::of_the_cluster(&site, round));
        all += gossip::datagrams(&site, round);
    }
    all += runtime.block_on(members::servers(&site));
    std::thread::sleep(SILENT.saturating_sub(began.elapsed()));
    drop(silent);
    assert!(all.wrong.is_empty(), "{}", all.wrong.join("\n"));
    assert!(all.cases >= 3_000, "only {} cases", all.cases);
    let after = site.memory();
    let grown = after.saturating_sub(before);
    println!(
        "{} cases in {:?}; memory before {} KiB, after {} KiB",
        all.cases,
        began.elapsed(),
        before >> 10,
        after >> 10
    );
    assert!(grown < GROWN_MAX, "{before} bytes, then {after}");
    site.counted(&counts);
    site.said();
    site.works();
}
