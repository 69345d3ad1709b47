//! Well sealed, and of strangers, for others, or for the past.

use super::*;

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
