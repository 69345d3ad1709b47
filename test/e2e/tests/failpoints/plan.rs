//! Which workload passes which failpoint.

use prism_faults::{Point, Process};

/// What happens at the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Panic,
    Abort,
    Kill,
    Eio,
}

impl Action {
    pub const ALL: [Self; 4] = [Self::Panic, Self::Abort, Self::Kill, Self::Eio];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Abort => "abort",
            Self::Kill => "kill",
            Self::Eio => "eio",
        }
    }

    /// Whether the process that passes the point is gone for certain.
    pub const fn is_deadly(self) -> bool {
        matches!(self, Self::Abort | Self::Kill)
    }
}

/// How a point is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// The first start in an empty directory.
    First,
    /// A server that does some of everything.
    Work,
    /// A start after `prismd` and its supervisor were killed, with rubbish of theirs.
    Again,
    /// The same after a write to the log was torn.
    Torn,
    /// A server whose log is about to be rotated, saved and purged.
    Grown,
    /// Programs with long arguments, until the journal of sandboxes is written anew.
    Rewrite,
    /// A task that prints more than is kept.
    Output,
    /// A server that is told to end.
    Leave,
    /// `prismctl run`.
    Run,
}

/// How the point is reached, and at which passing it fails.
pub fn plan(point: &Point, action: Action) -> (Scenario, u32) {
    let is = |prefixes: &[&str]| prefixes.iter().any(|p| point.name.starts_with(p));
    if point.process == Process::Command {
        return (Scenario::Run, 1);
    }
    // A segment is made with the store, and again when one is full.
    let rotated = matches!(action, Action::Kill | Action::Eio);
    match point.name {
        "worker.journal.before_append" | "worker.journal.after_append" => (Scenario::Work, 3),
        "worker.journal.before_open" | "worker.journal.after_open" => (Scenario::First, 1),
        "sup.journal.before_append" | "sup.journal.after_append" => (Scenario::Work, 2),
        "sup.output.before_remove" => (Scenario::Output, 1),
        _ if is(&["raft.segment."]) && rotated => (Scenario::Grown, 1),
        _ if is(&["raft.snapshot.", "raft.rotate.", "raft.purge."]) => (Scenario::Grown, 1),
        _ if is(&["raft.log.", "raft.tail."]) => (Scenario::Work, 9),
        _ if is(&["raft.recover."]) => (Scenario::Torn, 1),
        _ if is(&["raft.sweep.", "raft.open.", "worker.leftovers."]) => (Scenario::Again, 1),
        _ if is(&["worker.journal."]) => (Scenario::Rewrite, 1),
        _ if is(&["sup.leave."]) => (Scenario::Leave, 1),
        _ if is(&["sup.output.", "sup.scratch."]) => (Scenario::Work, 1),
        _ if is(&["node.", "raft.", "worker.dirs.", "image.store.", "sup."]) => {
            (Scenario::First, 1)
        }
        _ => (Scenario::Work, 1),
    }
}
