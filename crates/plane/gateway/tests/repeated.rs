//! Requests that are sent again under their idempotency key, when what they did is no longer so: they are answered as they were, or
//! that they were carried out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod harness;

use harness::{Answer, Request, Server, bare, config};
use prism_api::Role;
use prism_state::{
    Command, Join, JoinTokenRecord, MemberRole, NodeFacts, Registration, Sight, State,
};
use prism_types::{Millis, NodeId, Resources, TimeMs, TokenId};
use serde_json::json;

async fn send(server: &Server, token: &str, method: &str, path: &str, key: &str) -> Answer {
    let request = Request::new(method, &format!("/api/v1{path}")).token(token);
    server.ask(request.header("idempotency-key", key)).await
}

/// A PUT whose namespace a DELETE removes before the PUT is answered was carried out all the same: it is answered so. Here the
/// answer is given again after the DELETE, which is the same moment of the handler without a race.
#[tokio::test]
async fn a_put_that_a_delete_overtook_says_that_it_was_applied() {
    let server = bare(config()).await;
    let token = server.token(Role::Admin).await;
    let path = "/namespaces/team";
    send(&server, &token, "PUT", path, "put").await.ok();
    send(&server, &token, "DELETE", path, "delete").await.ok();
    let again = send(&server, &token, "PUT", path, "put").await;
    let why = again.json();
    assert_eq!(
        (again.status, &why["outcome"]),
        (404, &json!("applied")),
        "{why}"
    );
    assert!(
        why["message"]
            .as_str()
            .unwrap()
            .contains("removed by another request"),
        "{why}"
    );
    let there = |s: &State| s.find_namespace("team", &Sight::everything()).is_ok();
    assert!(!server.control.read(there).await, "it was not put anew");
    send(&server, &token, "DELETE", path, "delete").await.ok();
    let other = send(&server, &token, "DELETE", path, "other").await;
    other.error(404);
}

const NODE: NodeId = NodeId(prism_types::Id(7));

async fn register(server: &Server) {
    let registration = Registration {
        id: NODE,
        name: "w7".parse().unwrap(),
        labels: Default::default(),
        capacity: Resources::default(),
        allow_plain: false,
        facts: NodeFacts::default(),
    };
    let command = Command::RegisterNode(registration);
    server.control.propose(command, None).await.unwrap();
}

async fn become_member(server: &Server, n: u128) {
    let token = TokenId::new(1, n);
    let record = JoinTokenRecord {
        id: token,
        hash: [9; 32],
        role: MemberRole::Worker,
        name: None,
        labels: Default::default(),
        from: Vec::new(),
        uses: 1,
        created: TimeMs(0),
        expires: server.control.now().after(Millis(3_600_000)),
    };
    let join = Join {
        token,
        hash: [9; 32],
        node: NODE,
        role: MemberRole::Worker,
        name: "w7".parse().unwrap(),
        key: [7; 32],
        address: "10.1.2.3".parse().unwrap(),
        server: None,
    };
    for command in [Command::CreateJoinToken(record), Command::Join(join)] {
        server.control.propose(command, None).await.unwrap();
    }
}

async fn is_there(server: &Server) -> (bool, bool) {
    let there = |s: &State| (s.node(NODE).is_some(), s.member(NODE).is_some());
    server.control.read(there).await
}

#[tokio::test]
async fn a_node_that_is_removed_twice_under_one_key_is_removed_once() {
    let server = bare(config()).await;
    let token = server.token(Role::Admin).await;
    let by_id = format!("/nodes/{NODE}");
    for (path, member) in [("/nodes/w7", false), (by_id.as_str(), true)] {
        register(&server).await;
        if member {
            become_member(&server, 1).await;
        }
        assert_eq!(is_there(&server).await, (true, member));
        let key = format!("remove-{member}");
        for _ in 0..3 {
            let answer = send(&server, &token, "DELETE", path, &key).await;
            assert_eq!(answer.status, 204, "{}", answer.head);
        }
        assert_eq!(is_there(&server).await, (false, false));
        let other = send(&server, &token, "DELETE", path, "another").await;
        assert_eq!(other.error(404)["reason"], "not_found");
        // Its key is for that request alone.
        let other = send(&server, &token, "DELETE", "/nodes/w8", &key).await;
        assert_eq!(other.error(422)["reason"], "key_reused");
    }
    // It is let in again, and a repetition that comes late leaves it alone.
    let allow = Command::Allow {
        whom: prism_state::Whom::Node(NODE),
    };
    server.control.propose(allow, None).await.unwrap();
    become_member(&server, 2).await;
    register(&server).await;
    send(&server, &token, "DELETE", &by_id, "remove-true")
        .await
        .ok();
    assert_eq!(is_there(&server).await, (true, true));
}

/// The server ended between the two steps: a repetition does the second.
#[tokio::test]
async fn a_removal_that_was_cut_short_is_finished_by_its_repetition() {
    let server = bare(config()).await;
    let token = server.token(Role::Admin).await;
    become_member(&server, 1).await;
    // Of a member that never came only the second step is done.
    for _ in 0..2 {
        send(&server, &token, "DELETE", "/nodes/w7", "cut")
            .await
            .ok();
        assert_eq!(is_there(&server).await, (false, false));
    }
}
