//! Floods, and members that lie.

use super::*;

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
