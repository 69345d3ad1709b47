//! A spec whose files have not been read yet, and how it becomes a [`Submission`] once they have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prism_types::Name;

use crate::contents::{Store, map_lines};
use crate::error::{SpecError, Spot, quoted};
use crate::job::{FileSpec, JobSpec, TaskSpec, Work};
use crate::lines::Lines;
use crate::sweep::{Aggregate, Dimension, Runner, SweepWork};
use crate::{limits, placeholder};

/// Longest text of a number, in bytes.
const NUMBER_MAX: usize = 32;

/// A checked job or sweep, and the files that go with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Submission {
    /// The spec; its files name their content by digest.
    pub spec: JobSpec,
    /// The contents, by SHA-256 in hexadecimal.
    pub blobs: BTreeMap<String, Arc<[u8]>>,
}

/// A file that a spec names, for the caller to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Relative path beneath the spec's own directory, without `..`; links must not lead out of it.
    pub path: String,
    /// The field that names it, for errors.
    pub field: String,
    /// Largest size in bytes that is accepted.
    pub max_bytes: u64,
}

/// A job or sweep as it was written: checked, but its files are not read yet.
#[derive(Debug)]
pub struct Draft {
    pub(crate) spec: JobSpec,
    pub(crate) files: Vec<FileDraft>,
    pub(crate) program: Program,
    pub(crate) work: WorkDraft,
}

#[derive(Debug)]
pub(crate) enum WorkDraft {
    Array { count: u32 },
    List { tasks: Vec<ListedTask> },
    Map(MapDraft),
    Sweep(Box<SweepDraft>),
}

#[derive(Debug)]
pub(crate) struct ListedTask {
    pub(crate) name: Option<Name>,
    pub(crate) command: Option<Vec<String>>,
    pub(crate) env: BTreeMap<String, String>,
}

#[derive(Debug)]
pub(crate) enum MapDraft {
    Lines(Lines),
    File(FileDraft),
}

#[derive(Debug)]
pub(crate) struct SweepDraft {
    /// Empty: the sweep's own program is the one runner.
    pub(crate) runners: Vec<(String, Program)>,
    pub(crate) aggregate: Option<Program>,
    /// Without runners and aggregate.
    pub(crate) work: SweepWork,
    pub(crate) at: Spot,
}

/// Something that can be run: a command, a script, or both.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) command: Option<Vec<String>>,
    pub(crate) script: Option<FileDraft>,
    pub(crate) files: Vec<FileDraft>,
    pub(crate) at: Spot,
}

#[derive(Debug)]
pub(crate) struct FileDraft {
    pub(crate) path: String,
    pub(crate) mode: Option<u32>,
    /// `None`: to be read by the caller.
    pub(crate) content: Option<Vec<u8>>,
    pub(crate) at: Spot,
}

impl Program {
    pub(crate) fn is_empty(&self) -> bool {
        self.command.is_none() && self.script.is_none()
    }

    fn all_files(&self) -> impl Iterator<Item = &FileDraft> {
        self.script.iter().chain(&self.files)
    }
}

impl Draft {
    /// The files that must be read before [`Draft::resolve`], each once.
    pub fn wanted_files(&self) -> Vec<Wanted> {
        let mut named: Vec<(&FileDraft, u64)> = Vec::new();
        let mut add = |file| named.push((file, limits::CONTENTS_MAX));
        self.program
            .all_files()
            .chain(&self.files)
            .for_each(&mut add);
        if let WorkDraft::Sweep(sweep) = &self.work {
            let programs = sweep.runners.iter().map(|(_, p)| p).chain(&sweep.aggregate);
            programs.flat_map(Program::all_files).for_each(&mut add);
        }
        if let WorkDraft::Map(MapDraft::File(file)) = &self.work {
            named.push((file, limits::LINES_BYTES_MAX as u64));
        }
        let mut seen = BTreeSet::new();
        named
            .into_iter()
            .filter(|(file, _)| file.content.is_none() && seen.insert(&file.path))
            .map(|(file, max_bytes)| Wanted {
                path: file.path.clone(),
                field: file.at.field.clone(),
                max_bytes,
            })
            .collect()
    }

    /// Puts the contents in. `contents` holds, by path, each wanted file's permission bits and bytes.
    ///
    /// # Errors
    /// When a file is missing or too large, two files of one task have the same path, a script's kind is not known, a
    /// map file has no lines, or a placeholder names no parameter.
    pub fn resolve(
        self,
        contents: BTreeMap<String, (u32, Vec<u8>)>,
    ) -> Result<Submission, SpecError> {
        let mut spec = self.spec;
        let lines = match self.work {
            WorkDraft::Map(MapDraft::File(ref file)) => Some(map_lines(file, &contents)?),
            _ => None,
        };
        let mut store = Store::new(contents);
        let mut files = store.all(&self.files)?;
        spec.work = match self.work {
            WorkDraft::Array { count } => {
                let command = store.command(&self.program, &mut files)?;
                Work::Array { command, count }
            }
            WorkDraft::List { tasks } => {
                let own = match self.program.is_empty() {
                    true => Vec::new(),
                    false => store.command(&self.program, &mut files)?,
                };
                let tasks = tasks.into_iter().map(|t| TaskSpec {
                    name: t.name,
                    command: t.command.unwrap_or_else(|| own.clone()),
                    env: t.env,
                });
                Work::List {
                    tasks: tasks.collect(),
                }
            }
            WorkDraft::Map(map) => {
                let command = store.command(&self.program, &mut files)?;
                let lines = match map {
                    MapDraft::Lines(lines) => lines,
                    MapDraft::File(_) => lines.unwrap_or_default(),
                };
                let longest = lines.iter().map(str::len).max().unwrap_or(0);
                fits(&command, &self.program.at, |name| {
                    (name == "item").then_some(longest)
                })?;
                Work::Map { command, lines }
            }
            WorkDraft::Sweep(draft) => {
                Work::Sweep(sweep(*draft, &self.program, &mut store, &files)?)
            }
        };
        no_overlaps(&files, &[], &self.program.at)?;
        spec.files = files;
        Ok(Submission {
            spec,
            blobs: store.into_blobs(),
        })
    }
}

fn sweep(
    draft: SweepDraft,
    own: &Program,
    store: &mut Store,
    shared: &[FileSpec],
) -> Result<SweepWork, SpecError> {
    let mut work = draft.work;
    let single = [("main", own)];
    let named = draft.runners.iter().map(|(name, p)| (name.as_str(), p));
    let programs = named.chain(single.into_iter().filter(|_| draft.runners.is_empty()));
    for (name, program) in programs {
        let mut files = store.all(&program.files)?;
        let command = store.command(program, &mut files)?;
        check_placeholders(&command, &work, &program.at)?;
        own_names(shared, &files, "params.json", &program.at)?;
        work.runners.push(Runner {
            name: name.to_owned(),
            command,
            files,
        });
    }
    if let Some(program) = &draft.aggregate {
        let mut files = store.all(&program.files)?;
        let command = store.command(program, &mut files)?;
        own_names(shared, &files, "results.json", &program.at)?;
        work.aggregate = Some(Aggregate { command, files });
    }
    if work.runners.is_empty() {
        return Err(draft
            .at
            .error("no runner: expected script, command or runners"));
    }
    Ok(work)
}

fn check_placeholders(command: &[String], work: &SweepWork, at: &Spot) -> Result<(), SpecError> {
    let names: Vec<&str> = work.space.iter().map(|(name, _)| name.as_str()).collect();
    for arg in command {
        placeholder::check(arg, &names).map_err(|m| at.error(m))?;
    }
    fits(command, at, |name| {
        let (_, dimension) = work.space.iter().find(|(known, _)| known == name)?;
        Some(match dimension {
            Dimension::Choice(values) => values.iter().map(|v| v.len()).max().unwrap_or(0),
            _ => NUMBER_MAX,
        })
    })
}

/// Refuses a command that would be too long for any program once values were put in.
fn fits(
    command: &[String],
    at: &Spot,
    value: impl Fn(&str) -> Option<usize>,
) -> Result<(), SpecError> {
    let all = command
        .iter()
        .map(|arg| placeholder::length(arg, &value) + 1);
    let bytes: usize = all.sum();
    let most = limits::ARGS_BYTES_MAX;
    match bytes > most {
        true => Err(at.error(format!(
            "the command has {bytes} bytes of arguments with its longest values put in; at most {most}"
        ))),
        false => Ok(()),
    }
}

/// Refuses a file with the name that prism gives its own.
fn own_names(
    shared: &[FileSpec],
    own: &[FileSpec],
    taken: &str,
    at: &Spot,
) -> Result<(), SpecError> {
    let mut all = shared.iter().chain(own);
    if all.any(|f| f.path == taken || f.path.starts_with(&format!("{taken}/"))) {
        return Err(at.error(format!(
            "{taken} is written by prism itself: rename that file"
        )));
    }
    no_overlaps(shared, own, at)
}

/// Refuses two files of one path in one list, and a file where another one needs a directory. A program's own file may
/// take the place of a shared one.
fn no_overlaps(shared: &[FileSpec], own: &[FileSpec], at: &Spot) -> Result<(), SpecError> {
    for list in [shared, own] {
        let mut seen = BTreeSet::new();
        if let Some(twice) = list.iter().find(|f| !seen.insert(&f.path)) {
            return Err(at.error(format!("the file {} is given twice", quoted(&twice.path))));
        }
    }
    let all: BTreeSet<&str> = shared.iter().chain(own).map(|f| f.path.as_str()).collect();
    for path in &all {
        let parents = path.match_indices('/').map(|(i, _)| &path[..i]);
        if let Some(parent) = parents.into_iter().find(|p| all.contains(p)) {
            return Err(at.error(format!(
                "{} cannot be both a file and the directory of {}",
                quoted(parent),
                quoted(path)
            )));
        }
    }
    Ok(())
}
