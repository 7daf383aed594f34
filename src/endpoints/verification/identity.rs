//! Digests by which verifications are distinguished.

use crate::endpoints::verification::keys::Keys;
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

/// Collects what a digest depends on. Each part is written with its length, each list with its number
/// of elements and each member with its type, so that no two descriptions are alike.
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
        let members = || members.iter().filter(|(name, _)| !except.contains(name));
        self.add_number(members().count());
        for (name, member) in members() {
            self.add(name.as_bytes());
            self.add_member(member);
        }
    }

    /// Adds secrets and public keys.
    pub(super) fn add_keys(&mut self, keys: &Keys) {
        self.add(&[keys.tag()]);
        let keys = keys.bytes();
        self.add_number(keys.len());
        for key in keys {
            self.add(key);
        }
    }

    fn add_number(&mut self, number: usize) {
        self.0.update(&(number as u64).to_be_bytes());
    }

    fn add_member(&mut self, member: &Member) {
        self.0.update(&[member.tag()]);
        match member {
            Member::Text(text) => self.add(text.as_bytes()),
            Member::Number(number) => self.add(&number.to_be_bytes()),
            Member::Boolean(value) => self.add(&[u8::from(*value)]),
            Member::Other => {}
            Member::List(members) => {
                self.add_number(members.len());
                for member in members {
                    self.add_member(member);
                }
            }
            Member::Table(members) => {
                self.add_number(members.len());
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn digest(member: Member) -> Digest {
        let mut digester = Digester::new();
        let members = Members::new(BTreeMap::from([("name".to_owned(), member)]));
        digester.add_members(&members, &[]);
        digester.finish()
    }

    #[test]
    fn no_two_members_are_alike() {
        let text = |text: &str| Member::Text(text.to_owned());
        let table = |name: &str| Member::Table(BTreeMap::from([(name.to_owned(), text(""))]));
        let members = [
            Member::Other,
            Member::Boolean(false),
            Member::Boolean(true),
            Member::Number(0),
            text(""),
            text("\0"),
            text("\0\0\0\0\0\0\0\0"),
            Member::List(Vec::new()),
            Member::Table(BTreeMap::new()),
            Member::List(vec![text("")]),
            Member::List(vec![text("a"), text("b")]),
            Member::List(vec![Member::List(vec![text("a")]), text("b")]),
            Member::List(vec![text("ab")]),
            table(""),
            table("a"),
        ];
        let digests: Vec<Digest> = members.into_iter().map(digest).collect();
        for (index, digest) in digests.iter().enumerate() {
            assert_eq!(digests.iter().position(|other| other == digest), Some(index));
        }
    }
}
