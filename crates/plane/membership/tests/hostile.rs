//! Datagrams of all the wrong kinds against one member of three: each is refused, counted under its reason, answered by nothing, and
//! leaves everything as it was.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod kit;

use std::net::SocketAddr;

use foca::{Codec, Message, PostcardCodec, State};
use kit::stage::{Stage, case, ring, sealer};
use kit::{CLUSTER, Dice, World, address, id, key, who};
use prism_membership::protocol::{
    HEAD, Have, Letter, MAX_BODY, MAX_DATAGRAM, Op, Peer, Profile, Reply, Say, TAG, To, WINDOW,
    letter_body,
};
use prism_membership::{GossipKey, KeyId, KeyRing, Refusal, Tags};
use prism_types::Id;
use proptest::prelude::*;

fn ask(op: Op) -> Say {
    Say::Ask { request: 1, op }
}

const NO_KEY: Refusal = Refusal::UnknownKey(KeyId([0; 4]));

#[test]
fn noise_and_pieces_of_datagrams_are_refused() {
    let mut stage = Stage::new();
    let mut dice = Dice(3);
    let mut cases = Vec::new();
    for length in [1usize, 2, 32, 33, 48, 49, 50, 100, 512, 1399, 1400] {
        for first in [0u8, 1, 2, 255] {
            let mut noise: Vec<u8> = (0..length).map(|_| dice.roll().to_le_bytes()[0]).collect();
            noise[0] = first;
            let why = match first {
                1 if length <= HEAD + TAG => Refusal::TooShort,
                1 => Refusal::Cluster,
                _ => Refusal::Version(first),
            };
            cases.push(case(format!("{length} of noise after {first}"), noise, why));
        }
    }
    cases.push(case("nothing", Vec::new(), Refusal::TooShort));
    for length in [MAX_DATAGRAM + 1, 9000, 65_507] {
        cases.push(case(
            format!("{length} bytes"),
            vec![1; length],
            Refusal::TooLong,
        ));
    }
    let whole = stage.letter_of(1, Say::Digest(Vec::new()));
    for at in [0, 1, 4, 5, 8, 9, 24, 25, 32, 33, 34, 48, 49] {
        let cut = whole[..at].to_vec();
        cases.push(case(format!("cut at {at}"), cut, Refusal::TooShort));
    }
    for at in [50, whole.len() - 16, whole.len() - 1] {
        let cut = whole[..at].to_vec();
        cases.push(case(format!("cut at {at}"), cut, Refusal::Seal));
    }
    let longer = [&whole[..], &[0]].concat();
    cases.push(case("a byte too many", longer, Refusal::Seal));
    assert!(stage.all_refused(cases) >= 60);
    // It was good all the time.
    let now = stage.world.now;
    let taken = stage.world.engine(0).receive(now, &mut whole.clone());
    assert_eq!(taken, Ok(()));
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let mut stage = Stage::new();
    let whole = stage.letter_of(
        1,
        Say::Ask {
            request: 1,
            op: Op::Install(key(9)),
        },
    );
    let mut cases = Vec::new();
    for at in 0..whole.len() {
        for bit in [0, 7] {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << bit;
            let why = match at {
                0 => Refusal::Version(0),
                1..5 => Refusal::Cluster,
                5..9 => NO_KEY,
                _ => Refusal::Seal,
            };
            cases.push(case(format!("bit {bit} of byte {at}"), flipped, why));
        }
    }
    assert!(stage.all_refused(cases) >= 150);
}

#[test]
fn what_was_received_is_refused_when_it_comes_again() {
    let mut stage = Stage::new();
    let (member, victim) = (stage.peer(1), stage.peer(0));
    let profile = stage.world.engine(1).members()[0].clone();
    let told = Profile {
        who: who(1),
        incarnation: profile.incarnation,
        version: 0,
        left: false,
        tags: Tags::default(),
    };
    let first = stage.letter_of(1, Say::Digest(Vec::new()));
    let good = [
        (
            "a hello",
            stage.letter(member, None, Say::Hello { echo: 7 }),
        ),
        ("a digest", stage.letter_of(1, Say::Digest(Vec::new()))),
        ("profiles", stage.letter_of(1, Say::Profiles(vec![told]))),
        (
            "a question",
            stage.letter_of(
                1,
                Say::Ask {
                    request: 1,
                    op: Op::Report,
                },
            ),
        ),
        (
            "an order",
            stage.letter_of(
                1,
                Say::Ask {
                    request: 2,
                    op: Op::Install(key(7)),
                },
            ),
        ),
        (
            "a ping",
            stage.packet(member, victim, Message::Ping(3), &[]),
        ),
        (
            "gossip",
            stage.packet(member, victim, Message::Gossip, &[0, 0]),
        ),
    ];
    let now = stage.world.now;
    let mut cases = Vec::new();
    for (what, datagram) in good {
        let taken = stage.world.engine(0).receive(now, &mut datagram.clone());
        assert_eq!(taken, Ok(()), "{what}");
        for n in 0..3 {
            cases.push(case(
                format!("{what}, again {n}"),
                datagram.clone(),
                Refusal::Replayed,
            ));
        }
    }
    stage.all_refused(cases);
    // Far behind the newest, though never seen.
    for _ in 0..WINDOW {
        stage.sealed(&[1]);
    }
    let mut newest = stage.letter_of(1, Say::Digest(Vec::new()));
    assert_eq!(stage.world.engine(0).receive(now, &mut newest), Ok(()));
    stage.refused(&case("late beyond the window", first, Refusal::Replayed));
}

#[test]
fn keys_clusters_and_versions_of_others_are_refused() {
    let mut stage = Stage::new();
    let (member, to) = (stage.peer(1), stage.me());
    let left = leaving(&mut stage, 1);
    let mut cases = Vec::new();
    for (what, say) in [
        ("a digest", Say::Digest(Vec::new())),
        ("a leave", ask(Op::Left(Box::new(left)))),
        ("an order", ask(Op::Use(key(1).id()))),
        ("a death", Say::Known(stage.peer(0))),
    ] {
        let (from, to) = (member, Some(to));
        let body = letter_body(&Letter { from, to, say });
        for other in [2, 77, 255] {
            let other = KeyRing::new(key(other));
            stage.boots += 1;
            let sealed = sealer(stage.boots, CLUSTER, &other).seal(&other, &body);
            cases.push(case(
                format!("{what} of another key"),
                sealed.clone(),
                NO_KEY,
            ));
            let mut forged = sealed;
            forged[5..9].copy_from_slice(&key(1).id().0);
            cases.push(case(
                format!("{what} of a key by a false name"),
                forged,
                Refusal::Seal,
            ));
        }
        for cluster in [Id(0), Id(CLUSTER.0 + 1), Id(u128::MAX)] {
            stage.boots += 1;
            let sealed = sealer(stage.boots, cluster, &ring()).seal(&ring(), &body);
            cases.push(case(
                format!("{what} of another cluster"),
                sealed.clone(),
                Refusal::Cluster,
            ));
            let mut forged = sealed;
            let ours = stage.sealed(&[1]);
            forged[1..5].copy_from_slice(&ours[1..5]);
            cases.push(case(
                format!("{what} of a cluster by a false name"),
                forged,
                Refusal::Seal,
            ));
        }
        for version in [0u8, 2, 3, 127, 255] {
            let mut sealed = stage.sealed(&body);
            sealed[0] = version;
            cases.push(case(
                format!("{what} of version {version}"),
                sealed,
                Refusal::Version(version),
            ));
        }
    }
    assert!(stage.all_refused(cases) >= 60);
}

#[test]
fn a_key_that_was_removed_opens_nothing() {
    let mut stage = Stage::new();
    let old = KeyRing::new(key(5));
    let mut holder = sealer(999, CLUSTER, &old);
    let body = |stage: &mut Stage, n| {
        let (from, to) = (stage.peer(1), Some(stage.me()));
        let say = Say::Ask {
            request: n,
            op: Op::Report,
        };
        letter_body(&Letter { from, to, say })
    };
    let order = |stage: &mut Stage, n, op| stage.letter_of(1, Say::Ask { request: n, op });
    let now = stage.world.now;
    let mut install = order(&mut stage, 1, Op::Install(key(5)));
    assert_eq!(stage.world.engine(0).receive(now, &mut install), Ok(()));
    let text = body(&mut stage, 2);
    let mut good = holder.seal(&old, &text);
    assert_eq!(stage.world.engine(0).receive(now, &mut good), Ok(()));
    let mut remove = order(&mut stage, 3, Op::Remove(key(5).id()));
    assert_eq!(stage.world.engine(0).receive(now, &mut remove), Ok(()));
    let text = body(&mut stage, 4);
    stage.refused(&case("of a removed key", holder.seal(&old, &text), NO_KEY));
}

/// A last profile of a member, as it would write it itself.
fn leaving(stage: &mut Stage, n: usize) -> Profile {
    Profile {
        who: who(n),
        incarnation: stage.peer(n).incarnation,
        version: 1 << 40,
        left: true,
        tags: Tags::default(),
    }
}

#[test]
fn a_leave_is_believed_only_of_who_leaves() {
    let mut stage = Stage::new();
    let (one, two) = (stage.peer(1), stage.peer(2));
    let to = Some(stage.me());
    let left = |profile: Profile| ask(Op::Left(Box::new(profile)));
    let of_two = leaving(&mut stage, 2);
    let of_one = leaving(&mut stage, 1);
    let mut none = of_one.clone();
    none.left = false;
    let mut later = of_one;
    later.incarnation += 1;
    let earlier = Peer::new(two.id, two.incarnation - 1, two.address).unwrap();
    let mut past = of_two.clone();
    past.incarnation -= 1;
    let stranger = Peer::new(id(40), of_two.incarnation, address(40)).unwrap();
    let mut unknown = of_two.clone();
    unknown.who = who(40);
    let mut alike = of_two.clone();
    alike.incarnation = one.incarnation;
    let mut cases = Vec::new();
    for (what, from, profile, why) in [
        ("for another", one, of_two, Refusal::Malformed),
        ("for another as new", one, alike, Refusal::Malformed),
        ("that is none", one, none, Refusal::Malformed),
        ("of a later start", one, later, Refusal::Malformed),
        ("of an earlier start", earlier, past, Refusal::Stale),
        ("of a stranger", stranger, unknown, Refusal::Stale),
    ] {
        let letter = stage.letter(from, to, left(profile));
        cases.push(case(format!("a leave {what}"), letter, why));
    }
    assert_eq!(stage.all_refused(cases), 6);
}

#[test]
fn letters_of_strangers_for_others_or_for_the_past_are_refused() {
    let mut stage = Stage::new();
    let (victim, one, two) = (stage.peer(0), stage.peer(1), stage.peer(2));
    let me = stage.me();
    let to = Some(me);
    let stranger = Peer::new(id(40), 5, address(40)).unwrap();
    let (request, reply) = (1, Reply::Done);
    let (echo, known, over) = (1, 9999, true);
    let mut cases = Vec::new();
    for (what, say) in [
        ("a digest", Say::Digest(Vec::new())),
        ("profiles", Say::Profiles(Vec::new())),
        ("a question", ask(Op::Report)),
        ("an order", ask(Op::Install(key(9)))),
        ("an answer", Say::Answer { request, reply }),
        ("a welcome", Say::Welcome { echo, known, over }),
    ] {
        let mut add = |what, letter, why| cases.push(case(what, letter, why));
        let letter = stage.letter(stranger, to, say.clone());
        add(format!("{what} of a stranger"), letter, Refusal::Stale);
        let letter = stage.letter(one, None, say.clone());
        add(format!("{what} for nobody"), letter, Refusal::Malformed);
        let letter = stage.letter(victim, to, say.clone());
        add(format!("{what} of ourselves"), letter, Refusal::Ourselves);
        let now = victim.incarnation;
        for (id, incarnation) in [
            (two.id, two.incarnation),
            (me.id, now - 1),
            (me.id, now + 1),
        ] {
            let letter = stage.letter(one, Some(To { id, incarnation }), say.clone());
            let what = format!("{what} for {id} at {incarnation}");
            add(what, letter, Refusal::NotForUs);
        }
    }
    let (request, reply) = (77, Reply::Done);
    let answer = stage.letter_of(1, Say::Answer { request, reply });
    cases.push(case("an answer to nothing", answer, Refusal::Stale));
    let welcome = stage.letter_of(1, Say::Welcome { echo, known, over });
    cases.push(case("a welcome to no hello", welcome, Refusal::Stale));
    let hello = stage.letter(one, to, Say::Hello { echo });
    cases.push(case("a hello for somebody", hello, Refusal::Malformed));
    let death = stage.letter_of(1, Say::Known(two));
    cases.push(case("a death of another", death, Refusal::Malformed));
    assert!(stage.all_refused(cases) >= 40);
}

#[test]
fn probes_for_others_or_for_the_past_are_refused() {
    let mut stage = Stage::new();
    let (victim, one, two) = (stage.peer(0), stage.peer(1), stage.peer(2));
    let past = Peer::new(victim.id, victim.incarnation - 1, victim.address).unwrap();
    let through = |target| Message::PingReq {
        target,
        probe_number: 1,
    };
    let mut cases = Vec::new();
    for (what, src, dst, message, why) in [
        ("to another", one, two, Message::Ping(1), Refusal::NotForUs),
        (
            "to an earlier start",
            one,
            past,
            Message::Ping(1),
            Refusal::NotForUs,
        ),
        (
            "of ourselves",
            victim,
            victim,
            Message::Ping(1),
            Refusal::Ourselves,
        ),
        (
            "of ourselves through us",
            one,
            victim,
            through(victim),
            Refusal::Malformed,
        ),
    ] {
        let probe = stage.packet(src, dst, message, &[]);
        cases.push(case(format!("a probe {what}"), probe, why));
    }
    assert_eq!(stage.all_refused(cases), 4);
}

#[test]
fn a_question_that_comes_after_a_newer_one_is_not_carried_out() {
    let mut stage = Stage::new();
    let (newer, late) = (Op::Install(key(3)), Op::Remove(key(3).id()));
    let mut newer = stage.letter_of(
        1,
        Say::Ask {
            request: 9,
            op: newer,
        },
    );
    let late = stage.letter_of(
        1,
        Say::Ask {
            request: 8,
            op: late,
        },
    );
    let now = stage.world.now;
    assert_eq!(stage.world.engine(0).receive(now, &mut newer), Ok(()));
    stage.refused(&case("a late order", late, Refusal::Stale));
}

/// A varint of postcard.
fn varint(mut n: u128) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n >= 0x80 {
        bytes.push(u8::try_from(n & 0x7f).unwrap() | 0x80);
        n >>= 7;
    }
    bytes.push(u8::try_from(n).unwrap());
    bytes
}

/// A letter of member 1 to the victim, up to what it says.
fn beginning(stage: &mut Stage) -> Vec<u8> {
    let (from, to) = (stage.peer(1), Some(stage.me()));
    [vec![1], postcard::to_stdvec(&(from, to)).unwrap()].concat()
}

/// All are malformed.
fn malformed(stage: &mut Stage, bodies: Vec<(&str, Vec<u8>)>) -> usize {
    let seal = |(what, body): (&str, Vec<u8>)| case(what, stage.sealed(&body), Refusal::Malformed);
    let cases = bodies.into_iter().map(seal).collect();
    stage.all_refused(cases)
}

#[test]
fn no_count_is_believed() {
    let mut stage = Stage::new();
    let head = beginning(&mut stage);
    let body = |parts: &[&[u8]]| [&head[..], &parts.concat()].concat();
    let mut bodies: Vec<(&str, Vec<u8>)> = vec![
        ("a kind alone", vec![1]),
        ("another kind", vec![2, 0, 0]),
        ("kind 255", vec![255; 64]),
        ("the longest of zeros", vec![0; MAX_BODY]),
        ("a letter of nothing", body(&[])),
        ("a letter of an unknown kind", body(&[&[9]])),
        ("a letter of kind 300", body(&[&varint(300)])),
        ("more than a letter", body(&[&[3, 0, 0]])),
    ];
    // 3 is a digest, 4 are profiles, 6 an answer; a profile is of id, name, addresses, number, roles, ...
    for n in [u128::from(u64::MAX), 1 << 40, 1 << 20, 65_536, 1000, 31] {
        let n = varint(n);
        let named: &[u8] = &[4, 1, 1, 1, b'a'];
        bodies.extend([
            ("have", body(&[&[3], &n, &[1; 100]])),
            ("profiles", body(&[&[4], &n, &[1; 100]])),
            ("a name", body(&[&[4, 1, 1], &n, b"srv"])),
            ("addresses", body(&[named, &n, &[0; 60]])),
            ("roles", body(&[named, &[0, 1], &n, &[1; 60]])),
            ("tags", body(&[named, &[0, 1, 0, 1, 1, 0], &n, &[1; 60]])),
            ("keys", body(&[&[6, 1, 1], &n, &[1; 60]])),
        ]);
    }
    assert!(malformed(&mut stage, bodies) >= 50);
}

#[test]
fn profiles_that_make_no_sense_are_refused() {
    let mut stage = Stage::new();
    let head = beginning(&mut stage);
    let profile = |rest: &[u8]| [&head[..], &[4, 1, 1], rest].concat();
    let ok: &[u8] = &[1, b'a', 0, 1, 0, 1, 1, 0];
    let with = |tags: &[u8]| profile(&[ok, tags].concat());
    // This one would be taken.
    let mut good = stage.sealed(&with(&[1, 1, b'k', 1, b'v']));
    let now = stage.world.now;
    assert_eq!(stage.world.engine(0).receive(now, &mut good), Ok(()));
    let long_role = [&[1, b'a', 0, 1, 1, 17][..], &[b'r'; 17], &[1, 1, 0, 0]].concat();
    let late = [&[1, b'a', 0, 1, 0][..], &varint(1 << 60), &[1, 0, 0]].concat();
    let port_0 = [1, b'a', 1, 0, 1, 2, 3, 4, 0, 1, 0, 1, 1, 0, 0];
    let everywhere = [1, b'a', 1, 0, 0, 0, 0, 0, 9, 1, 0, 1, 1, 0, 0];
    let bodies = vec![
        (
            "a name that is none",
            profile(&[1, b'A', 0, 1, 0, 1, 1, 0, 0]),
        ),
        (
            "a name that is no text",
            profile(&[1, 0xff, 0, 1, 0, 1, 1, 0, 0]),
        ),
        ("no name", profile(&[0, 0, 1, 0, 1, 1, 0, 0])),
        ("an address with port 0", profile(&port_0)),
        ("an address that is all", profile(&everywhere)),
        ("a role too long", profile(&long_role)),
        (
            "two tags of one name",
            with(&[2, 1, b'k', 1, b'v', 1, b'k', 1, b'w']),
        ),
        ("a tag without a name", with(&[1, 0, 1, b'v'])),
        ("a tag with a line end", with(&[1, 1, b'k', 1, b'\n'])),
        ("a bool that is 2", profile(&[1, b'a', 0, 1, 0, 1, 1, 2, 0])),
        ("an incarnation too high", profile(&late)),
    ];
    assert_eq!(malformed(&mut stage, bodies), 11);
    let one = stage.peer(1);
    for bad in [
        "0.0.0.0:7",
        "[::]:7",
        "10.0.0.1:0",
        "224.0.0.1:7",
        "255.255.255.255:7",
        "[ff02::1]:7",
        "[fe80::1]:7",
    ] {
        let bad: SocketAddr = bad.parse().unwrap();
        let hello = ((one.id, one.incarnation, bad), None::<To>, 0u8, 1u8);
        let body = [vec![1], postcard::to_stdvec(&hello).unwrap()].concat();
        malformed(&mut stage, vec![("a sender at no address", body)]);
    }
}

#[test]
fn packets_that_make_no_sense_are_refused() {
    let mut stage = Stage::new();
    let (victim, one) = (stage.peer(0), stage.peer(1));
    let mut update = Vec::new();
    let member = foca::Member::new(one, 0, State::Alive);
    PostcardCodec.encode_member(&member, &mut update).unwrap();
    let with = |count: [u8; 2], more: &[u8]| [&count[..], &update, more].concat();
    let mut cases = Vec::new();
    for (what, message, rest) in [
        ("with half a count", Message::Gossip, vec![0]),
        ("that promises updates", Message::Gossip, vec![255, 255]),
        ("that promises more", Message::Gossip, with([255, 255], &[])),
        (
            "with more than it says",
            Message::Gossip,
            with([0, 1], &[7]),
        ),
        ("with a broken update", Message::Feed, with([0, 2], &[1; 9])),
        ("that only announces", Message::Announce, with([0, 1], &[])),
        ("that broadcasts", Message::Broadcast, vec![0, 1, 1]),
        ("that broadcasts nothing", Message::Broadcast, vec![]),
        ("that is an obituary", Message::TurnUndead, vec![]),
    ] {
        let packet = stage.packet(one, victim, message, &rest);
        cases.push(case(format!("a packet {what}"), packet, Refusal::Malformed));
    }
    assert_eq!(stage.all_refused(cases), 9);
}

#[test]
fn a_flood_of_garbage_grows_nothing_and_is_answered_by_nothing() {
    let mut stage = Stage::new();
    let mut dice = Dice(11);
    let now = stage.world.now;
    let mut good = stage.letter_of(1, Say::Digest(Vec::new()));
    good.resize(MAX_DATAGRAM, 0);
    let engine = stage.world.engine(0);
    engine.take_out();
    let (kept, members) = (engine.kept(), engine.members());
    let begin = std::time::Instant::now();
    let count = 20_000;
    for n in 0..count {
        // A true head: the seal itself has to be tried.
        let mut datagram = good.clone();
        datagram[9 + usize::try_from(n % 24).unwrap()] ^= dice.roll().to_le_bytes()[0] | 1;
        assert!(engine.receive(now, &mut datagram).is_err());
    }
    println!(
        "{:?} for a garbage datagram of 1,400 bytes",
        begin.elapsed() / count
    );
    assert_eq!(engine.kept(), kept);
    assert_eq!(engine.members(), members);
    assert_eq!(engine.take_out(), []);
    assert_eq!(engine.counts().refused_as(Refusal::Seal), u64::from(count));
}

#[test]
fn one_who_has_the_key_and_lies_is_outdone() {
    let mut stage = Stage::new();
    let (victim, one, two) = (stage.peer(0), stage.peer(1), stage.peer(2));
    // Node 1 tells node 0 that node 2 is dead, that it has left, and that node 0 itself is dead.
    let dead = |peer| {
        let mut update = vec![0, 1];
        let member = foca::Member::new(peer, 0, State::Down);
        PostcardCodec.encode_member(&member, &mut update).unwrap();
        update
    };
    let left = leaving(&mut stage, 2);
    let mut false_tags = left.clone();
    (false_tags.left, false_tags.version) = (false, 1 << 41);
    false_tags.tags = kit::tags(&[("rack", "false")]);
    let lies = [
        stage.packet(one, victim, Message::Gossip, &dead(two)),
        stage.letter_of(1, Say::Profiles(vec![left])),
        stage.letter_of(1, Say::Profiles(vec![false_tags])),
        stage.packet(one, victim, Message::Gossip, &dead(victim)),
    ];
    for mut lie in lies {
        let taken = stage.world.with(0, |e, now| e.receive(now, &mut lie));
        assert_eq!(taken, Ok(()));
    }
    stage.world.until("all see all again", 30, World::whole);
    stage.world.until("the truth about node 2", 30, |w| {
        let told = |n: usize, w: &mut World| {
            let members = w.members(n);
            let two = members.iter().find(|m| m.id == id(2));
            two.is_some_and(|m| m.tags == kit::tags(&[("rack", "r1")]))
        };
        told(0, w) && told(1, w)
    });
    assert!(stage.world.engine(0).counts().refuted > 0);
    assert!(stage.world.engine(2).counts().refuted > 0);
}

#[test]
fn one_who_has_the_key_and_lies_about_tags_alone_is_outdone() {
    let mut stage = Stage::new();
    let mut lie = leaving(&mut stage, 2);
    lie.left = false;
    lie.tags = kit::tags(&[("rack", "false")]);
    let mut lie = stage.letter_of(1, Say::Profiles(vec![lie]));
    let taken = stage.world.with(0, |e, now| e.receive(now, &mut lie));
    assert_eq!(taken, Ok(()));
    let rack = |w: &mut World, n: usize| {
        let members = w.members(n);
        let two = members.into_iter().find(|m| m.id == id(2)).unwrap();
        two.tags.get("rack").map(str::to_owned)
    };
    assert_eq!(rack(&mut stage.world, 0).as_deref(), Some("false"));
    stage.world.until("the truth", 30, |w| {
        (0..3).all(|n| rack(w, n).as_deref() == Some("r1"))
    });
}

#[test]
fn an_older_profile_changes_nothing() {
    let mut stage = Stage::new();
    let mut newer = leaving(&mut stage, 2);
    newer.left = false;
    newer.tags = kit::tags(&[("rack", "new")]);
    let mut older = newer.clone();
    older.version -= 1;
    older.tags = kit::tags(&[("rack", "old")]);
    for told in [newer, older] {
        let mut told = stage.letter_of(1, Say::Profiles(vec![told]));
        let taken = stage.world.with(0, |e, now| e.receive(now, &mut told));
        assert_eq!(taken, Ok(()));
        let members = stage.world.members(0);
        let two = members.iter().find(|m| m.id == id(2)).unwrap();
        assert_eq!(two.tags.get("rack"), Some("new"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_sealed_never_panics_and_never_grows_beyond_bounds(
        bodies in proptest::collection::vec(
            (0u8..3, proptest::collection::vec(any::<u8>(), 0..300)), 1..20),
        flips in proptest::collection::vec((0usize..400, any::<u8>()), 0..20),
    ) {
        let mut stage = Stage::new();
        let one = stage.peer(1);
        let to = Some(stage.me());
        let haves = vec![Have { id: id(1), age: (1, 1) }; 5];
        let seeds = [
            letter_body(&Letter { from: one, to, say: Say::Digest(haves) }),
            letter_body(&Letter { from: one, to, say: Say::Profiles(vec![leaving(&mut stage, 2)]) }),
            letter_body(&Letter { from: one, to, say: Say::Ask { request: 1, op: Op::Report } }),
        ];
        let random = bodies.into_iter().map(|(kind, rest)| [&[kind][..], &rest].concat());
        let changed = seeds.iter().cloned().map(|mut body| {
            for (at, value) in &flips {
                let at = at % body.len();
                body[at] = *value;
            }
            body
        });
        let all: Vec<Vec<u8>> = random.chain(changed).collect();
        let kept = stage.world.engine(0).kept();
        for body in all {
            let mut datagram = stage.sealed(&body);
            let _ = stage.world.with(0, |e, now| e.receive(now, &mut datagram));
        }
        prop_assert!(stage.world.engine(0).kept() < kept + 64);
        stage.world.run(kit::PERIOD * 3);
    }

    #[test]
    fn whatever_comes_unsealed_is_refused(
        datagram in proptest::collection::vec(any::<u8>(), 0..2000),
        head in any::<bool>(),
    ) {
        let mut stage = Stage::new();
        let mut datagram = datagram;
        if head && datagram.len() > HEAD {
            let true_head = stage.sealed(&[1]);
            datagram[..HEAD].copy_from_slice(&true_head[..HEAD]);
        }
        let taken = stage.world.with(0, |e, now| e.receive(now, &mut datagram));
        prop_assert!(taken.is_err());
    }

    #[test]
    fn a_key_survives_its_text_form_and_nothing_else_is_one(bytes in any::<[u8; 32]>(), text in "\\PC{0,80}") {
        let key = GossipKey::from_bytes(bytes);
        prop_assert_eq!(key.expose_text().parse::<GossipKey>().unwrap(), key);
        prop_assert!(text.parse::<GossipKey>().is_err());
    }
}
