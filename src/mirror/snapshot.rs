//! What is in memory, on disk: so that a restart serves while the database is away.
//!
//! A file is `magic, source, time, tables, checksum`: what the documents came from, in a digest; milliseconds since 1970;
//! tables of `name, count, then key, document and data of each posting`; and the SHA-256 of all before it. Numbers are
//! little-endian, texts have their length in front. A file that is not whole, of another version or of another source is
//! refused.

use super::Freshness;
use super::shard::{Posting, push_bytes, take_bytes};
use super::sharded::Sharded;
use super::writer::Entry;
use anyhow::{Context as _, bail, ensure};
use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN, digest};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Changes with the layout of the file, of keys or of what is under them.
const MAGIC: &[u8; 16] = b"hookgate-index-1";

const SOURCE_BYTES: usize = 32;

/// Between two files; the first one is written as soon as everything is loaded.
const INTERVAL: Duration = Duration::from_secs(60);

/// How often it is looked at whether everything is loaded.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

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

/// What is written: maps by their names, while all of them are current.
#[derive(Debug)]
pub struct Snapshots {
    pub file: PathBuf,
    pub source: SourceId,
    pub tables: Vec<(&'static str, Arc<Sharded>)>,
    pub freshness: Vec<Arc<Freshness>>,
}

impl Snapshots {
    /// Writes one every minute. Never ends.
    pub async fn keep(self) {
        let this = Arc::new(self);
        loop {
            if !this.freshness.iter().all(|each| each.can_deny()) {
                tokio::time::sleep(LOOK_INTERVAL).await;
                continue;
            }
            let writer = Arc::clone(&this);
            let written =
                tokio::task::spawn_blocking(move || writer.write(SystemTime::now())).await;
            match written.context("writing has failed").flatten() {
                Ok(()) => tracing::debug!(file = %this.file.display(), "snapshot written"),
                Err(error) => {
                    tracing::warn!(file = %this.file.display(), error = format!("{error:#}"), "snapshot not written");
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Writes beside the file and then puts it in its place, so that there is always a whole one.
    fn write(&self, now: SystemTime) -> anyhow::Result<()> {
        let beside = self.file.with_extension("new");
        // For nobody else: it names organizations and holds digests of keys.
        let mut options = File::options();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let file =
            options.open(&beside).with_context(|| format!("cannot write {}", beside.display()))?;
        let mut out = Summed { out: BufWriter::new(&file), sum: Context::new(&SHA256) };
        out.write_all(MAGIC)?;
        out.write_all(&self.source.0)?;
        out.write_all(&milliseconds(now).to_le_bytes())?;
        for (name, table) in &self.tables {
            write_table(&mut out, name, table)?;
        }
        let Summed { mut out, sum } = out;
        out.write_all(sum.finish().as_ref())?;
        out.flush()?;
        drop(out);
        file.sync_all()?;
        std::fs::rename(&beside, &self.file)?;
        Ok(())
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
    /// Reads a file; `None` where there is none.
    pub fn read(file: &Path, source: SourceId) -> anyhow::Result<Option<Self>> {
        let mut bytes = match std::fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
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
        let taken_at = UNIX_EPOCH + Duration::from_millis(u64::from_le_bytes(*time));
        bytes.truncate(bytes.len() - SHA256_OUTPUT_LEN);
        bytes.drain(..head);
        Ok(Some(Self { bytes, taken_at }))
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
        while let Some((found, behind)) = take_bytes(rest) {
            let mut entries = Entries(behind);
            if found == name.as_bytes() {
                return entries;
            }
            entries.by_ref().for_each(drop);
            rest = entries.0;
        }
        Entries(&[])
    }
}

/// What is left of a table, and behind its end of the file.
struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a [u8], Posting<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, rest) = take_bytes(self.0)?;
        if key.is_empty() {
            self.0 = rest;
            return None;
        }
        let (document, rest) = take_bytes(rest)?;
        let (data, rest) = take_bytes(rest)?;
        self.0 = rest;
        Some((key, Posting { document, data }))
    }
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
