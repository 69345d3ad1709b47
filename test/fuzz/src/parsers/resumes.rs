//! What the two ends of a session say to find out what they see differently.

use prism_link::Holding;
use prism_link::resume::{
    BUCKETS_MAX, Compared, Difference, Holdings, Item, Phase, Sum, Summary, Told, compare,
};
use prism_types::{JobId, SandboxId, TaskRef, TimeMs};

use super::{Feed, Parser};

fn task(index: u32) -> TaskRef {
    TaskRef {
        job: JobId::new(1, 2),
        index,
        attempt: 1,
    }
}

fn told() -> Told {
    let tasks = (0..300).map(|n| (task(n), Holding::Running(TimeMs(5))));
    let holdings = Holdings {
        tasks: tasks.collect(),
        sandboxes: vec![(SandboxId::new(1, 3), None)],
        jobs: vec![(JobId::new(1, 2), 4)],
    };
    Told::new([7; 16], holdings)
}

/// What the leader sees instead.
fn own() -> Vec<Item> {
    let tasks = (10..310).map(|n| Item::Task(task(n), Phase::Running));
    tasks.chain([Item::Job(JobId::new(1, 2), 4)]).collect()
}

/// The whole exchange as it is in truth; then one end after the other is lied to.
fn seeds() -> Vec<Vec<u8>> {
    let told = told();
    let Compared::Differs(comparison) = compare(told.summary(), own()) else {
        return Vec::new();
    };
    let sums = comparison.sums();
    let answer = told.answer(&sums).unwrap_or_default();
    let all = [
        postcard::to_stdvec(&(0_u8, told.summary(), &answer)),
        postcard::to_stdvec(&(1_u8, &sums)),
        postcard::to_stdvec(&(1_u8, vec![[0_u8; 16]; 2_000])),
    ];
    all.into_iter().flatten().collect()
}

fn fed() -> Feed {
    let (told, own) = (told(), own());
    Box::new(move |input| match input {
        [0, rest @ ..] => match postcard::from_bytes::<(Summary, Difference)>(rest) {
            Ok((summary, answer)) => lead(summary, &answer, &own),
            Err(why) => why.to_string(),
        },
        [_, rest @ ..] => match postcard::from_bytes::<Vec<Sum>>(rest) {
            Ok(sums) => match told.answer(&sums) {
                Ok(answer) => {
                    assert!(answer.holdings.items().count() <= 302, "more than is held");
                    format!("{} buckets differ", answer.buckets.len().min(3))
                }
                Err(why) => why.to_string(),
            },
            Err(why) => why.to_string(),
        },
        [] => "nothing".to_owned(),
    })
}

/// A leader that a worker says this to knows the truth as the worker summed it up, or refuses it.
fn lead(summary: Summary, answer: &Difference, own: &[Item]) -> String {
    let comparison = match compare(summary, own.iter().copied()) {
        Compared::Known(items) => return format!("known, {}", items.len().min(2)),
        Compared::Differs(comparison) => comparison,
    };
    let sums = comparison.sums().len();
    assert!((1..=BUCKETS_MAX).contains(&sums), "{sums} buckets");
    match comparison.settle(answer) {
        Ok(items) => {
            assert_eq!(items.len(), summary.count as usize);
            let most = own.len() + answer.holdings.items().count();
            assert!(items.len() <= most, "more than both ends have");
            "settled".to_owned()
        }
        Err(why) => why.to_string(),
    }
}

pub(super) const RESUME: Parser = Parser {
    name: "session-resume",
    seeds,
    make: fed,
    quick: 2_000,
};
