//! A store whose log is almost full: made once, and then copied for each case.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use prism_e2e::{Oracle, Place, Server};

use crate::work;

/// Segments of the log until it counts as long.
const SEGMENTS: u64 = 4;
/// From here on a few more jobs fill the segment.
const NEARLY: u64 = 14 << 20;

struct Grown {
    server: Server,
    oracle: Oracle,
}

/// The number of the segment that is written to, and how far, as the store's `tail` says.
pub fn tail(place: &Place) -> (u64, u64) {
    let bytes = fs::read(place.data().join("store/tail")).expect("a store has a tail");
    let number = |at: usize| {
        u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes are there"))
    };
    (number(0), number(8))
}

fn grow() -> Grown {
    let mut server = Server::start();
    let mut oracle = Oracle::new(server.api(), "grown").expect("a token");
    let api = server.api().clone();
    while tail(&server.place) < (SEGMENTS, NEARLY) {
        let refused = work::large_jobs(&mut oracle, &api, 1);
        assert!(refused.is_empty(), "{refused:?}");
    }
    oracle
        .check(&api, prism_e2e::Sandboxes::Live)
        .expect("nothing failed yet");
    server.stop().expect(0);
    Grown { server, oracle }
}

/// Fills a fresh place, and answers what its store has acknowledged.
pub fn copy_into(place: &Place) -> Oracle {
    static GROWN: OnceLock<Grown> = OnceLock::new();
    let grown = GROWN.get_or_init(grow);
    copy(&grown.server.place.data(), &place.data());
    grown.oracle.clone()
}

/// Full segments are never written to again, so that a second name is enough.
fn copy(from: &Path, to: &Path) {
    let full = |path: &Path| {
        let number = path
            .file_stem()
            .and_then(|s| s.to_str()?.parse::<u64>().ok());
        path.extension().is_some_and(|e| e == "seg") && number.is_some_and(|n| n < SEGMENTS)
    };
    fs::create_dir_all(to).expect("our own directory can be written");
    for entry in fs::read_dir(from).expect("our own directory can be read") {
        let entry = entry.expect("our own directory can be read");
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().expect("it is there") {
            kind if kind.is_dir() => copy(&path, &target),
            kind if !kind.is_file() => {}
            _ if full(&path) => fs::hard_link(&path, &target).expect("it is on one file system"),
            _ => drop(fs::copy(&path, &target).expect("our own directory can be written")),
        }
    }
}
