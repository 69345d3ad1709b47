//! The other end of `network`: answers what another server asks on a stream.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::alias::SnapshotOf;
use openraft::raft::AppendEntriesResponse;

use crate::cluster::Heard;
use crate::exchange::{self, Answer, Hello, OLDEST, Piece, Question, VERSION};
use crate::peers::Pipe;
use crate::raft::{Raft, Types};
use crate::snapshot::SnapshotFile;

/// A snapshot that comes in; its file goes when it is dropped.
struct Incoming {
    file: File,
    path: PathBuf,
    size: u64,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // What is left is swept at the next start.
        let _left = std::fs::remove_file(&self.path);
    }
}

/// Who answers.
#[derive(Clone, Copy)]
pub(crate) struct Here<'a> {
    pub(crate) raft: &'a Raft,
    pub(crate) me: u64,
    pub(crate) dir: &'a Path,
    pub(crate) heard: &'a Heard,
}

/// Answers until the stream ends.
///
/// # Errors
/// Why it ended, if not by its other end.
pub(crate) async fn serve(here: Here<'_>, mut stream: impl Pipe) -> io::Result<()> {
    let me = here.me;
    let hello: Hello = exchange::receive(&mut stream).await?;
    let wrong = if hello.to != me {
        Some(format!(
            "this is server {me}, and server {} was meant",
            hello.to
        ))
    } else if !(OLDEST..=VERSION).contains(&hello.version) {
        let needs = match OLDEST {
            VERSION => format!("v{VERSION}"),
            oldest => format!("v{oldest}–v{VERSION}"),
        };
        Some(format!(
            "server {} speaks v{}, cluster needs {needs}; bring the older one within one version of the other",
            hello.from, hello.version
        ))
    } else {
        None
    };
    if let Some(why) = wrong {
        // Told as the answer to its first question, whatever that is.
        exchange::discard(&mut stream).await?;
        let answer = exchange::encode(&Answer::No(why.clone()))?;
        exchange::send(&mut stream, &answer).await?;
        return Err(io::Error::other(why));
    }
    let mut incoming = None;
    loop {
        let question: Question = match exchange::receive(&mut stream).await {
            Ok(question) => question,
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(e),
        };
        let answer = answer(here, &mut incoming, question).await;
        exchange::send(&mut stream, &exchange::encode(&answer)?).await?;
    }
}

async fn answer(here: Here<'_>, incoming: &mut Option<Incoming>, question: Question) -> Answer {
    let raft = here.raft;
    let no = |why: &dyn ToString| Answer::No(why.to_string());
    match question {
        Question::Append(request) => match raft.append_entries(request).await {
            Ok(answer) => {
                if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
                    here.heard.now();
                }
                Answer::Append(answer)
            }
            Err(why) => no(&why),
        },
        Question::Vote(request) => match raft.vote(request).await {
            Ok(answer) => Answer::Vote(answer),
            Err(why) => no(&why),
        },
        Question::PreVote(request) => match raft.pre_vote(request).await {
            Ok(answer) => Answer::Vote(answer),
            Err(why) => no(&why),
        },
        Question::Transfer(request) => match raft.handle_transfer_leader(request).await {
            Ok(answer) => Answer::Transfer(answer),
            Err(why) => no(&why),
        },
        Question::Snapshot(piece) => {
            let taken = take(raft, here.dir, incoming, piece).await;
            if !matches!(taken, Ok(Answer::More)) {
                *incoming = None;
            }
            taken.unwrap_or_else(|why| no(&why))
        }
    }
}

async fn take(
    raft: &Raft,
    dir: &Path,
    incoming: &mut Option<Incoming>,
    piece: Piece,
) -> io::Result<Answer> {
    if piece.offset == 0 {
        *incoming = Some(begin(dir)?);
    }
    let Some(open) = incoming.as_mut().filter(|open| open.size == piece.offset) else {
        return Err(io::Error::other("a part of a snapshot out of turn"));
    };
    // A small write into the page cache; the whole is checked and made durable when it is installed.
    open.file.write_all(&piece.bytes)?;
    open.size += piece.bytes.len() as u64;
    if !piece.last {
        return Ok(Answer::More);
    }
    let snapshot = SnapshotOf::<Types, SnapshotFile> {
        meta: piece.meta,
        snapshot: SnapshotFile(open.path.clone()),
    };
    let installed = raft.install_full_snapshot(piece.vote, snapshot).await;
    installed.map(Answer::Snapshot).map_err(io::Error::other)
}

fn begin(dir: &Path) -> io::Result<Incoming> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!("incoming-{number}.tmp"));
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)?;
    Ok(Incoming {
        file,
        path,
        size: 0,
    })
}
