//! The authorities of `crate::trust` for the driver, which trusts roots of its own unless it is given a file.
//!
//! The driver reads its files for TLS whenever it meets another server, on the thread that serves others (`TlsConfig` of its
//! runtime module). So all of them are files in memory, read anew for each client.

use crate::file_access;
use crate::trust;
use mongodb::options::{ClientOptions, Tls};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the authorities of the system have to be read, before those count that were read last.
const PATIENCE: Duration = Duration::from_secs(5);

/// Files in memory: they must live as long as the client.
#[derive(Debug, Default)]
pub(super) struct Authorities(Vec<File>);

impl Authorities {
    /// Has the driver trust the authorities, if it speaks TLS and its address names no others.
    pub(super) async fn put_into(options: &mut ClientOptions) -> Result<Option<Self>, String> {
        let Some(Tls::Enabled(tls)) = &mut options.tls else { return Ok(None) };
        let mut files = Self::default();
        if let Some(file) = &mut tls.ca_file_path {
            *file = files.add(&read(file).await?)?;
        } else if tls.allow_invalid_certificates != Some(true) {
            let authorities = trust::Authorities::current(PATIENCE).await?;
            tls.ca_file_path = Some(files.add(authorities.pem.as_bytes())?);
        }
        if let Some(file) = &mut tls.cert_key_file_path {
            *file = files.add(&read(file).await?)?;
        }
        Ok(Some(files))
    }

    /// Adds a file with these contents; gives the path by which it is read.
    fn add(&mut self, bytes: &[u8]) -> Result<PathBuf, String> {
        let file = in_memory(bytes)
            .map_err(|error| format!("the files for TLS cannot be handed on: {error}"))?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        self.0.push(file);
        Ok(path)
    }
}

/// Reads a file that the address names.
async fn read(file: &Path) -> Result<Vec<u8>, String> {
    let path = file.to_owned();
    let reading = file_access::run(file, move || trust::read(&path)).await;
    reading.map_err(|error| error.to_string()).flatten()
}

fn in_memory(bytes: &[u8]) -> std::io::Result<File> {
    let mut file = File::from(memfd_create("tls", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}
