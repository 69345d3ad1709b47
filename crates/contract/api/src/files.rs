//! Files and snapshots of a sandbox on the wire.

use prism_types::{SandboxId, TimeMs};

words! {
    /// Which output.
    pub enum Stream {
        /// Standard output.
        Stdout = "stdout",
        /// Standard error.
        Stderr = "stderr",
    }

    /// What a path is.
    pub enum FileType {
        /// A regular file.
        File = "file",
        /// A directory.
        Dir = "dir",
        /// A symbolic link.
        Symlink = "symlink",
        /// Anything else.
        Other = "other",
    }
}

wire! {
    /// An entry of a directory.
    pub struct FileEntryView {
        /// Its name.
        pub name: String,
        /// What it is.
        pub kind: FileType,
        /// Size in bytes.
        pub size: u64,
        /// Permission bits.
        pub mode: u32,
        /// Last change of its content.
        pub modified: TimeMs,
        /// Where a symbolic link points.
        pub target: Option<String>,
    }

    /// Entries of a directory, by name.
    pub struct FileList {
        /// The path that was asked for.
        pub path: String,
        /// Its entries; the one entry of a file.
        pub entries: Vec<FileEntryView>,
    }

    /// A file that was written, or a directory that was made.
    pub struct Written {
        /// Where.
        pub path: String,
        /// Bytes.
        pub bytes: u64,
    }

    /// A saved file system.
    pub struct SnapshotView {
        /// Its id, to start sandboxes from.
        pub id: String,
        /// The sandbox it was made of.
        pub sandbox: SandboxId,
        /// Size in bytes.
        pub bytes: u64,
        /// Number of entries.
        pub files: u64,
        /// When.
        pub created: TimeMs,
    }
}
