//! The state from the store, and back to canonical bytes.
//!
//! Called at an election and by tests. Keys under `results/`, `events/` and `blobs/` are skipped: their values stay in the store.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use prism_types::{JobId, NodeNo};

use crate::block::StoredBlock;
use crate::codec::{Corrupt, corrupt, unpack, unpack_renewed};
use crate::{Block, Change, JobRecord, NamespaceRecord, State, encode_batch};

/// Changes sorted by what has to be there before what.
#[derive(Default)]
struct Loaded {
    first: Vec<Change>,
    jobs: BTreeMap<JobId, JobRecord>,
    specs: BTreeMap<JobId, Arc<prism_spec::JobSpec>>,
    then: Vec<(Vec<u8>, JobId, Change)>,
    last: Vec<Change>,
}

impl State {
    /// What the keys that [`State::load`] needs begin with. Everything else in the store may be left out.
    pub const LOAD_PREFIXES: &[&str] = &[
        "meta",
        "nodes/",
        "jobs/",
        "specs/",
        "tasks/",
        "lanes/",
        "sweeps/",
        "sandboxes/",
        "tokens/",
        "namespaces/",
        "keys/",
        "joins/",
        "members/",
        "servers/",
        "denied/",
        "rotation/",
        "gossip",
    ];

    /// Rebuilds the state from committed keys and values, in any order.
    ///
    /// # Errors
    /// When a value is damaged, of an unknown version, or belongs to nothing.
    pub fn load<K, V>(entries: impl IntoIterator<Item = (K, V)>) -> Result<Self, Corrupt>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let mut loaded = Loaded::default();
        for (key, value) in entries {
            loaded.take(key.as_ref(), value.as_ref())?;
        }
        let mut state = Self::default();
        state.apply(&loaded.first);
        for (id, record) in loaded.jobs {
            let spec = loaded.specs.remove(&id);
            let spec = spec.ok_or_else(|| {
                corrupt(
                    crate::key::job(id).as_bytes(),
                    "the job has no specs/ entry",
                )
            })?;
            if spec.task_count() != record.tasks {
                let why = "its spec has another number of tasks";
                return Err(corrupt(crate::key::job(id).as_bytes(), why));
            }
            state.apply(&[Change::JobAdded(record, spec)]);
        }
        if let Some((id, _)) = loaded.specs.first_key_value() {
            let why = "there is no jobs/ entry for it";
            return Err(corrupt(crate::key::spec(*id).as_bytes(), why));
        }
        for (key, id, change) in loaded.then {
            state.check_child(&key, id, &change)?;
            state.apply(&[change]);
        }
        state.apply(&loaded.last);
        Ok(state)
    }

    /// Whether what belongs to a job fits it.
    fn check_child(&self, key: &[u8], id: JobId, change: &Change) -> Result<(), Corrupt> {
        let Some(job) = self.jobs.get(&id) else {
            return Err(corrupt(key, "it belongs to no job"));
        };
        match change {
            Change::Block { number, block, .. } if block.len() != job.block_len(*number) => {
                Err(corrupt(key, "it has another number of tasks than its job"))
            }
            Change::Sweep(..) | Change::Beam(..) if job.sweep.is_none() => {
                Err(corrupt(key, "its job is not a sweep"))
            }
            _ => Ok(()),
        }
    }

    /// The whole state as bytes; equal states have equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (key, value) in self.entries() {
            for part in [&key, &value] {
                let len = u64::try_from(part.len()).expect("lengths fit 64 bits");
                bytes.extend_from_slice(&len.to_be_bytes());
                bytes.extend_from_slice(part);
            }
        }
        bytes
    }

    /// The state as keys and values in the order of keys: what the store holds of it, payloads left out.
    pub fn entries(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let changes = self.to_changes();
        let pairs = encode_batch(&changes).into_iter();
        pairs.filter_map(|(k, v)| Some((k, v?))).collect()
    }

    fn to_changes(&self) -> Vec<Change> {
        let mut out = Vec::new();
        if self.meta != crate::MetaRecord::default() {
            out.push(Change::Meta(self.meta.clone()));
        }
        out.extend(
            self.nodes
                .values()
                .map(|n| Change::Node(Arc::clone(&n.record))),
        );
        for (id, job) in &self.jobs {
            out.push(Change::JobAdded(job.record.clone(), Arc::clone(&job.spec)));
            out.extend(job.blocks.iter().map(|(number, block)| Change::Block {
                job: *id,
                number: *number,
                block: block.clone(),
            }));
            out.extend(job.lanes.iter().map(|(node, lanes)| Change::Lanes {
                job: *id,
                node: *node,
                lanes: *lanes,
            }));
            if let Some(sweep) = &job.sweep {
                if sweep.record != crate::SweepRecord::default() {
                    out.push(Change::Sweep(*id, sweep.record.clone()));
                }
                let beams = sweep.beams.iter();
                out.extend(beams.map(|(i, b)| Change::Beam(*id, *i, b.clone())));
            }
        }
        out.extend(self.sandboxes.values().cloned().map(Change::Sandbox));
        out.extend(self.tokens.values().cloned().map(Change::Token));
        let namespaces = self.namespaces.0.values();
        let said = namespaces.filter(|n| **n != NamespaceRecord::untouched(n.name.clone()));
        out.extend(said.cloned().map(Change::Namespace));
        out.extend(self.join_tokens.values().cloned().map(Change::JoinToken));
        out.extend(self.members.values().cloned().map(Change::Member));
        out.extend(self.servers.values().cloned().map(Change::Server));
        out.extend(self.denied.values().cloned().map(Change::Denied));
        let rotation = self.rotation.iter().cloned().map(Box::new);
        out.extend(rotation.map(Change::Rotation));
        out.extend(self.gossip.clone().map(Change::Gossip));
        let keys = self.keys.iter();
        out.extend(keys.map(|(k, r)| Change::Key(Arc::clone(k), r.clone())));
        out
    }
}

impl Loaded {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Corrupt> {
        let text = std::str::from_utf8(key).map_err(|e| corrupt(key, e))?;
        let (kind, rest) = text.split_once('/').unwrap_or((text, ""));
        match kind {
            "meta" => self.first.push(Change::Meta(unpack_renewed(key, value)?)),
            "nodes" => self
                .first
                .push(Change::Node(Arc::new(unpack_renewed(key, value)?))),
            "tokens" => self.last.push(Change::Token(unpack_renewed(key, value)?)),
            "namespaces" => self.first.push(Change::Namespace(unpack(key, value)?)),
            "joins" => self.last.push(Change::JoinToken(unpack(key, value)?)),
            "members" => self.last.push(Change::Member(unpack(key, value)?)),
            "servers" => self.last.push(Change::Server(unpack(key, value)?)),
            "denied" => self.last.push(Change::Denied(unpack(key, value)?)),
            "rotation" => self.last.push(Change::Rotation(unpack(key, value)?)),
            "gossip" => self.last.push(Change::Gossip(unpack(key, value)?)),
            "sandboxes" => self.last.push(Change::Sandbox(unpack(key, value)?)),
            "keys" => self
                .last
                .push(Change::Key(rest.into(), unpack(key, value)?)),
            "jobs" => {
                self.jobs.insert(id_of(key, rest)?, unpack(key, value)?);
            }
            "specs" => {
                let spec = Arc::new(unpack_renewed(key, value)?);
                self.specs.insert(id_of(key, rest)?, spec);
            }
            "tasks" | "lanes" | "sweeps" => self.take_child(key, kind, rest, value)?,
            "results" | "events" | "blobs" => {}
            _ => return Err(corrupt(key, "this version knows no such key")),
        }
        Ok(())
    }

    fn take_child(
        &mut self,
        key: &[u8],
        kind: &str,
        rest: &str,
        value: &[u8],
    ) -> Result<(), Corrupt> {
        let (job, number) = rest
            .split_once('/')
            .map_or((rest, None), |(j, n)| (j, Some(n)));
        let job: JobId = id_of(key, job)?;
        let number = number
            .map(|n| u32::from_str_radix(n, 16).map_err(|e| corrupt(key, e)))
            .transpose()?;
        let change = match (kind, number) {
            ("sweeps", None) => Change::Sweep(job, unpack(key, value)?),
            ("sweeps", Some(beam)) => Change::Beam(job, beam, unpack(key, value)?),
            ("lanes", Some(node)) => Change::Lanes {
                job,
                node: NodeNo(node),
                lanes: unpack(key, value)?,
            },
            ("tasks", Some(number)) => {
                let stored: StoredBlock = unpack(key, value)?;
                if stored.count() > u64::from(crate::BLOCK) {
                    return Err(corrupt(key, "it has more than 512 tasks"));
                }
                Change::Block {
                    job,
                    number,
                    block: Block::from_stored(&stored),
                }
            }
            _ => return Err(corrupt(key, "its number is missing")),
        };
        self.then.push((key.to_vec(), job, change));
        Ok(())
    }
}

fn id_of<T: FromStr>(key: &[u8], text: &str) -> Result<T, Corrupt>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e| corrupt(key, e))
}
