//! The values of labels, as enums: no other value can be counted.

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant,)+];
            pub const WORDS: &[&'static str] = &[$($word,)+];

            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

labels!(
    /// How a request ended: the code of its error answer, or one of the other two.
    Outcome {
        Accepted = "accepted",
        /// The caller was gone before the answer could be given.
        ClientClosed = "client_closed",
        InvalidJson = "invalid_json",
        BodyNotObject = "body_not_object",
        MissingWebhookId = "missing_webhook_id",
        MissingCredentials = "missing_credentials",
        InvalidToken = "invalid_token",
        ExpiredToken = "expired_token",
        InvalidApiKey = "invalid_api_key",
        InvalidIdempotencyKey = "invalid_idempotency_key",
        IdempotencyKeyReused = "idempotency_key_reused",
        NotFound = "not_found",
        MethodNotAllowed = "method_not_allowed",
        RateLimited = "rate_limited",
        RequestTimeout = "request_timeout",
        PayloadTooLarge = "payload_too_large",
        FanoutTooLarge = "fanout_too_large",
        UnsupportedMediaType = "unsupported_media_type",
        Internal = "internal",
        Overloaded = "overloaded",
        IndexUnavailable = "index_unavailable",
        QueueUnavailable = "queue_unavailable",
    }
);

labels!(
    /// Whether a replica of Redis has what its primary wrote.
    ReplicaState {
        InSync = "in_sync",
        OutOfSync = "out_of_sync",
    }
);

labels!(
    /// What is kept in memory.
    Collection {
        Workflows = "workflows",
        Users = "users",
    }
);

labels!(
    /// What a change did to a document.
    ChangeKind {
        Put = "put",
        Removed = "removed",
    }
);

labels!(
    /// Why a collection was read as a whole.
    LoadReason {
        Start = "start",
        /// The stream of changes could not be continued.
        StreamLost = "stream_lost",
        FileChanged = "file_changed",
    }
);

labels!(
    /// What an organization has too much of.
    Limit {
        Rate = "rate",
        Jobs = "jobs",
        InFlight = "in_flight",
        InFlightBytes = "in_flight_bytes",
    }
);

labels!(
    /// What became of a configuration that was read again.
    ReloadResult {
        Applied = "applied",
        Refused = "refused",
    }
);

labels!(
    /// Why a call to Redis failed.
    RedisError {
        /// No reply before the deadline.
        Timeout = "timeout",
        /// No connection, or it was lost.
        Connection = "connection",
        OutOfMemory = "oom",
        ReadOnly = "readonly",
        Loading = "loading",
        Busy = "busy",
        /// The slot of the queue is moving, or the cluster does not serve it.
        Cluster = "cluster",
        /// More than Redis takes of one client.
        TooLarge = "too_large",
        /// Writes are refused: a failed save, or too few replicas.
        WritesRefused = "writes_refused",
        Authentication = "auth",
        WrongType = "wrongtype",
        /// Fewer replicas than asked for have the jobs.
        TooFewReplicas = "too_few_replicas",
        /// A reply that the script cannot have given, or a call that Redis could not read.
        Protocol = "protocol",
        Other = "other",
    }
);
