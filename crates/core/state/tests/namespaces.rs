//! Namespaces, their quotas, and who may give what to whom.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::*;
use prism_spec::SandboxSpec;
use prism_state::*;
use prism_types::*;
use proptest::prelude::*;

fn cpu(millis: u32) -> Quota {
    Quota {
        cpu: Some(MilliCpu(millis)),
        ..Quota::default()
    }
}

fn create(n: u64, namespace: &str, label: Option<&str>) -> Command {
    Command::CreateSandbox {
        id: sandbox_id(n),
        spec: Arc::new(SandboxSpec {
            namespace: name(namespace),
            ..sandbox_spec(label)
        }),
    }
}

fn place_sandbox(w: &mut World, n: u64) -> Reply {
    w.ok(Command::Assign(Plan {
        placements: Vec::new(),
        sandboxes: vec![(sandbox_id(n), node_id(0))],
    }))
}

#[test]
fn the_default_namespace_is_always_there_and_others_are_made_and_removed() {
    let mut w = World::new(1, 8);
    assert!(w.state.namespace(&name("default")).is_some());
    let why = w.err(submission(1, within("tema", array(1))));
    assert_eq!(why.reason, Reason::NotFound);
    w.ok(namespace("team", Quota::default()));
    let why = w.err(submission(1, within("tema", array(1))));
    assert!(why.message.contains("did you mean team"), "{}", why.message);
    let again = Command::PutNamespace {
        name: name("team"),
        quota: Quota::default(),
        new: Some(true),
    };
    assert_eq!(w.err(again).reason, Reason::Conflict);
    let other = Command::PutNamespace {
        name: name("other"),
        quota: Quota::default(),
        new: Some(false),
    };
    assert_eq!(w.err(other).reason, Reason::NotFound);
    let job = w.submit(1, within("team", array(1)));
    let remove = |text: &str| Command::RemoveNamespace { name: name(text) };
    let why = w.err(remove("team"));
    assert!(
        why.message.contains("1 jobs and 0 sandboxes"),
        "{}",
        why.message
    );
    w.ok(Command::CancelJob { id: job });
    w.check();
    w.ok(remove("team"));
    w.check();
    // It would run where there is no quota any more.
    assert_eq!(
        w.err(Command::RetryJob { id: job }).reason,
        Reason::NotFound
    );
    assert_eq!(w.err(remove("default")).reason, Reason::WrongState);
    assert_eq!(w.err(remove("team")).reason, Reason::NotFound);
}

#[test]
fn what_could_never_fit_a_quota_is_refused_with_the_numbers() {
    let mut w = World::new(1, 8);
    w.ok(namespace("team", cpu(400)));
    let why = w.err(submission(1, within("team", array(1))));
    assert_eq!(why.reason, Reason::Invalid);
    let numbers = "0.5 cpu, of 0.4 cpu in all";
    let said = why.message.contains(numbers) || why.message.contains("500m cpu, of 400m cpu");
    assert!(said, "{}", why.message);
    let why = w.err(create(1, "team", None));
    assert_eq!(why.reason, Reason::Invalid);
    let none = Quota {
        instances: Some(0),
        ..Quota::default()
    };
    w.ok(namespace("team", none));
    assert!(
        w.err(submission(1, within("team", array(1))))
            .message
            .contains("of none")
    );
    // Sandboxes are no tasks.
    w.ok(create(1, "team", None));
    w.check();
}

#[test]
fn lanes_beyond_the_quota_are_not_granted_and_come_with_room() {
    let mut w = World::new(2, 8);
    w.ok(namespace("team", cpu(1500)));
    let job = w.submit(1, within("team", array(20)));
    let free = w.submit(2, array(20));
    // Half a core each: three lanes, and what waits with them on the node.
    w.place(job, 0, 0..10);
    assert_eq!(w.job(job).lanes_total(), 3);
    w.place(job, 1, 10..14);
    assert_eq!(w.job(job).lanes_total(), 3);
    let used = w.state.usage(&name("team"));
    assert_eq!((used.instances, used.resources.cpu), (3, MilliCpu(1500)));
    w.place(free, 1, 0..4);
    assert_eq!(w.job(free).lanes_total(), 4);
    w.check();
    w.ok(namespace("team", cpu(2000)));
    w.place(job, 1, 14..18);
    assert_eq!(w.job(job).lanes_total(), 4);
    w.check();
    w.ok(Command::CancelJob { id: job });
    let reply = w.state.desired_for(node_id(0));
    for desired in reply.jobs.iter().filter(|j| j.job == job) {
        let tasks = desired.tasks.iter().map(|t| TaskRef {
            job,
            index: t.index,
            attempt: t.attempt,
        });
        let tasks = tasks.collect();
        w.ok(Command::Returned {
            node: node_id(0),
            tasks,
        });
    }
    w.check();
}

#[test]
fn two_placements_of_one_plan_share_what_the_quota_leaves() {
    let mut w = World::new(2, 8);
    w.ok(namespace("team", cpu(1000)));
    let job = w.submit(1, within("team", array(20)));
    let placement = |n: u32, from: u32| Placement {
        job,
        node: node_id(n),
        lanes: 2,
        tasks: vec![from, from + 1],
    };
    w.ok(Command::Assign(Plan {
        placements: vec![placement(0, 0), placement(1, 2)],
        sandboxes: Vec::new(),
    }));
    assert_eq!(w.job(job).lanes_total(), 2);
    w.check();
}

#[test]
fn sandboxes_beyond_their_number_are_refused_and_beyond_resources_wait() {
    let mut w = World::new(1, 8);
    let two = Quota {
        sandboxes: Some(2),
        cpu: Some(MilliCpu(1000)),
        ..Quota::default()
    };
    w.ok(namespace("team", two));
    w.ok(create(1, "team", None));
    w.ok(create(2, "team", None));
    let why = w.err(create(3, "team", None));
    assert_eq!((why.reason, why.retryable), (Reason::Overloaded, true));
    assert!(
        why.message.contains("sandboxes 2 of 2 in use"),
        "{}",
        why.message
    );
    w.ok(create(4, "default", None));
    assert_eq!(
        place_sandbox(&mut w, 1),
        Reply::Assigned {
            accepted: 1,
            dropped: 0
        }
    );
    assert_eq!(
        place_sandbox(&mut w, 2),
        Reply::Assigned {
            accepted: 0,
            dropped: 1
        }
    );
    assert_eq!(
        place_sandbox(&mut w, 4),
        Reply::Assigned {
            accepted: 1,
            dropped: 0
        }
    );
    w.check();
    w.ok(Command::DeleteSandbox { id: sandbox_id(1) });
    w.ok(Command::SandboxReport {
        node: node_id(0),
        id: sandbox_id(1),
        status: SandboxStatus::Gone,
    });
    assert_eq!(
        place_sandbox(&mut w, 2),
        Reply::Assigned {
            accepted: 1,
            dropped: 0
        }
    );
    w.ok(create(3, "team", None));
    w.check();
}

#[test]
fn names_are_of_a_namespace_and_what_is_in_another_is_not_there() {
    let mut w = World::new(1, 8);
    w.ok(namespace("team", Quota::default()));
    w.ok(create(1, "team", Some("box")));
    w.ok(create(2, "default", Some("box")));
    assert_eq!(
        w.err(create(3, "team", Some("box"))).reason,
        Reason::Conflict
    );
    let job = w.submit(1, within("team", array(1)));
    let sight = |only: &[&str], within: Option<&str>| Sight {
        only: (!only.is_empty()).then(|| only.iter().map(|n| name(n)).collect()),
        within: within.map(name),
    };
    let sandbox = |text: &str, s: &Sight| {
        let found = w.state.find_sandbox(text, s);
        found.map(|b| b.id).map_err(|why| (why.reason, why.message))
    };
    assert_eq!(sandbox("box", &sight(&["team"], None)), Ok(sandbox_id(1)));
    assert_eq!(
        sandbox("box", &sight(&["default"], None)),
        Ok(sandbox_id(2))
    );
    assert_eq!(sandbox("box", &sight(&[], Some("team"))), Ok(sandbox_id(1)));
    let (reason, message) = sandbox("box", &Sight::everything()).unwrap_err();
    assert_eq!(reason, Reason::Conflict);
    assert!(message.contains("default and team"), "{message}");
    // By id it is found wherever names are looked up, and only where it is seen.
    let id = sandbox_id(1).to_string();
    assert_eq!(
        sandbox(&id, &sight(&[], Some("default"))),
        Ok(sandbox_id(1))
    );
    let other = sight(&["default"], None);
    let hidden = w.state.find_job(&job.to_string(), &other).unwrap_err();
    let unknown = w
        .state
        .find_job(&job_id(77).to_string(), &other)
        .unwrap_err();
    let text = |why: &Rejection, id: JobId| why.message.replace(&id.to_string(), "ID");
    assert_eq!(text(&hidden, job), text(&unknown, job_id(77)));
    // No hint tells a name of another namespace.
    let near = w.state.find_job("jop", &other).unwrap_err();
    assert!(!near.message.contains("did you mean"), "{}", near.message);
    assert!(w.state.find_job("job", &sight(&["team"], None)).is_ok());
    assert!(
        w.state
            .find_job("job", &sight(&[], Some("default")))
            .is_err()
    );
    let hidden = w.state.find_namespace("team", &other).unwrap_err();
    let unknown = w.state.find_namespace("nope", &other).unwrap_err();
    assert_eq!(
        hidden.message.replace("team", "X"),
        unknown.message.replace("nope", "X")
    );
}

#[test]
fn a_job_waits_for_jobs_of_its_own_namespace_only() {
    let mut w = World::new(1, 8);
    w.ok(namespace("team", Quota::default()));
    let other = w.submit(1, array(1));
    for text in ["job".to_owned(), other.to_string()] {
        let after = prism_spec::JobSpec {
            after: vec![text],
            ..within("team", array(1))
        };
        let why = w.err(submission(2, after));
        assert_eq!(why.reason, Reason::NotFound);
        assert!(!why.message.contains("did you mean"), "{}", why.message);
    }
    w.check();
}

fn token(n: u64, role: Role, scope: Scope, by: Option<TokenId>, expires: Option<u64>) -> Command {
    Command::CreateToken {
        id: token_id(n),
        name: format!("t{n}"),
        role,
        scope: Box::new(scope),
        by,
        hash: [u8::try_from(n).unwrap(); 32],
        expires: expires.map(TimeMs),
    }
}

fn token_id(n: u64) -> TokenId {
    TokenId::new(n, 5)
}

fn only(namespace: &str) -> Scope {
    Scope {
        namespaces: Some(BTreeSet::from([name(namespace)])),
        ..Scope::default()
    }
}

#[test]
fn a_token_gives_no_right_that_its_maker_has_not() {
    let mut w = World::new(1, 8);
    w.ok(namespace("team", Quota::default()));
    w.ok(token(1, Role::Admin, Scope::default(), None, None));
    w.ok(token(
        2,
        Role::Admin,
        only("team"),
        Some(token_id(1)),
        Some(9_000_000),
    ));
    w.ok(token(
        3,
        Role::Operator,
        Scope::default(),
        Some(token_id(1)),
        None,
    ));
    let by = |n| Some(token_id(n));
    let soon = Some(8_000_000);
    w.ok(token(4, Role::Admin, only("team"), by(2), soon));
    for (what, command) in [
        (
            "all namespaces",
            token(9, Role::Viewer, Scope::default(), by(2), soon),
        ),
        (
            "another",
            token(9, Role::Viewer, only("default"), by(2), soon),
        ),
        (
            "for ever",
            token(9, Role::Viewer, only("team"), by(2), None),
        ),
        (
            "longer",
            token(9, Role::Viewer, only("team"), by(2), Some(9_000_001)),
        ),
        (
            "no administrator",
            token(9, Role::Viewer, Scope::default(), by(3), None),
        ),
        (
            "nobody",
            token(9, Role::Viewer, Scope::default(), by(7), None),
        ),
    ] {
        assert_eq!(w.err(command).reason, Reason::Forbidden, "{what}");
    }
    let nowhere = token(9, Role::Viewer, only("nowhere"), by(1), None);
    assert_eq!(w.err(nowhere).reason, Reason::NotFound);
    let remove = Command::RemoveNamespace { name: name("team") };
    let why = w.err(remove);
    assert!(why.message.contains("2 tokens"), "{}", why.message);
    w.now = TimeMs(9_000_000);
    let late = token(9, Role::Viewer, only("team"), by(2), Some(8_999_999));
    assert_eq!(w.err(late).reason, Reason::Forbidden);
    w.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is placed, ended, given back or cancelled, and in whichever order: usage is what a count finds, and never more
    /// than the quota.
    #[test]
    fn usage_stays_within_the_quota_and_is_what_a_count_finds(
        steps in proptest::collection::vec((0u8..7, 0u32..3, 0u32..24), 1..120),
        quota in (1u32..6, 1u32..5),
    ) {
        let mut w = World::new(3, 6);
        let quota = Quota {
            cpu: Some(MilliCpu(quota.0 * 1000)),
            instances: Some(quota.1),
            sandboxes: Some(2),
            ..Quota::default()
        };
        w.ok(namespace("team", quota));
        let jobs = [w.submit(1, within("team", array(24))), w.submit(2, within("team", array(24)))];
        let mut made = 0;
        for (what, node, n) in steps {
            let job = jobs[(n % 2) as usize];
            match what {
                0 | 1 => { w.place(job, node, n / 2..n / 2 + 3); }
                2 => {
                    let placed = w.task(job, n);
                    if let Some(on) = placed.node.filter(|_| placed.state == TaskState::Assigned) {
                        let task = w.task_ref(job, n);
                        w.ok(Command::Returned { node: on, tasks: vec![task] });
                    }
                }
                3 => { w.finish(job, node, n, success()); }
                4 => {
                    made += 1;
                    let _full = w.run(create(made, "team", None));
                }
                5 => if made > 0 { place_sandbox(&mut w, made); },
                _ => if made > 0 {
                    let id = sandbox_id(1 + u64::from(n) % made);
                    let _over = w.run(Command::DeleteSandbox { id });
                    w.ok(Command::SandboxReport { node: node_id(0), id, status: SandboxStatus::Gone });
                },
            }
            let used = w.state.usage(&name("team"));
            prop_assert!(!quota.is_exceeded(&used), "{used:?}");
            prop_assert!(used.sandboxes <= 2);
            w.check();
        }
    }
}
