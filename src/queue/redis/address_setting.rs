//! Reads the address of a Redis: `redis` or `redis_file`.

use crate::queue::redis::address;
use crate::settings::{Secret, Section};

/// Reads the address of `[queue]`.
pub(in crate::queue) fn read(section: &mut Section<'_>) -> Secret {
    let address = section.secret("redis", Some("redis://127.0.0.1:6379/0"));
    checked(section, address).unwrap_or_else(|| Secret::new(String::new()))
}

/// Reads an address whose default is another one, which must not appear in a fault.
pub(in crate::queue) fn read_or(section: &mut Section<'_>, default: &Secret) -> Secret {
    let address = section.secret("redis", None);
    checked(section, address).unwrap_or_else(|| default.clone())
}

fn checked(section: &mut Section<'_>, address: Option<Secret>) -> Option<Secret> {
    if let Some(Err(message)) = address.as_ref().map(address::check) {
        section.fault("redis", message);
    }
    address
}
