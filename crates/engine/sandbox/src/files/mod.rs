//! Reading and writing files of a running sandbox from the outside.
//!
//! Every path is resolved by the kernel with the sandbox's root as `/`, so links inside lead
//! inside. Only plain files and directories on storage file systems are touched: no pipe, socket
//! or device is ever opened, and nothing under `/proc` or `/sys`, where this process has powers
//! that the sandbox must not borrow. Blocking; called by the worker for the files routes.

mod change;
mod error;
mod root;

pub use change::WriteOptions;
pub use error::FileError;
pub use root::{Entry, FileKind, FileReader, Listing, RootDir};
