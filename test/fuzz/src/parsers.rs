//! The parsers: what each is fed with, and how.

mod archives;
mod records;
mod resumes;
mod texts;
mod wires;

/// Feeds one input and tells what the parser answered; the answer's form guides the search.
pub type Feed = Box<dyn FnMut(&[u8]) -> String>;

/// A parser of Prism.
#[derive(Clone, Copy, Debug)]
pub struct Parser {
    /// What to call it.
    pub name: &'static str,
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Makes what feeds it.
    pub make: fn() -> Feed,
    /// Inputs of the quick run; about half a second.
    pub quick: u64,
}

/// Every parser.
pub const PARSERS: &[Parser] = &[
    texts::YAML,
    texts::JSON,
    texts::TOML,
    texts::JOB,
    texts::SWEEP,
    texts::SANDBOX,
    texts::BODIES,
    texts::WORDS,
    texts::METRICS,
    texts::TABLE,
    texts::QUERY,
    texts::TOKEN,
    texts::CONTEXTS,
    records::LINK,
    records::RESULTS,
    records::STATE,
    records::BACKUP,
    archives::LAYER,
    archives::GZIP,
    archives::ZSTD,
    archives::MANIFEST,
    archives::ARCHIVE,
    archives::SNAPSHOT,
    wires::SESSION,
    wires::CALLS,
    resumes::RESUME,
    wires::MEMBERS,
    wires::RAFT,
    wires::GOSSIP,
    wires::CERTIFICATE,
    wires::JOIN_TOKEN,
];

/// The error's text, or a word for success.
fn said<T, E: std::fmt::Display>(result: Result<T, E>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(e) => e.to_string(),
    }
}

/// Texts as seeds.
fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}
