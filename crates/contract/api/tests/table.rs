//! The table as the guard: what some rows say, written down a second time, and that more rights never open less.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

use std::collections::BTreeSet;

use prism_api::{Access, Denied, Op, ROUTES, Reach, Role, Route};
use prism_types::{Name, Noun, Scope, Verb};
use proptest::prelude::*;

#[test]
fn every_operation_has_one_row_and_every_path_and_method_one_operation() {
    for op in Op::ALL {
        let rows = ROUTES.iter().filter(|r| r.op == *op).count();
        assert_eq!(rows, 1, "{}", op.name());
    }
    let places: BTreeSet<_> = ROUTES.iter().map(|r| (r.path, r.method)).collect();
    assert_eq!(places.len(), ROUTES.len());
}

#[rustfmt::skip]
const ROWS: &[(Op, Noun, Verb, Role, Reach)] = &[
    (Op::JobSubmit, Noun::Jobs, Verb::Create, Role::Submitter, Reach::Namespaced),
    (Op::JobList, Noun::Jobs, Verb::Read, Role::Viewer, Reach::Namespaced),
    (Op::JobCancel, Noun::Jobs, Verb::Change, Role::Submitter, Reach::Namespaced),
    (Op::JobLogs, Noun::Jobs, Verb::Read, Role::Viewer, Reach::Namespaced),
    (Op::SweepGet, Noun::Sweeps, Verb::Read, Role::Viewer, Reach::Namespaced),
    (Op::SandboxDelete, Noun::Sandboxes, Verb::Delete, Role::Submitter, Reach::Namespaced),
    (Op::ExecStart, Noun::Sandboxes, Verb::Change, Role::Submitter, Reach::Namespaced),
    (Op::FileGet, Noun::Sandboxes, Verb::Read, Role::Submitter, Reach::Namespaced),
    (Op::FileDelete, Noun::Sandboxes, Verb::Change, Role::Submitter, Reach::Namespaced),
    (Op::NodeList, Noun::Nodes, Verb::Read, Role::Viewer, Reach::Shared),
    (Op::NodeDrain, Noun::Nodes, Verb::Change, Role::Operator, Reach::Cluster),
    (Op::NodeCordon, Noun::Nodes, Verb::Change, Role::Operator, Reach::Cluster),
    (Op::NodeRemove, Noun::Nodes, Verb::Delete, Role::Admin, Reach::Cluster),
    (Op::TokenCreate, Noun::Tokens, Verb::Create, Role::Admin, Reach::Namespaced),
    (Op::TokenRevoke, Noun::Tokens, Verb::Delete, Role::Admin, Reach::Namespaced),
    (Op::CaGet, Noun::Members, Verb::Read, Role::Admin, Reach::Cluster),
    (Op::CaDeny, Noun::Members, Verb::Change, Role::Admin, Reach::Cluster),
    (Op::CaIssue, Noun::Tokens, Verb::Create, Role::Admin, Reach::Namespaced),
    (Op::CaRotate, Noun::Members, Verb::Change, Role::Admin, Reach::Cluster),
    (Op::JoinTokenCreate, Noun::JoinTokens, Verb::Create, Role::Admin, Reach::Cluster),
    (Op::NamespaceList, Noun::Namespaces, Verb::Read, Role::Viewer, Reach::Namespaced),
    (Op::NamespacePut, Noun::Namespaces, Verb::Change, Role::Admin, Reach::Cluster),
    (Op::NamespaceRemove, Noun::Namespaces, Verb::Delete, Role::Admin, Reach::Cluster),
    (Op::EventList, Noun::Events, Verb::Read, Role::Viewer, Reach::Namespaced),
    (Op::EventVerify, Noun::Events, Verb::Read, Role::Admin, Reach::Cluster),
    (Op::Explain, Noun::Explain, Verb::Read, Role::Viewer, Reach::Namespaced),
    (Op::ImageLoad, Noun::Images, Verb::Create, Role::Operator, Reach::Cluster),
    (Op::ImageList, Noun::Images, Verb::Read, Role::Viewer, Reach::Shared),
];

#[test]
fn rows_say_what_they_are_meant_to() {
    for (op, noun, verb, role, reach) in ROWS.iter().copied() {
        let r = Route::of(op);
        let said = (r.noun, r.verb, r.access, r.reach);
        assert_eq!(
            said,
            (noun, verb, Access::Token(role), reach),
            "{}",
            op.name()
        );
    }
    let open: Vec<&str> = ROUTES
        .iter()
        .filter(|r| r.access == Access::Open)
        .map(|r| r.op.name())
        .collect();
    assert_eq!(open, ["Health", "Metrics", "OpenApi", "OpenApiVersioned"]);
    // Whatever changes the machines or the cluster is nothing for a token of some namespaces.
    for r in ROUTES.iter().filter(|r| r.changes()) {
        assert_ne!(r.reach, Reach::Shared, "{}", r.op.name());
    }
}

fn scope() -> impl Strategy<Value = Scope> {
    let names: Vec<Name> = ["a", "b"].iter().map(|n| n.parse().unwrap()).collect();
    let names = proptest::option::of(proptest::sample::subsequence(names, 0..=2));
    let nouns = proptest::option::of(proptest::sample::subsequence(Noun::ALL.to_vec(), 0..=4));
    let verbs = proptest::option::of(proptest::sample::subsequence(Verb::ALL.to_vec(), 0..=3));
    (names, nouns, verbs).prop_map(|(names, nouns, verbs)| Scope {
        namespaces: names.map(|all| all.into_iter().collect()),
        nouns: nouns.map(|all| all.into_iter().collect()),
        verbs: verbs.map(|all| all.into_iter().collect()),
    })
}

/// What both scopes are for.
fn meet(a: &Scope, b: &Scope) -> Scope {
    Scope {
        namespaces: common(&a.namespaces, &b.namespaces),
        nouns: common(&a.nouns, &b.nouns),
        verbs: common(&a.verbs, &b.verbs),
    }
}

fn common<T: Ord + Clone>(a: &Option<BTreeSet<T>>, b: &Option<BTreeSet<T>>) -> Option<BTreeSet<T>> {
    match (a, b) {
        (None, other) | (other, None) => other.clone(),
        (Some(a), Some(b)) => Some(a.intersection(b).cloned().collect()),
    }
}

fn role() -> impl Strategy<Value = Role> {
    proptest::sample::select(Role::ALL.to_vec())
}

proptest! {
    #[test]
    fn a_larger_role_and_a_scope_that_covers_open_whatever_the_smaller_do(
        (small, large) in (scope(), scope()),
        (low, high) in (role(), role()),
    ) {
        let small = meet(&small, &large);
        prop_assert!(large.covers(&small));
        let (low, high) = (low.min(high), low.max(high));
        for route in ROUTES {
            if route.admits(low, &small).is_ok() {
                prop_assert_eq!(route.admits(high, &large), Ok(()), "{}", route.op.name());
            }
        }
    }

    #[test]
    fn a_route_is_open_exactly_when_role_noun_verb_and_reach_allow_it(scope in scope(), role in role()) {
        for route in ROUTES {
            let Access::Token(needed) = route.access else {
                prop_assert_eq!(route.admits(role, &scope), Ok(()));
                continue;
            };
            let named = scope.nouns.as_ref().is_none_or(|all| all.contains(&route.noun))
                && scope.verbs.as_ref().is_none_or(|all| all.contains(&route.verb));
            let wide = route.reach != Reach::Cluster || scope.namespaces.is_none();
            let wanted = match () {
                () if role < needed => Err(Denied::Role(needed)),
                () if !named => Err(Denied::Scope),
                () if !wide => Err(Denied::Namespaces),
                () => Ok(()),
            };
            prop_assert_eq!(route.admits(role, &scope), wanted);
        }
    }
}
