//! The session's messages in each version that is spoken. What a version does not have is not said in it; what has another form in it
//! is written and read in that form.
//!
//! Version 1 knows no leases, and a job's spec ends before `single_instance`. Version 2 compares nothing: who opens a session lists all.

use bytes::Bytes as Blob;
use prism_link::{JobBundle, ToControl, ToWorker};
use prism_spec::FirstSpec;
use prism_types::JobId;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The oldest and the newest version that this program speaks: its own, and those of the releases before.
pub(crate) const OURS: (u16, u16) = (1, 3);

/// The first version that has leases.
pub(crate) const LEASES: u16 = 2;

/// The first version in which what both ends see the same is not said.
pub(crate) const RESUMES: u16 = 3;

/// Place of [`ToWorker::Job`] among its variants, which is its first byte.
const JOB: u8 = 1;

/// A message of a session.
pub(crate) trait Message: Serialize + DeserializeOwned {
    /// It as written in a version; `None` if that cannot say it.
    fn write(&self, version: u16) -> Option<Vec<u8>>;

    /// What was written in a version.
    fn read(version: u16, bytes: &[u8]) -> Option<Self>;
}

fn since_of_report(said: &ToControl) -> u16 {
    match said {
        ToControl::Renew { .. } => LEASES,
        ToControl::Resume(_) | ToControl::Held(_) => RESUMES,
        _ => OURS.0,
    }
}

fn since_of_order(said: &ToWorker) -> u16 {
    match said {
        ToWorker::Renewed { .. } => LEASES,
        ToWorker::Compare(_) | ToWorker::Unwanted { .. } => RESUMES,
        _ => OURS.0,
    }
}

impl Message for ToControl {
    fn write(&self, version: u16) -> Option<Vec<u8>> {
        match self {
            said if since_of_report(said) > version => None,
            said => postcard::to_stdvec(said).ok(),
        }
    }

    fn read(version: u16, bytes: &[u8]) -> Option<Self> {
        let said = postcard::from_bytes(bytes).ok();
        said.filter(|said| since_of_report(said) <= version)
    }
}

impl Message for ToWorker {
    fn write(&self, version: u16) -> Option<Vec<u8>> {
        match self {
            said if since_of_order(said) > version => None,
            Self::Job(bundle) if version < LEASES => write_first(bundle),
            said => postcard::to_stdvec(said).ok(),
        }
    }

    fn read(version: u16, bytes: &[u8]) -> Option<Self> {
        match bytes.split_first() {
            Some((&JOB, body)) if version < LEASES => read_first(body),
            _ => {
                let said = postcard::from_bytes(bytes).ok();
                said.filter(|said| since_of_order(said) <= version)
            }
        }
    }
}

/// A bundle in its first form, unless its job needs what that cannot say.
fn write_first(bundle: &JobBundle) -> Option<Vec<u8>> {
    let bytes = postcard::to_extend(&bundle.job, vec![JOB]).ok()?;
    let mut bytes = postcard::to_extend(&*bundle.spec, bytes).ok()?;
    if !FirstSpec::cut(&bundle.spec, &mut bytes) {
        return None;
    }
    postcard::to_extend(&bundle.blobs, bytes).ok()
}

fn read_first(body: &[u8]) -> Option<ToWorker> {
    let (job, spec, blobs) =
        postcard::from_bytes::<(JobId, FirstSpec, Vec<(String, Blob)>)>(body).ok()?;
    let spec = std::sync::Arc::new(spec.into());
    Some(ToWorker::Job(Box::new(JobBundle { job, spec, blobs })))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use prism_link::resume::{Difference, Holdings, Told};
    use prism_link::{Hello, Holding, Readings, Resume};
    use prism_types::{NodeId, SandboxId, TaskRef, TimeMs};

    use super::*;

    fn bundle(single: bool) -> ToWorker {
        let text = format!("job: a\ncommand: [x]\nlabels: {{k: v}}\nsingle_instance: {single}\n");
        let document = prism_spec::parse_file("job.yaml", text.as_bytes()).unwrap();
        let spec = document.resolve(BTreeMap::new()).unwrap().spec;
        let blobs = vec![("00".to_owned(), Blob::from_static(b"content"))];
        ToWorker::Job(Box::new(JobBundle {
            job: JobId::new(1, 2),
            spec: Arc::new(spec),
            blobs,
        }))
    }

    #[test]
    fn what_all_versions_have_comes_back_in_all() {
        for version in [1, 2, 3] {
            let job = bundle(false);
            let bytes = job.write(version).unwrap();
            assert_eq!(ToWorker::read(version, &bytes), Some(job));
            let recall = ToWorker::Recall(JobId::new(1, 2));
            let bytes = recall.write(version).unwrap();
            assert_eq!(ToWorker::read(version, &bytes), Some(recall));
            let heartbeat = ToControl::Heartbeat {
                readings: Readings::default(),
                credits: 3,
            };
            let bytes = heartbeat.write(version).unwrap();
            assert_eq!(ToControl::read(version, &bytes), Some(heartbeat));
        }
    }

    #[test]
    fn a_version_without_leases_is_told_nothing_of_them() {
        let (ask, answer) = (ToControl::Renew { sent: 7 }, ToWorker::Renewed { sent: 7 });
        assert!(ask.write(1).is_none() && answer.write(1).is_none());
        assert!(bundle(true).write(1).is_none());
        for single in [false, true] {
            let job = bundle(single);
            assert_eq!(ToWorker::read(2, &job.write(2).unwrap()), Some(job));
        }
        let (asked, answered) = (ask.write(2).unwrap(), answer.write(2).unwrap());
        assert!(ToControl::read(1, &asked).is_none() && ToWorker::read(1, &answered).is_none());
        assert_eq!(ToControl::read(2, &asked), Some(ask));
        assert_eq!(ToWorker::read(2, &answered), Some(answer));
    }

    fn hello() -> Hello {
        Hello {
            node: NodeId::new(1, 2),
            name: "n".parse().unwrap(),
            labels: Default::default(),
            capacity: Default::default(),
            facts: Default::default(),
            tasks: Vec::new(),
            sandboxes: Vec::new(),
        }
    }

    #[test]
    fn a_version_without_comparison_is_told_nothing_of_it() {
        let task = TaskRef {
            job: JobId::new(1, 2),
            index: 3,
            attempt: 4,
        };
        let holdings = Holdings {
            tasks: vec![(task, Holding::Running(TimeMs(5)))],
            sandboxes: vec![(SandboxId::new(1, 2), None)],
            jobs: vec![(task.job, 6)],
        };
        let told = Told::new([7; 16], holdings.clone());
        let reports = [
            ToControl::Resume(Box::new(Resume {
                hello: hello(),
                summary: told.summary(),
            })),
            ToControl::Held(Box::new(Difference {
                buckets: vec![0, 9],
                holdings,
            })),
        ];
        let orders = [
            ToWorker::Compare(vec![[8; 16], [0; 16]]),
            ToWorker::Unwanted {
                tasks: vec![task],
                sandboxes: Vec::new(),
            },
        ];
        for version in [1, 2] {
            for report in &reports {
                assert!(report.write(version).is_none());
                let bytes = report.write(3).unwrap();
                assert!(ToControl::read(version, &bytes).is_none());
                assert_eq!(ToControl::read(3, &bytes).as_ref(), Some(report));
            }
            for order in &orders {
                assert!(order.write(version).is_none());
                let bytes = order.write(3).unwrap();
                assert!(ToWorker::read(version, &bytes).is_none());
                assert_eq!(ToWorker::read(3, &bytes).as_ref(), Some(order));
            }
        }
        // What they say instead is the same in all.
        let greeting = ToControl::Hello(Box::new(hello()));
        let bytes = greeting.write(1).unwrap();
        assert_eq!(greeting.write(3).as_ref(), Some(&bytes));
        assert_eq!(ToControl::read(2, &bytes), Some(greeting));
    }

    #[test]
    fn the_first_form_is_shorter_by_the_field_that_it_lacks() {
        let job = bundle(false);
        let (first, second) = (job.write(1).unwrap(), job.write(2).unwrap());
        assert_eq!(first.len() + 1, second.len());
        assert!(
            ToWorker::read(2, &first).is_none(),
            "it is of no other version"
        );
    }
}
