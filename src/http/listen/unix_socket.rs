//! The file of a Unix socket: it is made when the port opens, and removed when the process stops
//! accepting.

use crate::files::file_access;
use crate::http::acceptor::BACKLOG;
use crate::http::listen::address::UnixAddress;
use crate::process::lifecycle::{Condition, Reporter};
use socket2::{Domain, SockAddr, Socket, Type};
use std::convert::Infallible;
use std::fs;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a process looks whether the file of its socket is still there.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The file of a socket on which this process listens.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode, by which the file of another process is recognized. No other file gets
    /// them while the socket is open.
    identity: (u64, u64),
}

/// Fails if a process accepts connections on the path, or if what is there is no socket.
pub(super) fn check(path: &Path) -> io::Result<()> {
    file_access::enter(path);
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::other("the file exists and is no socket"));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A process that is too busy to accept has a full queue, for which connecting would wait.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(denied(
            "this user may not connect to the socket that is there, which may be in use",
        )),
        _ => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process accepts connections on the socket",
        )),
    }
}

/// Removes a socket on which nobody accepts, makes a new one and listens on it.
pub(super) fn listen(UnixAddress { path, mode }: &UnixAddress) -> io::Result<(Socket, SocketFile)> {
    // Of two processes that start at once, the second one finds that the first one listens.
    let _locked = lock_folder(path).map_err(explain_folder)?;
    check(path)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(explain_folder(error)),
        _ => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?).map_err(explain_folder)?;
    // Nobody can connect before the socket listens, so the permissions apply from the beginning.
    fs::set_permissions(path, Permissions::from_mode(*mode))?;
    socket.listen(BACKLOG)?;
    let identity = identity(path)?;
    Ok((socket, SocketFile { path: path.clone(), identity }))
}

/// Locks the folder of a path until the file is dropped.
fn lock_folder(path: &Path) -> io::Result<File> {
    let folder = File::open(path.parent().unwrap_or(path))?;
    folder.lock()?;
    Ok(folder)
}

/// Says what a missing permission concerns.
fn explain_folder(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            denied("the folder of the socket must be readable and writable for this user")
        }
        _ => error,
    }
}

fn denied(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("permission denied: {reason}"))
}

impl SocketFile {
    /// Reports when the file is gone, and when it is back. Never returns.
    pub(crate) async fn follow(&self, process: &Reporter) -> Infallible {
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            let path = self.path.clone();
            let look = move || {
                file_access::enter(&path);
                identity(&path)
            };
            let reason = match file_access::run(&self.path, look).await.flatten() {
                Ok(found) if found == self.identity => {
                    process.set(Condition::Ready);
                    continue;
                }
                Ok(_) => "another file is in the place of the socket",
                Err(error) if error.kind() == io::ErrorKind::NotFound => "the socket is removed",
                // The folder hangs, or is no longer accessible.
                Err(_) => continue,
            };
            let note = format!("{reason}; nobody can connect until the process restarts");
            if process.set(Condition::Degraded(vec![note])) {
                let path = self.path.display();
                tracing::warn!(%path, reason, "nobody can connect until the process restarts");
            }
        }
    }

    /// Removes the file, unless it is already the one of another process. The socket must be open.
    /// Callers that connect after that find no socket; connections before that are in the queue.
    pub(super) async fn remove(&self) {
        let (path, own) = (self.path.clone(), self.identity);
        let remove = move || {
            file_access::enter(&path);
            if identity(&path).is_ok_and(|found| found == own) {
                fs::remove_file(&path)
            } else {
                Ok(())
            }
        };
        let removed = file_access::run(&self.path, remove).await.flatten();
        if let Err(error) = removed {
            let path = self.path.display();
            tracing::warn!(%path, %error, "the file of the socket could not be removed");
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(directory: &tempfile::TempDir) -> UnixAddress {
        UnixAddress { path: directory.path().join("a.sock"), mode: 0o640 }
    }

    #[tokio::test]
    async fn a_socket_is_replaced_only_if_nobody_accepts_on_it() {
        let directory = tempfile::tempdir().unwrap();
        let address = address(&directory);
        let (socket, file) = listen(&address).unwrap();
        let mode = fs::symlink_metadata(&address.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(listen(&address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop((socket, file));
        assert!(address.path.exists(), "a process that is killed leaves its file");
        let (_first_socket, first) = listen(&address).unwrap();
        fs::remove_file(&address.path).unwrap();
        let (_second_socket, second) = listen(&address).unwrap();
        first.remove().await;
        assert!(address.path.exists(), "it is the file of another");
        second.remove().await;
        assert!(!address.path.exists());
        second.remove().await;
    }

    #[test]
    fn of_several_that_open_one_path_at_once_one_succeeds() {
        let directory = tempfile::tempdir().unwrap();
        let address = address(&directory);
        let at_once = std::sync::Barrier::new(4);
        for _ in 0..100 {
            // Of a process that was killed.
            drop(listen(&address).unwrap());
            let open = || {
                at_once.wait();
                listen(&address)
            };
            let opened: Vec<_> = std::thread::scope(|scope| {
                #[expect(clippy::needless_collect, reason = "all start before one is waited for")]
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(opened.iter().filter(|result| result.is_ok()).count(), 1, "{opened:?}");
        }
    }

    #[test]
    fn a_full_queue_is_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let UnixAddress { path, .. } = address(&directory);
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        socket.listen(0).unwrap();
        let connect = || {
            let queued = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            queued.set_nonblocking(true).unwrap();
            queued.connect(&SockAddr::unix(&path).unwrap()).map(|()| queued)
        };
        let mut queued = Vec::new();
        queued.extend(std::iter::from_fn(|| connect().ok()).take(100));
        assert!(queued.len() < 100, "the queue is full");
        assert_eq!(check(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let address = address(&directory);
        fs::write(&address.path, "precious").unwrap();
        assert!(listen(&address).unwrap_err().to_string().contains("no socket"));
        assert_eq!(fs::read_to_string(&address.path).unwrap(), "precious");
    }
}
