//! OCI images: loaded from an archive or a layout directory, unpacked once per layer into a
//! content store, and served as overlay lower directories.
//!
//! Everything an archive says is hostile until checked: digests, sizes, names, types and amounts.
//! Loading never half-succeeds; a layer appears under its digest complete or not at all.
//! Blocking: call it from a thread that may block. Called by the worker's image commands and,
//! for the directories, by the isolation. Pulling from a registry is not done here.

mod error;
mod layer;
mod limits;
mod manifest;
mod metadata;
mod name;
mod path;
mod pax;
mod source;
pub(crate) mod sparse;
mod store;
mod stream;
mod tar;
mod unpack;

pub use error::{ArchiveError, ImageError, Refusal};
pub use limits::Limits;
pub use manifest::Start as ImageConfig;
pub use name::ImageName;
pub use store::{ImageStore, LoadedImage, Removed};

pub(crate) use error::printable;
pub(crate) use limits::Budget;
pub(crate) use metadata::Owners;
pub(crate) use path::{DEPTH_MAX, NAME_MAX, PATH_MAX};
pub(crate) use pax::{LITERAL_KEY, XATTR_PREFIX};
pub(crate) use stream::{hex, plain};
pub(crate) use unpack::{Rules, Unpacker};
