//! The client against a real gateway: typed calls, streams, and what it does when connections are lost.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

#[path = "../../../plane/gateway/tests/harness/mod.rs"]
mod harness;
mod lossy;

use std::time::Duration;

use harness::{Server, server};
use lossy::{Lossy, Rule};
use prism_api::{ExecBody, JobKind, Role, SandboxCreate, Stream, TokenCreate};
use prism_client::{Client, ClientError, EventsQuery, ExecOutput, ListQuery, LogsQuery};
use prism_types::{JobState, Outcome, Reason, SandboxState};

const PATIENCE: Duration = Duration::from_secs(10);

async fn client(server: &Server, role: Role) -> Client {
    let token = server.token(role).await;
    Client::new(
        &format!("http://{}", server.address),
        Some(&token),
        PATIENCE,
    )
    .unwrap()
}

fn boxed(name: &str) -> SandboxCreate {
    SandboxCreate {
        name: Some(name.to_owned()),
        ..SandboxCreate::empty()
    }
}

fn argv(words: &[&str]) -> ExecBody {
    ExecBody::new(words.iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn jobs_are_submitted_listed_and_read() {
    let server = server().await;
    let client = client(&server, Role::Submitter).await;
    let job = client
        .jobs()
        .submit(r#"{"job": "a", "command": ["x"], "array": 5}"#, None)
        .await
        .unwrap();
    assert_eq!(job.kind, JobKind::Array);
    let mut rows = client.jobs().results("a", None, true).await.unwrap();
    let mut count = 0;
    while let Some(row) = rows.next().await.unwrap() {
        assert_eq!(row.index, count);
        count += 1;
    }
    assert_eq!(count, 5);
    let done = client.jobs().get(&job.id.to_string()).await.unwrap();
    assert_eq!((done.status, done.counts.done()), (JobState::Completed, 5));
    let tasks = client
        .jobs()
        .tasks(
            "a",
            &ListQuery {
                limit: Some(2),
                ..ListQuery::default()
            },
        )
        .await
        .unwrap();
    assert_eq!((tasks.items.len(), tasks.next.is_some()), (2, true));
    let logs = client
        .jobs()
        .logs(
            "a",
            &LogsQuery {
                task: Some(3),
                ..LogsQuery::default()
            },
        )
        .await
        .unwrap();
    assert_eq!(logs.offset(), Some(0));
    assert_eq!(logs.all().await.unwrap(), b"output of 3 attempt 1\n");
    for _ in 0..3 {
        client
            .jobs()
            .submit(r#"{"job": "b", "command": ["x"]}"#, None)
            .await
            .unwrap();
    }
    let all = client
        .jobs()
        .all(ListQuery {
            limit: Some(2),
            ..ListQuery::default()
        })
        .await
        .unwrap();
    assert_eq!(all.len(), 4);
}

#[tokio::test]
async fn sweeps_nodes_tokens_and_the_rest_are_typed() {
    let server = server().await;
    let client = client(&server, Role::Admin).await;
    let body = r#"{"sweep": "s", "command": ["x"], "space": {"a": [1, 2]}, "objective": {"minimize": "accuracy"}}"#;
    client.sweeps().submit(body, None).await.unwrap();
    let mut rows = client.jobs().results("s", None, true).await.unwrap();
    while rows.next().await.unwrap().is_some() {}
    let sweep = client.sweeps().get("s").await.unwrap();
    assert_eq!((sweep.completed.len(), sweep.best.unwrap().index), (2, 0));
    assert!(
        client
            .sweeps()
            .results_csv("s")
            .await
            .unwrap()
            .starts_with("index,a,status")
    );
    assert_eq!(
        client
            .sweeps()
            .list(&ListQuery::default())
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    assert_eq!(
        client.nodes().all(ListQuery::default()).await.unwrap()[0].name,
        "n1"
    );
    assert!(client.nodes().cordon("n1").await.unwrap().cordoned);
    assert!(!client.nodes().health("n1").await.unwrap().ready);
    assert_eq!(client.cluster().await.unwrap().nodes.cordoned, 1);
    assert_eq!(client.members().await.unwrap().items.len(), 1);
    assert_eq!(client.resources().await.unwrap().nodes.len(), 1);
    let asked = TokenCreate {
        name: "x".to_owned(),
        role: Role::Viewer,
        namespaces: None,
        resources: None,
        verbs: None,
        expires_in: None,
    };
    let token = client.token_create(&asked).await.unwrap();
    assert_eq!(client.tokens(None).await.unwrap().items.len(), 2);
    client.token_revoke(&token.id.to_string()).await.unwrap();
    assert!(client.health().await.unwrap().ready);
    assert_eq!(client.openapi().await.unwrap()["openapi"], "3.1.0");
    assert_eq!(client.explain("s").await.unwrap().kind, "job");
    assert_eq!(client.images().await.unwrap().items[0].name, "host");
    assert!(
        !client
            .events(&EventsQuery::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

#[tokio::test]
async fn an_error_of_the_server_is_read_whole() {
    let server = server().await;
    let client = client(&server, Role::Viewer).await;
    let error = client.jobs().get("nothing").await.unwrap_err();
    assert_eq!(
        (error.reason(), error.outcome()),
        (Some(Reason::NotFound), Outcome::NotApplied)
    );
    assert!(
        !error.is_retryable() && error.to_string().contains("nothing"),
        "{error}"
    );
    let error = client.jobs().submit("{}", None).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::Forbidden));
}

#[tokio::test]
async fn no_server_is_told_with_what_to_do() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::new(&address, None, PATIENCE).unwrap();
    let error = client.cluster().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }));
    let text = error.to_string();
    assert!(
        text.contains(&address) && text.contains("prismd dev"),
        "{text}"
    );
    for bad in ["https://x", "127.0.0.1:8008", "http://x/y", ""] {
        assert!(
            matches!(
                Client::new(bad, None, PATIENCE),
                Err(ClientError::Address { .. })
            ),
            "{bad}"
        );
    }
    assert!(Client::new(&address, Some("a\nb"), PATIENCE).is_err());
}

#[tokio::test]
async fn a_submission_whose_answer_is_lost_is_repeated_and_done_once() {
    let server = server().await;
    let token = server.token(Role::Submitter).await;
    let lossy = Lossy::start(server.address).await;
    let client = Client::new(&format!("http://{}", lossy.address), Some(&token), PATIENCE).unwrap();
    client.cluster().await.unwrap();
    for rule in [Rule::LoseAnswer, Rule::LoseRequest, Rule::LoseAnswer] {
        lossy.next(rule);
        client
            .jobs()
            .submit(r#"{"job": "once", "command": ["x"]}"#, None)
            .await
            .unwrap();
    }
    let jobs = client.jobs().all(ListQuery::default()).await.unwrap();
    assert_eq!(jobs.len(), 3);
}

#[tokio::test]
async fn a_removal_whose_answer_is_lost_is_repeated_and_was_done() {
    let server = server().await;
    let token = server.token(Role::Admin).await;
    let lossy = Lossy::start(server.address).await;
    let client = Client::new(&format!("http://{}", lossy.address), Some(&token), PATIENCE).unwrap();
    for rule in [Rule::LoseAnswer, Rule::LoseRequest, Rule::LoseAnswer] {
        let quota = prism_api::Quota {
            cpu: None,
            memory: None,
            disk: None,
            instances: Some(7),
            sandboxes: None,
        };
        client.namespace_put("short-lived", &quota).await.unwrap();
        lossy.next(rule);
        // The second try is told what became of the first, not that there is nothing to remove.
        client.namespace_remove("short-lived").await.unwrap();
        let error = client.namespace("short-lived").await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::NotFound));
    }
    // Another request is told so.
    let error = client.namespace_remove("short-lived").await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NotFound));
    assert_eq!(error.outcome(), Outcome::NotApplied);
}

/// A server that takes one request after the other and gives each the next of these answers; without one it hangs up.
async fn scripted(answers: Vec<Option<&'static str>>) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 64 << 10];
            let read = stream.read(&mut request).await.unwrap();
            assert!(read > 0);
            if let Some(answer) = answer {
                let length = answer.len();
                let head = format!(
                    "HTTP/1.1 503 x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    address
}

#[tokio::test]
async fn after_a_try_without_an_answer_no_later_one_says_that_nothing_was_done() {
    const NO: &str = r#"{"code": "PRISM-Q001", "message": "nobody leads", "reason": "not_leader", "retryable": false, "outcome": "not_applied", "request_id": "r", "details": {}}"#;
    let remove = async |answers| {
        let address = scripted(answers).await;
        let client = Client::new(&address, None, Duration::from_secs(2)).unwrap();
        client.namespace_remove("x").await.unwrap_err()
    };
    let error = remove(vec![Some(NO)]).await;
    assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
    let error = remove(vec![None, Some(NO)]).await;
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    let text = error.to_string();
    assert!(text.contains("nobody leads; but an earlier try"), "{text}");
    // The server goes away after the first: "nothing was sent" is true of the last try only.
    let error = remove(vec![None]).await;
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
}

#[tokio::test]
async fn sandboxes_run_programs() {
    let server = server().await;
    let client = client(&server, Role::Submitter).await;
    let made = client
        .sandboxes()
        .create(&boxed("box"), true)
        .await
        .unwrap();
    assert_eq!(made.status, SandboxState::Running);
    let mut stream = client
        .sandboxes()
        .exec_stream("box", &argv(&["say", "out", "err", "4"]))
        .await
        .unwrap();
    let mut seen = Vec::new();
    while let Some(output) = stream.next().await.unwrap() {
        seen.push(output);
    }
    assert!(matches!(&seen[0], ExecOutput::Started(id) if id == stream.id()));
    assert!(seen.contains(&ExecOutput::Data {
        stream: Stream::Stderr,
        offset: 0,
        data: "err".into()
    }));
    assert!(matches!(seen.last(), Some(ExecOutput::Exit(exit)) if exit.code == Some(4)));
    let cat = client
        .sandboxes()
        .exec(
            "box",
            &ExecBody {
                stdin: Some(true),
                ..argv(&["cat"])
            },
        )
        .await
        .unwrap();
    client
        .sandboxes()
        .exec_input("box", &cat.id, "fed", true)
        .await
        .unwrap();
    let over = client
        .sandboxes()
        .exec_get("box", &cat.id, Some(Duration::from_secs(5)))
        .await
        .unwrap();
    assert_eq!(over.exit.unwrap().code, Some(0));
    let output = client
        .sandboxes()
        .exec_output("box", &cat.id, &LogsQuery::default())
        .await
        .unwrap();
    assert_eq!(output.all().await.unwrap(), b"fed");
    assert_eq!(
        client.sandboxes().execs("box").await.unwrap().items.len(),
        2
    );
    client.sandboxes().signal("box", "TERM").await.unwrap();
}

#[tokio::test]
async fn files_and_snapshots_of_a_sandbox() {
    let server = server().await;
    let client = client(&server, Role::Submitter).await;
    client
        .sandboxes()
        .create(&boxed("box"), true)
        .await
        .unwrap();
    let files = client.sandboxes().files("box");
    let content = vec![7u8; 700_000];
    assert_eq!(
        files
            .write("a b/ü.bin", content.clone(), 0o600)
            .await
            .unwrap()
            .bytes,
        700_000
    );
    assert_eq!(
        files.read("a b/ü.bin").await.unwrap().all().await.unwrap(),
        content
    );
    assert_eq!(
        files.stat("a b/ü.bin").await.unwrap().entries[0].size,
        700_000
    );
    assert_eq!(files.list(".").await.unwrap().entries.len(), 1);
    files.mkdir("d").await.unwrap();
    files.remove("a b/ü.bin").await.unwrap();
    let saved = client.sandboxes().snapshot("box").await.unwrap();
    assert_eq!(
        client.sandboxes().snapshots("box").await.unwrap().items,
        [saved]
    );
    client
        .sandboxes()
        .set_timeout("box", Some("1h".to_owned()))
        .await
        .unwrap();
    client.sandboxes().delete("box").await.unwrap();
}

#[tokio::test]
async fn a_lost_exec_stream_goes_on_where_it_stood() {
    let server = server().await;
    let token = server.token(Role::Submitter).await;
    let lossy = Lossy::start(server.address).await;
    let client = Client::new(&format!("http://{}", lossy.address), Some(&token), PATIENCE).unwrap();
    client
        .sandboxes()
        .create(&boxed("box"), true)
        .await
        .unwrap();
    let body = ExecBody {
        stdin: Some(true),
        id: Some("e".to_owned()),
        ..argv(&["cat", "first "])
    };
    let mut stream = client.sandboxes().exec_stream("box", &body).await.unwrap();
    assert!(matches!(
        stream.next().await.unwrap(),
        Some(ExecOutput::Started(_))
    ));
    let mut text = Vec::new();
    let mut exit = None;
    for step in 0.. {
        match stream.next().await.unwrap() {
            Some(ExecOutput::Data { data, offset, .. }) => {
                assert_eq!(offset, text.len() as u64);
                text.extend_from_slice(&data);
            }
            Some(ExecOutput::Exit(view)) => exit = Some(view),
            Some(ExecOutput::Started(_)) => panic!("it is told once"),
            None => break,
        }
        if step == 0 {
            lossy.cut();
            let sandbox = client.sandboxes();
            sandbox
                .exec_input("box", "e", "second", true)
                .await
                .unwrap();
        }
    }
    assert_eq!(text, b"first second");
    assert_eq!(exit.unwrap().code, Some(0));
    assert_eq!(server.node.started(), 1);
}

#[tokio::test]
async fn events_go_on_after_a_lost_connection_without_a_gap() {
    let server = server().await;
    // Of the events that others see, some numbers are missing: those of audit events.
    let token = server.token(Role::Admin).await;
    let lossy = Lossy::start(server.address).await;
    let client = Client::new(&format!("http://{}", lossy.address), Some(&token), PATIENCE).unwrap();
    client.cluster().await.unwrap();
    let query = EventsQuery {
        since: Some(0),
        ..EventsQuery::default()
    };
    let mut events = client.events_follow(query).await.unwrap();
    let mut seqs = vec![events.next().await.unwrap().seq];
    for name in ["a", "b", "c"] {
        lossy.cut();
        let body = format!(r#"{{"job": "{name}", "command": ["x"]}}"#);
        let id = client.jobs().submit(body, None).await.unwrap().id;
        loop {
            let event = events.next().await.unwrap();
            seqs.push(event.seq);
            if event.subject == id.to_string() && event.kind == "job.completed" {
                break;
            }
        }
    }
    let expected: Vec<u64> = (seqs[0]..).take(seqs.len()).collect();
    assert_eq!(seqs, expected);
}
