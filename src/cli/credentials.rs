//! Where the command line finds its token.
//!
//! In this order: `--token` or `ACTA_TOKEN`; the data directory that was named by `--data` or
//! `ACTA_DATA`; the note that a service of this machine left about its address; the default
//! data directory. The last two are for a loopback address only: the operator token of this
//! machine is not sent to another one because somebody stood in a certain directory.

use super::serve_args::DATA_DEFAULT;
use clap::{builder::TypedValueParser, error::ErrorKind};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use std::{
    env,
    ffi::OsStr,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The file in the data directory that holds the operator token.
pub const OPERATOR_TOKEN_FILE: &str = "operator.token";

/// A bearer token. It shows itself only when asked to.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// A token with nothing in it would let everybody in, and some could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a token is not empty, does not begin or end with white space, and has no control characters"
)]
pub struct InvalidToken;

impl Secret {
    /// Any text that a header can carry and that is not empty.
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        let valid = !text.is_empty() && text.trim() == text && !text.chars().any(char::is_control);
        if valid { Ok(Self(text.into())) } else { Err(InvalidToken) }
    }

    /// The token itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Reads a token from the command line or its variable. Other values are shown when they are
/// refused; this one is not.
#[derive(Clone, Copy, Debug)]
pub struct SecretParser;

impl TypedValueParser for SecretParser {
    type Value = Secret;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Secret, clap::Error> {
        let parsed = value.to_str().ok_or(InvalidToken).and_then(Secret::parse);
        parsed.map_err(|error| {
            let message = format!("invalid value for '--token': {error}\n");
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}

/// What a service leaves in the state directory of its user while it listens, so that the
/// command line finds its token from any directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceNote {
    /// Where it listens, such as `http://127.0.0.1:8080`.
    pub url: String,
    /// Its data directory, absolute.
    pub data: PathBuf,
}

impl ServiceNote {
    /// `acta/services/<host>_<port>.json` below `state`, every character but letters, digits,
    /// dots and hyphens as `_`.
    pub fn path(state: &Path, host: &str, port: u16) -> PathBuf {
        let plain = |c: char| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '_' };
        let name: String = format!("{host}:{port}").chars().map(plain).collect();
        state.join("acta/services").join(format!("{name}.json"))
    }

    /// `$XDG_STATE_HOME`, else `~/.local/state`; none on a machine without either.
    pub fn state_directory() -> Option<PathBuf> {
        let absolute =
            |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))
    }

    /// Leaves the note. It is for its user only, since it tells where the token is.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        write_private(path, &serde_json::to_string(self)?)
    }

    fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }
}

/// Replaces a file that only its owner may read. Temporary file, sync, rename, sync of the
/// directory: after a crash there is either the old text or the new one.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// A token, if one was found, and every place that was looked at until then.
#[derive(Clone, Debug, Default)]
pub(super) struct Credentials {
    pub(super) token: Option<Secret>,
    pub(super) looked: Vec<String>,
}

/// What the search depends on.
#[derive(Clone, Debug)]
pub(super) struct Search<'a> {
    /// `--token` or its variable.
    pub(super) token: Option<&'a Secret>,
    /// `--data` or its variable.
    pub(super) data: Option<&'a Path>,
    /// Used when `data` is not given.
    pub(super) data_default: &'a Path,
    /// Where services leave their notes.
    pub(super) state: Option<&'a Path>,
}

impl Search<'_> {
    /// The search of a real command.
    pub(super) fn here(
        token: Option<&Secret>,
        data: Option<&Path>,
        url: &Url,
    ) -> io::Result<Credentials> {
        let state = ServiceNote::state_directory();
        let data_default = Path::new(DATA_DEFAULT);
        Search { token, data, data_default, state: state.as_deref() }.run(url)
    }

    pub(super) fn run(&self, url: &Url) -> io::Result<Credentials> {
        if let Some(token) = self.token.cloned() {
            let looked = vec!["--token or ACTA_TOKEN".into()];
            return Ok(Credentials { token: Some(token), looked });
        }
        let mut found = Credentials::default();
        if let Some(data) = self.data {
            found.token = look(data, &mut found.looked)?;
            return Ok(found);
        }
        if !is_loopback(url) {
            found.looked.push(
                "nowhere on this machine, since the address is that of another: give --token, \
                 ACTA_TOKEN or --data"
                    .into(),
            );
            return Ok(found);
        }
        for note in self.notes(url) {
            found.token = look(&note.data, &mut found.looked)?;
            if found.token.is_some() {
                return Ok(found);
            }
        }
        found.token = look(self.data_default, &mut found.looked)?;
        Ok(found)
    }

    fn notes(&self, url: &Url) -> Vec<ServiceNote> {
        let (Some(state), Some(port)) = (self.state, url.port_or_known_default()) else {
            return Vec::new();
        };
        let host = url.host_str().unwrap_or_default();
        let hosts = match host {
            "localhost" => vec![host, "127.0.0.1", "[::1]", "0.0.0.0", "[::]"],
            _ => vec![host, "0.0.0.0", "[::]"],
        };
        let paths = hosts.iter().map(|host| ServiceNote::path(state, host, port));
        paths.filter_map(|path| ServiceNote::read(&path)).collect()
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn look(data: &Path, looked: &mut Vec<String>) -> io::Result<Option<Secret>> {
    let path = data.join(OPERATOR_TOKEN_FILE);
    let shown = std::path::absolute(&path).unwrap_or_else(|_| path.clone()).display().to_string();
    let failed = |why: String| io::Error::other(format!("cannot use the token in {shown}: {why}"));
    let token = match fs::read_to_string(&path) {
        Ok(text) => Some(Secret::parse(text.trim()).map_err(|error| failed(error.to_string()))?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error.to_string())),
    };
    looked.push(shown);
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_found_in_the_documented_order() {
        let root = tempfile::tempdir().unwrap();
        let directory = |name: &str, token: &str| {
            let path = root.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join(OPERATOR_TOKEN_FILE), format!("{token}\n")).unwrap();
            path
        };
        let (named, noted, default) =
            (directory("a", "named"), directory("b", "noted"), directory("c", "default"));
        let note = ServiceNote { url: "http://127.0.0.1:9000".into(), data: noted };
        let path = ServiceNote::path(root.path(), "127.0.0.1", 9000);
        note.write(&path).unwrap();

        let check =
            |token: Option<&str>, data: Option<&Path>, url: &str, expected: Option<&str>| {
                let token = token.map(|token| Secret::parse(token).unwrap());
                let token = token.as_ref();
                let search =
                    Search { token, data, data_default: &default, state: Some(root.path()) };
                let found = search.run(&Url::parse(url).unwrap()).unwrap();
                assert_eq!(found.token.as_ref().map(Secret::expose), expected, "{search:?} {url}");
                assert!(!found.looked.is_empty());
            };
        let here = "http://127.0.0.1:9000";
        check(Some("given"), Some(&named), here, Some("given"));
        check(None, Some(&named), here, Some("named"));
        check(None, Some(&named), "http://far.example:80", Some("named"));
        check(None, Some(root.path()), here, None);
        check(None, None, here, Some("noted"));
        check(None, None, "http://localhost:9000", Some("noted"));
        check(None, None, "http://127.0.0.1:9001", Some("default"));
        check(None, None, "http://[::1]:9001", Some("default"));
        check(None, None, "http://far.example:9000", None);
    }

    #[test]
    fn a_note_has_one_name_per_address() {
        let check = |host: &str, expected: &str| {
            let path = ServiceNote::path(Path::new("/s"), host, 80);
            assert_eq!(path, Path::new("/s/acta/services").join(expected));
        };
        check("127.0.0.1", "127.0.0.1_80.json");
        check("[::1]", "___1__80.json");
        check("../x", ".._x_80.json");
    }
}
