//! Who joins, who is refused, and that no order of requests lets in more than a token allows.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::*;
use prism_state::*;
use prism_types::*;
use proptest::prelude::*;

const HOUR: Millis = Millis(3_600_000);

fn token_id(n: u32) -> TokenId {
    TokenId::new(2, u128::from(n) + 1)
}

fn secret(n: u32) -> [u8; 32] {
    [u8::try_from(n % 251).unwrap() + 1; 32]
}

fn new_token(w: &World, n: u32, uses: u32) -> JoinTokenRecord {
    JoinTokenRecord {
        id: token_id(n),
        hash: secret(n),
        role: MemberRole::Worker,
        name: None,
        labels: Labels::new(),
        from: Vec::new(),
        uses,
        created: TimeMs(0),
        expires: w.now.after(HOUR),
    }
}

fn join_of(node: u32, token: u32) -> Join {
    Join {
        token: token_id(token),
        hash: secret(token),
        node: node_id(node),
        role: MemberRole::Worker,
        name: format!("n{node}").parse().unwrap(),
        key: [u8::try_from(node).unwrap(); 32],
        address: "10.1.2.3".parse().unwrap(),
        server: None,
    }
}

fn world() -> World {
    World::new(0, 1)
}

/// A world with a token for so many.
fn with_token(uses: u32) -> World {
    let mut w = world();
    let new = new_token(&w, 0, uses);
    w.ok(Command::CreateJoinToken(new));
    w
}

#[test]
fn a_token_lets_in_as_many_as_it_is_for() {
    let mut w = with_token(2);
    for node in 0..2 {
        w.ok(Command::Join(join_of(node, 0)));
        w.check();
    }
    let why = w.err(Command::Join(join_of(2, 0)));
    assert_eq!(why.reason, Reason::Unauthenticated);
    assert!(why.message.contains("used up"), "{}", why.message);
    assert_eq!(w.state.members().count(), 2);
    assert_eq!(w.state.join_tokens().next().unwrap().uses, 0);
}

#[test]
fn who_has_not_heard_the_answer_asks_again() {
    let mut w = with_token(1);
    for _ in 0..3 {
        w.ok(Command::Join(join_of(1, 0)));
    }
    assert_eq!(w.state.members().count(), 1);
    // Whoever stole the string comes too late, also with the name and id of the first.
    assert_eq!(
        w.err(Command::Join(join_of(2, 0))).reason,
        Reason::Unauthenticated
    );
    let thief = Join {
        key: [9; 32],
        ..join_of(1, 0)
    };
    assert_eq!(w.err(Command::Join(thief)).reason, Reason::Conflict);
    w.check();
}

#[test]
fn each_rule_of_a_token_is_held() {
    let mut w = world();
    let mut new = new_token(&w, 0, 1);
    new.name = Some("n1".parse().unwrap());
    new.labels.insert("zone".into(), "a".into());
    new.from = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
    w.ok(Command::CreateJoinToken(new));
    let good = join_of(1, 0);
    let bad = |change: &dyn Fn(&mut Join)| {
        let mut join = good.clone();
        change(&mut join);
        Command::Join(join)
    };
    for (reason, command) in [
        (Reason::Unauthenticated, bad(&|j| j.token = token_id(1))),
        (Reason::Unauthenticated, bad(&|j| j.hash = [0; 32])),
        (Reason::Unauthenticated, bad(&|j| j.hash[31] ^= 1)),
        (Reason::Forbidden, bad(&|j| j.role = MemberRole::Server)),
        (Reason::Forbidden, bad(&|j| j.name = "n2".parse().unwrap())),
        (
            Reason::Forbidden,
            bad(&|j| j.address = "11.0.0.1".parse().unwrap()),
        ),
        (
            Reason::Forbidden,
            bad(&|j| j.address = "fe80::1".parse().unwrap()),
        ),
        (
            Reason::Forbidden,
            bad(&|j| j.address = "::ffff:11.0.0.1".parse().unwrap()),
        ),
    ] {
        let why = w.err(command.clone());
        assert_eq!(why.reason, reason, "{command:?}: {}", why.message);
    }
    // A wrong secret and no such token are one.
    let unknown = w.err(bad(&|j| j.token = token_id(1)));
    assert_eq!(unknown, w.err(bad(&|j| j.hash = [0; 32])));
    w.ok(bad(&|j| j.address = "::ffff:10.9.9.9".parse().unwrap()));
    let member = w.state.member(node_id(1)).unwrap();
    assert_eq!(member.labels.get("zone").map(String::as_str), Some("a"));
    w.check();
}

#[test]
fn tokens_expire_and_are_forgotten() {
    let mut w = with_token(5);
    w.ok(Command::Join(join_of(1, 0)));
    w.now = w.now.after(HOUR);
    let why = w.err(Command::Join(join_of(2, 0)));
    assert!(why.message.contains("expired"), "{}", why.message);
    // Nor does it answer any more to one that joined.
    w.err(Command::Join(join_of(1, 0)));
    assert_eq!(w.state.next_timer(), Some(w.now));
    w.ok(Command::Tick);
    assert_eq!(w.state.join_tokens().count(), 0);
    assert_eq!(w.state.next_timer(), None);
    assert_eq!(w.state.members().count(), 1);
    w.check();
}

#[test]
fn revoked_tokens_let_nobody_in() {
    let mut w = with_token(5);
    w.ok(Command::RevokeJoinToken { id: token_id(0) });
    let why = w.err(Command::Join(join_of(1, 0)));
    assert_eq!(why.reason, Reason::Unauthenticated);
    let again = w.err(Command::RevokeJoinToken { id: token_id(0) });
    assert_eq!(again.reason, Reason::NotFound);
}

#[test]
fn members_come_back_as_what_they_were() {
    let mut w = with_token(9);
    w.ok(Command::Join(join_of(1, 0)));
    let new = JoinTokenRecord {
        role: MemberRole::Server,
        ..new_token(&w, 1, 9)
    };
    w.ok(Command::CreateJoinToken(new));
    let server = Join {
        role: MemberRole::Server,
        ..join_of(1, 1)
    };
    assert_eq!(w.err(Command::Join(server)).reason, Reason::Conflict);
    // The same, with a new name and another token.
    let new = new_token(&w, 2, 1);
    w.ok(Command::CreateJoinToken(new));
    let renamed = Join {
        name: "other".parse().unwrap(),
        ..join_of(1, 2)
    };
    w.ok(Command::Join(renamed));
    w.check();
    assert_eq!(w.state.members().count(), 1);
    // Its old name is free, its new one is not.
    let old_name = Join {
        name: "n1".parse().unwrap(),
        ..join_of(2, 0)
    };
    w.ok(Command::Join(old_name));
    let new_name = Join {
        name: "other".parse().unwrap(),
        ..join_of(3, 0)
    };
    assert_eq!(w.err(Command::Join(new_name)).reason, Reason::Conflict);
    w.check();
}

#[test]
fn who_is_removed_or_denied_stays_out_until_allowed() {
    let mut w = with_token(9);
    w.ok(Command::Join(join_of(1, 0)));
    w.ok(Command::RemoveMember { id: node_id(1) });
    assert_eq!(w.state.members().count(), 0);
    assert_eq!(
        w.err(Command::Join(join_of(1, 0))).reason,
        Reason::Forbidden
    );
    let whom = Whom::Node(node_id(1));
    w.ok(Command::Allow { whom });
    w.ok(Command::Join(join_of(1, 0)));
    w.check();
    let gone = w.err(Command::RemoveMember { id: node_id(7) });
    assert_eq!(gone.reason, Reason::NotFound);
    assert_eq!(w.err(Command::Allow { whom }).reason, Reason::NotFound);
    let certificate = Whom::Certificate([0xab; 32]);
    for _ in 0..2 {
        w.ok(Command::Deny {
            whom: certificate,
            why: "stolen".into(),
        });
    }
    assert_eq!(w.state.denied().count(), 1);
    w.check();
    for why in [String::new(), "x".repeat(401)] {
        let refused = w.err(Command::Deny { whom, why });
        assert_eq!(refused.reason, Reason::Invalid);
    }
}

#[test]
fn only_the_first_founds() {
    let mut w = world();
    let founder = |n: u32| Command::Found {
        member: MemberRecord {
            id: node_id(n),
            role: MemberRole::Server,
            name: format!("s{n}").parse().unwrap(),
            key: [1; 32],
            labels: Labels::new(),
            token: Some(token_id(0)),
            joined: TimeMs(0),
        },
        address: format!("10.0.0.{n}:4200"),
    };
    w.ok(founder(0));
    w.ok(founder(0));
    assert_eq!(w.err(founder(1)).reason, Reason::Conflict);
    assert_eq!(w.state.member(node_id(0)).unwrap().token, None);
    w.check();
}

#[test]
fn servers_have_numbers_that_are_never_given_again() {
    let mut w = world();
    let member = MemberRecord {
        id: node_id(0),
        role: MemberRole::Server,
        name: "s0".parse().unwrap(),
        key: [1; 32],
        labels: Labels::new(),
        token: None,
        joined: TimeMs(0),
    };
    let found = |address: &str| Command::Found {
        member: member.clone(),
        address: address.to_owned(),
    };
    for bad in [String::new(), "here".to_owned(), "x:".repeat(200)] {
        assert_eq!(w.err(found(&bad)).reason, Reason::Invalid);
    }
    w.ok(found("10.0.0.1:4200"));
    let new = JoinTokenRecord {
        role: MemberRole::Server,
        ..new_token(&w, 0, 9)
    };
    w.ok(Command::CreateJoinToken(new));
    let join = |n: u32, address: Option<&str>| Join {
        role: MemberRole::Server,
        server: address.map(str::to_owned),
        ..join_of(n, 0)
    };
    let refused = w.err(Command::Join(join(1, None)));
    assert_eq!(refused.reason, Reason::Invalid, "it says where it is");
    let refused = w.err(Command::Join(join(1, Some("10.0.0.1:4200"))));
    assert_eq!(refused.reason, Reason::Conflict, "another is there");
    w.ok(Command::Join(join(1, Some("10.0.0.2:4200"))));
    w.ok(Command::Join(join(2, Some("10.0.0.3:4200"))));
    // Who has not heard the answer asks again, perhaps from elsewhere.
    w.ok(Command::Join(join(2, Some("10.0.0.4:4200"))));
    let servers = |w: &World| -> Vec<(u64, String)> {
        let all = w.state.servers();
        all.map(|s| (s.number, s.address.clone())).collect()
    };
    let at = |n: u64, address: &str| (n, address.to_owned());
    assert_eq!(
        servers(&w),
        [
            at(1, "10.0.0.1:4200"),
            at(2, "10.0.0.2:4200"),
            at(3, "10.0.0.4:4200")
        ]
    );
    w.ok(Command::RemoveMember { id: node_id(2) });
    w.ok(Command::Join(join(3, Some("10.0.0.4:4200"))));
    assert_eq!(servers(&w)[2], at(4, "10.0.0.4:4200"), "3 was in use");
    let moved = |id, address: &str| Command::MoveServer {
        id,
        address: address.to_owned(),
    };
    w.ok(moved(node_id(1), "10.0.0.9:4200"));
    w.ok(moved(node_id(1), "10.0.0.9:4200"));
    assert_eq!(servers(&w)[1], at(2, "10.0.0.9:4200"));
    let gone = w.err(moved(node_id(2), "10.0.0.8:4200"));
    assert_eq!(gone.reason, Reason::NotFound);
    assert!(w.state.server(node_id(2)).unwrap().gone);
    assert_eq!(w.state.gone_servers().count(), 1);
    let again = w.err(Command::Join(join(2, Some("10.0.0.7:4200"))));
    assert_eq!(again.reason, Reason::Forbidden, "who has gone stays out");
    for n in [3, 1] {
        w.ok(Command::RemoveMember { id: node_id(n) });
    }
    let last = w.err(Command::RemoveMember { id: node_id(0) });
    assert_eq!(last.reason, Reason::Conflict, "the last server stays");
    w.check();
}

#[test]
fn tokens_that_make_no_sense_are_refused() {
    let mut w = with_token(1);
    let good = new_token(&w, 1, 1);
    let now = w.now;
    let bad = |change: &dyn Fn(&mut JoinTokenRecord)| {
        let mut new = good.clone();
        change(&mut new);
        Command::CreateJoinToken(new)
    };
    let range: IpRange = "10.0.0.0/8".parse().unwrap();
    for command in [
        bad(&|t| t.uses = 0),
        bad(&|t| t.uses = 10_001),
        bad(&|t| t.expires = now),
        bad(&|t| t.expires = TimeMs(0)),
        bad(&|t| t.expires = now.after(Millis(31 * 24 * HOUR.0))),
        bad(&|t| t.expires = TimeMs(u64::MAX)),
        bad(&|t| t.from = vec![range; 65]),
        bad(&|t| t.labels = (0..65).map(|n| (n.to_string(), String::new())).collect()),
        bad(&|t| {
            t.name = Some("n1".parse().unwrap());
            t.uses = 2;
        }),
    ] {
        assert_eq!(
            w.err(command.clone()).reason,
            Reason::Invalid,
            "{command:?}"
        );
    }
    assert_eq!(w.err(bad(&|t| t.id = token_id(0))).reason, Reason::Conflict);
    for n in 1..1_000 {
        let new = new_token(&w, n, 1);
        w.ok(Command::CreateJoinToken(new));
    }
    let one_more = Command::CreateJoinToken(new_token(&w, 1_000, 1));
    assert_eq!(w.err(one_more).reason, Reason::Overloaded);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Token {
        n: u32,
        uses: u32,
    },
    Join {
        node: u32,
        name: u32,
        token: u32,
        key: bool,
    },
    Revoke(u32),
    Remove(u32),
    Deny(u32),
    Allow(u32),
    Hours(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0u32..4, 1u32..4).prop_map(|(n, uses)| Step::Token { n, uses }),
        8 => (0u32..5, 0u32..5, 0u32..4, prop::bool::weighted(0.9))
            .prop_map(|(node, name, token, key)| Step::Join { node, name, token, key }),
        1 => (0u32..4).prop_map(Step::Revoke),
        1 => (0u32..5).prop_map(Step::Remove),
        1 => (0u32..5).prop_map(Step::Deny),
        1 => (0u32..5).prop_map(Step::Allow),
        1 => (0u64..2).prop_map(Step::Hours),
    ];
    prop::collection::vec(step, 1..80)
}

proptest! {
    #[test]
    fn no_order_lets_in_more_than_allowed(steps in steps()) {
        let mut w = world();
        // How many each token was made for, in all its lives, and who got in by it.
        let mut made: BTreeMap<TokenId, u32> = BTreeMap::new();
        let mut let_in: BTreeMap<TokenId, u32> = BTreeMap::new();
        for step in steps {
            let before = w.store.clone();
            let members: BTreeMap<NodeId, MemberRecord> =
                w.state.members().map(|m| (m.id, m.clone())).collect();
            let command = match step {
                Step::Token { n, uses } => Command::CreateJoinToken(new_token(&w, n, uses)),
                Step::Join { node, name, token, key } => Command::Join(Join {
                    name: format!("n{name}").parse().unwrap(),
                    key: if key { join_of(node, token).key } else { [99; 32] },
                    ..join_of(node, token)
                }),
                Step::Revoke(n) => Command::RevokeJoinToken { id: token_id(n) },
                Step::Remove(n) => Command::RemoveMember { id: node_id(n) },
                Step::Deny(n) => Command::Deny { whom: Whom::Node(node_id(n)), why: "no".into() },
                Step::Allow(n) => Command::Allow { whom: Whom::Node(node_id(n)) },
                Step::Hours(hours) => {
                    w.now = w.now.after(Millis(hours * HOUR.0));
                    Command::Tick
                }
            };
            let done = w.run(command.clone());
            if done.is_err() {
                prop_assert_eq!(&w.store, &before, "a rejection changes nothing");
            }
            match (&command, done) {
                (Command::CreateJoinToken(new), Ok(_)) => *made.entry(new.id).or_default() += new.uses,
                (Command::Join(join), Ok(_)) => {
                    let whom = Whom::Node(join.node);
                    prop_assert!(w.state.denied().all(|d| d.whom != whom), "it is kept out");
                    let now = w.state.member(join.node).unwrap();
                    prop_assert_eq!((now.key, &now.name), (join.key, &join.name));
                    if members.get(&join.node) != Some(now) {
                        *let_in.entry(join.token).or_default() += 1;
                    }
                }
                _ => {}
            }
            for (id, count) in &let_in {
                prop_assert!(count <= &made[id], "{} of {}", count, made[id]);
            }
            let names: BTreeSet<&Name> = w.state.members().map(|m| &m.name).collect();
            prop_assert_eq!(names.len(), w.state.members().count());
            w.check();
        }
    }
}
