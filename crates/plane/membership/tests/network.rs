//! Many engines on a network in memory that loses, reorders, repeats, cuts and stops: who is there is found out, and nobody is slandered.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod kit;

use std::time::Duration;

use kit::{PERIOD, World, address, id, tags};
use prism_membership::protocol::{Event, Timing};
use prism_membership::{KeyRing, MemberState, Refusal};

/// The most periods that an observer of n nodes takes to see a death: each node is probed within two rounds, then suspected, then told of.
fn bound(nodes: u32) -> u32 {
    2 * nodes.min(8) + 5 + 8
}

#[test]
fn members_meet_on_a_bad_network() {
    for (nodes, seeds) in [(3, 20), (5, 10), (12, 4), (50, 1)] {
        for seed in 0..seeds {
            let mut world = World::new(nodes, seed);
            (world.loss, world.twice, world.slow) = (10, 10, 150);
            for n in 1..nodes {
                world.join(n, (n - 1) / 2);
            }
            world.until("all see all", 40, World::whole);
        }
    }
}

#[test]
fn nobody_is_declared_dead_while_all_live_and_a_tenth_is_lost() {
    for (nodes, seeds, periods) in [(2, 6, 300), (3, 10, 300), (5, 6, 300), (12, 2, 150)] {
        for seed in 0..seeds {
            let mut world = World::joined(nodes, seed);
            (world.loss, world.twice, world.slow) = (10, 5, 100);
            world.until("all see all", 60, World::whole);
            world.run(PERIOD * periods);
            let slandered: Vec<_> = world
                .seen
                .iter()
                .filter(|(_, _, state)| *state >= MemberState::Down)
                .collect();
            assert!(slandered.is_empty(), "seed {seed}: {slandered:?}");
            for n in 0..nodes {
                let refuted = world.engine(n).counts().refuted;
                assert_eq!(refuted, 0, "seed {seed}: {n} was told that it is dead");
            }
        }
    }
}

#[test]
fn round_trips_are_measured_by_probes_and_forgotten_with_who_is_gone() {
    for seed in 0..5 {
        let mut world = World::joined(3, seed);
        world.until("all see all", 60, World::whole);
        world.until("round trips to be known", 60, |w| {
            (0..3).all(|n| {
                let others = w.members(n).into_iter().filter(|m| !m.me);
                let mut trips = others.map(|m| m.round_trip);
                trips.all(|t| t.is_some_and(|t| !t.is_zero() && t <= PERIOD))
            })
        });
        assert!(
            world
                .members(0)
                .iter()
                .all(|m| !m.me || m.round_trip.is_none())
        );
    }
}

#[test]
fn a_ring_that_was_agreed_upon_elsewhere_is_taken_over_while_gossip_goes_on() {
    let mut world = World::joined(3, 1);
    world.until("all see all", 60, World::whole);
    // First all open with the new key, then all seal with it.
    let rings = [
        KeyRing::with(kit::key(1), &[kit::key(2)]).unwrap(),
        KeyRing::with(kit::key(2), &[kit::key(1)]).unwrap(),
        KeyRing::new(kit::key(2)),
    ];
    for ring in rings {
        for n in 0..3 {
            world.engine(n).set_ring(ring.clone());
            world.run(PERIOD);
            let told = world.engine(n).ring().clone();
            assert_eq!(told, ring);
        }
        world.run(PERIOD * 20);
        assert!(world.whole(), "nobody is lost");
    }
    for n in 0..3 {
        assert_eq!(world.engine(n).counts().refused_all(), 0);
    }
}

#[test]
fn a_dead_member_is_seen_down_in_time() {
    for (nodes, seeds) in [(2, 10), (3, 20), (5, 10), (12, 3), (50, 1)] {
        for seed in 0..seeds {
            let mut world = World::joined(nodes, seed);
            world.loss = 5;
            world.until("all see all", 60, World::whole);
            world.kill(1);
            let bound = bound(u32::try_from(nodes).unwrap());
            world.until("the death is seen", bound, |w| {
                w.all_see(1, MemberState::Down)
            });
        }
    }
}

#[test]
fn a_restarted_member_is_alive_again_even_with_its_clock_set_back() {
    for seed in 0..20 {
        for (back, elsewhere) in [(false, false), (true, false), (false, true), (true, true)] {
            for seen_down in [true, false] {
                let mut world = World::joined(4, seed);
                world.loss = 5;
                world.until("all see all", 60, World::whole);
                world.kill(3);
                if seen_down {
                    world.until("down", bound(4), |w| w.all_see(3, MemberState::Down));
                }
                world.add(3, |setup| {
                    if back {
                        setup.incarnation = 3;
                    }
                    if elsewhere {
                        setup.address = address(9);
                    }
                });
                world.join(3, 0);
                world.until("alive again", 30, World::whole);
                let at = if elsewhere { address(9) } else { address(3) };
                world.until("its address is known", 10, |w| {
                    let members = w.members(0);
                    members.iter().any(|m| m.id == id(3) && m.address == at)
                });
            }
        }
    }
}

#[test]
fn who_leaves_is_seen_to_have_left_and_never_down() {
    for seed in 0..20 {
        let mut world = World::joined(5, seed);
        world.loss = 10;
        world.until("all see all", 60, World::whole);
        world.seen.clear();
        let request = world.with(2, |e, now| e.leave(now, PERIOD * 5)).unwrap();
        let answers = world.answers(2, request);
        assert_eq!(answers.len(), 5);
        world.kill(2);
        world.until("left", 20, |w| w.all_see(2, MemberState::Left));
        world.run(PERIOD * 40);
        assert!(world.all_see(2, MemberState::Left), "{}", world.picture());
        let down = |s: &&(usize, _, MemberState)| s.2 == MemberState::Down && s.0 != 2;
        assert_eq!(world.seen.iter().find(down), None);
    }
}

#[test]
fn a_leave_that_nobody_hears_ends_at_its_deadline() {
    let mut world = World::joined(3, 1);
    world.until("all see all", 60, World::whole);
    world.split(&[2], &[0, 1]);
    let before = world.now;
    let request = world.with(2, |e, now| e.leave(now, PERIOD * 4)).unwrap();
    world.answers(2, request);
    assert!(world.now - before <= PERIOD * 6);
    assert_eq!(world.with(2, |e, now| e.leave(now, PERIOD)), None);
    world.cut.clear();
    // The parting gossip is lost too: to the others it is simply not there any more.
    world.until("down", bound(3), |w| w.all_see(2, MemberState::Down));
}

#[test]
fn both_sides_of_a_partition_find_each_other_again() {
    for (one, other) in [
        (vec![0], vec![1]),
        (vec![0, 1], vec![2]),
        (vec![0, 1, 2], vec![3, 4]),
    ] {
        for seed in 0..10 {
            let mut world = World::joined(one.len() + other.len(), seed);
            world.loss = 5;
            world.until("all see all", 60, World::whole);
            world.split(&one, &other);
            world.until("each side sees the other down", 40, |w| {
                let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b)));
                let mut pairs: Vec<(usize, usize)> = pairs.collect();
                pairs.extend(pairs.clone().into_iter().map(|(a, b)| (b, a)));
                pairs
                    .iter()
                    .all(|(a, b)| w.state(*a, *b) == Some(MemberState::Down))
            });
            world.cut.clear();
            world.until("all see all again", 30, World::whole);
        }
    }
}

#[test]
fn a_one_way_cut_kills_nobody_for_good() {
    for seed in 0..10 {
        let mut world = World::joined(4, seed);
        world.until("all see all", 60, World::whole);
        // 0 does not hear 1; the others carry the question and the answer.
        world.cut.insert((1, 0));
        world.seen.clear();
        world.run(PERIOD * 60);
        let down = world.seen.iter().find(|s| s.2 >= MemberState::Down);
        assert_eq!(down, None, "seed {seed}");
        world.cut.clear();
        world.until("all see all again", 20, World::whole);
    }
}

#[test]
fn a_node_that_was_stopped_accuses_nobody_when_it_goes_on() {
    for seed in 0..20 {
        for pause in [3, 10, 60] {
            let mut world = World::joined(4, seed);
            world.loss = 5;
            world.until("all see all", 60, World::whole);
            world.run(Duration::from_millis(seed * 97));
            world.seen.clear();
            let until = world.now + PERIOD * pause;
            world.nodes[1].stopped_until = Some(until);
            world.run(PERIOD * pause + PERIOD * 20);
            let accused = world
                .seen
                .iter()
                .find(|(by, of, state)| *by == 1 && *of != id(1) && *state >= MemberState::Down);
            assert_eq!(accused, None, "seed {seed}, {pause} periods");
            assert!(world.engine(1).counts().held_up >= 1);
            let others = world
                .seen
                .iter()
                .find(|(_, of, state)| *of != id(1) && *state >= MemberState::Down);
            assert_eq!(others, None, "seed {seed}, {pause} periods");
            world.until("all see all again", 30, World::whole);
        }
    }
}

#[test]
fn a_node_that_was_stopped_does_not_even_suspect_the_others() {
    for seed in 0..20 {
        let mut world = World::joined(4, seed);
        world.until("all see all", 60, World::whole);
        // In the midst of a probe, whose answer is lost.
        world.run(Duration::from_millis(seed * 97));
        for n in [0, 2, 3] {
            world.cut.insert((n, 1));
        }
        world.run(Duration::from_millis(300));
        world.nodes[1].stopped_until = Some(world.now + PERIOD * 4);
        world.seen.clear();
        world.run(PERIOD * 4 - Duration::from_millis(1));
        world.cut.clear();
        // Others may suspect it, and none of them another.
        world.run(Duration::from_millis(80));
        let suspected = world
            .seen
            .iter()
            .find(|(by, of, state)| *by == 1 && *of != id(1) && *state >= MemberState::Suspect);
        assert_eq!(suspected, None, "seed {seed}");
        assert!(world.engine(1).counts().held_up >= 1);
    }
}

#[test]
fn a_starved_node_slanders_nobody() {
    for seed in 0..10 {
        let mut world = World::joined(5, seed);
        world.until("all see all", 60, World::whole);
        world.seen.clear();
        for _ in 0..60 {
            // It gets to run for a moment, then for a while not at all.
            let pause = 300 + world.dice.below(2500);
            world.nodes[2].stopped_until = Some(world.now + Duration::from_millis(pause));
            let run = 20 + world.dice.below(100);
            world.run(Duration::from_millis(pause + run));
        }
        let slandered = world
            .seen
            .iter()
            .find(|(_, of, state)| *of != id(2) && *state >= MemberState::Down);
        assert_eq!(slandered, None, "seed {seed}");
        world.until("all see all again", 30, World::whole);
    }
}

#[test]
fn the_newest_tags_win_everywhere_through_a_partition() {
    for seed in 0..5 {
        let mut world = World::joined(5, seed);
        (world.loss, world.twice, world.slow) = (10, 10, 150);
        world.until("all see all", 60, World::whole);
        for flip in 0..200 {
            if flip == 50 {
                world.split(&[0, 1], &[2, 3, 4]);
            }
            if flip == 120 {
                world.cut.clear();
            }
            let value = format!("v{flip}");
            world.with(1, |e, now| e.set_tags(now, tags(&[("slot", &value)])));
            world.run(Duration::from_millis(100));
        }
        world.until("the last tags are everywhere", 30, |w| {
            w.live().into_iter().all(|n| {
                let members = w.members(n);
                let one = members.iter().find(|m| m.id == id(1)).unwrap();
                one.tags.get("slot") == Some("v199")
            })
        });
    }
}

#[test]
fn a_copied_identity_is_noticed() {
    let mut world = World::joined(3, 5);
    world.until("all see all", 60, World::whole);
    // Another process with node 1's id, elsewhere; the first goes on.
    world.add(3, |setup| setup.who = kit::who(1));
    world.join(3, 0);
    world.until("somebody notices", 60, |w| {
        let copied = |e: &Event| matches!(e, Event::SameId(_));
        w.nodes[1]
            .events
            .iter()
            .chain(&w.nodes[3].events)
            .any(copied)
    });
}

#[test]
fn a_member_that_is_long_gone_is_forgotten() {
    let mut world = World::new(3, 8);
    for n in 0..3 {
        world.add(n, |setup| {
            setup.timing = Timing {
                forget_after: PERIOD * 60,
                ..setup.timing
            };
        });
    }
    world.join(1, 0);
    world.join(2, 0);
    world.until("all see all", 60, World::whole);
    world.kill(2);
    world.until("down", bound(3), |w| w.all_see(2, MemberState::Down));
    world.until("forgotten", 100, |w| {
        w.state(0, 2).is_none() && w.state(1, 2).is_none()
    });
    world.run(PERIOD * 60);
    assert_eq!(world.state(0, 2), None, "it does not come back by hearsay");
    assert_eq!(world.state(1, 2), None);
}

#[test]
fn members_are_bounded_and_those_that_are_gone_make_room() {
    let mut world = World::new(12, 3);
    world.add(0, |setup| setup.max_members = 6);
    for n in 1..12 {
        world.join(n, 0);
    }
    world.run(PERIOD * 60);
    assert!(world.members(0).len() <= 7, "{}", world.picture());
    assert!(world.engine(0).counts().refused_as(Refusal::Full) > 0);
    let kept = world.engine(0).kept();
    world.run(PERIOD * 200);
    assert!(world.engine(0).kept() < kept + 64);
    // The ones it knows die: others take their places.
    let known: Vec<usize> = (1..12).filter(|n| world.state(0, *n).is_some()).collect();
    for n in &known {
        world.kill(*n);
    }
    world.until("others have their places", 200, |w| {
        let alive = w
            .members(0)
            .into_iter()
            .filter(|m| m.state == MemberState::Alive);
        alive.count() >= 5
    });
    assert!(world.members(0).len() <= 7);
}

#[test]
fn a_seed_gives_the_same_run_again() {
    let run = |seed| {
        let mut world = World::joined(5, seed);
        (world.loss, world.twice, world.slow) = (10, 10, 150);
        world.run(PERIOD * 60);
        world.trace
    };
    for seed in 0..5 {
        assert_eq!(run(seed), run(seed));
    }
    assert_ne!(run(1), run(2));
}

#[test]
fn no_name_tag_or_address_is_readable_on_the_wire() {
    let mut world = World::joined(4, 4);
    world.record = Some(Vec::new());
    world.until("all see all", 60, World::whole);
    world.with(2, |e, now| {
        e.set_tags(now, tags(&[("purpose", "very-secret-purpose")]))
    });
    world.run(PERIOD * 20);
    let request = world.with(3, |e, now| e.leave(now, PERIOD * 5)).unwrap();
    world.answers(3, request);
    let record = world.record.take().unwrap();
    assert!(record.len() > 200);
    let id = id(2).0.0.to_le_bytes();
    let postcard = postcard::to_stdvec(&kit::id(2)).unwrap();
    let needles: [&[u8]; 8] = [
        b"srv-",
        b"server",
        b"purpose",
        b"secret",
        b"rack",
        &kit::CLUSTER.0.to_be_bytes()[8..],
        &id[..6],
        &postcard[4..10],
    ];
    for datagram in &record {
        for needle in needles {
            let there = datagram.windows(needle.len()).any(|w| w == needle);
            assert!(
                !there,
                "{:?} in {datagram:x?}",
                String::from_utf8_lossy(needle)
            );
        }
    }
}

#[test]
fn a_key_is_replaced_while_one_node_is_away_and_comes_back() {
    use prism_membership::Outcome;
    use prism_membership::protocol::Op;
    for seed in 0..10 {
        let mut world = World::joined(4, seed);
        (world.loss, world.twice, world.slow) = (10, 10, 100);
        world.until("all see all", 60, World::whole);
        world.seen.clear();
        let ask = |world: &mut World, op: Op| {
            let request = world
                .with(0, |e, now| e.ask(now, op, PERIOD * 4))
                .unwrap()
                .unwrap();
            world.answers(0, request)
        };
        let (old, new) = (kit::key(1), kit::key(2));
        // Node 3 is cut off, and nobody knows yet.
        world.split(&[3], &[0, 1, 2]);
        let answers = ask(&mut world, Op::Install(new.clone()));
        let of = |n: usize, answers: &[prism_membership::NodeAnswer]| {
            answers
                .iter()
                .find(|a| a.id == id(n))
                .unwrap()
                .outcome
                .clone()
        };
        assert_eq!(of(1, &answers), Outcome::Done);
        assert_eq!(of(3, &answers), Outcome::NoAnswer);
        assert_eq!(answers[0].id, id(0), "this node's answer is first");
        world.cut.clear();
        world.until("all see all again", 40, World::whole);
        // It lacks the key, says so, and gets it.
        let answers = ask(&mut world, Op::Report);
        assert_eq!(of(3, &answers), Outcome::Keys(vec![old.id()]));
        assert_eq!(of(1, &answers), Outcome::Keys(vec![old.id(), new.id()]));
        let answers = ask(&mut world, Op::Install(new.clone()));
        assert!(
            answers.iter().all(|a| a.outcome == Outcome::Done),
            "{answers:?}"
        );
        let answers = ask(&mut world, Op::Remove(new.id()));
        assert!(
            answers.iter().all(|a| a.outcome == Outcome::Done),
            "{answers:?}"
        );
        let answers = ask(&mut world, Op::Install(new.clone()));
        assert!(
            answers.iter().all(|a| a.outcome == Outcome::Done),
            "{answers:?}"
        );
        let answers = ask(&mut world, Op::Use(new.id()));
        assert!(
            answers.iter().all(|a| a.outcome == Outcome::Done),
            "{answers:?}"
        );
        let refused = world.with(0, |e, now| e.ask(now, Op::Remove(new.id()), PERIOD));
        assert!(refused.is_err(), "the primary stays");
        let answers = ask(&mut world, Op::Remove(old.id()));
        assert!(
            answers.iter().all(|a| a.outcome == Outcome::Done),
            "{answers:?}"
        );
        world.run(PERIOD * 20);
        for n in 0..4 {
            assert_eq!(world.engine(n).ring().ids(), [new.id()]);
        }
        world.until("all see all with the new key alone", 10, World::whole);
    }
}

#[test]
fn who_lacks_a_key_cannot_even_be_asked_with_it() {
    use prism_membership::Outcome;
    use prism_membership::protocol::Op;
    let mut world = World::joined(3, 1);
    world.until("all see all", 60, World::whole);
    // Only node 0 has the new key: as if nobody had asked the others first.
    let ring = |n: u8| prism_membership::KeyRing::with(kit::key(1), &[kit::key(n)]).unwrap();
    world.kill(0);
    world.add(0, |setup| setup.ring = ring(2));
    world.join(0, 1);
    world.until("all see all", 60, World::whole);
    let request = world
        .with(0, |e, now| e.ask(now, Op::Use(kit::key(2).id()), PERIOD))
        .unwrap()
        .unwrap();
    let answers = world.answers(0, request);
    let outcomes: Vec<&Outcome> = answers.iter().skip(1).map(|a| &a.outcome).collect();
    // They could not even open the question: it is sealed with that key.
    assert_eq!(outcomes, [&Outcome::NoAnswer, &Outcome::NoAnswer]);
    assert!(world.engine(1).counts().refused[4] > 0);
}
