//! The configuration file of `acta serve`.
//!
//! TOML with the names of the flags; tables may stand for the beginnings of names (`[audit]
//! reads = true` is `--audit-reads`), and the limits may stand in `[limits]`. Tokens have no
//! place in it: it names the environment variable that holds one.

use anyhow::{Context as _, Result, anyhow, bail};
use std::{collections::BTreeMap, fs::File, io::Read as _, path::Path};

/// The largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Values of a file, by the name of the flag, as they would stand on a command line. A flag
/// without a value has none.
pub(super) type Settings = BTreeMap<String, Vec<Option<String>>>;

/// Reads a file. `known` has the name of every option, and whether it takes a value.
pub(super) fn read(path: &Path, known: &BTreeMap<String, bool>) -> Result<Settings> {
    let shown = path.display();
    let unread = || format!("the configuration {shown} cannot be read");
    let mut text = String::new();
    let file = File::open(path).with_context(unread)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).with_context(unread)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        bail!("the configuration {shown} has more than {FILE_BYTES_MAX} bytes");
    }
    understand(&text, known).with_context(|| format!("the configuration {shown} cannot be used"))
}

fn understand(text: &str, known: &BTreeMap<String, bool>) -> Result<Settings> {
    let file: toml::Table = toml::from_str(text)?;
    let mut values = Vec::new();
    flatten("", &file, &mut values);
    let mut settings = Settings::new();
    for (name, value) in values {
        let name = match name.strip_prefix("limits-") {
            Some(limit) if known.contains_key(limit) => limit.to_owned(),
            _ => name,
        };
        if name == "token" {
            bail!(
                "a token has no place in a file that others may read; put it into an environment \
                 variable, and name that in `token-env`"
            );
        }
        let Some(takes_value) = known.get(&name).filter(|_| name != "config") else {
            // The two others may not stand here.
            let names = known.keys().map(String::as_str);
            let names: Vec<_> = names.filter(|name| !matches!(*name, "config" | "token")).collect();
            bail!("there is no option `{name}`; there are: {}", names.join(", "));
        };
        let values = match (value, takes_value) {
            (toml::Value::Boolean(true), false) => vec![None],
            (toml::Value::Boolean(false), false) => vec![],
            (_, false) => bail!("`{name}` is true or false"),
            (toml::Value::Array(values), true) => {
                values.iter().map(|value| word(&name, value).map(Some)).collect::<Result<_>>()?
            }
            (value, true) => vec![Some(word(&name, value)?)],
        };
        if settings.insert(name.clone(), values).is_some() {
            bail!("`{name}` is there twice");
        }
    }
    Ok(settings)
}

fn flatten<'a>(before: &str, table: &'a toml::Table, out: &mut Vec<(String, &'a toml::Value)>) {
    for (name, value) in table {
        let dash = if before.is_empty() { "" } else { "-" };
        let name = format!("{before}{dash}{}", name.replace('_', "-"));
        match value {
            toml::Value::Table(inner) => flatten(&name, inner, out),
            value => out.push((name, value)),
        }
    }
}

fn word(name: &str, value: &toml::Value) -> Result<String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        other => Err(anyhow!("`{name}` is a text or a number, not {}", other.type_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn understood(text: &str) -> Result<Settings> {
        let known = [
            ("listen", true),
            ("allowed-host", true),
            ("audit-reads", false),
            ("no-auth", false),
            ("content-bytes-max", true),
            ("event-page-max", true),
            ("token", true),
            ("token-env", true),
            ("config", true),
        ];
        understand(text, &known.map(|(name, takes)| (name.to_owned(), takes)).into())
    }

    #[test]
    fn a_file_has_the_names_of_the_flags() {
        let check = |text: &str, expected: &[(&str, &[Option<&str>])]| {
            let settings = understood(text).unwrap_or_else(|error| panic!("{text}: {error:#}"));
            let values = |values: &[Option<&str>]| {
                values.iter().map(|value| value.map(str::to_owned)).collect::<Vec<_>>()
            };
            let expected = expected.iter().map(|(name, v)| ((*name).to_owned(), values(v)));
            assert_eq!(settings, expected.collect(), "{text}");
        };
        check("", &[]);
        check("listen = \"127.0.0.1:1\"", &[("listen", &[Some("127.0.0.1:1")])]);
        check("[audit]\nreads = true", &[("audit-reads", &[None])]);
        check("audit_reads = false", &[("audit-reads", &[])]);
        check("[limits]\ncontent_bytes_max = 7", &[("content-bytes-max", &[Some("7")])]);
        check("event-page-max = 9", &[("event-page-max", &[Some("9")])]);
        check("allowed_host = [\"a\", \"b\"]", &[("allowed-host", &[Some("a"), Some("b")])]);
        check("token-env = \"NAME\"", &[("token-env", &[Some("NAME")])]);
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named() {
        let check = |text: &str, expected: &str| {
            let error = format!("{:#}", understood(text).unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("listne = 1", "`listne`; there are: allowed-host, audit-reads");
        check("no-auth = 1", "`no-auth` is true or false");
        check("listen = [1.5]", "`listen` is a text or a number, not float");
        check("listen = true", "`listen` is a text or a number, not boolean");
        check("token = \"x\"", "token-env");
        check(
            "config = \"x\"",
            "`config`; there are: allowed-host, audit-reads, content-bytes-max,",
        );
        let named = format!("{:#}", understood("config = 1").unwrap_err());
        assert!(named.ends_with("no-auth, token-env"), "{named}");
        check("event-page-max = 1\n[limits]\nevent-page-max = 2", "twice");
        check("listen = ", "TOML");
        check("listen = \"a\"\nlisten = \"b\"", "duplicate");
    }
}
