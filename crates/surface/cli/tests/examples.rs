//! Every spec under `examples/` is read, resolved and expanded.

use std::collections::BTreeMap;
use std::path::Path;

use prism_spec::parse_file;
use prism_types::JobId;

#[test]
fn every_example_is_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../examples");
    let mut found = 0;
    for example in std::fs::read_dir(root).unwrap().flatten() {
        for file in [
            "job.yaml",
            "sweep.yaml",
            "job.toml",
            "sweep.json",
            "job.json",
            "sweep.toml",
        ] {
            let path = example.path().join(file);
            let Ok(bytes) = std::fs::read(&path) else {
                continue;
            };
            let document = parse_file(file, &bytes).unwrap_or_else(|e| panic!("{path:?}: {e}"));
            let contents: BTreeMap<_, _> = document
                .wanted_files()
                .into_iter()
                .map(|w| {
                    let bytes = std::fs::read(example.path().join(&w.path)).unwrap();
                    (w.path, (0o644, bytes))
                })
                .collect();
            let submission = document
                .resolve(contents)
                .unwrap_or_else(|e| panic!("{path:?}: {e}"));
            for index in 0..submission.spec.task_count() {
                let task = submission
                    .spec
                    .command_of(index, JobId::default(), 1)
                    .unwrap();
                assert!(!task.argv.is_empty());
            }
            found += 1;
        }
    }
    assert!(found >= 4, "found {found} examples");
}
