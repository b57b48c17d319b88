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

const DAY_US: i64 = 24 * 3_600 * 1_000_000;

impl Timestamp {
    /// Milliseconds since the Unix epoch.
    pub fn as_millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Parses any RFC 3339 time.
    pub fn parse(text: &str) -> Result<Self, TimestampParseError> {
        if let Some(time) = Self::parse_own(text.as_bytes()) {
            return Ok(time);
        }
        let parsed: jiff::Timestamp = text.parse().map_err(|_| TimestampParseError)?;
        Ok(Self(parsed.as_microsecond()))
    }

    /// Parses what [`fmt::Display`] writes, between 1970 and 9998; nothing for any other form,
    /// and for what is no time.
    fn parse_own(text: &[u8]) -> Option<Self> {
        let text: &[u8; 27] = text.try_into().ok()?;
        let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.')];
        if marks.iter().any(|(at, mark)| text[*at] != *mark) || text[26] != b'Z' {
            return None;
        }
        let number = |from: usize, to: usize| {
            text[from..to].iter().try_fold(0_i64, |n, digit| {
                digit.is_ascii_digit().then(|| n * 10 + i64::from(digit - b'0'))
            })
        };
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days_in_month = match month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 if leap => 29,
            2 => 28,
            _ => return None,
        };
        let valid = (1970..=9998).contains(&year)
            && (1..=days_in_month).contains(&day)
            && hour < 24
            && minute < 60
            && second < 60;
        if !valid {
            return None;
        }
        // Years that begin in March have their leap day at their end.
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
        // The first of March of the year 0 is that many days before 1970, and day 1 here.
        let seconds = ((days - 719_469) * 24 + hour) * 3_600 + minute * 60 + second;
        Some(Self(seconds * 1_000_000 + number(20, 26)?))
    }
}

impl Timestamp {
    /// The text form of a time between 1970 and 9998; none for any other, which [`fmt::Display`] writes all
    /// the same.
    pub fn text(self) -> Option<[u8; 27]> {
        let (days, of_day) = (self.0.div_euclid(DAY_US), self.0.rem_euclid(DAY_US));
        // Counted from the first of March of the year 0, so that leap days end years.
        let days = u64::try_from(days).ok()? + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let year = era * 400 + year + next;
        if year > 9998 {
            return None;
        }
        let (seconds, micros) = ((of_day / 1_000_000) as u64, (of_day % 1_000_000) as u64);
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let mut put = |mut end: usize, mut number: u64| {
            while number > 0 {
                end -= 1;
                text[end] = b'0' + (number % 10) as u8;
                number /= 10;
            }
        };
        put(4, year);
        put(7, month);
        put(10, day);
        put(13, seconds / 3_600);
        put(16, seconds / 60 % 60);
        put(19, seconds % 60);
        put(26, micros);
        Some(text)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = self.text() {
            return f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?);
        }
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::Timestamp;

    #[test]
    fn a_time_is_written_as_others_write_it() {
        let mut micros = -400_000_000_000_i64;
        while micros < 253_402_000_000_000_000 {
            let expected = jiff::Timestamp::from_microsecond(micros).unwrap();
            assert_eq!(Timestamp(micros).to_string(), format!("{expected:.6}"));
            micros += 29 * 3_600_000_000 + 61_000_001;
        }
        for text in ["1970-01-01T00:00:00.000000Z", "2024-02-29T23:59:59.999999Z"] {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn the_own_form_is_parsed_as_any_other_is() {
        let mut micros = 0_i64;
        while micros < 253_000_000_000_000_000 {
            let text = Timestamp(micros).to_string();
            assert_eq!(Timestamp::parse_own(text.as_bytes()), Some(Timestamp(micros)), "{text}");
            micros += 29 * 3_600_000_000 + 61_000_001;
        }
        for text in [
            "2026-02-29T00:00:00.000000Z",
            "2100-02-29T00:00:00.000000Z",
            "2026-13-01T00:00:00.000000Z",
            "2026-00-01T00:00:00.000000Z",
            "2026-04-31T00:00:00.000000Z",
            "2026-01-00T00:00:00.000000Z",
            "2026-01-01T24:00:00.000000Z",
            "2026-01-01T00:60:00.000000Z",
            "2026-01-01T00:00:0x.000000Z",
            "1969-12-31T23:59:59.999999Z",
            "2026-01-01 00:00:00.000000Z",
            "2026-01-01T00:00:00.000000z",
            "2026-01-01T00:00:00Z",
        ] {
            assert_eq!(Timestamp::parse_own(text.as_bytes()), None, "{text}");
        }
    }
}
