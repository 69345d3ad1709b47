//! `/cluster/backup` and `/cluster/restore`. Both go by a file without a name on this server's disk: a backup is taken at the speed of
//! that disk and not of whoever reads it, and what is restored is read twice.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::http::Response;
use bytes::Bytes;
use prism_api::{Op, RestoreView};
use prism_state::{Command, Subject};
use prism_types::{Outcome, Reason, TokenId};
use tokio::sync::Mutex;

use crate::app::App;
use crate::ask::Ask;
use crate::refuse::{Answered, Refusal};
use crate::stream::Sink;
use crate::{answer, stream};

/// The backup that comes in, piece by piece; one at a time.
#[derive(Debug, Default)]
pub(crate) struct Incoming(Mutex<Option<Upload>>);

#[derive(Debug)]
struct Upload {
    file: File,
    /// Whose it is.
    token: Option<TokenId>,
    size: u64,
    /// Where its last piece began: that may come twice.
    last: u64,
}

/// A file that is gone when nobody holds it.
fn nameless(dir: &Path) -> io::Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!("spool-{}-{number}.tmp", std::process::id()));
    // What a process of the same number left behind.
    let _none = fs::remove_file(&path);
    let mut options = File::options();
    let options = options.read(true).write(true).create_new(true).mode(0o600);
    let file = options.open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

fn no_room(why: &io::Error) -> Refusal {
    let message = format!("the server's disk does not take the backup: {why}; nothing was changed");
    Refusal::new(Reason::Pressure, message)
}

/// On a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Answered<T> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|e| Err(io::Error::other(e)));
    done.map_err(|why| no_room(&why))
}

/// Takes one, or restores one.
pub(crate) async fn act(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    match ask.route.op {
        Op::ClusterRestore => restore(app, ask).await,
        _ => backup(app, ask).await,
    }
}

async fn backup(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let dir = app.config.spool.clone();
    let sink = blocking(move || Ok(BufWriter::new(nameless(&dir)?))).await?;
    let (summary, sink) = app.control.backup(sink, &app.config.version).await?;
    let file = blocking(move || {
        let mut file = sink.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(file)
    });
    let file = file.await?;
    if let Some(origin) = ask.origin() {
        // Who has a copy of everything is worth knowing.
        let (subject, outcome) = (Subject::Cluster, Outcome::Applied);
        let note = Command::Note { subject, outcome };
        app.control.note(note, origin).await?;
    }
    tracing::info!(
        revision = summary.head.revision,
        items = summary.items,
        "backup taken"
    );
    Ok(stream::answer(app, "application/octet-stream", |sink| {
        send(file, sink)
    }))
}

async fn send(file: File, sink: Sink) {
    let mut file = file;
    loop {
        let room = sink.piece();
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = Vec::with_capacity(room);
            let read = (&file).take(room as u64).read_to_end(&mut piece);
            (read, piece, file)
        });
        let (read, piece, back) = match read.await {
            Ok(done) => done,
            Err(e) => return sink.break_off(&e.to_string()).await,
        };
        file = back;
        match read {
            Ok(0) => return,
            Ok(_) if sink.send(Bytes::from(piece)).await.is_err() => return,
            Ok(_) => {}
            Err(e) => return sink.break_off(&e.to_string()).await,
        }
    }
}

async fn restore(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    app.control.read(prism_state::is_restorable).await?;
    let offset = ask.query.number("offset").unwrap_or(0);
    let token = ask.caller.as_ref().map(|caller| caller.token);
    let mut incoming = app.incoming.0.lock().await;
    if offset == 0 {
        let dir = app.config.spool.clone();
        *incoming = Some(Upload {
            file: blocking(move || nameless(&dir)).await?,
            token,
            size: 0,
            last: 0,
        });
    }
    let received = incoming.as_ref().filter(|up| up.token == token);
    let expected = received.map_or(0, |up| up.size);
    let mut upload = match incoming.take() {
        Some(upload) if received_is(&upload, token, offset) => upload,
        other => {
            *incoming = other;
            return Err(Refusal::invalid(format!(
                "a piece at byte {offset} of a backup of which {expected} bytes have come; nothing was changed, send it from the beginning"
            ))
            .detail("offset", expected));
        }
    };
    let body = ask.body.clone();
    let upload = blocking(move || {
        // The answer to its last piece may have been lost.
        upload.file.seek(io::SeekFrom::Start(offset))?;
        upload.file.write_all(&body)?;
        upload.size = offset + body.len() as u64;
        upload.file.set_len(upload.size)?;
        upload.last = offset;
        Ok(upload)
    });
    let upload = upload.await?;
    let received = upload.size;
    if ask.query.flag("more") {
        *incoming = Some(upload);
        let mut view = view(received);
        view.restored = false;
        return answer::json(&view);
    }
    drop(incoming);
    let done = app.control.restore(Box::new(upload.file), ask.origin());
    let done = done.await?;
    answer::json(&RestoreView {
        cluster: Some(done.head.cluster),
        revision: Some(done.head.revision),
        jobs: Some(done.jobs),
        retried: Some(done.retried),
        ended: Some(done.ended),
        events: Some(done.events),
        ..view(received)
    })
}

/// Whether a piece is of this upload: the next one, or the last one again.
fn received_is(upload: &Upload, token: Option<TokenId>, offset: u64) -> bool {
    upload.token == token && (offset == upload.size || offset == upload.last)
}

fn view(received: u64) -> RestoreView {
    RestoreView {
        received,
        restored: true,
        cluster: None,
        revision: None,
        jobs: None,
        retried: None,
        ended: None,
        events: None,
    }
}
