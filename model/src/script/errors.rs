//! Errors that Redis raises in the script.

use std::fmt::{self, Display, Formatter};

/// An error reply. Its text begins with the word that Hookgate classifies it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RedisError {
    Refused(Refusal),
    NotPermitted(Command),
    WrongType,
    /// INCRBY cannot add to the value of `id`.
    NotAnInteger,
    /// A probe has found that INCRBY could not.
    IdIsNoInteger,
    IdsUsedUp,
}

/// Why a server refuses writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// `OOM`: refused are commands that need memory, before the first write of a script.
    OutOfMemory,
    /// `READONLY`: the server is a replica.
    ReadOnly,
    /// `NOREPLICAS`: the server has fewer replicas than it needs for writes.
    TooFewReplicas,
}

/// The commands that the script calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Command {
    Get,
    HMGet,
    LLen,
    PExpire,
    IncrBy,
    Set,
    HSet,
    Del,
    LPush,
    ZAdd,
    XAdd,
}

impl Command {
    pub const ALL: [Self; 11] = [
        Self::Get,
        Self::HMGet,
        Self::LLen,
        Self::PExpire,
        Self::IncrBy,
        Self::Set,
        Self::HSet,
        Self::Del,
        Self::LPush,
        Self::ZAdd,
        Self::XAdd,
    ];

    pub(super) fn is_write(self) -> bool {
        !matches!(self, Self::Get | Self::HMGet | Self::LLen)
    }

    /// Whether a full server refuses the command.
    pub(super) fn needs_memory(self) -> bool {
        self.is_write() && !matches!(self, Self::PExpire | Self::Del)
    }
}

impl Display for RedisError {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Refused(Refusal::OutOfMemory) => {
                "OOM command not allowed when used memory > 'maxmemory'."
            }
            Self::Refused(Refusal::ReadOnly) => {
                "READONLY You can't write against a read only replica."
            }
            Self::Refused(Refusal::TooFewReplicas) => {
                "NOREPLICAS Not enough good replicas to write."
            }
            Self::NotPermitted(_) => {
                "ERR The user executing the script can't run this command or subcommand"
            }
            Self::WrongType => "WRONGTYPE Operation against a key holding the wrong kind of value",
            Self::NotAnInteger => "ERR value is not an integer or out of range",
            Self::IdIsNoInteger => "ERR the id of the queue is not an integer",
            Self::IdsUsedUp => "ERR the ids of the queue are used up",
        })
    }
}
