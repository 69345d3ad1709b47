//! Of those who do not have the key, or play back what others sent.

use super::*;

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
