//! The key that signs checkpoints, and the key that they are verified with.
//!
//! The file holds one line, the signer key as Go's `note` package writes it:
//! `PRIVATE+KEY+<name>+<hash>+<key>`. Whoever has it can sign in the log's name. The name is that of
//! the log, and the first line of its checkpoints.

use acta_events::{Epoch, LogId};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use ed25519_dalek::SigningKey;
use signed_note::{StandardSigner, StandardVerifier, Verifier as _, new_ed25519_verifier_key};
use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    str::FromStr,
};

/// The type of the key in its encoded form: Ed25519.
const ED25519: u8 = 1;

/// The key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is there and holds no key.
    #[error(
        "the file log.key holds no signing key (PRIVATE+KEY+<name>+<hash>+<key>). Restore it from \
         a backup: another key would not be the one that is known for this log"
    )]
    Malformed,
    /// There was a key once.
    #[error(
        "the file log.key is missing, but there is a checkpoint that was signed with it. Restore \
         it from a backup, or remove the file checkpoint to sign with a fresh key from now on, \
         which everybody who verifies this log then has to be told"
    )]
    Missing,
    /// There is none yet.
    #[error("there is no file log.key; the first `acta serve` on the data directory makes the key")]
    None,
    /// The file system said no.
    #[error("the file log.key: {0}")]
    Io(#[from] io::Error),
}

/// A key that signs checkpoints.
pub struct LogKey {
    signer: StandardSigner,
    verifier: VerifierKey,
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogKey({})", self.verifier)
    }
}

impl LogKey {
    /// A fresh key for a log, which is named after it.
    pub fn generate(log: LogId) -> Self {
        let (text, verifier) = make(&origin(log, Epoch(1)));
        Self::parse(&text, verifier).expect("what was just made is a key with a valid name")
    }

    fn parse(text: &str, verifier: VerifierKey) -> Option<Self> {
        Some(Self { signer: StandardSigner::new(text).ok()?, verifier })
    }

    /// The key in a file. Blocking.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(KeyError::None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(KeyError::Malformed);
            }
            other => other?,
        };
        let text = text.trim();
        let verifier = verifier_of(text).ok_or(KeyError::Malformed)?;
        Self::parse(text, verifier).ok_or(KeyError::Malformed)
    }

    /// The key in a file, which is made, mode 0600, if there is none and nothing was ever signed.
    /// Blocking.
    pub fn load_or_make(
        path: &Path,
        log: LogId,
        epoch: Epoch,
        has_signed: bool,
    ) -> Result<Self, KeyError> {
        match Self::load(path) {
            Err(KeyError::None) if has_signed => Err(KeyError::Missing),
            Err(KeyError::None) => {
                let (text, verifier) = make(&origin(log, epoch));
                write(path, &text)?;
                Self::parse(&text, verifier).ok_or(KeyError::Malformed)
            }
            other => other,
        }
    }

    /// The name of the log, which its checkpoints begin with.
    pub fn name(&self) -> &str {
        &self.verifier.name
    }

    /// What verifies its signatures.
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    pub(super) fn signer(&self) -> &StandardSigner {
        &self.signer
    }
}

/// What the checkpoints of a log begin with. Each epoch after the first has a name of its own, so
/// that nobody takes one history for the other. The id of the log is the last part in any case.
pub(super) fn origin(log: LogId, epoch: Epoch) -> String {
    match epoch {
        Epoch(0 | 1) => format!("acta/{log}"),
        Epoch(later) => format!("acta/epoch-{later}/{log}"),
    }
}

/// A signer key in its encoded form, and what verifies it.
fn make(name: &str) -> (String, VerifierKey) {
    let seed: [u8; 32] = rand::random();
    let key = SigningKey::from_bytes(&seed);
    let verifier = VerifierKey::new(name, new_ed25519_verifier_key(name, &key.verifying_key()));
    let hash = verifier.text[name.len() + 1..].split('+').next().unwrap_or_default();
    let encoded = BASE64_STANDARD.encode([&[ED25519], seed.as_slice()].concat());
    (format!("PRIVATE+KEY+{name}+{hash}+{encoded}"), verifier)
}

/// What verifies the signatures of an encoded signer key. That the key is one is for
/// [`StandardSigner`] to say.
fn verifier_of(text: &str) -> Option<VerifierKey> {
    let mut parts = text.strip_prefix("PRIVATE+KEY+")?.splitn(3, '+');
    let (name, _hash, key) = (parts.next()?, parts.next()?, parts.next()?);
    let key = BASE64_STANDARD.decode(key).ok()?;
    let seed: [u8; 32] = key.strip_prefix(&[ED25519])?.try_into().ok()?;
    let key = SigningKey::from_bytes(&seed).verifying_key();
    Some(VerifierKey::new(name, new_ed25519_verifier_key(name, &key)))
}

/// Makes the file; never over one that is there.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("key.new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::hard_link(&temporary, path)?;
    fs::remove_file(&temporary)?;
    match path.parent() {
        Some(dir) => fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// What checkpoints of a log are verified with: `<name>+<hash>+<key>`. No secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    text: String,
}

/// The text is no verifier key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a verifier key is written <name>+<8 hexadecimal digits>+<base64>, as `acta key show` prints it"
)]
pub struct VerifierKeyError;

impl VerifierKey {
    fn new(name: &str, text: String) -> Self {
        Self { name: name.into(), text }
    }

    /// The name of the log.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn verifier(&self) -> Option<StandardVerifier> {
        StandardVerifier::new(&self.text).ok()
    }
}

impl FromStr for VerifierKey {
    type Err = VerifierKeyError;

    fn from_str(text: &str) -> Result<Self, VerifierKeyError> {
        let verifier = StandardVerifier::new(text).map_err(|_| VerifierKeyError)?;
        Ok(Self::new(verifier.name(), text.into()))
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
