//! Plans: accepted as they are, fair, within capacity, and every job comes to its end under them.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

#[path = "../../state/tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::*;
use prism_scheduler::*;
use prism_state::*;
use prism_types::*;
use proptest::prelude::*;

type Views = BTreeMap<NodeId, NodeView>;

fn views(nodes: u32, credits: u32) -> Views {
    let view = NodeView {
        credits,
        ..NodeView::default()
    };
    (0..nodes).map(|n| (node_id(n), view)).collect()
}

/// Plans and carries out; every part of a fresh plan is accepted.
#[track_caller]
fn round(w: &mut World, views: &Views) -> (u32, Plan) {
    let plan = plan(&w.state, views, &Config::default());
    let reply = w.ok(Command::Assign(plan.clone()));
    match reply {
        Reply::Assigned { accepted, dropped } => {
            assert_eq!(dropped, 0, "{plan:?}");
            for p in &plan.placements {
                let job = w.job(p.job);
                let no = w.state.node(p.node).unwrap().record().no;
                assert_eq!(job.lanes_on(no), p.lanes, "{p:?}");
            }
            w.check();
            (accepted, plan)
        }
        other => panic!("{other:?}"),
    }
}

/// Every lane of every node ends one task.
fn end_one_per_lane(w: &mut World, nodes: u32, report: &RunReport) {
    for n in 0..nodes {
        let mut results = Vec::new();
        for job in w.state.desired_for(node_id(n)).jobs {
            for t in job.tasks.iter().take(job.lanes as usize) {
                let task = TaskRef {
                    job: job.job,
                    index: t.index,
                    attempt: t.attempt,
                };
                results.push(result(task, report.clone(), None));
            }
        }
        w.ok(Command::Finished {
            node: node_id(n),
            results,
        });
    }
}

fn lanes(w: &World, job: JobId) -> u32 {
    w.job(job).lanes_total()
}

#[test]
fn a_job_fills_every_node_and_sends_some_tasks_ahead() {
    let mut w = World::new(3, 2);
    let job = w.submit(1, array(1000));
    let (accepted, plan) = round(&mut w, &views(3, 10));
    assert_eq!(lanes(&w, job), 12);
    assert_eq!(plan.placements.len(), 3);
    assert_eq!(accepted, 12 + 30);
    assert!(
        plan_is_empty(&w, &views(3, 10)),
        "nothing more until something ends"
    );
}

fn plan_is_empty(w: &World, views: &Views) -> bool {
    plan(&w.state, views, &Config::default()).is_empty()
}

#[test]
fn the_last_tasks_are_spread_evenly() {
    let mut w = World::new(4, 1);
    w.submit(1, array(16));
    round(&mut w, &views(4, 1000));
    let placed: Vec<u32> = w.state.nodes().map(Node::tasks).collect();
    assert_eq!(
        placed,
        [3, 3, 3, 3],
        "2 lanes each, and half of what is left of its part"
    );
}

#[test]
fn higher_priority_goes_first_and_gets_room_as_tasks_end() {
    let mut w = World::new(1, 2);
    let low = w.submit(1, array(100));
    round(&mut w, &views(1, 0));
    assert_eq!(lanes(&w, low), 4);
    let mut s = array(100);
    s.priority = 10;
    let high = w.submit(2, s);
    assert!(plan_is_empty(&w, &views(1, 0)), "the low one is not fed");
    end_one_per_lane(&mut w, 1, &success());
    round(&mut w, &views(1, 0));
    assert_eq!((lanes(&w, low), lanes(&w, high)), (0, 4));
}

#[test]
fn equal_jobs_share_evenly() {
    let mut w = World::new(2, 2);
    let a = w.submit(1, array(100));
    round(&mut w, &views(2, 4));
    assert_eq!(lanes(&w, a), 8);
    let b = w.submit(2, array(100));
    for _ in 0..4 {
        end_one_per_lane(&mut w, 2, &success());
        round(&mut w, &views(2, 4));
    }
    assert_eq!((lanes(&w, a), lanes(&w, b)), (4, 4));
    w.ok(Command::PauseJob { id: b });
    for _ in 0..4 {
        end_one_per_lane(&mut w, 2, &success());
        round(&mut w, &views(2, 4));
    }
    assert_eq!((lanes(&w, a), lanes(&w, b)), (8, 0), "room never idles");
}

#[test]
fn a_large_task_is_not_starved_by_younger_small_ones() {
    let mut w = World::new(1, 2);
    let mut s = array(2);
    s.resources = cores(2000, 256);
    let hog = w.submit(1, array(4));
    round(&mut w, &views(1, 0));
    let large = w.submit(2, s);
    let small = w.submit(3, array(1000));
    assert_eq!(lanes(&w, hog), 4);
    let mut rounds = 0;
    while !w.job_state(large).is_final() {
        rounds += 1;
        assert!(rounds < 20, "it starves");
        end_one_per_lane(&mut w, 1, &success());
        round(&mut w, &views(1, 0));
    }
    assert_eq!(w.job(small).counts().of(TaskState::Completed), 0);
}

#[test]
fn a_job_that_fits_nowhere_holds_nobody_up() {
    let mut w = World::new(2, 2);
    let mut s = array(2);
    s.resources = cores(64_000, 256);
    s.priority = 100;
    let huge = w.submit(1, s);
    let job = w.submit(2, array(10));
    round(&mut w, &views(2, 0));
    assert_eq!((lanes(&w, huge), lanes(&w, job)), (0, 8));
    let why = explain_job(&w.state, &views(2, 0), &Config::default(), w.job(huge));
    assert_eq!(
        why.sentence,
        "2 tasks wait; each needs 64 cpu, 256Mi memory: n0 has only 2 cpu in all, n1 has only 2 cpu in all"
    );
}

#[test]
fn nodes_are_filtered_and_the_best_is_chosen() {
    let mut w = World::new(6, 1);
    w.ok(Command::Cordon {
        id: node_id(0),
        on: true,
    });
    w.ok(Command::SetNodeState {
        id: node_id(1),
        state: NodeState::Suspect,
    });
    let mut v = views(6, 0);
    v.get_mut(&node_id(2)).unwrap().pressure = true;
    v.get_mut(&node_id(5)).unwrap().behind = true;
    v.get_mut(&node_id(3)).unwrap().reliability = 0.5;
    let mut s = array(1);
    s.concurrency = Some(1);
    let job = w.submit(1, s);
    let why = explain_job(&w.state, &v, &Config::default(), w.job(job));
    let verdicts: Vec<String> = why
        .nodes
        .iter()
        .map(|n| match &n.verdict {
            Verdict::Dropped(why) => why.clone(),
            Verdict::Fits(score) => format!("{:.2}", score.total()),
        })
        .collect();
    assert_eq!(
        verdicts,
        [
            "cordoned",
            "suspect",
            "under memory or disk pressure",
            "2.31",
            "0.31",
            "behind with what was sent to it"
        ]
    );
    let (_, plan) = round(&mut w, &v);
    assert_eq!(plan.placements[0].node, node_id(4));
}

#[test]
fn what_a_bound_cut_off_is_placed_by_the_plans_that_follow() {
    let config = Config::default();
    let mut w = World::new(1, 1_000);
    let jobs = config.jobs_max * 2 + 10;
    for n in 0..u64::try_from(jobs).unwrap() {
        w.submit(n + 1, array(1));
    }
    let v = views(1, 0);
    for (placed, cut) in [(256, true), (256, true), (10, false)] {
        let before = w.state.clone();
        let (accepted, plan) = round(&mut w, &v);
        assert_eq!((accepted, is_cut(&before, &plan, &config)), (placed, cut));
    }
    // With no room left, more plans are not to be asked for.
    for n in 1_000..1_600 {
        w.submit(n, array(1));
    }
    let before = w.state.clone();
    let (accepted, plan) = round(&mut w, &v);
    assert_eq!(accepted, 256);
    assert!(is_cut(&before, &plan, &config));
    w.submit(1_999, array(5_000));
    while !plan_is_empty(&w, &v) {
        round(&mut w, &v);
    }
    for n in 2_000..2_300 {
        w.submit(n, array(1));
    }
    // Enough to be cut, and no room for any: nobody is to plan again and again for that.
    let last = prism_scheduler::plan(&w.state, &v, &config);
    assert!(!is_cut(&w.state, &last, &config));
}

#[test]
fn sandboxes_find_room_and_say_why_not() {
    let mut w = World::new(2, 2);
    for n in 1..=6 {
        w.ok(Command::CreateSandbox {
            id: sandbox_id(n),
            spec: Arc::new(sandbox_spec(None)),
        });
    }
    let (accepted, _) = round(&mut w, &views(2, 0));
    assert_eq!(accepted, 4);
    let waiting = w.state.sandboxes_pending().next().unwrap();
    let why = explain_sandbox(&w.state, &views(2, 0), &Config::default(), waiting);
    assert_eq!(
        why.sentence,
        "needs 1 cpu, 512Mi memory: n0 has 0 cpu free, n1 has 0 cpu free"
    );
    let job = w.submit(1, array(1));
    let why = explain_job(&w.state, &Views::new(), &Config::default(), w.job(job));
    assert!(
        why.sentence.ends_with("n0 not connected, n1 not connected"),
        "{}",
        why.sentence
    );
}

/// A job of the random pool: tasks, cores in halves, priority, concurrency, retries.
type Wish = (u32, u32, i32, Option<u32>, u32);

fn wish() -> impl Strategy<Value = Wish> {
    let limit = prop::option::of(1u32..6);
    (1u32..60, 1u32..5, -1i32..2, limit, 0u32..3)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 128,
        failure_persistence: Some(Box::new(
            proptest::test_runner::FileFailurePersistence::WithSource("seeds"),
        )),
        ..ProptestConfig::default()
    })]

    /// Whatever is asked for, each fresh plan is accepted whole and commits no node beyond its capacity (`round` checks
    /// both), and every job ends while nodes live.
    #[test]
    fn every_job_ends(
        wishes in prop::collection::vec(wish(), 1..8),
        nodes in 1u32..5,
        credits in 0u32..40,
        faults in prop::collection::vec((0u8..6, 0u32..5), 0..30),
    ) {
        let mut w = World::new(nodes, 2);
        let v = views(nodes, credits);
        for (n, (count, halves, priority, concurrency, retries)) in (1u64..).zip(&wishes) {
            let mut spec = array(*count);
            spec.resources = cores(halves * 500, 128);
            spec.priority = *priority;
            spec.concurrency = *concurrency;
            spec.retries = *retries;
            w.submit(n, spec);
        }
        let mut faults = faults.into_iter();
        for _ in 0..600 {
            if w.state.jobs().all(|j| j.record().state.is_final()) {
                return Ok(());
            }
            w.pass(30_000);
            round(&mut w, &v);
            let mut report = success();
            if let Some((kind, n)) = faults.next() {
                let id = node_id(n % nodes);
                match kind {
                    0 => { w.ok(Command::SetNodeState { id, state: NodeState::Offline }); }
                    // One that was given up is back only with a greeting.
                    1 if w.state.node(id).is_some_and(|n| n.record().state != NodeState::Offline) => {
                        w.ok(Command::SetNodeState { id, state: NodeState::Suspect });
                    }
                    2 => report = exit(1),
                    3 => report = ended_by(StopCause::Lost),
                    _ => {}
                }
            } else {
                for n in 0..nodes {
                    w.ok(Command::RegisterNode(registration(n, 2)));
                }
            }
            end_one_per_lane(&mut w, nodes, &report);
        }
        prop_assert!(false, "some job never ends");
    }
}

fn quota(millis: Option<u32>, instances: Option<u32>) -> Quota {
    Quota {
        cpu: millis.map(MilliCpu),
        instances,
        ..Quota::default()
    }
}

fn sentence(w: &World, views: &Views, id: JobId) -> String {
    explain_job(&w.state, views, &Config::default(), w.job(id)).sentence
}

#[test]
fn a_quota_bounds_a_namespace_and_leaves_the_rest_to_others() {
    let mut w = World::new(2, 2);
    let views = views(2, 4);
    w.ok(namespace("team", quota(Some(1500), None)));
    let bound = w.submit(1, within("team", array(100)));
    let second = w.submit(2, within("team", array(100)));
    let free = w.submit(3, array(100));
    round(&mut w, &views);
    assert_eq!(
        (lanes(&w, bound) + lanes(&w, second), lanes(&w, free)),
        (3, 5)
    );
    for _ in 0..3 {
        end_one_per_lane(&mut w, 2, &success());
        round(&mut w, &views);
        assert_eq!(
            (lanes(&w, bound) + lanes(&w, second), lanes(&w, free)),
            (3, 5)
        );
    }
    let said = sentence(&w, &views, bound);
    assert!(
        said.contains("tasks wait: quota of namespace team: cpu 1500m of 1500m in use")
            || said.contains("cpu 1.5 of 1.5 in use"),
        "{said}"
    );
    assert!(!sentence(&w, &views, free).contains("quota"));
    w.ok(namespace("team", quota(None, Some(3))));
    let said = sentence(&w, &views, second);
    assert!(said.contains("instances 3 of 3 in use"), "{said}");
}

#[test]
fn thousands_that_wait_for_their_quota_take_no_turn_of_others() {
    let mut w = World::new(1, 8);
    w.ok(namespace("team", quota(Some(500), None)));
    for n in 1..=5_000 {
        w.ok(submission(n, within("team", array(2))));
    }
    let free = w.submit(6_000, array(4));
    let plan = plan(&w.state, &views(1, 0), &Config::default());
    let placed: Vec<JobId> = plan.placements.iter().map(|p| p.job).collect();
    assert_eq!(
        placed.iter().filter(|id| **id == free).count(),
        1,
        "{placed:?}"
    );
    w.ok(Command::Assign(plan));
    assert_eq!(lanes(&w, free), 4);
    assert_eq!(w.state.usage(&name("team")).instances, 1);
}

#[test]
fn a_lowered_quota_is_reached_as_tasks_end_and_stops_nothing() {
    let mut w = World::new(1, 4);
    let views = views(1, 8);
    w.ok(namespace("team", Quota::default()));
    let job = w.submit(1, within("team", array(200)));
    round(&mut w, &views);
    assert_eq!(lanes(&w, job), 8);
    w.ok(namespace("team", quota(Some(1000), None)));
    round(&mut w, &views);
    assert_eq!(lanes(&w, job), 8, "what runs goes on");
    for _ in 0..6 {
        end_one_per_lane(&mut w, 1, &success());
        round(&mut w, &views);
    }
    assert_eq!(lanes(&w, job), 2);
}

#[test]
fn within_a_quota_the_higher_priority_gets_what_comes_free() {
    let mut w = World::new(1, 8);
    let views = views(1, 4);
    w.ok(namespace("team", quota(Some(1000), None)));
    let low = w.submit(1, within("team", array(50)));
    round(&mut w, &views);
    let mut s = within("team", array(4));
    s.priority = 5;
    let high = w.submit(2, s);
    for _ in 0..6 {
        round(&mut w, &views);
        end_one_per_lane(&mut w, 1, &success());
    }
    assert_eq!(w.job_state(high), JobState::Completed);
    for _ in 0..60 {
        round(&mut w, &views);
        end_one_per_lane(&mut w, 1, &success());
    }
    assert_eq!(w.job_state(low), JobState::Completed);
}

#[test]
fn sandboxes_wait_for_their_quota_and_hold_nobody_up() {
    let mut w = World::new(1, 8);
    w.ok(namespace("team", quota(Some(1000), None)));
    let create = |n, space: &str| Command::CreateSandbox {
        id: sandbox_id(n),
        spec: Arc::new(prism_spec::SandboxSpec {
            namespace: name(space),
            ..sandbox_spec(None)
        }),
    };
    for n in 1..=20 {
        w.ok(create(n, "team"));
    }
    w.ok(create(30, "default"));
    let (_, plan) = round(&mut w, &views(1, 0));
    let placed: Vec<SandboxId> = plan.sandboxes.iter().map(|(id, _)| *id).collect();
    assert_eq!(placed, [sandbox_id(1), sandbox_id(30)]);
    let waits = w.state.sandbox(sandbox_id(2)).unwrap();
    let said = explain_sandbox(&w.state, &views(1, 0), &Config::default(), waits).sentence;
    assert!(
        said.contains("quota of namespace team: cpu 1 of 1 in use"),
        "{said}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Jobs of three namespaces, of which two are limited, with any priorities: every plan is accepted as it is, no quota is
    /// exceeded, and every job comes to its end.
    #[test]
    fn every_job_ends_under_quotas(
        jobs in proptest::collection::vec((0usize..3, 1u32..12, 0i32..3, 1u32..4), 1..12),
        (a, b) in (1u32..5, 1u32..4),
        credits in 0u32..5,
    ) {
        let spaces = ["default", "a", "b"];
        let limits = [Quota::default(), quota(Some(a * 1500), None), quota(None, Some(b))];
        let mut w = World::new(2, 4);
        for (space, limit) in spaces.iter().zip(limits) {
            w.ok(namespace(space, limit));
        }
        let mut all = Vec::new();
        for (n, (space, tasks, priority, halves)) in (1u64..).zip(jobs) {
            let mut s = within(spaces[space], array(tasks));
            s.priority = priority;
            s.resources = cores(halves * 500, 64);
            all.push(w.submit(n, s));
        }
        let views = views(2, credits);
        for _ in 0..400 {
            round(&mut w, &views);
            for (space, limit) in spaces.iter().zip(limits) {
                let used = w.state.usage(&name(space));
                prop_assert!(!limit.is_exceeded(&used), "{space}: {used:?}");
            }
            end_one_per_lane(&mut w, 2, &success());
            if all.iter().all(|id| w.job_state(*id).is_final()) {
                break;
            }
        }
        for id in &all {
            prop_assert_eq!(w.job_state(*id), JobState::Completed);
        }
    }
}
