//! The certificate authorities of `crate::files::tls_roots`, as files for the driver. Without a
//! file the driver trusts its own list of roots.
//!
//! The driver reads its TLS files whenever it discovers a server, on the thread that runs other
//! tasks too (`TlsConfig` of its runtime module). A file on a file system may hang, so each client
//! gets files in memory.

use crate::files::file_access;
use crate::files::tls_roots;
use mongodb::options::{ClientOptions, Tls};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the authorities of the system are waited for, before those that were read last are
/// used.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// Files in memory. They must live as long as the client.
#[derive(Debug, Default)]
pub(super) struct Authorities(Vec<File>);

impl Authorities {
    /// Sets the TLS files of a client: those that the address names, or the authorities. `None`
    /// without TLS.
    pub(super) async fn install(options: &mut ClientOptions) -> Result<Option<Self>, String> {
        let Some(Tls::Enabled(tls)) = &mut options.tls else { return Ok(None) };
        let mut files = Self::default();
        if let Some(file) = &mut tls.ca_file_path {
            *file = files.add(&read(file).await?)?;
        } else if tls.allow_invalid_certificates != Some(true) {
            let authorities = tls_roots::Authorities::current(READ_LIMIT).await?;
            tls.ca_file_path = Some(files.add(authorities.pem.as_bytes())?);
        }
        if let Some(file) = &mut tls.cert_key_file_path {
            *file = files.add(&read(file).await?)?;
        }
        Ok(Some(files))
    }

    /// Adds a file with these contents and returns its path.
    fn add(&mut self, bytes: &[u8]) -> Result<PathBuf, String> {
        let file = file_in_memory(bytes)
            .map_err(|error| format!("the files for TLS cannot be copied to memory: {error}"))?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        self.0.push(file);
        Ok(path)
    }
}

/// Reads a file that the address names.
async fn read(file: &Path) -> Result<Vec<u8>, String> {
    let path = file.to_owned();
    let reading = file_access::run(file, move || tls_roots::read(&path)).await;
    reading.map_err(|error| error.to_string()).flatten()
}

fn file_in_memory(bytes: &[u8]) -> std::io::Result<File> {
    let mut file = File::from(memfd_create("tls", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}
