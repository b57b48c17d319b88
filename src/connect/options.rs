//! What a person can set, understood without any I/O.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// How messages arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They are asked for.
    Poll,
    /// The platform brings them.
    Push,
}

impl Mode {
    /// As the wire and the command line write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Push => "push",
        }
    }
}

/// Everything that one connection depends on, but its backend.
#[derive(Clone, Debug)]
pub struct Options {
    /// The worker that is attached.
    pub worker_id: String,
    /// The name of the backend, for people.
    pub backend: String,
    /// How messages arrive.
    pub mode: Mode,
    /// Between two polls of a server that does not hold an answer back.
    pub interval: Duration,
    /// Skip what is older.
    pub since_secs: Option<u32>,
    /// Where the file of this worker is.
    pub state_dir: PathBuf,
    /// In push mode: where to listen.
    pub listen: std::net::SocketAddr,
    /// In push mode: the address that the platform reaches this at, if it is another one.
    pub public_url: Option<reqwest::Url>,
}

/// The options of a backend, as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendOptions(BTreeMap<String, String>);

impl BackendOptions {
    /// Reads `KEY=VALUE` texts. The value may hold `=` and may be empty.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut options = BTreeMap::new();
        for pair in pairs {
            let (key, value) = match pair.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => (key.trim(), value),
                _ => return Err(format!("a backend option is written KEY=VALUE, not {pair:?}")),
            };
            if options.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(format!("the backend option {key:?} is given twice"));
            }
        }
        Ok(Self(options))
    }

    /// The value of an option; an empty one counts as not given.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The value of an option that there must be.
    pub fn require(&self, key: &str) -> Result<&str, String> {
        self.get(key).ok_or_else(|| format!("give --backend-opt {key}=…"))
    }

    /// The value of an option that is a duration.
    pub fn duration(&self, key: &str, default: Duration) -> Result<Duration, String> {
        let Some(text) = self.get(key) else { return Ok(default) };
        parse_duration(text).map_err(|error| format!("{key}: {error}"))
    }

    /// The value of an option that is yes or no.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool, String> {
        match self.get(key) {
            None => Ok(default),
            Some("true" | "1" | "yes" | "on") => Ok(true),
            Some("false" | "0" | "no" | "off") => Ok(false),
            Some(other) => Err(format!("{key} is true or false, not {other:?}")),
        }
    }

    /// Refuses what a backend does not know, which is nearly always a misspelling.
    pub fn only(&self, known: &[&str]) -> Result<(), String> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) if known.is_empty() => Err(format!("there is no option {key:?}")),
            Some(key) => {
                let known = known.join(", ");
                Err(format!("there is no option {key:?}; the known ones are: {known}"))
            }
            None => Ok(()),
        }
    }
}

/// Reads a duration as in `60s`, `5m`, `1h30m`, `250ms`. It is not zero, and at most a week.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const MAX: Duration = Duration::from_secs(7 * 24 * 3600);
    let wrong = || format!("a duration is written as in 60s, 5m or 1h30m, not {text:?}");
    let (mut rest, mut total, mut last_unit_ms) = (text, Duration::ZERO, u64::MAX);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let letters = &rest[digits..];
        let unit_end = letters.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(letters.len());
        let unit_ms = match &letters[..unit_end] {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            _ => return Err(wrong()),
        };
        // Units go from large to small, each once.
        if unit_ms >= last_unit_ms {
            return Err(wrong());
        }
        last_unit_ms = unit_ms;
        let part = number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = &letters[unit_end..];
    }
    match total {
        Duration::ZERO => Err(wrong()),
        total if total > MAX => Err(format!("{text:?} is longer than a week")),
        total => Ok(total),
    }
}

#[cfg(test)]
mod tests {
    use super::{BackendOptions, parse_duration};
    use std::time::Duration;

    #[test]
    fn durations_are_written_with_units() {
        let check = |text: &str, seconds: Option<f64>| {
            let expected = seconds.map(Duration::from_secs_f64);
            assert_eq!(parse_duration(text).ok(), expected, "{text:?}");
        };
        check("60s", Some(60.0));
        check("5m", Some(300.0));
        check("1h30m", Some(5400.0));
        check("1m30s250ms", Some(90.25));
        check("168h", Some(604_800.0));
        for wrong in [
            "",
            "60",
            "s",
            "-1s",
            "1.5s",
            "0s",
            "5 m",
            "1d",
            "30m1h",
            "1s1s",
            "169h",
            "١s",
            "1é",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn backend_options_are_pairs_whose_value_may_hold_an_equals_sign() {
        let options = BackendOptions::parse(["cmd=a=b =c", "empty=", " key = v"]).unwrap();
        assert_eq!(options.get("cmd"), Some("a=b =c"));
        assert_eq!(options.get("empty"), None);
        assert_eq!(options.get("key"), Some(" v"));
        assert!(options.only(&["cmd", "empty", "key"]).is_ok());
        let unknown = options.only(&["cmd", "key"]).unwrap_err();
        assert!(unknown.contains("\"empty\"") && unknown.contains("cmd, key"), "{unknown}");
        assert!(options.require("url").unwrap_err().contains("--backend-opt url=…"));
        for wrong in ["", "cmd", "=v", " =v"] {
            assert!(BackendOptions::parse([wrong]).is_err(), "{wrong:?}");
        }
        assert!(BackendOptions::parse(["a=1", "a=2"]).unwrap_err().contains("twice"));
        let flags = BackendOptions::parse(["y=true", "n=0", "w=maybe"]).unwrap();
        assert_eq!(flags.flag("y", false), Ok(true));
        assert_eq!(flags.flag("n", true), Ok(false));
        assert_eq!(flags.flag("other", true), Ok(true));
        assert!(flags.flag("w", true).is_err());
    }
}
