//! What is to fail in this process, read from the environment once, and how it fails.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use prism_types::nearest;

use crate::table::POINTS;
use crate::{ACTIVE, Id, SEEN, VARIABLE};

const ACTIONS: [(&str, Action); 4] = [
    ("panic", Action::Panic),
    ("abort", Action::Abort),
    ("kill", Action::Kill),
    ("eio", Action::Eio),
];
/// The error of a disk that failed, as the kernel numbers it.
const EIO: i32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Panic,
    Abort,
    Kill,
    Eio,
}

#[derive(Debug)]
struct Fault {
    id: Id,
    action: Action,
    /// The text it was given as.
    text: String,
    /// How often the place is still passed without harm.
    left: AtomicU64,
}

#[derive(Debug)]
struct Armed {
    faults: Vec<Fault>,
    seen: Option<PathBuf>,
    passed: Vec<AtomicBool>,
}

static ARMED: OnceLock<Armed> = OnceLock::new();

/// Reads the environment. Called first thing in a process; a later call changes nothing. Answers what will fail, to be announced.
///
/// # Errors
/// What is wrong with the value, with the nearest name where a name is not known; nothing is armed then.
pub fn arm() -> Result<Option<String>, String> {
    let value = match std::env::var(VARIABLE) {
        Ok(value) => value,
        Err(std::env::VarError::NotPresent) => String::new(),
        Err(e) => return Err(format!("{VARIABLE}: {e}")),
    };
    let seen = std::env::var_os(SEEN)
        .filter(|v| !v.is_empty())
        .map(PathBuf::from);
    let faults = parse(&value)?;
    if faults.is_empty() && seen.is_none() {
        return Ok(None);
    }
    let armed = Armed {
        faults,
        seen,
        passed: POINTS.iter().map(|_| AtomicBool::new(false)).collect(),
    };
    ACTIVE.store(ARMED.set(armed).is_ok(), Ordering::Relaxed);
    Ok((!value.is_empty()).then_some(value))
}

fn parse(value: &str) -> Result<Vec<Fault>, String> {
    let parts = value.split(';').map(str::trim).filter(|p| !p.is_empty());
    parts.map(parse_one).collect()
}

fn parse_one(text: &str) -> Result<Fault, String> {
    let bad = |what: String| format!("{VARIABLE}: {text:?}: {what}");
    let form = || bad("expected name=action or name=action@N".to_owned());
    let (name, rest) = text.split_once('=').ok_or_else(form)?;
    let (action, at) = rest.split_once('@').unwrap_or((rest, "1"));
    let Some(number) = POINTS.iter().position(|p| p.name == name) else {
        return Err(bad(unknown(
            "failpoint",
            name,
            POINTS.iter().map(|p| p.name),
        )));
    };
    let found = ACTIONS.iter().find(|(word, _)| *word == action);
    let Some((_, action)) = found else {
        return Err(bad(unknown(
            "action",
            action,
            ACTIONS.iter().map(|(word, _)| *word),
        )));
    };
    let at: u64 = at.parse().ok().filter(|at| *at > 0).ok_or_else(form)?;
    Ok(Fault {
        id: Id(number),
        action: *action,
        text: text.to_owned(),
        left: AtomicU64::new(at),
    })
}

fn unknown<'n>(what: &str, given: &str, known: impl Iterator<Item = &'n str> + Clone) -> String {
    match nearest(given, known) {
        Some(near) => format!("there is no {what} {given:?}; did you mean {near:?}"),
        None => format!("there is no {what} {given:?}; PRISM_FAULTS=list prints all failpoints"),
    }
}

/// Passes a place in a process that was armed.
#[cold]
pub(crate) fn pass(id: Id) -> io::Result<()> {
    let Some(armed) = ARMED.get() else {
        return Ok(());
    };
    if !armed.passed[id.0].swap(true, Ordering::Relaxed) {
        armed.note(&format!("passed {}\n", POINTS[id.0].name));
    }
    for fault in armed.faults.iter().filter(|fault| fault.id == id) {
        let left = fault
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if left == Ok(1) && armed.claims(fault) {
            fault.happen()?;
        }
    }
    Ok(())
}

impl Armed {
    /// Whether no process before this one has had the fault; notes that this one has it.
    fn claims(&self, fault: &Fault) -> bool {
        let line = format!("failed {}\n", fault.text);
        let mut before = String::new();
        if let Some(path) = &self.seen {
            // A file that is not there yet says nothing.
            let _ = File::open(path).and_then(|mut f| f.read_to_string(&mut before));
        }
        let first = !before.contains(&line);
        if first {
            self.note(&line);
        }
        first
    }

    /// One write, so that lines of several processes do not mix. The file is the test's: it finds out when it is not written.
    fn note(&self, line: &str) {
        if let Some(path) = &self.seen {
            let file = OpenOptions::new().create(true).append(true).open(path);
            let _ = file.and_then(|mut f| f.write_all(line.as_bytes()));
        }
    }
}

impl Fault {
    fn happen(&self) -> io::Result<()> {
        let pid = std::process::id();
        // A closed stderr must not turn this into another fault.
        let _ = writeln!(io::stderr(), "failpoint {} in process {pid}", self.text);
        match self.action {
            Action::Panic => panic!("failpoint {}", self.text),
            Action::Abort => std::process::abort(),
            Action::Kill => {
                let killed = rustix::process::kill_process(
                    rustix::process::getpid(),
                    rustix::process::Signal::KILL,
                );
                panic!("failpoint {}: still alive after {killed:?}", self.text)
            }
            Action::Eio => Err(io::Error::from_raw_os_error(EIO)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_and_wrong_ones_refused_with_the_nearest_name() {
        let name = POINTS[0].name;
        let faults = parse(&format!("{name}=kill@3; {name}=eio")).unwrap();
        assert_eq!(faults.len(), 2);
        assert_eq!(
            (faults[0].action, faults[1].action),
            (Action::Kill, Action::Eio)
        );
        assert_eq!(faults[0].left.load(Ordering::Relaxed), 3);
        assert!(parse("").unwrap().is_empty());
        for (text, part) in [
            (format!("{name}x=kill"), format!("did you mean {name:?}")),
            (format!("{name}=kil"), "did you mean \"kill\"".to_owned()),
            (format!("{name}=kill@0"), "name=action@N".to_owned()),
            (name.to_owned(), "expected name=action".to_owned()),
        ] {
            let why = parse(&text).unwrap_err();
            assert!(why.contains(&part), "{text}: {why}");
        }
    }
}
