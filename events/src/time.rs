//! Timestamps: RFC 3339, UTC, microseconds.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// Microseconds since the Unix epoch. Its text form is RFC 3339 in UTC with exactly six
/// digits after the second, such as `2026-11-20T19:14:00.123456Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

/// The text is not a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time is written as in 2026-11-20T19:14:00Z (RFC 3339)")]
pub struct TimestampParseError;

impl Timestamp {
    /// Milliseconds since the Unix epoch.
    pub fn as_millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Parses any RFC 3339 time.
    pub fn parse(text: &str) -> Result<Self, TimestampParseError> {
        let parsed: jiff::Timestamp = text.parse().map_err(|_| TimestampParseError)?;
        Ok(Self(parsed.as_microsecond()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = jiff::Timestamp::from_microsecond(self.0).map_err(|_| fmt::Error)?;
        write!(f, "{time:.6}")
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Timestamp;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an RFC 3339 time")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                Timestamp::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}
