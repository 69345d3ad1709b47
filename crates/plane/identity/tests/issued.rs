//! What somebody else has signed: taken when it is what was asked for, whatever is changed of it not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

use prism_identity::{
    ClusterId, Holder, Issuer, Key, Lifetime, NotAsAsked, Role, Root, Wanted, check_authority,
};
use prism_types::{Id, NodeId};
use proptest::prelude::*;

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 24 * 3600;

struct Above {
    issuer: Issuer,
    roots: Vec<Vec<u8>>,
}

fn cluster() -> ClusterId {
    ClusterId(Id::new(1, 2))
}

/// What signs, and is trusted itself.
fn above() -> Above {
    let root = Root::found(cluster(), Lifetime::decade(NOW)).unwrap();
    let key = Key::generate().unwrap();
    let request = key.request().unwrap();
    let made = root.sign_issuer(&request, NodeId::new(1, 1), Lifetime::year(NOW));
    let issuer = Issuer::new(cluster(), key, made.unwrap()).unwrap();
    let roots = vec![issuer.certificate().to_vec()];
    Above { issuer, roots }
}

fn wanted<'a>(above: &'a Above, key: &Key, role: Role) -> Wanted<'a> {
    Wanted {
        holder: Holder {
            cluster: cluster(),
            role,
            id: NodeId::new(1, 7),
        },
        key: key.pin(),
        roots: &above.roots,
        now: NOW,
        seconds: DAY,
    }
}

#[test]
fn what_was_asked_for_is_taken_and_no_byte_of_it_may_be_another() {
    let (above, key) = (above(), Key::generate().unwrap());
    for role in [Role::Worker, Role::Server] {
        let wanted = wanted(&above, &key, role);
        let signed = above.issuer.sign(
            &key.request().unwrap(),
            (role, wanted.holder.id),
            Lifetime::day(NOW),
        );
        let leaf = signed.unwrap().chain.remove(0);
        let issued = wanted.check(&leaf).unwrap();
        assert_eq!(issued.chain, [leaf.clone(), above.roots[0].clone()]);
        assert_eq!(issued.life.until, NOW + DAY);
        for at in 0..leaf.len() {
            let mut bad = leaf.clone();
            bad[at] ^= 1;
            assert!(wanted.check(&bad).is_err(), "byte {at}");
            assert!(wanted.check(&leaf[..at]).is_err(), "cut at {at}");
        }
        let mut more = leaf.clone();
        more.push(0);
        assert!(matches!(wanted.check(&more), Err(NotAsAsked::Damaged(_))));
        // The clock of what signs may be five minutes ahead, and no more.
        for (ahead, good) in [(300, true), (301, false)] {
            let earlier = Wanted {
                now: NOW - ahead,
                ..wanted
            };
            assert_eq!(earlier.check(&leaf).is_ok(), good, "{ahead}");
        }
        let late = Wanted {
            now: NOW + DAY + 1,
            ..wanted
        };
        assert!(matches!(late.check(&leaf), Err(NotAsAsked::NotTrusted(_))));
        let nobody = Wanted {
            roots: &[],
            ..wanted
        };
        assert!(matches!(
            nobody.check(&leaf),
            Err(NotAsAsked::NotTrusted(_))
        ));
    }
    // A worker's is none for a server.
    let wanted = wanted(&above, &key, Role::Server);
    let other = above.issuer.sign(
        &key.request().unwrap(),
        (Role::Worker, wanted.holder.id),
        Lifetime::day(NOW),
    );
    let why = wanted.check(&other.unwrap().chain[0]).unwrap_err();
    assert!(matches!(why, NotAsAsked::OtherName { .. }), "{why}");
    // That of an authority is none of a member, and the other way round.
    let why = wanted.check(&above.roots[0]).unwrap_err();
    assert_eq!(why, NotAsAsked::Authority);
    assert_eq!(check_authority(&above.roots[0], NOW), Ok(()));
    for wrong in [NOW - DAY, NOW + 2 * 365 * DAY] {
        assert!(check_authority(&above.roots[0], wrong).is_err());
    }
    let signed = above.issuer.sign(
        &key.request().unwrap(),
        (Role::Server, wanted.holder.id),
        Lifetime::day(NOW),
    );
    let why = check_authority(&signed.unwrap().chain[0], NOW).unwrap_err();
    assert!(matches!(why, NotAsAsked::NoAuthority(_)), "{why}");
}

proptest! {
    #[test]
    fn no_bytes_break_the_reader(bytes: Vec<u8>) {
        let (above, key) = (Above { roots: vec![bytes.clone()], ..above() }, Key::generate().unwrap());
        prop_assert!(wanted(&above, &key, Role::Worker).check(&bytes).is_err());
        prop_assert!(check_authority(&bytes, NOW).is_err());
    }
}
