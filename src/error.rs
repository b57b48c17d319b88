//! Error codes and what they mean over HTTP: one table.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $Variant:ident = $name:literal $status:literal;)*) => {
        /// What went wrong, in one word that clients match on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $Variant,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$Variant,)*];

            /// As it stands in an answer.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$Variant => $name,)* }
            }

            /// The HTTP status that goes with it.
            pub fn status(self) -> u16 {
                match self { $(Self::$Variant => $status,)* }
            }
        }
    };
}

codes! {
    /// The body is not JSON, or not of the expected shape.
    InvalidJson = "invalid_json" 400;
    /// The query string is not of the expected shape.
    InvalidQuery = "invalid_query" 400;
    /// The worker id in the path is none.
    InvalidWorkerId = "invalid_worker_id" 400;
    /// An identifier is none.
    InvalidIdentifier = "invalid_identifier" 400;
    /// The request makes no sense.
    InvalidRequest = "invalid_request" 400;
    /// A page was asked for that is larger than pages are.
    LimitTooLarge = "limit_too_large" 400;
    /// The profile is not one that the worker can have.
    InvalidProfileSelector = "invalid_profile_selector" 400;
    /// A config bundle declares what is not supported.
    UnsupportedConfigDeclaration = "unsupported_config_declaration" 400;
    /// A config bundle's digest is not that of its content.
    ConfigBundleDigestMismatch = "config_bundle_digest_mismatch" 400;
    /// An agent's URL is one that messages are not posted to.
    UrlRefused = "url_refused" 400;
    /// A worker of another runtime was named.
    WrongRuntime = "wrong_runtime" 400;
    /// A cursor of another runtime was given.
    WrongRuntimeCursor = "wrong_runtime_cursor" 400;
    /// A cursor is none.
    CursorMalformed = "cursor_malformed" 400;
    /// A cursor belongs to another log.
    CursorForeign = "cursor_foreign" 400;
    /// No valid token was given.
    Unauthorized = "unauthorized" 401;
    /// The token is valid, but its holder may not do this.
    Forbidden = "forbidden" 403;
    /// The service was restored, and does nothing in the world yet.
    DispatchPaused = "dispatch_paused" 409;
    /// There is no such route.
    NotFound = "not_found" 404;
    /// There is no such worker in the runtime that serves the route.
    WorkerNotFound = "worker_not_found" 404;
    /// There is no such runtime.
    UnknownRuntime = "unknown_runtime" 404;
    /// There is no such host.
    UnknownHost = "unknown_host" 404;
    /// There is no such worker.
    UnknownWorker = "unknown_worker" 404;
    /// There is no such config bundle.
    ConfigBundleMissing = "config_bundle_missing" 404;
    /// There is no such record.
    UnknownRecord = "unknown_record" 404;
    /// There is no such token.
    UnknownToken = "unknown_token" 404;
    /// There is no such consumer cursor.
    UnknownCursor = "unknown_cursor" 404;
    /// The route exists, the method does not.
    MethodNotAllowed = "method_not_allowed" 405;
    /// The runtime takes no more work.
    RuntimeStopped = "runtime_stopped" 409;
    /// Nothing runs the worker.
    WorkerExecutionUnavailable = "worker_execution_unavailable" 409;
    /// What runs the worker is known to refuse.
    WorkerExecutionRejected = "worker_execution_rejected" 409;
    /// The record has no content.
    NothingToRedact = "nothing_to_redact" 409;
    /// The content is an input that its worker is still to be given.
    InputPending = "input_pending" 409;
    /// A message is not among those that could not be delivered.
    NotUndelivered = "not_undelivered" 409;
    /// A cursor is ahead of the log.
    CursorAhead = "cursor_ahead" 409;
    /// A cursor names a history that is not ours.
    CursorDiverged = "cursor_diverged" 409;
    /// A cursor is before what is retained.
    CursorExpired = "cursor_expired" 410;
    /// What is asked for has expired by the policy that says how long history is kept.
    HistoryExpired = "history_expired" 410;
    /// The content was erased.
    ContentErased = "content_erased" 410;
    /// A row that a poll is to continue after is none of this worker's, or not there any more.
    ActivityUnknown = "activity_unknown" 410;
    /// The worker has changed since.
    VersionConflict = "version_conflict" 412;
    /// The body is too large.
    PayloadTooLarge = "payload_too_large" 413;
    /// The body is not announced as JSON.
    UnsupportedMediaType = "unsupported_media_type" 415;
    /// The key was used for another command before.
    IdempotencyKeyReused = "idempotency_key_reused" 422;
    /// Something failed that should not; the log of the service tells what.
    Internal = "internal" 500;
    /// The store could not be read or written.
    StoreIo = "store_io" 500;
    /// Something that the log refers to is not there.
    StoreMissing = "store_missing" 500;
    /// What is stored does not match its digest.
    StoreCorrupt = "store_corrupt" 500;
    /// The service is in no state to answer.
    StatePoisoned = "state_poisoned" 500;
    /// A message could not be posted to an agent's URL.
    DeliveryFailed = "delivery_failed" 502;
    /// Too much is being asked at once.
    Overloaded = "overloaded" 503;
    /// The service that has the runtime is not there.
    RuntimeUnavailable = "runtime_unavailable" 503;
    /// It is not known whether the command was recorded.
    OutcomeUnknown = "outcome_unknown" 503;
    /// The service does not write at the moment.
    NotReady = "not_ready" 503;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal: what a client gets to see of an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Rejection {
    /// In one word.
    pub code: Code,
    /// What was wrong, and what would be right.
    pub message: String,
}

impl Rejection {
    /// A refusal with a message for people.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// `invalid_request` with a message for people.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, message)
    }
}

/// The offending part of a message: cut to 120 characters, control characters made visible.
pub fn shown(value: &str) -> String {
    let mut cut: String = value.chars().take(120).flat_map(char::escape_debug).collect();
    if value.chars().nth(120).is_some() {
        cut.push('…');
    }
    cut
}
