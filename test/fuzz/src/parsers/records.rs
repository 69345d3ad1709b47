//! Parsers of bytes that Prism wrote itself: messages between planes, committed records.

use std::sync::Arc;

use prism_link::{AssignedTask, JobBundle, ToControl, ToWorker};
use prism_spec::{WireKind, parse_sandbox_wire, parse_wire};
use prism_state::{Command, Role, State, Submission, decide, decode_event, decode_results};
use prism_types::{JobId, SandboxId, TaskRef, TimeMs, TokenId};

use super::{Feed, Parser, said};

const SPECS: [&str; 3] = [
    r#"{"job": "a", "command": ["x"], "array": 3, "env": {"A": "b"}}"#,
    r#"{"job": "b", "command": ["x", "{item}"], "map": {"lines": ["a", "b"]}}"#,
    r#"{"job": "c", "tasks": [{"command": ["x"]}]}"#,
];

pub(super) fn task() -> TaskRef {
    TaskRef {
        job: JobId::new(1, 2),
        index: 3,
        attempt: 1,
    }
}

fn messages() -> Vec<Vec<u8>> {
    let job = JobId::new(1, 2);
    let bundle = parse_wire(WireKind::Job, SPECS[1]).map(|s| JobBundle {
        job,
        spec: Arc::new(s.spec),
        blobs: Vec::new(),
    });
    let sandbox = parse_sandbox_wire(b"{\"name\": \"s\"}");
    let assigned = AssignedTask {
        index: 1,
        attempt: 1,
        results: None,
    };
    let to_worker = [
        bundle.ok().map(|b| ToWorker::Job(Box::new(b))),
        sandbox
            .ok()
            .map(|s| ToWorker::SandboxStart(vec![(SandboxId::new(1, 2), Arc::new(s))])),
        Some(ToWorker::Assign {
            job,
            lanes: 4,
            tasks: vec![assigned],
        }),
        Some(ToWorker::Ack(vec![task()])),
    ];
    let to_control = [
        ToControl::Started(vec![(task(), TimeMs(5))]),
        ToControl::Returned(vec![task(), task()]),
    ];
    let written = to_worker.iter().flatten().map(postcard::to_stdvec);
    let written = written.chain(to_control.iter().map(postcard::to_stdvec));
    written.flatten().collect()
}

/// Keys and values as the store gives them back, one after the other with their lengths.
fn committed() -> Vec<Vec<u8>> {
    let mut commands = vec![Command::CreateToken {
        id: TokenId::new(1, 1),
        name: "t".to_owned(),
        role: Role::Admin,
        scope: Box::default(),
        by: None,
        hash: [7; 32],
        expires: None,
    }];
    for (number, text) in SPECS.iter().enumerate() {
        let Ok(submission) = parse_wire(WireKind::Job, text) else {
            continue;
        };
        commands.push(Command::SubmitJob(Submission {
            id: JobId::new(2, number as u128),
            spec: Arc::new(submission.spec),
            blobs: Vec::new(),
            seed: 1,
        }));
    }
    let mut state = State::default();
    let mut all = Vec::new();
    for command in commands {
        if let Ok(changes) = decide(&state, &command, TimeMs(9)) {
            state.apply(&changes.changes);
            let items = changes.changes.iter().flat_map(|c| c.encode());
            all.extend(items.filter_map(|(key, value)| Some((key, value?))));
        }
    }
    let whole = postcard::to_stdvec(&all).unwrap_or_default();
    let single = all
        .iter()
        .filter_map(|item| postcard::to_stdvec(&[item]).ok());
    single.chain([whole]).collect()
}

pub(super) const LINK: Parser = Parser {
    name: "link-messages",
    seeds: messages,
    make: || {
        Box::new(|input| {
            let one = postcard::from_bytes::<ToWorker>(input);
            let other = postcard::from_bytes::<ToControl>(input);
            format!("{} {}", said(one), said(other))
        })
    },
    quick: 20_000,
};
pub(super) const RESULTS: Parser = Parser {
    name: "result-records",
    seeds: || {
        vec![
            vec![1, 0],
            vec![1, 1, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            vec![2; 40],
            vec![1; 60],
        ]
    },
    make: || {
        Box::new(|input| {
            let results = decode_results(b"results/", input);
            format!(
                "{} {}",
                said(results),
                said(decode_event(b"events/", input))
            )
        })
    },
    quick: 20_000,
};
pub(super) const STATE: Parser = Parser {
    name: "state-records",
    seeds: committed,
    make: || {
        Box::new(
            |input| match postcard::from_bytes::<Vec<(Vec<u8>, Vec<u8>)>>(input) {
                Ok(items) => said(State::load(items)),
                Err(_) => "no items".to_owned(),
            },
        )
    },
    quick: 10_000,
};

/// Blocks of a backup after its head, each with its kind and length before it: their checksums are made right, so that what is behind them
/// is reached.
fn blocks() -> Vec<Vec<u8>> {
    let items = |pairs: &[(&str, &str)]| {
        let mut body = Vec::new();
        for (key, value) in pairs {
            for part in [key, value] {
                body.extend(u32::try_from(part.len()).unwrap_or(0).to_le_bytes());
            }
            body.extend(key.bytes().chain(value.bytes()));
        }
        body
    };
    let block = |kind: u8, body: Vec<u8>| {
        let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
        let head = [kind, length.to_le_bytes()[0], length.to_le_bytes()[1]];
        [&head[..], &body].concat()
    };
    vec![
        block(2, items(&[("a", "1"), ("b", "22")])),
        [
            block(2, items(&[("a", "")])),
            block(2, items(&[("c", "3")])),
        ]
        .concat(),
        block(3, vec![0; 48]),
        block(1, b"{}".to_vec()),
    ]
}

fn backup() -> Feed {
    let head = br#"{"cluster":"c","revision":1,"made_ms":1,"prism":"0"}"#;
    let put = |file: &mut Vec<u8>, kind: u8, body: &[u8]| {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
        let mut crc = crc32fast::Hasher::new();
        crc.update(&[kind]);
        crc.update(&length);
        crc.update(body);
        file.push(kind);
        file.extend(length);
        file.extend(crc.finalize().to_le_bytes());
        file.extend(body);
    };
    Box::new(move |input| {
        let mut file = prism_backup::MAGIC.to_vec();
        file.extend(prism_backup::VERSION.to_le_bytes());
        put(&mut file, 1, head);
        let mut rest = input;
        while let [kind, low, high, more @ ..] = rest {
            let length = usize::from(u16::from_le_bytes([*low, *high])).min(more.len());
            let (body, after) = more.split_at(length);
            put(&mut file, *kind, body);
            rest = after;
        }
        said(prism_backup::Reader::open(&file[..]).and_then(prism_backup::Reader::check))
    })
}

/// A backup that somebody made to do harm.
pub(super) const BACKUP: Parser = Parser {
    name: "backup",
    seeds: blocks,
    make: backup,
    quick: 20_000,
};
