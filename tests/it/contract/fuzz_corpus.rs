//! Replays the seeds and findings of fuzzing. `fuzz/` has the checks, the corpus and the
//! instructions.

#![expect(clippy::indexing_slicing, clippy::panic, reason = "a check panics")]
#![expect(unreachable_pub, reason = "the checks are a library for fuzzing")]

#[path = "../../../fuzz/src/lib.rs"]
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

#[test]
fn every_file_of_the_corpus_passes_its_check() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut faults = Vec::new();
    for (name, check) in targets::TARGETS {
        let mut files = 0;
        for entry in fs::read_dir(corpus.join(name)).expect("a directory for each target") {
            let path = entry.expect("a readable entry").path();
            let data = fs::read(&path).expect("a readable file");
            files += 1;
            if catch_unwind(|| check(&data)).is_err() {
                faults.push(path);
            }
        }
        assert!(files >= 5, "the corpus of {name} has {files} files");
    }
    assert!(faults.is_empty(), "{faults:#?}");
    let directories = fs::read_dir(&corpus).expect("the corpus");
    let directories: BTreeSet<_> =
        directories.map(|entry| entry.expect("a readable entry").file_name()).collect();
    assert_eq!(directories.len(), targets::TARGETS.len(), "every corpus has a check");
}
