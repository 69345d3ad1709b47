//! The keys of gossip, what it says of servers, and the end of one that is long gone.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

mod common;

use common::*;
use prism_state::*;
use prism_types::*;

fn keys(revision: u64, names: &[u8]) -> GossipRecord {
    GossipRecord {
        revision,
        keys: names.iter().map(|n| [*n; 4]).collect(),
        sealed: vec![7; 60],
    }
}

/// A world with this many servers.
fn servers(n: u32) -> World {
    let mut w = World::new(0, 1);
    let member = |n: u32| MemberRecord {
        id: node_id(n),
        role: MemberRole::Server,
        name: format!("s{n}").parse().unwrap(),
        key: [1; 32],
        labels: Labels::new(),
        token: None,
        joined: TimeMs(0),
    };
    w.ok(Command::Found {
        member: member(1),
        address: "h1:1".to_owned(),
    });
    if n > 1 {
        let expires = w.now.after(Millis(1_000_000));
        w.ok(Command::CreateJoinToken(JoinTokenRecord {
            id: TokenId::new(1, 1),
            hash: [9; 32],
            role: MemberRole::Server,
            name: None,
            labels: Labels::new(),
            from: Vec::new(),
            uses: n,
            created: TimeMs(0),
            expires,
        }));
    }
    for n in 2..=n {
        w.ok(Command::Join(Join {
            token: TokenId::new(1, 1),
            hash: [9; 32],
            node: node_id(n),
            role: MemberRole::Server,
            name: format!("s{n}").parse().unwrap(),
            key: [2; 32],
            address: "10.0.0.1".parse().unwrap(),
            server: Some(format!("h{n}:1")),
        }));
    }
    w
}

#[test]
fn keys_follow_each_other_and_survive_a_reload() {
    let mut w = servers(1);
    assert_eq!(w.state.gossip(), None);
    w.ok(Command::SetGossipKeys(keys(1, &[1])));
    w.ok(Command::SetGossipKeys(keys(2, &[1, 2])));
    // Whoever has not seen the last change changes nothing.
    for revision in [0, 1, 2, 4] {
        let refused = w.err(Command::SetGossipKeys(keys(revision, &[3])));
        assert_eq!(
            (refused.reason, refused.retryable),
            (Reason::Conflict, true)
        );
    }
    for bad in [
        keys(3, &[]),
        keys(3, &[1, 1]),
        keys(3, &[1, 2, 3, 4, 5, 6, 7, 8, 9]),
        GossipRecord {
            sealed: Vec::new(),
            ..keys(3, &[1])
        },
        GossipRecord {
            sealed: vec![0; 1025],
            ..keys(3, &[1])
        },
    ] {
        assert_eq!(w.err(Command::SetGossipKeys(bad)).reason, Reason::Invalid);
    }
    w.ok(Command::SetGossipKeys(keys(3, &[2])));
    assert_eq!(w.state.gossip(), Some(&keys(3, &[2])));
    assert_eq!(w.reloaded(), w.state);
    let events: Vec<_> = w
        .events()
        .into_iter()
        .filter(|e| &*e.kind == "gossip.keys")
        .collect();
    assert_eq!(events.len(), 3);
    assert!(
        events[2].message.contains("02020202"),
        "{}",
        events[2].message
    );
    w.check();
}

#[test]
fn what_is_seen_of_a_server_is_an_event_and_changes_nothing_else() {
    let mut w = servers(2);
    let before = w.state.servers().cloned().collect::<Vec<_>>();
    for (seen, kind) in [
        (ServerSeen::Suspect, "server.suspect"),
        (ServerSeen::Failed, "server.failed"),
        (ServerSeen::Left, "server.left"),
        (ServerSeen::Back, "server.back"),
    ] {
        w.ok(Command::NoteServer {
            id: node_id(2),
            seen,
        });
        let last = w.events().pop().unwrap();
        assert_eq!(&*last.kind, kind);
        assert_eq!(last.subject, Subject::Node(node_id(2)));
        assert!(last.message.contains("s2"), "{}", last.message);
    }
    assert_eq!(w.state.servers().cloned().collect::<Vec<_>>(), before);
    let seen = ServerSeen::Failed;
    let refused = w.err(Command::NoteServer {
        id: node_id(9),
        seen,
    });
    assert_eq!(refused.reason, Reason::NotFound);
}

#[test]
fn a_server_is_retired_for_good_and_never_the_last_one() {
    let mut w = servers(2);
    let why = || "it was gone for a day".to_owned();
    for bad in [String::new(), "x".repeat(401)] {
        let refused = w.err(Command::RetireServer {
            id: node_id(2),
            why: bad,
        });
        assert_eq!(refused.reason, Reason::Invalid);
    }
    w.ok(Command::RetireServer {
        id: node_id(2),
        why: why(),
    });
    assert_eq!(w.state.servers().count(), 1);
    assert_eq!(w.state.gone_servers().count(), 1);
    let kinds: Vec<String> = w.events().iter().map(|e| e.kind.to_string()).collect();
    assert!(kinds.contains(&"server.retired".to_owned()), "{kinds:?}");
    let again = w.err(Command::RetireServer {
        id: node_id(2),
        why: why(),
    });
    assert_eq!(again.reason, Reason::NotFound);
    let last = w.err(Command::RetireServer {
        id: node_id(1),
        why: why(),
    });
    assert_eq!(last.reason, Reason::Conflict);
    w.check();
}
