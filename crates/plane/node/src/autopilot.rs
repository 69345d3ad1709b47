//! Which server is taken out of the cluster by rule: one that is long gone, by what gossip and consensus both say, and only while those
//! that stay could lose one more and still decide. One at a time, and never by a leader that has not led for long.

use std::collections::BTreeMap;
use std::time::Duration;

use prism_types::NodeId;

/// A server that consensus has heard of within this time is there.
pub(crate) const THERE: Duration = Duration::from_secs(3);

/// A server, as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Which.
    pub(crate) id: NodeId,
    /// Whether it is the leader itself.
    pub(crate) me: bool,
    /// Whether it votes.
    pub(crate) voter: bool,
    /// For how long consensus has not heard of it; since this leader leads, if it never has.
    pub(crate) silent: Duration,
    /// For how long gossip has had it as gone; `None`: it is there, or nothing is known of it.
    pub(crate) gone: Option<Duration>,
    /// Whether gossip says that it answers.
    pub(crate) alive: bool,
}

/// What the leader sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sight {
    /// Every server of the configuration.
    pub(crate) servers: Vec<Seen>,
    /// For how long this server has led.
    pub(crate) leads: Duration,
    /// Whether the configuration is what the members say: nobody is coming, going or moving.
    pub(crate) settled: bool,
    /// A server that is gone for so long is taken out; `None`: never.
    pub(crate) limit: Option<Duration>,
}

/// What follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Whom to take out now.
    pub(crate) retire: Option<NodeId>,
    /// Why the others that are gone stay.
    pub(crate) stays: BTreeMap<NodeId, String>,
}

fn text(time: Duration) -> String {
    match time.as_secs() {
        s if s >= 2 * 3600 => format!("{} h", s / 3600),
        s if s >= 120 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

/// Why a server that is gone stays; `None`: it goes.
fn kept(sight: &Sight, one: &Seen) -> Option<String> {
    let Some(limit) = sight.limit else {
        return Some("no server is taken out by rule (--remove-gone-after=never)".to_owned());
    };
    let Some(gone) = one.gone else {
        return Some("gossip does not say that it is gone".to_owned());
    };
    let both = gone.min(one.silent);
    if both < limit {
        let (both, limit) = (text(both), text(limit));
        return Some(format!(
            "it is gone for {both}, and is taken out after {limit}"
        ));
    }
    if sight.leads < limit {
        let (leads, limit) = (text(sight.leads), text(limit));
        return Some(format!(
            "the leader leads for {leads} only, and takes nobody out before {limit}"
        ));
    }
    if !sight.settled {
        return Some("the servers of the cluster are being changed".to_owned());
    }
    let stay = |s: &&Seen| s.voter && s.id != one.id;
    let there = |s: &&Seen| s.me || (s.alive && s.silent < THERE);
    let voters = sight.servers.iter().filter(stay).count();
    let up = sight.servers.iter().filter(stay).filter(there).count();
    // One more than a majority: the next loss must not be the last.
    let needed = voters / 2 + 2;
    if one.voter && up < needed {
        return Some(format!(
            "without it {up} of {voters} servers would be there, and {needed} have to be, so that one more may be lost; let another join first"
        ));
    }
    // One that does not vote counts for nothing, but its end is decided as everything is.
    if up < voters / 2 + 1 {
        return Some(format!("only {up} of {voters} servers are there"));
    }
    None
}

/// Whom to take out, and why not the others that are gone.
pub(crate) fn judge(sight: &Sight) -> Verdict {
    let mut verdict = Verdict::default();
    let away = |s: &&Seen| !s.me && (s.gone.is_some() || s.silent >= THERE);
    for one in sight.servers.iter().filter(away) {
        match kept(sight, one) {
            None if verdict.retire.is_none() => verdict.retire = Some(one.id),
            None => {
                let why = "another is taken out first".to_owned();
                verdict.stays.insert(one.id, why);
            }
            Some(why) => {
                verdict.stays.insert(one.id, why);
            }
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn here(n: u128) -> Seen {
        Seen {
            id: NodeId::new(1, n),
            me: n == 1,
            voter: true,
            silent: Duration::ZERO,
            gone: None,
            alive: true,
        }
    }

    fn gone(n: u128) -> Seen {
        Seen {
            silent: DAY * 2,
            gone: Some(DAY * 2),
            alive: false,
            ..here(n)
        }
    }

    fn sight(servers: Vec<Seen>) -> Sight {
        Sight {
            servers,
            leads: DAY * 3,
            settled: true,
            limit: Some(DAY),
        }
    }

    fn goes(sight: &Sight) -> Option<NodeId> {
        judge(sight).retire
    }

    #[test]
    fn one_of_four_goes_and_one_of_three_stays_until_another_has_joined() {
        let four = sight(vec![here(1), here(2), here(3), gone(4)]);
        assert_eq!(goes(&four), Some(NodeId::new(1, 4)));
        let three = sight(vec![here(1), here(2), gone(3)]);
        let verdict = judge(&three);
        assert_eq!(verdict.retire, None);
        let why = &verdict.stays[&NodeId::new(1, 3)];
        assert!(why.contains("2 of 2") && why.contains("join"), "{why}");
        assert_eq!(goes(&sight(vec![here(1), gone(2)])), None);
    }

    #[test]
    fn gossip_and_consensus_have_to_agree_for_the_whole_time_and_the_leader_has_to_have_seen_it() {
        let four = |change: fn(&mut Sight)| {
            let mut sight = sight(vec![here(1), here(2), here(3), gone(4)]);
            change(&mut sight);
            judge(&sight)
        };
        for (change, word) in [
            (
                (|s: &mut Sight| s.servers[3].gone = None) as fn(&mut Sight),
                "gossip",
            ),
            (|s| s.servers[3].gone = Some(DAY / 2), "12 h"),
            (|s| s.servers[3].silent = DAY / 2, "12 h"),
            (|s| s.leads = Duration::from_secs(30), "leads for 30 s"),
            (|s| s.settled = false, "being changed"),
            (|s| s.limit = None, "never"),
            (|s| s.servers[2].silent = THERE, "2 of 3"),
            (|s| s.servers[2].alive = false, "2 of 3"),
        ] {
            let verdict = four(change);
            assert_eq!(verdict.retire, None, "{word}");
            let why = &verdict.stays[&NodeId::new(1, 4)];
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn two_that_are_gone_go_one_after_the_other() {
        let mut seven: Vec<Seen> = (1..=5).map(here).collect();
        seven.extend([gone(6), gone(7)]);
        let verdict = judge(&sight(seven.clone()));
        assert_eq!(verdict.retire, Some(NodeId::new(1, 6)));
        assert!(verdict.stays[&NodeId::new(1, 7)].contains("first"));
        seven.remove(5);
        assert_eq!(goes(&sight(seven)), Some(NodeId::new(1, 7)));
    }

    fn any_seen() -> impl Strategy<Value = (bool, u64, Option<u64>, bool)> {
        (
            any::<bool>(),
            0..200_000_u64,
            proptest::option::of(0..200_000_u64),
            any::<bool>(),
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        /// Whoever is taken out, those that stay are a majority of what was and, with one less, of what is.
        #[test]
        fn the_rest_never_loses_its_quorum(
            others in proptest::collection::vec(any_seen(), 0..8),
            leads in 0..200_000_u64,
            settled: bool,
            limit in proptest::option::of(1..100_000_u64),
        ) {
            let secs = Duration::from_secs;
            let mut servers = vec![here(1)];
            servers.extend((2_u128..).zip(others).map(|(n, (voter, silent, gone, alive))| Seen {
                voter,
                silent: secs(silent),
                gone: gone.map(secs),
                alive,
                ..here(n)
            }));
            let sight = Sight { servers, leads: secs(leads), settled, limit: limit.map(secs) };
            let verdict = judge(&sight);
            let Some(id) = verdict.retire else { return Ok(()) };
            let one = sight.servers.iter().find(|s| s.id == id).unwrap();
            prop_assert!(!one.me && settled);
            let limit = sight.limit.unwrap();
            prop_assert!(one.silent >= limit && one.gone.unwrap() >= limit && sight.leads >= limit);
            let up = |s: &&Seen| s.voter && s.id != id && (s.me || (s.alive && s.silent < THERE));
            let up = sight.servers.iter().filter(up).count();
            let before = sight.servers.iter().filter(|s| s.voter).count();
            let after = before - usize::from(one.voter);
            prop_assert!(up > before / 2, "those that are there decide it");
            prop_assert!(up > after / 2, "and go on");
            if one.voter {
                prop_assert!(up - 1 > after / 2, "also when one more is lost");
                prop_assert!(after >= 3);
            }
        }
    }
}
