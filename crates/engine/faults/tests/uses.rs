//! The table and the sources say the same: every failpoint of the table stands in the code, and none stands there twice.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use prism_faults::POINTS;

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("the sources can be read") {
        let entry = entry.expect("the sources can be read");
        let (path, name) = (entry.path(), entry.file_name());
        if entry.path().is_dir() {
            if name != "tests" && name != "target" {
                sources(&path, into);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn every_failpoint_of_the_table_stands_in_the_code_once() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let mut files = Vec::new();
    sources(&root.join("crates"), &mut files);
    sources(&root.join("src"), &mut files);
    let mut uses: BTreeMap<String, u32> = BTreeMap::new();
    for file in files.iter().filter(|f| !f.ends_with("faults/src/lib.rs")) {
        let text = fs::read_to_string(file).unwrap();
        for start in ["point!(\"", "id!(\""] {
            for part in text.split(start).skip(1) {
                let name = part.split('"').next().unwrap();
                *uses.entry(name.to_owned()).or_default() += 1;
            }
        }
    }
    let table: BTreeMap<String, u32> = POINTS.iter().map(|p| (p.name.to_owned(), 1)).collect();
    assert_eq!(uses, table);
}
