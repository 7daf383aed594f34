//! `server.listen`: where connections of callers arrive.

use crate::files::file_access;
use crate::settings::Section;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// The value that stands for the socket that the service manager passes.
const ACTIVATED: &str = "systemd";

/// The beginning of a value that names a Unix socket.
const UNIX: &str = "unix:";

/// The permission by which the owner of a socket may connect to it.
const OWNER_WRITES: u32 = 0o200;

/// Maximum bytes of the path of a Unix socket.
const MAX_PATH: usize = 107;

/// Where connections of callers arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    Unix(UnixAddress),
    /// The socket that the service manager passes (socket activation).
    Activated,
}

/// The path of a Unix socket, and who may connect to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixAddress {
    pub(super) path: PathBuf,
    /// The permissions of the file.
    pub(super) mode: u32,
}

impl ListenAddress {
    /// Reads `listen` and `unix_mode`.
    pub fn read(section: &mut Section<'_>) -> Self {
        let default = SocketAddr::from(([0, 0, 0, 0], 2212));
        let text: String = section.value("listen", default.to_string());
        let mode = unix_mode(section);
        if text == ACTIVATED {
            return Self::Activated;
        }
        if let Some(path) = text.strip_prefix(UNIX) {
            let path = PathBuf::from(path);
            if let Some(fault) = path_fault(&path) {
                section.fault("listen", fault);
            }
            return Self::Unix(UnixAddress { path, mode });
        }
        Self::Tcp(text.parse().unwrap_or_else(|_| {
            let message = "not an address; write it like \"0.0.0.0:2212\", \"[::]:2212\", \
                           \"unix:/run/hookgate/hookgate.sock\" or \"systemd\"";
            section.fault("listen", message);
            default
        }))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(UnixAddress { path, .. }) => write!(formatter, "{UNIX}{}", path.display()),
            Self::Activated => formatter.write_str(ACTIVATED),
        }
    }
}

fn unix_mode(section: &mut Section<'_>) -> u32 {
    let text: String = section.value("unix_mode", "0660".to_owned());
    let is_octal =
        (3..=4).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit());
    match u32::from_str_radix(&text, 8) {
        // Without it, the next process of the same user cannot see whether the socket is in use.
        Ok(mode) if is_octal && mode <= 0o777 && mode & OWNER_WRITES == 0 => {
            section.fault("unix_mode", "must let the owner write, as \"0660\" does");
            mode
        }
        Ok(mode) if is_octal && mode <= 0o777 => mode,
        _ => {
            section.fault("unix_mode", "not permissions; write them like \"0660\"");
            0
        }
    }
}

/// What is wrong with the path of a socket. A missing folder is no fault: a service manager may
/// create it at the start.
fn path_fault(path: &Path) -> Option<String> {
    if !path.is_absolute() {
        return Some("has no absolute path after \"unix:\"".to_owned());
    }
    if path.as_os_str().len() > MAX_PATH {
        return Some(format!("has a path of more than {MAX_PATH} bytes"));
    }
    file_access::enter(path);
    let is_socket = fs::symlink_metadata(path).map(|metadata| metadata.file_type().is_socket());
    matches!(is_socket, Ok(false)).then(|| format!("{} exists and is no socket", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Fault, SettingsReader};

    fn read(toml: &str) -> (ListenAddress, Vec<Fault>) {
        let toml = format!("[server]\n{toml}").parse().unwrap();
        let mut settings = SettingsReader::new(toml, std::iter::empty());
        let read = ListenAddress::read(&mut settings.section("server"));
        (read, settings.into_faults())
    }

    #[test]
    fn an_address_is_a_port_a_path_or_the_service_manager() {
        for (text, shown) in [
            ("", "0.0.0.0:2212"),
            ("listen = \"[::1]:80\"", "[::1]:80"),
            ("listen = \"unix:/nowhere/a.sock\"\nunix_mode = \"600\"", "unix:/nowhere/a.sock"),
            ("listen = \"systemd\"", "systemd"),
        ] {
            let (address, faults) = read(text);
            assert_eq!((address.to_string().as_str(), faults), (shown, Vec::new()));
        }
        let (address, _) = read("listen = \"unix:/nowhere/a.sock\"\nunix_mode = \"0606\"");
        let path = PathBuf::from("/nowhere/a.sock");
        assert_eq!(address, ListenAddress::Unix(UnixAddress { path, mode: 0o606 }));
    }

    #[test]
    fn wrong_addresses_are_faults() {
        let long = format!("listen = \"unix:/{}\"", "a".repeat(107));
        for (text, words) in [
            ("listen = \"2212\"", "not an address"),
            ("listen = \"Systemd\"", "not an address"),
            ("listen = \"unix:run/a.sock\"", "absolute"),
            ("listen = \"unix:@abstract\"", "absolute"),
            ("listen = \"unix:\"", "absolute"),
            ("listen = \"unix:/etc/passwd\"", "no socket"),
            ("listen = \"unix:/etc\"", "no socket"),
            (long.as_str(), "107 bytes"),
            ("unix_mode = \"0o660\"", "permissions"),
            ("unix_mode = \"0680\"", "permissions"),
            ("unix_mode = \"1777\"", "permissions"),
            ("unix_mode = \"\"", "permissions"),
            ("unix_mode = \"0066\"", "let the owner write"),
            ("unix_mode = \"0460\"", "let the owner write"),
        ] {
            let (_, faults) = read(text);
            assert_eq!(faults.len(), 1, "{text}: {faults:?}");
            assert!(faults[0].message.contains(words), "{text}: {faults:?}");
        }
    }
}
