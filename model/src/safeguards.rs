//! The safeguards of the batch protocol. A test removes one, and a property must then fail: a
//! safeguard that nothing needs is either superfluous or the sign of a missing property.

/// A part of the protocol that prevents a wrong answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Safeguard {
    // In the script.
    /// The number of an executed batch is recorded.
    Record,
    /// A number up to the low-water mark is refused.
    Mark,
    /// Nothing is added after the deadline.
    Deadline,
    /// The reply `late` is recorded.
    RecordOfLate,
    /// A withdrawal is recorded.
    RecordOfWithdrawal,
    /// The record is written before the jobs.
    RecordBeforeJobs,
    /// The previous record is put back if Redis refuses the jobs.
    RecordPutBack,
    /// The record is written again if a request of the batch has failed.
    RecordCorrected,
    /// The number is looked up before the deadline is checked.
    NumberBeforeDeadline,
    /// A recorded result is only replied with a write, which a replica refuses.
    ProofOfPrimary,
    /// The jobs of a request that fails half-way are removed.
    WholeRequests,
    /// An idempotency key is looked up.
    KeyLookedUp,
    /// The record of an idempotency key is written in the same step as the jobs.
    KeyInSameStep,
    /// The record of an idempotency key is only written if the jobs were added.
    KeyOfAddedOnly,
    /// A repeat in the same batch fails if what it repeats has failed.
    RepeatOfFailedFails,
    /// A request without jobs does not use its idempotency key up.
    KeyKeptWithoutJobs,
    /// The body of a repeat is compared with that of the first request.
    Fingerprint,
    // In the sender.
    /// A batch that may have been executed is sent again under the same number.
    SameNumber,
    /// All attempts of a batch have one deadline.
    OneDeadline,
    /// The answer is `unknown` if no attempt was replied to.
    UnknownAfterLoss,
    /// The refusal of an attempt says nothing about an earlier one.
    RefusalInDoubt,
    /// A reply with another number is not believed.
    NumberInReply,
    /// The low-water mark stays below the number of every open batch.
    MarkBelowOpen,
    /// The producer of batches that are sent alone has other numbers than the shared one, because both
    /// use the shared connection.
    NumbersApart,
    /// A process that starts draws a new producer.
    FreshProducer,
    /// A suspected batch is withdrawn before it is sent alone.
    WithdrawnFirst,
    /// A batch that too few replicas have is answered `unknown`.
    UnknownWithoutReplicas,
}

impl Safeguard {
    pub const ALL: [Self; 27] = [
        Self::Record,
        Self::Mark,
        Self::Deadline,
        Self::RecordOfLate,
        Self::RecordOfWithdrawal,
        Self::RecordBeforeJobs,
        Self::RecordPutBack,
        Self::RecordCorrected,
        Self::NumberBeforeDeadline,
        Self::ProofOfPrimary,
        Self::WholeRequests,
        Self::KeyLookedUp,
        Self::KeyInSameStep,
        Self::KeyOfAddedOnly,
        Self::RepeatOfFailedFails,
        Self::KeyKeptWithoutJobs,
        Self::Fingerprint,
        Self::SameNumber,
        Self::OneDeadline,
        Self::UnknownAfterLoss,
        Self::RefusalInDoubt,
        Self::NumberInReply,
        Self::MarkBelowOpen,
        Self::NumbersApart,
        Self::FreshProducer,
        Self::WithdrawnFirst,
        Self::UnknownWithoutReplicas,
    ];
}

/// A set of safeguards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Safeguards {
    /// One bit for each safeguard that is removed.
    removed: u64,
}

impl Safeguards {
    /// Every safeguard: the protocol as it is.
    pub const ALL: Self = Self { removed: 0 };

    #[must_use]
    pub fn without(self, safeguard: Safeguard) -> Self {
        Self { removed: self.removed | bit(safeguard) }
    }

    pub fn has(self, safeguard: Safeguard) -> bool {
        self.removed & bit(safeguard) == 0
    }
}

fn bit(safeguard: Safeguard) -> u64 {
    1 << safeguard as u64
}
