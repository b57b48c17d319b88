//! Signed checkpoints: "this log has N records, and this is the root over them".
//!
//! ```text
//! acta/<log id>
//! 20852
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//!
//! — acta/<log id> Az3grlgt…
//! ```

use super::key::{LogKey, VerifierKey};
use signed_note::{Note, VerifierList};
use std::fmt;
use tlog_tiles::{Checkpoint, Hash};

/// A checkpoint is not one, or not one to trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// It is not in the form of one.
    #[error(
        "it is not a signed checkpoint: three lines (origin, size, root), an empty line, and \
         signatures"
    )]
    Malformed,
    /// It is signed by nobody we know.
    #[error("it is not signed with the key of this log")]
    Unsigned,
    /// The signature is not one over this text.
    #[error("its signature does not match: it was altered after it was signed")]
    Forged,
    /// It is of another log.
    #[error("it is of another log than the key is")]
    Origin,
}

/// A checkpoint, with the signatures on it.
#[derive(Clone, Debug, PartialEq)]
pub struct SignedCheckpoint {
    origin: String,
    size: u64,
    root: Hash,
    text: String,
}

impl SignedCheckpoint {
    /// Signs a size and a root.
    pub fn sign(key: &LogKey, size: u64, root: Hash) -> Self {
        let checkpoint = Checkpoint::new(key.name(), size, root, "")
            .expect("a checkpoint with a name and no extension is well-formed");
        let mut note = Note::new(&checkpoint.to_bytes(), &[])
            .expect("a checkpoint is text that ends with a newline");
        note.add_sigs(&[key.signer()]).expect("an Ed25519 key with a valid name signs any text");
        let text = String::from_utf8(note.to_bytes()).expect("a note is made from text");
        Self { origin: key.name().into(), size, root, text }
    }

    /// Reads a checkpoint without believing it.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let note = Note::from_bytes(text.as_bytes()).map_err(|_| CheckpointError::Malformed)?;
        let checkpoint =
            Checkpoint::from_bytes(note.text()).map_err(|_| CheckpointError::Malformed)?;
        Ok(Self {
            origin: checkpoint.origin().into(),
            size: checkpoint.size(),
            root: *checkpoint.hash(),
            text: text.into(),
        })
    }

    /// Reads a checkpoint that has to be signed by a log.
    pub fn verify(text: &str, key: &VerifierKey) -> Result<Self, CheckpointError> {
        let checkpoint = Self::parse(text)?;
        let note = Note::from_bytes(text.as_bytes()).map_err(|_| CheckpointError::Malformed)?;
        let verifier = key.verifier().ok_or(CheckpointError::Unsigned)?;
        let known = VerifierList::new(vec![Box::new(verifier)]);
        match note.verify(&known) {
            Ok(_) if checkpoint.origin != key.name() => Err(CheckpointError::Origin),
            Ok(_) => Ok(checkpoint),
            Err(signed_note::NoteError::UnverifiedNote) => Err(CheckpointError::Unsigned),
            Err(_) => Err(CheckpointError::Forged),
        }
    }

    /// The name of the log.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// How many records it covers.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root over them.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// The signed note.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for SignedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
