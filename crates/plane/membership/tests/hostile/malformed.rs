//! Well sealed, and without sense.

use super::*;

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
