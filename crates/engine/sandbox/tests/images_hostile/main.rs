//! Hostile and broken images: every one is refused with a reason, and leaves nothing behind. `layers` are wrong in what they
//! unpack to, `documents` in what describes them, `archives` in what holds them.

#![expect(
    clippy::too_many_lines,
    reason = "a table of cases reads best in one piece"
)]
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

mod archives;
mod documents;
#[path = "../kit/mod.rs"]
mod kit;
mod layers;

use std::fs;
use std::path::Path;

use kit::{LayerOf, Tar, names};
use prism_sandbox::image::{ImageStore, Limits};

const LIMITS: Limits = Limits {
    entries_max: 300,
    bytes_max: 8 << 20,
    ratio_max: 100,
    ratio_floor_bytes: 1 << 20,
};

/// Loads and expects the refusal, in words, and an untouched store and neighbourhood.
fn refused(case: &str, path: &Path, name: Option<&str>, expected: &str) {
    let dir = kit::scratch();
    let sentinel = dir.path().join("sentinel");
    fs::write(&sentinel, "same").unwrap();
    let store = ImageStore::open_with(dir.path().join("store"), LIMITS).unwrap();
    let error = match store.load(path, name) {
        Ok(_) => panic!("{case}: was loaded"),
        Err(error) => error.to_string(),
    };
    assert!(
        error.contains(expected),
        "{case}: said {error:?}, not {expected:?}"
    );
    assert!(
        error.len() < 1500 && !error.contains('\0'),
        "{case}: {error}"
    );
    for part in ["layers", "tmp", "images"] {
        let left = names(&dir.path().join("store").join(part));
        assert!(left.is_empty(), "{case}: left {left:?} in {part}");
    }
    assert_eq!(names(dir.path()), ["sentinel", "store"], "{case}");
    assert_eq!(fs::read(&sentinel).unwrap(), b"same", "{case}");
}

fn good_layer() -> LayerOf {
    LayerOf::plain(Tar::new().file("a", b"x").end())
}
