//! Whatever can be sent.

use super::*;

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
