//! The change of the root: each step, who is waited for, and that nobody ends it too early.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

mod common;

use common::*;
use prism_state::*;
use prism_types::*;
use proptest::prelude::*;

const HOUR: Millis = Millis(3_600_000);

fn root(n: u8) -> Box<RootRecord> {
    Box::new(RootRecord {
        certificate: vec![n; 40],
        pin: [n; 32],
    })
}

fn rotate(old: u8, new: u8, again: bool) -> Command {
    let (old, new) = (root(old), root(new));
    Command::Rotate { old, new, again }
}

fn moved(new: u8, members: &[u32]) -> Command {
    Command::Moved {
        pin: [new; 32],
        members: members.iter().map(|n| node_id(*n)).collect(),
    }
}

const END: Command = Command::EndRotation { force: false };
const FORCE: Command = Command::EndRotation { force: true };

/// A server, number 0, and so many workers after it.
fn world(workers: u32) -> World {
    let mut w = World::new(0, 1);
    let founder = MemberRecord {
        id: node_id(0),
        role: MemberRole::Server,
        name: "s0".parse().unwrap(),
        key: [1; 32],
        labels: Labels::new(),
        token: None,
        joined: TimeMs(0),
    };
    w.ok(Command::Found {
        member: founder,
        address: "10.0.0.1:4200".to_owned(),
    });
    let id = TokenId::new(2, 1);
    w.ok(Command::CreateJoinToken(JoinTokenRecord {
        id,
        hash: [9; 32],
        role: MemberRole::Worker,
        name: None,
        labels: Labels::new(),
        from: Vec::new(),
        uses: 100,
        created: TimeMs(0),
        expires: w.now.after(HOUR),
    }));
    for n in 1..=workers {
        w.ok(Command::Join(Join {
            token: id,
            hash: [9; 32],
            node: node_id(n),
            role: MemberRole::Worker,
            name: format!("w{n}").parse().unwrap(),
            key: [u8::try_from(n).unwrap(); 32],
            address: "10.1.2.3".parse().unwrap(),
            server: None,
        }));
    }
    w
}

fn waiting(w: &World) -> Vec<String> {
    let names = w.state.names_waiting();
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn it_ends_when_all_have_come_along_and_is_read_back_at_each_step() {
    let mut w = world(2);
    assert!(w.state.rotation().is_none() && !w.state.rotation_is_due(w.now));
    assert_eq!(w.err(END).reason, Reason::WrongState);
    w.ok(rotate(1, 2, false));
    w.check();
    assert_eq!(waiting(&w), ["s0", "w1", "w2"]);
    assert_eq!(w.err(rotate(1, 3, false)).reason, Reason::Conflict);
    w.ok(moved(2, &[0, 1]));
    // What is known already, who is no member, and another root change nothing.
    for nothing in [moved(2, &[1]), moved(2, &[77]), moved(9, &[2])] {
        let before = w.state.rotation().cloned();
        w.ok(nothing);
        assert_eq!(w.state.rotation().cloned(), before);
    }
    w.check();
    assert_eq!(waiting(&w), ["w2"]);
    let why = w.err(END);
    assert!(why.message.contains("w2"), "{}", why.message);
    assert!(!w.state.rotation_is_due(w.now));
    w.ok(moved(2, &[2]));
    assert!(w.state.rotation_is_due(w.now));
    w.ok(END);
    w.check();
    let over = w.state.rotation().unwrap();
    assert_eq!((over.new.pin, over.ended), ([2; 32], Some(w.now)));
    assert!(w.state.rotating().is_none());
    // The next begins with the root that there is now, and with no other.
    assert_eq!(w.err(rotate(1, 3, false)).reason, Reason::Conflict);
    assert_eq!(w.err(rotate(2, 2, false)).reason, Reason::Conflict);
    w.ok(rotate(2, 3, false));
    assert_eq!(waiting(&w), ["s0", "w1", "w2"]);
    w.check();
}

#[test]
fn workers_are_left_behind_by_force_or_after_a_day_and_servers_only_after_a_day() {
    let mut w = world(2);
    w.ok(rotate(1, 2, false));
    w.ok(moved(2, &[1]));
    let why = w.err(FORCE);
    assert!(
        why.message.contains("servers") && why.message.contains("s0"),
        "{}",
        why.message
    );
    w.ok(moved(2, &[0]));
    w.ok(FORCE);
    w.ok(rotate(2, 3, false));
    w.now = w.now.after(Millis(ROTATION_MAX.0 - 1));
    assert!(!w.state.rotation_is_due(w.now));
    w.now = w.now.after(Millis(1));
    assert!(w.state.rotation_is_due(w.now));
    w.ok(END);
    w.check();
}

#[test]
fn nobody_waits_for_those_who_are_kept_out_or_have_gone() {
    let mut w = world(3);
    w.ok(rotate(1, 2, false));
    w.ok(moved(2, &[0, 1]));
    w.ok(Command::Deny {
        whom: Whom::Node(node_id(2)),
        why: "stolen".to_owned(),
    });
    assert_eq!(waiting(&w), ["w3"]);
    w.ok(Command::RemoveMember { id: node_id(3) });
    assert!(w.state.rotation_is_due(w.now));
    w.ok(END);
}

#[test]
fn a_root_that_is_lost_gives_way_to_another_and_the_old_one_stays_the_old_one() {
    let mut w = world(1);
    w.ok(rotate(1, 2, false));
    w.ok(moved(2, &[0]));
    // Whoever begins again has the root before, or the one that was given up.
    w.ok(rotate(2, 3, true));
    let rotation = w.state.rotation().unwrap();
    assert_eq!((rotation.old.pin, rotation.new.pin), ([1; 32], [3; 32]));
    assert_eq!(waiting(&w), ["s0", "w1"]);
    for (old, new) in [
        (vec![], vec![1]),
        (vec![1], vec![]),
        (vec![1; 9_000], vec![1]),
    ] {
        let of = |certificate, n| {
            Box::new(RootRecord {
                certificate,
                pin: [n; 32],
            })
        };
        let (old, new) = (of(old, 1), of(new, 2));
        let refused = w.err(Command::Rotate {
            old,
            new,
            again: true,
        });
        assert_eq!(refused.reason, Reason::Invalid);
    }
}

proptest! {
    /// Whatever is asked in whatever order: it ends only when nobody is missing, by force without servers missing, or after a day.
    #[test]
    fn it_never_ends_too_early(steps in proptest::collection::vec((0_u8..6, 0_u32..5), 1..40)) {
        let mut w = world(4);
        w.ok(rotate(1, 2, false));
        let mut next = 3;
        for (what, which) in steps {
            let before = w.state.rotating().cloned();
            let missing = waiting(&w);
            let new = before.as_ref().map_or(0, |r| r.new.pin[0]);
            let command = match what {
                0 | 1 => moved(new, &[which]),
                2 => { w.now = w.now.after(Millis(2 * HOUR.0)); continue }
                3 => Command::EndRotation { force: false },
                4 => Command::EndRotation { force: true },
                _ => { next += 1; rotate(w.state.rotation().unwrap().new.pin[0], next, false) }
            };
            let force = what == 4;
            let done = w.run(command).is_ok();
            if let (Some(before), None) = (before, w.state.rotating()) {
                prop_assert!(done);
                let late = w.now >= before.latest();
                let fine = missing.is_empty() || late || (force && !missing.contains(&"s0".to_owned()));
                prop_assert!(fine, "{missing:?}");
            }
        }
        w.check();
    }
}
