//! The log on disk, in segments `log/00000000000000000001.seg` and on.
//!
//! A segment is a header (`segment`) and then frames (`frame`), one for each entry. One thread (`writer`) does all
//! writing: it takes what has piled up, writes it with one call, syncs once, notes the tail, and reports. Entries that
//! are not applied yet are also held in memory (`index`), from where the state machine reads them.
//!
//! Opening (`recover`) reads every frame. What is bad is either a torn end that nobody was told of, and is cut off,
//! or damage, and is refused: it is damage when it lies below the noted tail, when a segment follows, or when a frame
//! behind it says that it was written after everything up to there was durable.

mod frame;
mod index;
mod reader;
mod recover;
mod segment;
mod storage;
mod writer;

pub(crate) use recover::recover;
pub(crate) use segment::make_first_segment;
pub(crate) use storage::Log;
