//! What a node could leave behind on a host when it has ended: processes, mounts, control groups.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::place::Place;
use crate::wait::until;

/// The control groups of a place, by name, noted while its processes live.
#[derive(Clone, Debug, Default)]
pub struct Leftovers {
    groups: BTreeSet<String>,
}

impl Leftovers {
    /// Notes the groups `prism/NAME` that processes of a place are in now.
    pub fn note(&mut self, place: &Place) {
        for process in place.processes() {
            let pid = process.split(' ').next().unwrap_or_default();
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            self.groups.extend(groups.lines().filter_map(|line| {
                let (_, rest) = line.split_once("/prism/")?;
                Some(rest.split('/').next()?.to_owned())
            }));
        }
    }

    /// Waits until nothing is left.
    ///
    /// # Panics
    /// When something stays.
    #[track_caller]
    pub fn assert_none(&self, place: &Place) {
        until("its processes to end", || {
            place.processes().is_empty().then_some(())
        });
        assert_eq!(mounts_beneath(place.path()), Vec::<String>::new());
        until("its control groups to go", || {
            cgroups(&self.groups).is_empty().then_some(())
        });
    }
}

fn mounts_beneath(directory: &Path) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("this is Linux");
    let prefix = directory.to_string_lossy().into_owned();
    let is_beneath = |l: &&str| {
        l.split(' ')
            .nth(1)
            .is_some_and(|target| target.starts_with(&prefix))
    };
    mounts
        .lines()
        .filter(is_beneath)
        .map(str::to_owned)
        .collect()
}

/// Every control group with one of these names.
fn cgroups(names: &BTreeSet<String>) -> Vec<PathBuf> {
    fn walk(directory: &Path, depth: u32, names: &BTreeSet<String>, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if depth > 0 && entry.file_type().is_ok_and(|t| t.is_dir()) {
                let name = entry.file_name();
                if name.to_str().is_some_and(|n| names.contains(n)) {
                    into.push(entry.path());
                }
                walk(&entry.path(), depth - 1, names, into);
            }
        }
    }
    let mut found = Vec::new();
    if !names.is_empty() {
        walk(Path::new("/sys/fs/cgroup"), 6, names, &mut found);
    }
    found
}
