//! Safeguards that a run is made without.

/// A safeguard of the follower that is switched off, by what the simulated server answers or by how
/// the index is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutation {
    /// A miss is believed however old the index is.
    MissWhileStale,
    /// A miss is believed although a load or a fetch is ahead of the stream.
    MissWhileInconsistent,
    /// A snapshot counts as current.
    SnapshotDenies,
    /// A changed document is taken from the load instead of being fetched again.
    NotFetchedAgain,
    /// A changed document is fetched in its newest state, not in that of the change.
    FetchLater,
    /// Reads return a state older than what their session has seen.
    NotCausal,
    /// The position counts what has been received and not what has been applied.
    PositionBeforeApplying,
    StreamAfterLoad,
    /// Every collection has the same UUID.
    NoUuid,
    NoDeletes,
    /// A full reply does not count as full.
    FullReply,
}
