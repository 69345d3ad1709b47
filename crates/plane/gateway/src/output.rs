//! Reports, execs, files and snapshots of a node, in wire types.

use prism_api::{ExecView, ExitView, FileEntryView, FileType, SnapshotView, Stream};
use prism_link::{ExecInfo, FileEntry, FileKind, SnapshotInfo};
use prism_types::{ExitStatus, RunReport};

use crate::jobs::some;

pub(crate) fn exit(report: &RunReport) -> ExitView {
    let (code, signal) = match report.exit {
        ExitStatus::Code(code) => (Some(code), None),
        ExitStatus::Signal(signal) => (None, Some(signal)),
        ExitStatus::Unknown => (None, None),
    };
    ExitView {
        code,
        signal,
        reason: report.failure(),
        message: some(&report.detail),
        started: report.started,
        wall_ms: report.wall.0,
        cpu_us: report.cpu_us,
        memory_peak: report.memory_peak,
        stdout_bytes: report.stdout_bytes,
        stderr_bytes: report.stderr_bytes,
    }
}

pub(crate) fn exec(info: ExecInfo) -> ExecView {
    ExecView {
        exit: info.report.as_ref().map(exit),
        id: info.id,
        argv: info.argv,
        started: info.started,
    }
}

pub(crate) fn file(entry: FileEntry) -> FileEntryView {
    FileEntryView {
        name: entry.name,
        kind: match entry.kind {
            FileKind::File => FileType::File,
            FileKind::Dir => FileType::Dir,
            FileKind::Symlink => FileType::Symlink,
            FileKind::Other => FileType::Other,
        },
        size: entry.size,
        mode: entry.mode,
        modified: entry.modified,
        target: entry.target,
    }
}

pub(crate) fn snapshot(info: SnapshotInfo) -> SnapshotView {
    SnapshotView {
        id: info.id,
        sandbox: info.sandbox,
        bytes: info.bytes,
        files: info.files,
        created: info.created,
    }
}

pub(crate) fn link_stream(stream: Stream) -> prism_link::Stream {
    match stream {
        Stream::Stdout => prism_link::Stream::Stdout,
        Stream::Stderr => prism_link::Stream::Stderr,
    }
}
