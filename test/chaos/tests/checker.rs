//! The checker takes what a register can have answered, and nothing else: by hand, and against a search through every order.

use prism_chaos::linear::{Model, Span, Verdict, check};
use prism_chaos::register::{Answer, Ask, Call, Register};
use prism_e2e::chaos::Random;

const STEPS: u64 = 1_000_000;

fn span(ask: Ask, answer: Answer, from: u64, to: u64) -> Span<Call> {
    Span {
        call: Call { ask, answer },
        from,
        to: Some(to),
    }
}

fn lost(ask: Ask, from: u64) -> Span<Call> {
    Span {
        call: Call {
            ask,
            answer: Answer::Unknown,
        },
        from,
        to: None,
    }
}

fn put(v: u32, from: u64, to: u64) -> Span<Call> {
    span(Ask::Put(v), Answer::Done, from, to)
}

fn got(v: u32, from: u64, to: u64) -> Span<Call> {
    span(Ask::Get, Answer::Holds(v), from, to)
}

fn gone(from: u64, to: u64) -> Span<Call> {
    span(Ask::Get, Answer::Refused, from, to)
}

#[track_caller]
fn takes(history: &[Span<Call>]) {
    assert_eq!(check(&Register, history, STEPS), Verdict::Linearizable);
}

#[track_caller]
fn refuses(history: &[Span<Call>], stuck: usize) {
    let verdict = check(&Register, history, STEPS);
    assert!(
        matches!(verdict, Verdict::Not { stuck: at, .. } if at == stuck),
        "{verdict:?}"
    );
}

#[test]
fn what_one_register_can_have_answered_is_taken() {
    takes(&[]);
    takes(&[gone(0, 1), put(1, 2, 3), got(1, 4, 5)]);
    // While a write is under way, readers may see either, as long as it does not go back.
    takes(&[put(1, 0, 1), put(2, 2, 9), got(1, 3, 4), got(2, 5, 6)]);
    // Two writes at once, and each of the orders.
    takes(&[put(1, 0, 5), put(2, 0, 5), got(1, 6, 7)]);
    takes(&[put(1, 0, 5), put(2, 0, 5), got(2, 6, 7)]);
    // The one that was begun later may count earlier.
    takes(&[put(1, 0, 9), put(2, 1, 8), got(2, 2, 3), got(1, 4, 5)]);
}

#[test]
fn a_stale_read_is_found() {
    refuses(&[put(1, 0, 1), put(2, 2, 3), got(1, 4, 5)], 2);
    // It went back: one saw the new value, a later one the old.
    refuses(&[put(1, 0, 1), put(2, 2, 9), got(2, 3, 4), got(1, 5, 6)], 3);
}

#[test]
fn a_lost_write_is_found() {
    refuses(&[put(1, 0, 1), gone(2, 3)], 1);
    refuses(&[put(1, 0, 1), span(Ask::Remove, Answer::Refused, 2, 3)], 1);
    refuses(&[put(1, 0, 1), span(Ask::Create(2), Answer::Done, 2, 3)], 1);
    // A value that nobody has written.
    refuses(&[put(1, 0, 1), got(7, 2, 3)], 1);
}

#[test]
fn a_write_without_an_answer_counts_later_or_never_but_once() {
    takes(&[put(1, 0, 1), lost(Ask::Put(2), 2), got(1, 3, 4)]);
    takes(&[
        put(1, 0, 1),
        lost(Ask::Put(2), 2),
        got(1, 3, 4),
        got(2, 9, 10),
        got(2, 11, 12),
    ]);
    // Not before it was asked for, and not twice.
    refuses(&[put(1, 0, 1), got(2, 2, 3), lost(Ask::Put(2), 4)], 1);
    refuses(
        &[
            lost(Ask::Put(2), 0),
            got(2, 1, 2),
            put(3, 3, 4),
            got(3, 5, 6),
            got(2, 7, 8),
        ],
        4,
    );
    // Of two removals of one thing, one is refused, unless it was made again between them.
    let removed = |from, to| span(Ask::Remove, Answer::Done, from, to);
    refuses(&[put(1, 0, 1), removed(2, 3), removed(4, 5)], 2);
    takes(&[
        put(1, 0, 1),
        removed(2, 3),
        lost(Ask::Create(4), 0),
        removed(4, 5),
    ]);
}

#[test]
fn a_put_is_never_refused() {
    refuses(&[span(Ask::Put(1), Answer::Refused, 0, 1)], 0);
}

#[test]
fn what_takes_too_long_is_not_called_well() {
    let history: Vec<_> = (0..20)
        .map(|v| put(v, 0, 100))
        .chain([got(99, 101, 102)])
        .collect();
    assert_eq!(check(&Register, &history, 1_000), Verdict::Undecided);
}

/// Whether any order of any part of the unknown and all of the known calls goes, by trying them all.
fn by_hand(history: &[Span<Call>], state: Option<u32>, used: u32) -> bool {
    let open = |at: &usize| used & (1 << at) == 0;
    if (0..history.len())
        .filter(open)
        .all(|at| history[at].to.is_none())
    {
        return true;
    }
    (0..history.len()).filter(open).any(|at| {
        let first = (0..history.len())
            .filter(open)
            .all(|other| history[other].to.is_none_or(|to| to >= history[at].from));
        let next = Register.step(&state, &history[at].call);
        first && next.is_some_and(|next| by_hand(history, next, used | (1 << at)))
    })
}

/// Calls with random times and answers, of which many are nearly right.
fn drawn(random: &mut Random) -> Vec<Span<Call>> {
    let count = 2 + random.below(6);
    let calls = (0..count).map(|_| {
        let v = random.below(3) as u32;
        let ask = *random.of_these(&[
            Ask::Put(v),
            Ask::Create(v),
            Ask::Set(v),
            Ask::Remove,
            Ask::Get,
            Ask::Get,
        ]);
        let answer = match (ask, random.below(8)) {
            (Ask::Get, 0..6) => Answer::Holds(random.below(3) as u32),
            (_, 0) => Answer::Unknown,
            (_, 1..6) => Answer::Done,
            _ => Answer::Refused,
        };
        let from = random.below(20);
        let to = (answer != Answer::Unknown).then(|| from + random.below(10));
        Span {
            call: Call { ask, answer },
            from,
            to,
        }
    });
    calls.collect()
}

#[test]
fn it_agrees_with_a_search_through_every_order() {
    let mut random = Random::new("checker");
    let mut counts = [0, 0];
    for _ in 0..15_000 {
        let history = drawn(&mut random);
        let expected = by_hand(&history, None, 0);
        let verdict = check(&Register, &history, STEPS);
        assert_eq!(
            verdict == Verdict::Linearizable,
            expected,
            "{verdict:?} of {history:#?}"
        );
        counts[usize::from(expected)] += 1;
    }
    // Both answers were asked for.
    assert!(counts.iter().all(|n| *n > 700), "{counts:?}");
}

/// A history that a real register has given to several clients at once: each call counts at a moment between its begin and its end, or,
/// when it has no answer, maybe later.
fn simulated(random: &mut Random, calls: u32) -> Vec<Span<Call>> {
    let mut drawn: Vec<(u64, Span<Call>)> = (0..calls)
        .map(|n| {
            let ask = match random.below(20) {
                0..6 => Ask::Put(n),
                6..8 => Ask::Create(n),
                8..10 => Ask::Set(n),
                10 => Ask::Remove,
                _ => Ask::Get,
            };
            let from = u64::from(n) * 10 + random.below(10);
            let took = random.below(60);
            // A removal without an answer may come at the very end, and then nothing is lost that is not there.
            let lost = !matches!(ask, Ask::Get | Ask::Remove) && random.below(30) == 0;
            let counts = from
                + if lost {
                    random.below(400)
                } else {
                    random.below(took + 1)
                };
            let to = (!lost).then_some(from + took);
            let answer = Answer::Unknown;
            (
                counts,
                Span {
                    call: Call { ask, answer },
                    from,
                    to,
                },
            )
        })
        .collect();
    drawn.sort_by_key(|(counts, _)| *counts);
    let mut state = None;
    for (_, span) in &mut drawn {
        let before = state;
        state = Register
            .step(&before, &span.call)
            .expect("an unknown answer is always possible");
        if span.to.is_some() {
            let answers = match (span.call.ask, before) {
                (Ask::Get, Some(v)) => [Answer::Holds(v), Answer::Refused],
                _ => [Answer::Done, Answer::Refused],
            };
            let possible = |answer: &Answer| {
                let call = Call {
                    answer: *answer,
                    ..span.call
                };
                Register.step(&before, &call).is_some()
            };
            span.call.answer = answers.into_iter().find(possible).expect("one of them is");
        }
    }
    drawn.into_iter().map(|(_, span)| span).collect()
}

#[test]
fn long_histories_are_decided_and_what_is_planted_in_them_is_found() {
    let mut random = Random::new("planted");
    for _ in 0..20 {
        let mut history = simulated(&mut random, 240);
        assert_eq!(check(&Register, &history, 3_000_000), Verdict::Linearizable);
        // A stale read: what was read long before is read once more at the end.
        let stale = history
            .iter()
            .find(|s| matches!(s.call.answer, Answer::Holds(_)));
        let stale = stale.expect("one read something").call;
        let mut with_stale = history.clone();
        with_stale.push(put(1_000_000, 10_000, 10_001));
        with_stale.push(Span {
            call: stale,
            from: 10_002,
            to: Some(10_003),
        });
        let verdict = check(&Register, &with_stale, 3_000_000);
        assert!(matches!(verdict, Verdict::Not { .. }), "{verdict:?}");
        // A lost write: acknowledged, and never seen.
        history.push(put(2_000_000, 10_000, 10_001));
        history.push(gone(10_002, 10_003));
        let verdict = check(&Register, &history, 3_000_000);
        assert!(matches!(verdict, Verdict::Not { .. }), "{verdict:?}");
    }
}
