//! Digests by which verifications are distinguished.

use crate::endpoints::verification::members::{Member, Members};
use aws_lc_rs::digest::{Context, SHA256};
use std::fmt;

/// A digest of a verification. It depends on the secrets, so it is not printed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[digest]")
    }
}

/// Collects what a digest depends on. Each part is written with its length, so that no two lists of
/// parts are alike.
pub(super) struct Digester(Context);

impl Digester {
    pub(super) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(super) fn add(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_be_bytes());
        self.0.update(part);
    }

    /// Adds the members except some.
    pub(super) fn add_members(&mut self, members: &Members, except: &[&str]) {
        for (name, member) in members.iter().filter(|(name, _)| !except.contains(name)) {
            self.add(name.as_bytes());
            self.add_member(member);
        }
    }

    fn add_member(&mut self, member: &Member) {
        match member {
            Member::Text(text) => self.add(text.as_bytes()),
            Member::Number(number) => self.add(&number.to_be_bytes()),
            Member::Boolean(value) => self.add(&[u8::from(*value)]),
            Member::Other => self.add(b""),
            Member::List(members) => {
                self.add(&(members.len() as u64).to_be_bytes());
                for member in members {
                    self.add_member(member);
                }
            }
            Member::Table(members) => {
                self.add(&(members.len() as u64).to_be_bytes());
                for (name, member) in members {
                    self.add(name.as_bytes());
                    self.add_member(member);
                }
            }
        }
    }

    pub(super) fn finish(self) -> Digest {
        let digest = self.0.finish();
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(digest.as_ref()).for_each(|(byte, from)| *byte = *from);
        Digest(bytes)
    }
}
