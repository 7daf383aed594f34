//! The authorities of `crate::trust` for the driver, which trusts roots of its own unless it is given a file.

use crate::trust;
use mongodb::options::{ClientOptions, Tls};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// A file in memory, which the driver reads whenever it meets another server: it must live as long as the client.
#[derive(Debug)]
pub(super) struct Authorities {
    _file: File,
}

impl Authorities {
    /// Has the driver trust the authorities, if it speaks TLS and its address names no others.
    pub(super) fn put_into(options: &mut ClientOptions) -> Result<Option<Self>, String> {
        let Some(Tls::Enabled(tls)) = &mut options.tls else { return Ok(None) };
        if tls.ca_file_path.is_some() || tls.allow_invalid_certificates == Some(true) {
            return Ok(None);
        }
        let pem = trust::authorities_pem()?;
        let file = in_memory(pem.as_bytes())
            .map_err(|error| format!("the authorities for TLS cannot be handed on: {error}"))?;
        tls.ca_file_path = Some(PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())));
        Ok(Some(Self { _file: file }))
    }
}

fn in_memory(bytes: &[u8]) -> std::io::Result<File> {
    let mut file = File::from(memfd_create("authorities", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}
