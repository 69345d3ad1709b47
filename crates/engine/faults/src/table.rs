//! Every failpoint: its name, the process that passes it, and the step that it stands before or after.

/// Which process passes a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// `prismd`, or the node within `prismctl run`.
    Daemon,
    /// The supervisor of its runs.
    Supervisor,
    /// `prismctl run` itself.
    Command,
}

/// A place where a test can let a process fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its name.
    pub name: &'static str,
    /// Who passes it.
    pub process: Process,
    /// The step that it stands before or after.
    pub step: &'static str,
}

const fn d(name: &'static str, step: &'static str) -> Point {
    Point {
        name,
        process: Process::Daemon,
        step,
    }
}

const fn s(name: &'static str, step: &'static str) -> Point {
    Point {
        name,
        process: Process::Supervisor,
        step,
    }
}

const fn c(name: &'static str, step: &'static str) -> Point {
    Point {
        name,
        process: Process::Command,
        step,
    }
}

/// All of them, by process and file.
#[rustfmt::skip]
pub const POINTS: &[Point] = &[
    // crates/plane/node
    d("node.dir.before_make", "the data directory is made"),
    d("node.dir.after_make", "the data directory is made"),
    d("node.identity.before_write", "the identity is written beside its place"),
    d("node.identity.before_sync", "the new identity is synced"),
    d("node.identity.before_rename", "the new identity takes its place"),
    d("node.identity.before_dir_sync", "the name of the identity is synced"),
    d("node.identity.after", "the name of the identity is synced"),
    // crates/engine/raft/src/disk
    d("raft.dir.before_make", "the store's directory is made"),
    d("raft.dir.after_make", "the store's directory is made"),
    d("raft.lock.before_take", "the store is locked"),
    d("raft.lock.after_write", "the holder's name is written into the lock"),
    d("raft.sweep.before_remove", "what an interrupted replacement left is removed"),
    d("raft.format.before_write", "the format is written beside its place"),
    d("raft.format.before_sync", "the new format is synced"),
    d("raft.format.before_rename", "the new format takes its place"),
    d("raft.format.after", "the name of the format is synced: the store is made"),
    d("raft.tail_file.before_write", "the first tail is written beside its place"),
    d("raft.tail_file.before_sync", "the first tail is synced"),
    d("raft.tail_file.before_rename", "the first tail takes its place"),
    d("raft.tail_file.after", "the name of the tail is synced"),
    d("raft.segment.before_write", "a segment's header is written beside its place"),
    d("raft.segment.before_sync", "the new segment is synced"),
    d("raft.segment.before_rename", "the new segment takes its place"),
    d("raft.segment.after", "the name of the segment is synced"),
    d("raft.vote.before_write", "the vote is written beside its place"),
    d("raft.vote.before_sync", "the new vote is synced"),
    d("raft.vote.before_rename", "the new vote takes its place"),
    d("raft.vote.after", "the name of the vote is synced"),
    d("raft.snapshot.before_write", "the snapshot is written beside its place"),
    d("raft.snapshot.before_sync", "the new snapshot is synced"),
    d("raft.snapshot.before_rename", "the new snapshot takes its place"),
    d("raft.snapshot.after", "the name of the snapshot is synced"),
    // crates/engine/raft/src/log
    d("raft.log.before_write", "entries are written"),
    d("raft.log.before_sync", "written entries are synced"),
    d("raft.log.after_sync", "written entries are synced"),
    d("raft.tail.before_note", "the durable length is noted"),
    d("raft.tail.after_note", "the durable length is noted; nobody is told yet"),
    d("raft.rotate.before_truncate", "a full segment is cut to its length"),
    d("raft.rotate.before_sync", "a cut segment is synced"),
    d("raft.rotate.after_sync", "a cut segment is synced; the next is not made yet"),
    d("raft.purge.before_remove", "segments that a snapshot replaces are removed"),
    d("raft.purge.after_remove", "the removal of segments is synced"),
    d("raft.recover.before_truncate", "a torn end is cut off"),
    d("raft.recover.before_sync", "the segment without its torn end is synced"),
    d("raft.recover.after_sync", "the segment without its torn end is synced"),
    d("raft.open.before_sync", "the newest segment is synced before it is written to again"),
    d("raft.open.after_sync", "the newest segment is synced before it is written to again"),
    // crates/plane/worker
    d("worker.dirs.before_make", "the worker's directories are made"),
    d("worker.dirs.after_make", "the worker's directories are made"),
    d("worker.leftovers.before_remove", "what an earlier run left over is removed"),
    d("worker.journal.before_open", "the journal of sandboxes is opened"),
    d("worker.journal.after_open", "the journal of sandboxes is opened"),
    d("worker.journal.before_append", "a record is added to the journal of sandboxes"),
    d("worker.journal.after_append", "a record is added to the journal of sandboxes"),
    d("worker.journal.before_rewrite", "the journal of sandboxes is written anew"),
    d("worker.journal.before_rename", "the new journal of sandboxes takes its place"),
    d("worker.journal.after_rename", "the new journal of sandboxes takes its place"),
    d("worker.inputs.before_write", "the files of a job are written beside their place"),
    d("worker.inputs.before_rename", "the files of a job take their place"),
    d("worker.inputs.after_rename", "the files of a job take their place"),
    d("worker.record.before_write", "the record of a snapshot is written"),
    d("worker.record.before_rename", "the record of a snapshot takes its place"),
    d("worker.record.after_rename", "the record of a snapshot takes its place; nobody is told yet"),
    d("worker.ack.before_forget", "the supervisor is told to forget what is committed"),
    d("worker.ack.after_forget", "the supervisor is told to forget what is committed"),
    // crates/engine/sandbox, in the daemon
    d("image.store.before_make", "the directories of images are made"),
    d("image.layer.before_unpack", "a layer is unpacked beside its place"),
    d("image.layer.before_sync", "the unpacked layer is synced"),
    d("image.layer.before_rename", "the unpacked layer takes its place"),
    d("image.layer.after", "the name of the layer is synced"),
    d("image.record.before_write", "an image's record is written beside its place"),
    d("image.record.before_sync", "the new record of an image is synced"),
    d("image.record.before_rename", "the new record of an image takes its place"),
    d("image.record.after", "the name of the record is synced"),
    d("snapshot.before_write", "a sandbox is saved beside its place"),
    d("snapshot.before_sync", "the saved sandbox is synced"),
    d("snapshot.before_rename", "the saved sandbox takes its place"),
    d("snapshot.after", "the name of the saved sandbox is synced"),
    d("restore.before_unpack", "a saved sandbox is unpacked beside its place"),
    d("restore.before_rename", "the unpacked sandbox takes its place"),
    d("restore.after_rename", "the unpacked sandbox takes its place"),
    d("file.before_write", "a file of a sandbox is written beside its place"),
    d("file.before_rename", "the new file of a sandbox takes its place"),
    d("file.after_rename", "the new file of a sandbox takes its place"),
    // crates/engine/sandbox, in the supervisor
    s("sup.home.before_make", "the supervisor's directory is made"),
    s("sup.home.after_lock", "the supervisor's directory is locked"),
    s("sup.journal.before_rewrite", "the journal of runs is written anew"),
    s("sup.journal.before_rename", "the new journal of runs takes its place"),
    s("sup.journal.after_rename", "the new journal of runs takes its place"),
    s("sup.journal.before_append", "beginnings and ends of runs are added to the journal"),
    s("sup.journal.after_append", "beginnings and ends of runs are added to the journal; nobody is told yet"),
    s("sup.output.before_create", "a file for a run's output is made"),
    s("sup.output.before_write", "a run's output is written"),
    s("sup.output.after_write", "a run's output is written"),
    s("sup.output.before_remove", "the oldest output of a run is removed"),
    s("sup.scratch.before_make", "a run's disk is made"),
    s("sup.scratch.after_make", "a run's disk is made"),
    s("sup.leave.before_remove", "the socket is removed at the end"),
    // crates/surface/cli
    c("run.home.before_make", "the directory of a run is made"),
    c("run.home.after_lock", "the directory of a run is locked"),
    c("run.home.before_mark", "a run is marked unfinished"),
    c("run.home.after_mark", "a run is marked unfinished"),
    c("run.home.before_finish", "the mark of an unfinished run is removed"),
    c("run.home.after_finish", "the mark of an unfinished run is removed"),
];
