//! Failpoints: named places before and after every step that makes something last, where a test lets a process fail.
//!
//! They are always compiled in and cost one relaxed load and a branch until [`arm`] finds `PRISM_FAULTS` in the environment:
//! `name=action`, or `name=action@N` for the N-th time the place is passed, several joined by `;`. An action is `panic`, `abort`,
//! `kill` (as `kill -9`) or `eio` (the step answers "input/output error"). `PRISM_FAULTS=list` has `prismd` print all places.
//!
//! With `PRISM_FAULTS_SEEN=FILE`, every process that sees the variable notes there which places it passed, and each fault
//! happens once in all of them together: what is started after it goes on. Every place is in [`POINTS`]; a name that is not
//! there does not compile.

#![forbid(unsafe_code)]

mod armed;
mod table;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

pub use armed::arm;
pub use table::{POINTS, Point, Process};

/// The variable that says what is to fail.
pub const VARIABLE: &str = "PRISM_FAULTS";
/// The variable that names the file of what was passed.
pub const SEEN: &str = "PRISM_FAULTS_SEEN";

static ACTIVE: AtomicBool = AtomicBool::new(false);

/// The number of a place in [`POINTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(usize);

impl Id {
    /// The place with this name; use [`id!`], which asks while it compiles.
    ///
    /// # Panics
    /// When it is not in the table.
    pub const fn of(name: &str) -> Self {
        let mut n = 0;
        while n < POINTS.len() {
            if same(POINTS[n].name, name) {
                return Self(n);
            }
            n += 1;
        }
        panic!("this failpoint is not in crates/engine/faults/src/table.rs")
    }

    /// Passes the place.
    ///
    /// # Errors
    /// The error that a test wants here.
    ///
    /// # Panics
    /// When a test wants that here.
    #[inline]
    pub fn pass(self) -> io::Result<()> {
        if ACTIVE.load(Ordering::Relaxed) {
            armed::pass(self)
        } else {
            Ok(())
        }
    }
}

/// All places as text, a line each: name, process, step.
pub fn list() -> String {
    let line = |p: &Point| {
        let process = format!("{:?}", p.process).to_lowercase();
        format!("{:34} {process:10} {}\n", p.name, p.step)
    };
    POINTS.iter().map(line).collect()
}

const fn same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len() != other.len() {
        return false;
    }
    let mut n = 0;
    while n < one.len() {
        if one[n] != other[n] {
            return false;
        }
        n += 1;
    }
    true
}

/// The [`Id`] of a name, found while it compiles.
#[macro_export]
macro_rules! id {
    ($name:literal) => {
        const { $crate::Id::of($name) }
    };
}

/// Passes a place: `Ok(())`, or the error that a test wants there.
#[macro_export]
macro_rules! point {
    ($name:literal) => {
        $crate::id!($name).pass()
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_of_one_form() {
        for (n, point) in POINTS.iter().enumerate() {
            assert_eq!(Id::of(point.name), Id(n), "{} is there twice", point.name);
            let plain = |c: char| c.is_ascii_lowercase() || c == '_' || c == '.';
            assert!(point.name.chars().all(plain), "{}", point.name);
        }
        assert!(POINTS.len() >= 40);
    }

    #[test]
    fn nothing_happens_unless_it_is_armed() {
        assert!(POINTS.iter().all(|p| Id::of(p.name).pass().is_ok()));
    }
}
