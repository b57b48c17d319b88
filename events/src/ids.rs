//! Identifiers and positions. Text identifiers are parsed once, at the edge, and are cheap
//! to clone.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Borrow, fmt, sync::Arc};

/// The longest identifier, in characters.
pub const ID_CHARS_MAX: usize = 120;

/// A text is not a valid identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{value}` is not an identifier: 1 to 120 characters, each a letter, a digit, `-`, `_` or `:`"
)]
pub struct InvalidId {
    /// The offending text, cut to 120 characters.
    pub value: String,
}

fn check_id(text: &str) -> Result<(), InvalidId> {
    let valid = (1..=ID_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b':'));
    if valid { Ok(()) } else { Err(InvalidId { value: text.chars().take(ID_CHARS_MAX).collect() }) }
}

macro_rules! text_id {
    ($($(#[$doc:meta])* $Name:ident: $check:path, $Error:ty;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $Name(Arc<str>);

        impl $Name {
            /// Parses, with an error that shows what was wrong.
            pub fn parse(text: &str) -> Result<Self, $Error> {
                $check(text)?;
                Ok(Self(text.into()))
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl Borrow<str> for $Name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $Name {
            type Err = $Error;
            fn from_str(text: &str) -> Result<Self, $Error> {
                Self::parse(text)
            }
        }

        impl Serialize for $Name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $Name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $Name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(stringify!($Name))
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$Name, E> {
                        $Name::parse(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }
    )*};
}

/// What an actor's name begins with if it is the holder of an issued token.
const TOKEN_ACTOR: &str = "token:";

/// A token's id becomes a part of its holder's name as an actor, which is an identifier too.
fn check_token_id(text: &str) -> Result<(), InvalidId> {
    check_id(text)?;
    let fits = text.len() <= ID_CHARS_MAX - TOKEN_ACTOR.len();
    if fits { Ok(()) } else { Err(InvalidId { value: text.into() }) }
}

/// The longest idempotency key, in characters.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;

/// A text is not a valid idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an Idempotency-Key is 1 to 255 visible ASCII characters")]
pub struct InvalidIdempotencyKey;

fn check_key(text: &str) -> Result<(), InvalidIdempotencyKey> {
    let valid = (1..=IDEMPOTENCY_KEY_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_graphic());
    if valid { Ok(()) } else { Err(InvalidIdempotencyKey) }
}

/// A text is not a valid W3C `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a traceparent is written as 00-<32 hex digits>-<16 hex digits>-<2 hex digits>")]
pub struct InvalidTraceParent;

fn check_trace(text: &str) -> Result<(), InvalidTraceParent> {
    let mut parts = text.split('-');
    let lengths = [2, 32, 16, 2];
    let hex = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let valid = text.len() == 55
        && lengths
            .iter()
            .all(|&len| parts.next().is_some_and(|part| part.len() == len && hex(part)))
        && parts.next().is_none();
    if valid { Ok(()) } else { Err(InvalidTraceParent) }
}

text_id! {
    /// An authority that executes workers.
    RuntimeId: check_id, InvalidId;
    /// A machine on which a runtime runs workers.
    HostId: check_id, InvalidId;
    /// One agent instance within its runtime.
    WorkerId: check_id, InvalidId;
    /// An issued token; never the token itself. At most 114 characters.
    TokenId: check_token_id, InvalidId;
    /// The name of a consumer cursor.
    CursorName: check_id, InvalidId;
    /// Who gave a command: `token:<id>`, `operator`, `anonymous` or `service`.
    Actor: check_id, InvalidId;
    /// What makes a repeated command recognisable, unique per actor.
    IdempotencyKey: check_key, InvalidIdempotencyKey;
    /// The caller's W3C trace context.
    TraceParent: check_trace, InvalidTraceParent;
}

impl Actor {
    /// The service itself.
    pub fn service() -> Self {
        Self("service".into())
    }

    /// The holder of a configured or generated operator token.
    pub fn operator() -> Self {
        Self("operator".into())
    }

    /// Anybody, on a service that runs without authentication.
    pub fn anonymous() -> Self {
        Self("anonymous".into())
    }

    /// The holder of an issued token.
    pub fn token(id: &TokenId) -> Self {
        // A token id leaves room for the prefix, so this is an identifier.
        Self(format!("{TOKEN_ACTOR}{id}").into())
    }
}

macro_rules! position {
    ($($(#[$doc:meta])* $Name:ident($Inner:ty);)*) => {$(
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $Name(pub $Inner);

        impl $Name {
            /// The next one. Running out would take longer than the machine lasts.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

position! {
    /// Gapless position in the whole log, from 1. Zero is the beginning, before any record.
    Sequence(u64);
    /// Gapless count of all records of one worker, from 1.
    Version(u64);
    /// Count of a worker's commands and lifecycle changes, not its output.
    Revision(u64);
    /// Incarnation of the log, from 1; a restore starts a new one.
    Epoch(u32);
}

impl Sequence {
    /// Before the first record.
    pub const ZERO: Self = Self(0);
}

/// The identity of a log, drawn at random when it is made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogId(pub uuid::Uuid);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
