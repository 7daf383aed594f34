//! The index on disk. After a restart it is served while the database is not reachable.
//!
//! A file is `magic, source, time, indexes, checksum`. The source is a digest of where the documents
//! come from. The time is in milliseconds since 1970, little-endian. A index is its name, then the
//! key, document and data of each posting, then an empty key. Each of these byte strings has its
//! length in front. The checksum is the SHA-256 of everything before it. A file that is incomplete,
//! of another version or of another source is refused.

pub mod keeper;
mod replaced_file;

use crate::files::file_access;
use crate::mirror::index::key::IndexKey;
use crate::mirror::index::shard::Posting;
use crate::mirror::index::sharded::ShardedIndex;
use crate::mirror::index::varint::{push_bytes, take_bytes};
use crate::mirror::index::writer::Entry;
use crate::process::unix_time;
use anyhow::{Context as _, bail, ensure};
use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN, digest};
use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Changes with the layout of the file, of keys or of postings.
const MAGIC: &[u8; 16] = b"hookgate-index-1";

const SOURCE_BYTES: usize = 32;

/// How far the clock of the machine that wrote a snapshot may have been ahead of ours.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long reading a file may take. Five million triggers take some seconds.
const READ_LIMIT: Duration = Duration::from_secs(30);

/// Identifies where the documents come from and how they are read. A snapshot with another id must
/// not be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceId([u8; SOURCE_BYTES]);

impl SourceId {
    /// `parts` are all settings that determine the contents of the index.
    pub fn from_parts(parts: &[impl AsRef<str>]) -> Self {
        let mut bytes = Vec::new();
        for part in parts {
            push_bytes(&mut bytes, part.as_ref().as_bytes());
        }
        let mut id = [0; SOURCE_BYTES];
        id.copy_from_slice(digest(&SHA256, &bytes).as_ref());
        Self(id)
    }
}

/// An index with its name in a snapshot.
#[derive(Clone)]
pub struct SavedIndex {
    pub name: &'static str,
    pub map: Arc<ShardedIndex>,
    /// Whether the readers of the index can read a posting. The checksum shows that a file is
    /// complete, not that this version wrote its contents.
    is_readable: Arc<dyn Fn(Posting<'_>) -> bool + Send + Sync>,
}

impl SavedIndex {
    pub fn new(
        name: &'static str,
        map: &Arc<ShardedIndex>,
        is_readable: impl Fn(Posting<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { name, map: Arc::clone(map), is_readable: Arc::new(is_readable) }
    }
}

impl fmt::Debug for SavedIndex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SavedIndex").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Where snapshots are kept, and what they contain.
#[derive(Debug, Clone)]
pub struct Contents {
    pub file: PathBuf,
    pub source: SourceId,
    pub indexes: Vec<SavedIndex>,
}

impl Contents {
    /// Writes the indexes as readers find them now.
    fn write(&self, out: impl Write, now: SystemTime) -> anyhow::Result<()> {
        let mut out = SummedWriter { out, sum: Context::new(&SHA256) };
        out.write_all(MAGIC)?;
        out.write_all(&self.source.0)?;
        out.write_all(&unix_time::milliseconds(now).to_le_bytes())?;
        for SavedIndex { name, map, .. } in &self.indexes {
            write_table(&mut out, name, map)?;
        }
        let SummedWriter { mut out, sum } = out;
        out.write_all(sum.finish().as_ref())?;
        out.flush()?;
        Ok(())
    }

    /// Reads the snapshot. A file that is refused is logged, and `None` is returned as for no file.
    pub async fn find(&self) -> Option<Snapshot> {
        let contents = self.clone();
        let reading = file_access::run_within(READ_LIMIT, &self.file, move || contents.read());
        let read = reading.await.map_err(anyhow::Error::from).flatten();
        read.unwrap_or_else(|error| {
            let file = self.file.display().to_string();
            tracing::warn!(file, error = format!("{error:#}"), "snapshot refused");
            None
        })
    }

    /// Reads the file; `None` where there is none.
    fn read(&self) -> anyhow::Result<Option<Snapshot>> {
        let bytes = replaced_file::read(&self.file)?;
        bytes.map(|bytes| self.accept(bytes, SystemTime::now())).transpose()
    }

    /// Checks the bytes of a file. Nothing that is accepted can be read otherwise than it was
    /// written.
    pub fn accept(&self, bytes: Vec<u8>, now: SystemTime) -> anyhow::Result<Snapshot> {
        let snapshot = Snapshot::from_file(bytes, self.source)?;
        ensure!(snapshot.taken_at <= now + CLOCK_DIFFERENCE, "its time is in the future");
        ensure!(snapshot.is_readable(&self.indexes), "its contents cannot be read");
        Ok(snapshot)
    }
}

fn write_table(out: &mut impl Write, name: &str, index: &ShardedIndex) -> anyhow::Result<()> {
    let mut buffer = Vec::new();
    let mut result = Ok(());
    push_bytes(&mut buffer, name.as_bytes());
    index.for_each(|key, postings| {
        let key = &key.to_bytes()[..];
        for Posting { document, data } in postings {
            for bytes in [key, document, data] {
                push_bytes(&mut buffer, bytes);
            }
        }
        if buffer.len() > 1 << 16 && result.is_ok() {
            result = out.write_all(&buffer);
            buffer.clear();
        }
    });
    result?;
    // An empty key ends the index; no stored key is empty.
    push_bytes(&mut buffer, b"");
    out.write_all(&buffer)?;
    Ok(())
}

/// Computes the checksum of what is written.
struct SummedWriter<W> {
    out: W,
    sum: Context,
}

impl<W: Write> Write for SummedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.sum.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// A snapshot that is complete and of the right version and source.
#[derive(Debug)]
pub struct Snapshot {
    bytes: Vec<u8>,
    pub taken_at: SystemTime,
}

impl Snapshot {
    #[cfg(test)]
    pub(super) fn empty() -> Self {
        Self { bytes: Vec::new(), taken_at: SystemTime::now() }
    }

    /// The snapshot that is read back after these indexes were written.
    #[cfg(test)]
    pub(super) fn of_indexes(indexes: Vec<SavedIndex>, taken_at: SystemTime) -> Self {
        let contents =
            Contents { file: PathBuf::new(), source: SourceId::from_parts(&[""; 0]), indexes };
        let mut bytes = Vec::new();
        contents.write(&mut bytes, taken_at).expect("written to memory");
        Self::from_file(bytes, contents.source).expect("a snapshot that was just written")
    }

    /// Checks the contents of a file: its completeness, version and source.
    fn from_file(mut bytes: Vec<u8>, source: SourceId) -> anyhow::Result<Self> {
        let Some((content, sum)) = bytes.split_last_chunk::<SHA256_OUTPUT_LEN>() else {
            bail!("it is too short");
        };
        ensure!(digest(&SHA256, content).as_ref() == sum, "its checksum is wrong");
        let head = MAGIC.len() + SOURCE_BYTES + 8;
        let (magic, rest) = content.split_at_checked(MAGIC.len()).context("it is too short")?;
        ensure!(magic == MAGIC, "it is from another version");
        let (from, rest) = rest.split_at_checked(SOURCE_BYTES).context("it is too short")?;
        ensure!(
            from == source.0,
            "it is from another database or collection, or has other field names"
        );
        let time = rest.first_chunk().context("it is too short")?;
        let taken_at = UNIX_EPOCH.checked_add(Duration::from_millis(u64::from_le_bytes(*time)));
        let taken_at = taken_at.context("its time is out of range")?;
        bytes.truncate(bytes.len() - SHA256_OUTPUT_LEN);
        bytes.drain(..head);
        Ok(Self { bytes, taken_at })
    }

    /// Whether it holds exactly these indexes, and their readers can read every posting.
    fn is_readable(&self, indexes: &[SavedIndex]) -> bool {
        let mut rest = self.bytes.as_slice();
        for index in indexes {
            let Some((name, after)) = take_bytes(rest) else { return false };
            let mut entries = Entries::new(after);
            if name != index.name.as_bytes() || !are_readable(&mut entries, index) {
                return false;
            }
            rest = entries.rest;
        }
        rest.is_empty()
    }

    /// The entries of each document in an index; empty if there is no such index.
    pub fn documents(&self, name: &str) -> HashMap<&[u8], Vec<Entry>> {
        let mut documents: HashMap<&[u8], Vec<Entry>> = HashMap::new();
        for (key, Posting { document, data }) in self.index(name) {
            let entry = Entry { key: key.to_vec(), data: data.to_vec() };
            documents.entry(document).or_default().push(entry);
        }
        documents
    }

    /// The postings of an index, each with the stored form of its key.
    fn index(&self, name: &str) -> impl Iterator<Item = (&[u8], Posting<'_>)> {
        let mut rest = self.bytes.as_slice();
        while let Some((found, after)) = take_bytes(rest) {
            let mut entries = Entries::new(after);
            if found == name.as_bytes() {
                return entries;
            }
            entries.by_ref().for_each(drop);
            rest = entries.rest;
        }
        Entries::new(&[])
    }
}

/// Whether the index is complete and all its postings are readable. The postings of a key are
/// adjacent, sorted by document, one of each document.
fn are_readable(entries: &mut Entries<'_>, index: &SavedIndex) -> bool {
    let mut previous: Option<(&[u8], &[u8])> = None;
    for (key, posting) in entries.by_ref() {
        let is_repeated = previous.is_some_and(|(previous_key, document)| {
            previous_key == key && document >= posting.document
        });
        if is_repeated || !IndexKey::is_stored(key) || !(index.is_readable)(posting) {
            return false;
        }
        previous = Some((key, posting.document));
    }
    entries.is_at_end
}

/// Iterates over an index. After its end, `rest` is the rest of the file.
struct Entries<'a> {
    rest: &'a [u8],
    /// Whether the end of the index has been read.
    is_at_end: bool,
}

impl<'a> Entries<'a> {
    fn new(rest: &'a [u8]) -> Self {
        Self { rest, is_at_end: false }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a [u8], Posting<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, rest) = take_bytes(self.rest)?;
        if key.is_empty() {
            (self.rest, self.is_at_end) = (rest, true);
            return None;
        }
        let (document, rest) = take_bytes(rest)?;
        let (data, rest) = take_bytes(rest)?;
        self.rest = rest;
        Some((key, Posting { document, data }))
    }
}
