//! The values of labels as enums, so that no other value can be counted.

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant,)+];
            pub const WORDS: &[&'static str] = &[$($word,)+];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

labels!(
    /// How a request ended: the code of its error answer, or `accepted`, `handshake` or
    /// `client_closed`.
    Outcome {
        Accepted = "accepted",
        /// A request to an endpoint that asks for an answer and starts nothing.
        Handshake = "handshake",
        /// The caller disconnected before it could be answered.
        ClientClosed = "client_closed",
        InvalidJson = "invalid_json",
        InvalidMultipart = "invalid_multipart",
        BodyNotObject = "body_not_object",
        MissingWebhookId = "missing_webhook_id",
        MissingCredentials = "missing_credentials",
        InvalidToken = "invalid_token",
        ExpiredToken = "expired_token",
        InvalidApiKey = "invalid_api_key",
        InvalidSignature = "invalid_signature",
        StaleSignature = "stale_signature",
        InvalidIdempotencyKey = "invalid_idempotency_key",
        IdempotencyKeyReused = "idempotency_key_reused",
        NotFound = "not_found",
        UnknownWebhook = "unknown_webhook",
        MethodNotAllowed = "method_not_allowed",
        RateLimited = "rate_limited",
        RequestTimeout = "request_timeout",
        PayloadTooLarge = "payload_too_large",
        FanoutTooLarge = "fanout_too_large",
        UnsupportedMediaType = "unsupported_media_type",
        Internal = "internal",
        Overloaded = "overloaded",
        IndexUnavailable = "index_unavailable",
        KeysUnavailable = "keys_unavailable",
        QueueUnavailable = "queue_unavailable",
    }
);

labels!(
    /// Whether a replica of Redis has received all writes of its primary.
    ReplicaState {
        InSync = "in_sync",
        OutOfSync = "out_of_sync",
    }
);

labels!(
    /// The state of the jobs of a queue, as BullMQ names it. Jobs of a paused queue are waiting.
    JobState {
        Waiting = "waiting",
        Active = "active",
        Delayed = "delayed",
        Prioritized = "prioritized",
        Failed = "failed",
    }
);

labels!(
    /// A collection that is mirrored in memory.
    Collection {
        Workflows = "workflows",
        Users = "users",
    }
);

labels!(
    /// The effect of a change on a document.
    ChangeKind {
        Put = "put",
        Removed = "removed",
    }
);

labels!(
    /// Why a collection was loaded completely.
    LoadReason {
        Start = "start",
        /// The change stream could not be resumed.
        StreamLost = "stream_lost",
        FileChanged = "file_changed",
    }
);

labels!(
    /// The limit that an organization exceeds.
    Limit {
        Rate = "rate",
        Jobs = "jobs",
        InFlight = "in_flight",
        InFlightBytes = "in_flight_bytes",
    }
);

labels!(
    /// The limit that a delivery to an endpoint exceeds before it is verified.
    DeliveryLimit {
        /// Of one client address at one endpoint.
        FailedVerifications = "failed_verifications",
        /// Of one client address.
        UnknownEndpoints = "unknown_endpoints",
        /// The share of deliveries that are not verified yet.
        UnverifiedShare = "unverified_share",
        /// The part of one client address in that share.
        UnverifiedClient = "unverified_client",
    }
);

labels!(
    /// The result of a reload of the configuration.
    ReloadResult {
        Applied = "applied",
        Refused = "refused",
    }
);

labels!(
    /// What became of a span of a traced request.
    SpanResult {
        /// The collector has it.
        Exported = "exported",
        /// Its export failed.
        Failed = "failed",
        /// Too many spans waited for their export.
        Dropped = "dropped",
    }
);

labels!(
    /// Why a call to Redis failed.
    RedisError {
        /// Redis did not reply before the deadline.
        Timeout = "timeout",
        /// There is no connection, or it was lost.
        Connection = "connection",
        OutOfMemory = "oom",
        ReadOnly = "readonly",
        Loading = "loading",
        Busy = "busy",
        /// The slot of the queue is migrating, or the cluster does not serve it.
        Cluster = "cluster",
        /// The call is larger than Redis accepts from one client.
        TooLarge = "too_large",
        /// Redis refuses writes because a save failed or because it has too few replicas.
        WritesRefused = "writes_refused",
        Authentication = "auth",
        WrongType = "wrongtype",
        /// Fewer replicas than `queue.wait_replicas` have the jobs.
        TooFewReplicas = "too_few_replicas",
        /// A reply that the script cannot return, or a call that Redis could not parse.
        Protocol = "protocol",
        Other = "other",
    }
);
