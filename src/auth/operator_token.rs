//! The operator's own token, in a file of the data directory that only its owner reads.

use super::{TOKEN_BYTES, TOKEN_CHARS, new_token};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use std::{
    fmt,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Only the owner reads and writes.
const MODE: u32 = 0o600;

/// The operator's token as it was found or made.
#[derive(Clone, PartialEq, Eq)]
pub struct OperatorToken {
    /// The token itself.
    pub token: String,
    /// Whether it was made just now.
    pub is_new: bool,
    /// What the operator should know: others could read the file until now.
    pub warning: Option<String>,
}

impl fmt::Debug for OperatorToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorToken")
            .field("is_new", &self.is_new)
            .field("warning", &self.warning)
            .finish_non_exhaustive()
    }
}

/// The operator's token could not be had. No message shows it.
#[derive(Debug, thiserror::Error)]
pub enum OperatorTokenError {
    /// The file system said no.
    #[error("cannot {action} the operator token {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file holds something else.
    #[error(
        "{path} is empty or is not a token; remove it and start again, or run `acta token reset --data {data}`"
    )]
    Garbled {
        /// The file.
        path: PathBuf,
        /// Its directory.
        data: PathBuf,
    },
}

/// Reads the operator's token, or makes one if there is none. A file that others could read is
/// closed to them, with a warning. A token that is returned is on the disk.
pub fn operator_token(path: &Path) -> Result<OperatorToken, OperatorTokenError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = reset_operator_token(path)?;
            return Ok(OperatorToken { token, is_new: true, warning: None });
        }
        Err(error) => return Err(failed("open", path)(error)),
    };
    let warning = close_to_others(&file, path)?;
    let token = token_in(file, path)?;
    Ok(OperatorToken { token, is_new: false, warning })
}

/// Whether a file that is there holds a token that a start can use. Changes nothing.
pub fn check_operator_token(path: &Path) -> Result<(), OperatorTokenError> {
    let file = File::open(path).map_err(failed("open", path))?;
    token_in(file, path).map(drop)
}

fn token_in(file: File, path: &Path) -> Result<String, OperatorTokenError> {
    let mut bytes = Vec::new();
    let most = TOKEN_CHARS as u64 + 3;
    file.take(most).read_to_end(&mut bytes).map_err(failed("read", path))?;
    let token = std::str::from_utf8(&bytes).ok().map(str::trim_ascii_end).filter(|token| {
        URL_SAFE_NO_PAD.decode(token).is_ok_and(|bytes| bytes.len() == TOKEN_BYTES)
    });
    token.map(str::to_owned).ok_or_else(|| OperatorTokenError::Garbled {
        path: path.into(),
        data: directory(path).into(),
    })
}

/// Puts a fresh token in the place of whatever is there.
pub fn reset_operator_token(path: &Path) -> Result<String, OperatorTokenError> {
    let token = new_token();
    let temporary = path.with_extension("token.new");
    // A file that a crash left behind may have another mode; `create_new` never opens it.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", &temporary)(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(&temporary)
        .map_err(failed("create", &temporary))?;
    writeln!(file, "{token}")
        .and_then(|()| file.sync_all())
        .map_err(failed("write", &temporary))?;
    fs::rename(&temporary, path).map_err(failed("replace", path))?;
    let directory = directory(path);
    File::open(directory).and_then(|dir| dir.sync_all()).map_err(failed("sync", directory))?;
    Ok(token)
}

fn close_to_others(file: &File, path: &Path) -> Result<Option<String>, OperatorTokenError> {
    let mode = file.metadata().map_err(failed("look at", path))?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(None);
    }
    file.set_permissions(Permissions::from_mode(MODE)).map_err(failed("close to others", path))?;
    Ok(Some(format!(
        "others could read {} (mode {mode:03o}); it is mode {MODE:03o} now, but whoever read it \
         before is an operator: `acta token reset --data {}` makes a new one",
        path.display(),
        directory(path).display()
    )))
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> OperatorTokenError {
    let path = path.to_path_buf();
    move |source| OperatorTokenError::Io { action, path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_first_start_makes_a_token_that_later_ones_find() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator.token");
        let made = operator_token(&path).unwrap();
        assert!(made.is_new && made.warning.is_none());
        assert_eq!(made.token.len(), TOKEN_CHARS);
        assert_eq!(mode(&path), 0o600);
        let found = operator_token(&path).unwrap();
        assert_eq!(found, OperatorToken { is_new: false, ..made.clone() });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left there");
        assert!(!format!("{made:?}").contains(&made.token));
        assert_ne!(reset_operator_token(&path).unwrap(), made.token);
        assert_ne!(operator_token(&path).unwrap().token, made.token);
    }

    #[test]
    fn a_file_that_holds_no_token_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator.token");
        let whole = new_token();
        for garbled in [
            Vec::new(),
            b"\n".to_vec(),
            whole.as_bytes()[..42].to_vec(),
            format!("{whole}{whole}").into_bytes(),
            format!(" {whole}").into_bytes(),
            format!("{whole}\n\nmore").into_bytes(),
            "+".repeat(43).into_bytes(),
            vec![0xff; 43],
        ] {
            fs::write(&path, &garbled).unwrap();
            let refused = operator_token(&path).unwrap_err().to_string();
            assert!(refused.contains("acta token reset --data"), "{refused}");
            assert!(refused.contains(path.to_str().unwrap()), "{refused}");
            assert!(!refused.contains(&whole[..42]), "{refused}");
            assert_eq!(fs::read(&path).unwrap(), garbled, "it is left as it was");
        }
        for written in [whole.clone(), format!("{whole}\n"), format!("{whole}\r\n")] {
            fs::write(&path, written).unwrap();
            assert_eq!(operator_token(&path).unwrap().token, whole);
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_closed_to_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator.token");
        let token = reset_operator_token(&path).unwrap();
        for open in [0o644, 0o640, 0o604, 0o620] {
            fs::set_permissions(&path, Permissions::from_mode(open)).unwrap();
            let found = operator_token(&path).unwrap();
            assert_eq!(found.token, token);
            let warning = found.warning.unwrap();
            assert!(warning.contains(&format!("{open:03o}")) && !warning.contains(&token));
            assert_eq!(mode(&path), 0o600);
        }
    }

    #[test]
    fn what_a_crash_left_behind_does_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator.token");
        fs::write(dir.path().join("operator.token.new"), "half").unwrap();
        let made = operator_token(&path).unwrap();
        assert_eq!(operator_token(&path).unwrap().token, made.token);
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn what_the_file_system_refuses_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let refused = operator_token(&dir.path().join("missing/operator.token")).unwrap_err();
        assert!(matches!(refused, OperatorTokenError::Io { action: "create", .. }), "{refused}");
        assert!(matches!(operator_token(dir.path()).unwrap_err(), OperatorTokenError::Io { .. }));
    }
}
