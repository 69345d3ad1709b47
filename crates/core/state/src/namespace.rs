//! Namespaces: what belongs together, what of it may be used at once, and what is.
//!
//! Usage is counted by `apply` as lanes, sandboxes and jobs come and go, so that a decision looks at a few numbers, however many
//! tasks there are.

use std::collections::BTreeMap;

use prism_types::{Bytes, MilliCpu, Name, Resources, TimeMs};
use serde::{Deserialize, Serialize};

/// Most that may be in use at once. What is `None` is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Processor time granted to tasks and sandboxes.
    pub cpu: Option<MilliCpu>,
    /// Memory granted to them.
    pub memory: Option<Bytes>,
    /// Disk granted to them.
    pub disk: Option<Bytes>,
    /// Tasks that may run at once.
    pub instances: Option<u32>,
    /// Sandboxes that are not over.
    pub sandboxes: Option<u32>,
}

/// What is in use. A task uses its resources while a lane is granted for it, a sandbox while it has a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Granted to lanes and sandboxes.
    pub resources: Resources,
    /// Lanes: tasks that may run at once.
    pub instances: u32,
    /// Sandboxes that are not over.
    pub sandboxes: u32,
    /// Jobs that are not over.
    pub jobs: u32,
}

/// What a quota leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Resources that may still be granted.
    pub resources: Resources,
    /// Tasks that may run besides.
    pub instances: u32,
}

/// `namespaces/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceRecord {
    /// Its name.
    pub name: Name,
    /// What may be used at once.
    pub quota: Quota,
    /// Made; 0 for `default`, which is always there.
    pub created: TimeMs,
}

/// The namespace of what names none.
pub(crate) fn default_name() -> Name {
    "default".parse().expect("it is a name")
}

/// Every namespace by name; `default` is always among them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Namespaces(pub BTreeMap<Name, NamespaceRecord>);

impl Default for Namespaces {
    fn default() -> Self {
        let record = NamespaceRecord::untouched(default_name());
        Self(BTreeMap::from([(record.name.clone(), record)]))
    }
}

impl NamespaceRecord {
    /// As `default` is before anybody says anything about it; never stored.
    pub(crate) fn untouched(name: Name) -> Self {
        Self {
            name,
            quota: Quota::default(),
            created: TimeMs(0),
        }
    }
}

impl Quota {
    /// Whether nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// What may be granted in all, with what is not limited at its largest.
    fn resources(&self) -> Resources {
        Resources {
            cpu: self.cpu.unwrap_or(MilliCpu(u32::MAX)),
            memory: self.memory.unwrap_or(Bytes(u64::MAX)),
            disk: self.disk.unwrap_or(Bytes(u64::MAX)),
        }
    }

    /// What it leaves.
    pub fn room(&self, used: &Usage) -> Room {
        let instances = self.instances.unwrap_or(u32::MAX);
        Room {
            resources: self.resources().minus(&used.resources, 1),
            instances: instances.saturating_sub(used.instances),
        }
    }

    /// Whether more is in use than it allows, because it was lowered.
    pub fn is_exceeded(&self, used: &Usage) -> bool {
        let instances = self.instances.unwrap_or(u32::MAX);
        !used.resources.fits(&self.resources()) || used.instances > instances
    }

    /// Why so much could never be granted, such as `8 cpu, of 4 cpu in all`.
    pub fn never(&self, need: &Resources, instances: u32) -> Option<String> {
        if self.instances.is_some_and(|most| instances > most) {
            return Some("a task, of none in all".to_owned());
        }
        let (n, all) = (need, self.resources());
        let short = [
            (n.cpu > all.cpu).then(|| format!("{} cpu, of {} cpu in all", n.cpu, all.cpu)),
            (n.memory > all.memory)
                .then(|| format!("{} memory, of {} memory in all", n.memory, all.memory)),
            (n.disk > all.disk).then(|| format!("{} disk, of {} disk in all", n.disk, all.disk)),
        ];
        let short: Vec<String> = short.into_iter().flatten().collect();
        (!short.is_empty()).then(|| short.join(" and "))
    }

    /// What of it is used up for one more that needs so much, such as `cpu 4 of 4 in use`; `None` if there is room.
    pub fn used_up(&self, used: &Usage, need: &Resources, instances: u32) -> Option<String> {
        let (n, u) = (need, &used.resources);
        let cpu = self.cpu.filter(|all| n.cpu > minus(*all, u.cpu));
        let memory = self
            .memory
            .filter(|all| n.memory.0 > all.0.saturating_sub(u.memory.0));
        let disk = self
            .disk
            .filter(|all| n.disk.0 > all.0.saturating_sub(u.disk.0));
        let tasks = self
            .instances
            .filter(|all| instances > all.saturating_sub(used.instances));
        let lacks = [
            cpu.map(|all| format!("cpu {} of {all} in use", u.cpu)),
            memory.map(|all| format!("memory {} of {all} in use", u.memory)),
            disk.map(|all| format!("disk {} of {all} in use", u.disk)),
            tasks.map(|all| format!("instances {} of {all} in use", used.instances)),
        ];
        let lacks: Vec<String> = lacks.into_iter().flatten().collect();
        (!lacks.is_empty()).then(|| lacks.join(", "))
    }
}

fn minus(a: MilliCpu, b: MilliCpu) -> MilliCpu {
    MilliCpu(a.0.saturating_sub(b.0))
}

impl Room {
    /// How many more lanes of `each` fit, at most `most`.
    pub fn lanes(&self, each: &Resources, most: u32) -> u32 {
        each.times_in(&self.resources, most.min(self.instances))
    }

    /// Takes `n` lanes of `each` out of it.
    pub fn take(&mut self, each: &Resources, n: u32) {
        self.resources = self.resources.minus(each, n);
        self.instances = self.instances.saturating_sub(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_quota_leaves_is_told_by_number_and_in_words() {
        let quota = Quota {
            cpu: Some(MilliCpu(4000)),
            instances: Some(3),
            ..Quota::default()
        };
        let need = Resources {
            cpu: MilliCpu(2000),
            ..Resources::default()
        };
        let mut used = Usage::default();
        assert_eq!(quota.room(&used).lanes(&need, 100), 2);
        assert_eq!(quota.used_up(&used, &need, 1), None);
        used.resources = need.plus(&need, 1);
        used.instances = 2;
        assert_eq!(quota.room(&used).lanes(&need, 100), 0);
        let said = quota.used_up(&used, &need, 1);
        assert_eq!(said.as_deref(), Some("cpu 4 of 4 in use"));
        assert!(!quota.is_exceeded(&used));
        used.instances = 4;
        assert!(quota.is_exceeded(&used));
        let large = need.plus(&need, 2);
        let never = quota.never(&large, 1);
        assert_eq!(never.as_deref(), Some("6 cpu, of 4 cpu in all"));
    }
}
