//! `[queue.tls]`: the authorities that sign the certificate of Redis, and the certificate that
//! Hookgate presents to it.
//!
//! The files are read again for each new connection. Open connections keep what they were opened
//! with, so a certificate can be replaced at any time before it expires.

use crate::files::file_access;
use crate::files::tls_identity::{TlsIdentity, UnusableIdentity};
use crate::files::tls_roots::{self, Authorities, Roots};
use crate::settings::Section;
use fred::types::config::TlsConfig;
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The TLS of a queue's connections. Clones share the files that were read last.
#[derive(Debug, Clone, Default)]
pub(in crate::queue) struct RedisTls {
    files: TlsFiles,
    /// The name of the queue in the log, if the files are its own.
    queue: Option<String>,
    last: Arc<Mutex<LastRead>>,
}

/// The paths of the section. An empty path is not set.
#[derive(Debug, Clone, Default)]
struct TlsFiles {
    authorities: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

/// The contents of the files. `None` for what is not set.
#[derive(Debug, Clone, Default)]
struct Contents {
    roots: Option<Roots>,
    identity: Option<TlsIdentity>,
}

/// The contents that could be used last. They stay in use while the files hang or are unusable.
#[derive(Debug, Default)]
struct LastRead {
    contents: Contents,
    /// Why the files could not be used when they were read last.
    fault: Option<String>,
}

/// Why a file cannot be used.
#[derive(Debug)]
struct UnusableFile {
    /// The key of the section that names the file.
    key: &'static str,
    message: String,
}

impl RedisTls {
    /// Reads the section `[queue.tls]`, or that of a shard, and the files that it names.
    pub(in crate::queue) fn read(section: &mut Section<'_>) -> Self {
        let mut file = |key| section.value(key, PathBuf::new());
        let files = TlsFiles {
            authorities: file("ca_file"),
            certificate: file("cert_file"),
            key: file("key_file"),
        };
        match (is_set(&files.certificate), is_set(&files.key)) {
            (true, false) => section.fault("key_file", "is required if cert_file is set"),
            (false, true) => section.fault("cert_file", "is required if key_file is set"),
            _ => match files.load() {
                Ok(contents) => {
                    let last = LastRead { contents, fault: None };
                    return Self { files, queue: None, last: Arc::new(Mutex::new(last)) };
                }
                Err(UnusableFile { key, message }) => section.fault(key, message),
            },
        }
        Self { files, queue: None, last: Arc::default() }
    }

    /// Whether both are clones of one section.
    pub(in crate::queue) fn shares_files_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.last, &other.last)
    }

    /// The same files, as those of one of several queues.
    #[must_use]
    pub(in crate::queue) fn of_queue(self, name: &str) -> Self {
        Self { queue: Some(name.to_owned()), ..self }
    }

    /// Whether the section names any file.
    pub(super) fn has_files(&self) -> bool {
        self.files.first().is_some()
    }

    /// Checks that the address uses TLS if there are files for it, and that there are authorities
    /// if it does. Otherwise a password could be sent in plain text that the files should protect.
    pub(super) fn check(&self, is_tls: bool) -> Result<(), String> {
        match self.files.first() {
            Some(_) if !is_tls => {
                Err("does not use TLS, and [queue.tls] is set: begin it with rediss://, valkeys://, rediss-sentinel:// or rediss-cluster://, or remove the section; for one of several shards, give it an empty section tls".to_owned())
            }
            _ if is_tls && !is_set(&self.files.authorities) => tls_roots::check_authorities(),
            _ => Ok(()),
        }
    }

    /// fred's configuration for a new connection. The files are read within `timeout`. If they do
    /// not answer or cannot be used, what was read last is used.
    pub(super) async fn config(&self, timeout: Duration) -> Result<TlsConfig, String> {
        let system = async {
            if is_set(&self.files.authorities) {
                None
            } else {
                Some(Authorities::current(timeout).await)
            }
        };
        // Both at once, because each may take the whole time.
        let (contents, system) = tokio::join!(self.contents(timeout), system);
        let Contents { roots, identity } = contents;
        let client = match (roots, system.transpose()?) {
            (Some(roots), _) => tls_roots::client(&roots, identity.as_ref())?,
            (None, Some(system)) if identity.is_none() => system.client.clone(),
            (None, Some(system)) => tls_roots::client(&system.roots, identity.as_ref())?,
            (None, None) => return Err("ca_file of [queue.tls] was never readable".to_owned()),
        };
        Ok(client.into())
    }

    async fn contents(&self, timeout: Duration) -> Contents {
        if let Some(path) = self.files.first() {
            let Self { files, queue, last } = self.clone();
            let path = path.to_owned();
            // The task continues after the timeout, so that the next connection has its result.
            let reading = tokio::spawn(async move {
                let work = move || files.load();
                let loaded = file_access::run(&path, work).await;
                let loaded = loaded.map_err(|error| error.to_string()).and_then(|loaded| {
                    loaded.map_err(|UnusableFile { key, message }| format!("{key}: {message}"))
                });
                last.lock().update(loaded, queue.as_deref());
            });
            let _ = tokio::time::timeout(timeout, reading).await;
        }
        self.last.lock().contents.clone()
    }
}

impl LastRead {
    /// Keeps what was read. A fault is logged once while it lasts.
    fn update(&mut self, loaded: Result<Contents, String>, queue: Option<&str>) {
        let fault = match loaded {
            Ok(contents) => {
                self.contents = contents;
                None
            }
            Err(fault) => Some(fault),
        };
        match &fault {
            Some(reason) if self.fault != fault => {
                tracing::warn!(
                    queue,
                    reason,
                    "TLS files for Redis are unusable; keeping what was read last"
                );
            }
            None if self.fault.is_some() => {
                tracing::info!(queue, "TLS files for Redis are usable again");
            }
            _ => {}
        }
        self.fault = fault;
    }
}

impl TlsFiles {
    /// The first file that is set.
    fn first(&self) -> Option<&Path> {
        let files = [&self.authorities, &self.certificate, &self.key];
        files.into_iter().find(|path| is_set(path)).map(PathBuf::as_path)
    }

    fn load(&self) -> Result<Contents, UnusableFile> {
        let roots = if is_set(&self.authorities) {
            let roots = Roots::from_pem(&read("ca_file", &self.authorities)?);
            Some(roots.map_err(|fault| unusable("ca_file", &self.authorities, &fault))?)
        } else {
            None
        };
        let identity = if is_set(&self.certificate) {
            let certificate = read("cert_file", &self.certificate)?;
            let key = read("key_file", &self.key)?;
            let identity = TlsIdentity::from_pem(&certificate, &key);
            Some(identity.map_err(|fault| match fault {
                UnusableIdentity::Certificate(fault) => {
                    unusable("cert_file", &self.certificate, fault)
                }
                UnusableIdentity::Key(fault) => unusable("key_file", &self.key, fault),
            })?)
        } else {
            None
        };
        Ok(Contents { roots, identity })
    }
}

fn is_set(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, UnusableFile> {
    tls_roots::read(path).map_err(|message| UnusableFile { key, message })
}

fn unusable(key: &'static str, path: &Path, fault: &str) -> UnusableFile {
    UnusableFile { key, message: format!("{} {fault}", path.display()) }
}
