//! Who may do what: every row of the table with every role, every kind of token and every namespace, made from the table itself
//! and held against a real gateway.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod harness;

use std::collections::BTreeSet;

use harness::{Answer, Request, Server, server};
use prism_api::{Access, Method, Op, ROUTES, Reach, Role, Route};
use prism_state::Command;
use prism_types::{Millis, Noun, Scope, Verb};
use serde_json::{Value, json};

/// Names that are nowhere but in the namespace `amber`.
const MARK: &str = "zebra";

/// Where a token is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Good {
    Own,
    Other,
    All,
}

impl Good {
    const EACH: [Self; 3] = [Self::Own, Self::Other, Self::All];

    fn scope(self) -> Scope {
        let name = match self {
            Self::Own => "amber",
            Self::Other => "birch",
            Self::All => return Scope::default(),
        };
        Scope {
            namespaces: Some(BTreeSet::from([name.parse().unwrap()])),
            ..Scope::default()
        }
    }
}

/// A server with one of everything in the namespace `amber`, and nothing in `birch`.
struct World {
    server: Server,
    admin: String,
    job: String,
    sweep: String,
    sandbox: String,
}

async fn world() -> World {
    let server = server().await;
    server.namespace("amber").await;
    server.namespace("birch").await;
    let admin = server.token(Role::Admin).await;
    let make = |path: &str, body: Value| {
        let request = Request::post(path, body.to_string()).token(&admin);
        let server = &server;
        async move {
            let made = server.ask(request).await.ok().json();
            made["id"].as_str().unwrap().to_owned()
        }
    };
    let job = json!({"job": MARK, "namespace": "amber", "command": ["x"], "array": 3});
    let job = make("/api/v1/jobs", job).await;
    let sweep = json!({"sweep": MARK, "namespace": "amber", "command": ["x"],
        "space": {"x": [1, 2]}});
    let sweep = make("/api/v1/sweeps", sweep).await;
    let sandbox = make(
        "/api/v1/sandboxes",
        json!({"name": MARK, "namespace": "amber"}),
    )
    .await;
    World {
        server,
        admin,
        job,
        sweep,
        sandbox,
    }
}

impl World {
    /// What a route is asked about: a thing of the namespace `amber`, where it is about one.
    async fn subject(&self, route: &Route) -> String {
        match route.noun {
            Noun::Jobs | Noun::Explain => self.job.clone(),
            Noun::Sweeps => self.sweep.clone(),
            Noun::Sandboxes => self.sandbox.clone(),
            Noun::Tokens => {
                let (id, _) = self.server.scoped(Role::Viewer, Good::Own.scope()).await;
                id.to_string()
            }
            Noun::Namespaces => "amber".to_owned(),
            _ => "n1".to_owned(),
        }
    }

    async fn ask(&self, route: &Route, subject: &str, token: &str) -> Answer {
        self.server.ask(request(route, subject).token(token)).await
    }
}

/// A whole request, so that nothing but the right to ask decides.
fn request(route: &Route, subject: &str) -> Request {
    let mut path = route
        .path
        .replace("{id}", subject)
        .replace("{name}", subject)
        .replace("{exec}", "nothing");
    if route.query.iter().any(|p| p.name == "path") {
        path.push_str("?path=x");
    }
    let mut request = Request::new(route.method.as_str(), &path);
    let body = match route.op {
        Op::NodeDrain => json!({"deadline": "none"}),
        Op::SandboxTimeout => json!({"timeout": "1h"}),
        Op::ExecStart => json!({"argv": ["true"]}),
        Op::ExecSignal | Op::SandboxSignal => json!({"signal": "TERM"}),
        Op::ExecResize => json!({"rows": 24, "columns": 80}),
        _ => return request,
    };
    request.body = body.to_string().into_bytes();
    request
}

fn is_about_one(route: &Route) -> bool {
    route.path_params().next().is_some()
}

/// The message of an error, without what was asked about.
fn message(answer: &Answer, subject: &str) -> String {
    let body = answer.json();
    body["message"].as_str().unwrap().replace(subject, "IT")
}

#[tokio::test]
async fn every_route_answers_each_role_in_each_namespace_as_the_table_says() {
    let w = world().await;
    let (mut cells, mut hidden) = (0, 0);
    for route in ROUTES {
        let Access::Token(needed) = route.access else {
            let answer = w.server.ask(request(route, "x")).await;
            assert!(answer.status < 300, "{}", route.path);
            continue;
        };
        for role in Role::ALL {
            for good in Good::EACH {
                let (_, token) = w.server.scoped(*role, good.scope()).await;
                let subject = w.subject(route).await;
                let answer = w.ask(route, &subject, &token).await;
                let cell = format!("{} {role} {good:?}: {}", route.op.name(), answer.status);
                cells += 1;
                if !role.satisfies(needed) {
                    let error = answer.error(403);
                    assert_eq!(error["details"]["needed"], needed.as_str(), "{cell}");
                } else if route.reach == Reach::Cluster && good != Good::All {
                    answer.error(403);
                } else if route.reach == Reach::Namespaced
                    && is_about_one(route)
                    && good == Good::Other
                {
                    hidden += 1;
                    answer.error(404);
                } else {
                    assert!(!matches!(answer.status, 401 | 403), "{cell}");
                    assert!(
                        answer.status < 500 || matches!(answer.status, 501 | 503),
                        "{cell}"
                    );
                    if answer.status == 404 && route.reach == Reach::Namespaced {
                        let said = message(&answer, &subject);
                        assert!(!said.contains("IT"), "{cell}: {said}");
                    }
                }
            }
        }
    }
    assert!(cells > 600 && hidden > 60, "{cells} cells, {hidden} hidden");
}

#[tokio::test]
async fn no_token_an_expired_one_and_a_revoked_one_open_nothing() {
    let w = world().await;
    let soon = w.server.control.now().after(Millis(1));
    let expired = w
        .server
        .token_until(Role::Admin, Scope::default(), Some(soon))
        .await;
    let revoked = w.server.scoped(Role::Admin, Scope::default()).await;
    let revoke = Command::RevokeToken { id: revoked.0 };
    w.server.control.propose(revoke, None).await.unwrap();
    let over = |c: prism_control::Control| async move { c.now() > soon };
    w.server.until(over).await;
    for route in ROUTES.iter().filter(|r| r.access != Access::Open) {
        let subject = w.subject(route).await;
        w.server.ask(request(route, &subject)).await.error(401);
        w.ask(route, &subject, &expired.1).await.error(401);
        w.ask(route, &subject, &revoked.1).await.error(401);
    }
    // None of them did anything.
    let path = format!("/api/v1/sandboxes/{}", w.sandbox);
    let answer = w.server.ask(Request::get(&path).token(&w.admin)).await;
    assert_eq!(answer.ok().json()["status"], "RUNNING");
}

#[tokio::test]
async fn what_is_in_another_namespace_looks_as_what_is_not_there() {
    let w = world().await;
    let (_, token) = w.server.scoped(Role::Admin, Good::Other.scope()).await;
    let mut compared = 0;
    for route in ROUTES {
        if route.reach != Reach::Namespaced || !is_about_one(route) {
            continue;
        }
        let id = w.subject(route).await;
        // By id, by the begin of one, by name, and as a task.
        let mut pairs = vec![(id.clone(), nobody(&id))];
        if route.noun != Noun::Namespaces && route.noun != Noun::Tokens {
            pairs.push((id[..12].to_owned(), nobody(&id)[..12].to_owned()));
            pairs.push((MARK.to_owned(), "zzzzz".to_owned()));
        }
        if route.op == Op::Explain {
            pairs.push((format!("{id}.0"), format!("{}.0", nobody(&id))));
            pairs.push((w.sandbox.clone(), nobody(&w.sandbox)));
        }
        for (there, nowhere) in pairs {
            let hidden = w.ask(route, &there, &token).await;
            let unknown = w.ask(route, &nowhere, &token).await;
            let name = route.op.name();
            hidden.error(404);
            unknown.error(404);
            let texts = (message(&hidden, &there), message(&unknown, &nowhere));
            assert_eq!(texts.0, texts.1, "{name} {there}");
            compared += 1;
        }
    }
    assert!(compared > 80, "{compared}");
}

/// An id or name of the same form that nothing has.
fn nobody(id: &str) -> String {
    if id.len() == 26 {
        format!("{}{}", &id[..25], if id.ends_with('1') { '2' } else { '1' }).replacen(
            &id[..4],
            "01aa",
            1,
        )
    } else {
        "cedar".to_owned()
    }
}

#[tokio::test]
async fn lists_and_events_leave_other_namespaces_out() {
    let w = world().await;
    let exec = format!("/api/v1/sandboxes/{}/exec", w.sandbox);
    let body = json!({"argv": ["true"]}).to_string();
    w.server
        .ask(Request::post(&exec, body).token(&w.admin))
        .await
        .ok();
    let (own, _) = w.server.scoped(Role::Viewer, Good::Own.scope()).await;
    let marks = [
        MARK,
        &w.job,
        &w.sweep,
        &w.sandbox,
        &own.to_string(),
        "\"amber\"",
    ];
    let mut seen = BTreeSet::new();
    for route in ROUTES {
        let lists = route.method == Method::Get && !is_about_one(route);
        if route.access == Access::Open || !lists || route.op == Op::EventVerify {
            continue;
        }
        for good in Good::EACH {
            let (_, token) = w.server.scoped(Role::Admin, good.scope()).await;
            let text = w.ask(route, "x", &token).await;
            if route.reach == Reach::Cluster && good != Good::All {
                continue;
            }
            let text = text.ok().text();
            let found: Vec<_> = marks.iter().filter(|mark| text.contains(**mark)).collect();
            let name = route.op.name();
            match good {
                Good::Other => assert!(found.is_empty(), "{name}: {found:?}"),
                Good::Own | Good::All if !found.is_empty() => {
                    seen.insert(name);
                }
                Good::Own | Good::All => {}
            }
        }
    }
    let lists = [
        "JobList",
        "SweepList",
        "SandboxList",
        "TokenList",
        "EventList",
        "NamespaceList",
    ];
    for name in lists {
        assert!(
            seen.contains(name),
            "{name} shows nothing to anybody: {seen:?}"
        );
    }
    let count = |good: Good| {
        let w = &w;
        async move {
            let (_, token) = w.server.scoped(Role::Viewer, good.scope()).await;
            let ask = Request::get("/api/v1/cluster").token(&token);
            w.server.ask(ask).await.ok().json()["jobs_total"].clone()
        }
    };
    assert_eq!(
        (count(Good::Own).await, count(Good::Other).await),
        (json!(2), json!(0))
    );
}

#[tokio::test]
async fn work_in_a_namespace_that_is_not_the_tokens_is_refused_as_in_one_that_is_none() {
    let w = world().await;
    let (_, token) = w.server.scoped(Role::Submitter, Good::Other.scope()).await;
    let bodies = [
        ("/api/v1/jobs", json!({"job": "a", "command": ["x"]})),
        ("/api/v1/sandboxes", json!({"name": "a"})),
    ];
    for (path, body) in bodies {
        let submit = |namespace: &str| {
            let mut body = body.clone();
            body["namespace"] = json!(namespace);
            let request = Request::post(path, body.to_string()).token(&token);
            let server = &w.server;
            async move { server.ask(request).await }
        };
        let (hidden, unknown) = (submit("amber").await, submit("cedar").await);
        hidden.error(404);
        unknown.error(404);
        assert_eq!(message(&hidden, "amber"), message(&unknown, "cedar"));
        submit("birch").await.ok();
        let near = submit("brich").await.error(404);
        assert!(
            near["message"]
                .as_str()
                .unwrap()
                .contains("did you mean birch")
        );
    }
}

#[tokio::test]
async fn a_token_for_one_noun_and_one_verb_opens_exactly_their_rows() {
    let w = world().await;
    for noun in Noun::ALL {
        for verb in Verb::ALL {
            let scope = Scope {
                nouns: Some(BTreeSet::from([*noun])),
                verbs: Some(BTreeSet::from([*verb])),
                ..Scope::default()
            };
            let (_, token) = w.server.scoped(Role::Admin, scope).await;
            for route in ROUTES.iter().filter(|r| r.access != Access::Open) {
                let open = route.noun == *noun && route.verb == *verb;
                let answer = w.ask(route, "nothing-here", &token).await;
                let cell = format!("{} {noun} {verb}: {}", route.op.name(), answer.status);
                assert_eq!(answer.status != 403, open, "{cell}");
            }
        }
    }
}
