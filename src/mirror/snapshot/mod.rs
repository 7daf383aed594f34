//! What is in memory, on disk: so that a restart serves while the database is away.
//!
//! A file is `magic, source, time, tables, checksum`: what the documents came from, in a digest; milliseconds since 1970;
//! tables of `name, count, then key, document and data of each posting`; and the SHA-256 of all before it. Numbers are
//! little-endian, texts have their length in front. A file that is not whole, of another version or of another source is
//! refused.

mod keeper;
mod replaced_file;

use super::key::Key;
use super::shard::{Posting, push_bytes, take_bytes};
use super::sharded::Sharded;
use super::writer::Entry;
use crate::file_access;
use anyhow::{Context as _, bail, ensure};
use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN, digest};
pub use keeper::Keeper;
use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Changes with the layout of the file, of keys or of what is under them.
const MAGIC: &[u8; 16] = b"hookgate-index-1";

const SOURCE_BYTES: usize = 32;

/// How far ahead of ours the clock of the machine may have been that wrote a snapshot.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long reading a file may take: five million triggers take some seconds.
const SLOW: Duration = Duration::from_secs(30);

/// Where the documents come from and how they are read. A snapshot of another one must not be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceId([u8; SOURCE_BYTES]);

impl SourceId {
    /// Of everything that decides on what the maps hold.
    pub fn of(parts: &[&str]) -> Self {
        let mut bytes = Vec::new();
        for part in parts {
            push_bytes(&mut bytes, part.as_bytes());
        }
        let mut id = [0; SOURCE_BYTES];
        id.copy_from_slice(digest(&SHA256, &bytes).as_ref());
        Self(id)
    }
}

/// A map of a snapshot, by its name.
#[derive(Debug, Clone)]
pub struct Table {
    pub name: &'static str,
    pub map: Arc<Sharded>,
    /// Whether the map's readers can read this posting. A checksum says that a file is whole, not that its contents
    /// are what this version writes.
    pub is_readable: fn(Posting<'_>) -> bool,
}

/// Where snapshots are kept, and what is in them.
#[derive(Debug, Clone)]
pub struct Contents {
    pub file: PathBuf,
    pub source: SourceId,
    pub tables: Vec<Table>,
}

impl Contents {
    /// Writes everything that readers see.
    fn write(&self, out: impl Write, now: SystemTime) -> anyhow::Result<()> {
        let mut out = Summed { out, sum: Context::new(&SHA256) };
        out.write_all(MAGIC)?;
        out.write_all(&self.source.0)?;
        out.write_all(&milliseconds(now).to_le_bytes())?;
        for Table { name, map, .. } in &self.tables {
            write_table(&mut out, name, map)?;
        }
        let Summed { mut out, sum } = out;
        out.write_all(sum.finish().as_ref())?;
        out.flush()?;
        Ok(())
    }

    /// The snapshot that is there, if it can be believed.
    pub async fn find(&self) -> Option<Snapshot> {
        let contents = self.clone();
        let reading = file_access::run_within(SLOW, &self.file, move || contents.read());
        let read = reading.await.map_err(anyhow::Error::from).flatten();
        read.unwrap_or_else(|error| {
            let file = self.file.display().to_string();
            tracing::warn!(file, error = format!("{error:#}"), "snapshot refused");
            None
        })
    }

    /// Reads the file; `None` where there is none.
    fn read(&self) -> anyhow::Result<Option<Snapshot>> {
        let Some(bytes) = replaced_file::read(&self.file)? else { return Ok(None) };
        let snapshot = Snapshot::whole(bytes, self.source)?;
        let latest = SystemTime::now() + CLOCK_DIFFERENCE;
        ensure!(snapshot.taken_at <= latest, "its time is in the future");
        ensure!(snapshot.is_readable(&self.tables), "its contents cannot be read");
        Ok(Some(snapshot))
    }
}

fn write_table(out: &mut impl Write, name: &str, table: &Sharded) -> anyhow::Result<()> {
    let mut buffer = Vec::new();
    let mut result = Ok(());
    push_bytes(&mut buffer, name.as_bytes());
    table.for_each(|key, postings| {
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
    // No key is empty: that is the end of the table.
    push_bytes(&mut buffer, b"");
    out.write_all(&buffer)?;
    Ok(())
}

/// Sums up what is written.
struct Summed<W> {
    out: W,
    sum: Context,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.sum.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// A snapshot that was read and is whole.
#[derive(Debug)]
pub struct Snapshot {
    bytes: Vec<u8>,
    pub taken_at: SystemTime,
}

impl Snapshot {
    #[cfg(test)]
    pub(super) fn of_nothing() -> Self {
        Self { bytes: Vec::new(), taken_at: SystemTime::now() }
    }

    /// Takes the contents of a file, if it is whole and of this source.
    fn whole(mut bytes: Vec<u8>, source: SourceId) -> anyhow::Result<Self> {
        let Some((content, sum)) = bytes.split_last_chunk::<SHA256_OUTPUT_LEN>() else {
            bail!("it is too short");
        };
        ensure!(digest(&SHA256, content).as_ref() == sum, "its checksum is wrong");
        let head = MAGIC.len() + SOURCE_BYTES + 8;
        let (magic, rest) = content.split_at_checked(MAGIC.len()).context("it is too short")?;
        ensure!(magic == MAGIC, "it is of another version");
        let (from, rest) = rest.split_at_checked(SOURCE_BYTES).context("it is too short")?;
        ensure!(from == source.0, "it is of another database, collection or names of fields");
        let time = rest.first_chunk().context("it is too short")?;
        let taken_at = UNIX_EPOCH.checked_add(Duration::from_millis(u64::from_le_bytes(*time)));
        let taken_at = taken_at.context("its time cannot be read")?;
        bytes.truncate(bytes.len() - SHA256_OUTPUT_LEN);
        bytes.drain(..head);
        Ok(Self { bytes, taken_at })
    }

    /// Whether it holds these tables and nothing else, each of which its readers can read.
    fn is_readable(&self, tables: &[Table]) -> bool {
        let mut rest = self.bytes.as_slice();
        for table in tables {
            let Some((name, after)) = take_bytes(rest) else { return false };
            let mut entries = Entries::new(after);
            if name != table.name.as_bytes() || !are_readable(&mut entries, table) {
                return false;
            }
            rest = entries.rest;
        }
        rest.is_empty()
    }

    /// What each document has in a table; nothing where there is no such table.
    pub fn documents(&self, name: &str) -> HashMap<&[u8], Vec<Entry>> {
        let mut documents: HashMap<&[u8], Vec<Entry>> = HashMap::new();
        for (key, Posting { document, data }) in self.table(name) {
            let entry = Entry { key: key.to_vec(), data: data.to_vec() };
            documents.entry(document).or_default().push(entry);
        }
        documents
    }

    fn table(&self, name: &str) -> impl Iterator<Item = (&[u8], Posting<'_>)> {
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

/// Whether all entries of a table can be read, up to its end. The postings of a key stand together, one of each
/// document, in order.
fn are_readable(entries: &mut Entries<'_>, table: &Table) -> bool {
    let mut previous: Option<(&[u8], &[u8])> = None;
    for (key, posting) in entries.by_ref() {
        let is_repeated = previous.is_some_and(|(previous_key, document)| {
            previous_key == key && document >= posting.document
        });
        if is_repeated || !Key::is_stored(key) || !(table.is_readable)(posting) {
            return false;
        }
        previous = Some((key, posting.document));
    }
    entries.is_at_end
}

/// The entries of a table, and after its end the rest of the file.
struct Entries<'a> {
    rest: &'a [u8],
    /// Whether the end of the table has been read.
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

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
