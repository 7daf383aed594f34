//! Snapshots of the index, as they are read after a restart.

use aws_lc_rs::digest::{SHA256, digest};
use hookgate::auth::Callers;
use hookgate::mirror::snapshot::{Contents, SourceId};
use hookgate::settings::SettingsReader;
use hookgate::triggers::{TriggerIndex, TriggersSettings};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

/// Seconds since 1970 when the file is read, and milliseconds when it was written.
const NOW: u64 = 1_700_000_000;
const WRITTEN: u64 = 1_699_999_999_000;

const NAMES: [&str; 4] = ["triggers", "inactive", "users", "owners"];

static CONTENTS: LazyLock<Contents> = LazyLock::new(|| {
    let mut settings = SettingsReader::default();
    let triggers = TriggersSettings::read(&mut settings.section("triggers"));
    let triggers = TriggerIndex::new(&triggers);
    let callers = Callers::new(Duration::from_secs(1));
    Contents {
        file: PathBuf::new(),
        source: SourceId::from_parts(&[""; 0]),
        indexes: triggers.saved_indexes().into_iter().chain(callers.saved_indexes()).collect(),
    }
});

/// What stands between the time and the checksum of a file, which make it a file that could have
/// been written. It is refused, or a second reader finds the same documents.
pub fn check(indexes: &[u8]) {
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    assert!(CONTENTS.accept(indexes.to_vec(), now).is_err(), "a file without a checksum");
    let accepted = CONTENTS.accept(file(indexes), now);
    let read = read(indexes);
    let Ok(snapshot) = accepted else { return };
    let read = read.expect("a whole file is accepted");
    assert_eq!(snapshot.taken_at, UNIX_EPOCH + Duration::from_millis(WRITTEN));
    for (name, postings) in NAMES.iter().zip(read) {
        let mut expected: HashMap<&[u8], Vec<_>> = HashMap::new();
        for [key, document, data] in postings {
            expected.entry(document).or_default().push((key, data));
        }
        let found = snapshot.documents(name);
        assert_eq!(found.len(), expected.len(), "documents of {name}");
        for (document, entries) in found {
            let entries: Vec<_> =
                entries.iter().map(|entry| (entry.key.as_slice(), entry.data.as_slice())).collect();
            assert_eq!(Some(&entries), expected.get(document), "{name}");
        }
    }
    assert!(snapshot.documents("other").is_empty());
}

/// A file of this version and source, with its checksum.
fn file(indexes: &[u8]) -> Vec<u8> {
    let source = digest(&SHA256, b"");
    let parts: [&[u8]; 4] = [b"hookgate-index-1", source.as_ref(), &WRITTEN.to_le_bytes(), indexes];
    let content = parts.concat();
    [content.as_slice(), digest(&SHA256, &content).as_ref()].concat()
}

/// The postings of each index: key, document, data. `None` if the layout is another one.
fn read(indexes: &[u8]) -> Option<Vec<Vec<[&[u8]; 3]>>> {
    let mut rest = indexes;
    let mut all = Vec::new();
    for name in NAMES {
        (take(&mut rest)? == name.as_bytes()).then_some(())?;
        let mut postings = Vec::new();
        loop {
            let key = take(&mut rest)?;
            if key.is_empty() {
                break;
            }
            postings.push([key, take(&mut rest)?, take(&mut rest)?]);
        }
        all.push(postings);
    }
    rest.is_empty().then_some(all)
}

/// A byte string after its length, which has seven bits in each byte.
fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0)?;
    let length = bytes[..=end].iter().rev().try_fold(0_u64, |length, byte| {
        length.checked_mul(128)?.checked_add(u64::from(byte & 0x7f))
    })?;
    let (taken, rest) = bytes[end + 1..].split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(taken)
}
