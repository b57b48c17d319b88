//! A receipt: the proof that a record is in the log, complete in itself.
//!
//! It is a C2SP `tlog-proof`. Its extra data are the bytes whose SHA-256 is the record digest, so
//! that whoever has it can read the record and compute the leaf from it.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra <base64 of 0x00 ‖ header, or 0x01 ‖ header ‖ content digest>
//! index 73894
//! gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
//! …
//!
//! <the signed checkpoint>
//! ```

use super::{
    checkpoint::{CheckpointError, SignedCheckpoint},
    key::VerifierKey,
    proof::Inclusion,
};
use acta_events::{Digest, Record, sha256};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use std::fmt;
use tlog_tiles::{Hash, record_hash};

const MAGIC: &str = "c2sp.org/tlog-proof@v1";
/// A tree of 2^63 records has proofs of that many hashes.
const HASHES_MAX: usize = 63;

/// A receipt does not prove anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// It is not in the form of one.
    #[error("it is not a receipt: {0}")]
    Malformed(&'static str),
    /// What is in it is not in the log that was signed.
    #[error(
        "the record is not in the log that the checkpoint is of: the record or the proof was \
         altered"
    )]
    NotIncluded,
    /// The checkpoint in it cannot be believed.
    #[error("its checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
}

/// A receipt, believed or not.
#[derive(Clone, Debug)]
pub struct Receipt {
    index: u64,
    /// What the record digest is the SHA-256 of.
    preimage: Vec<u8>,
    proof: Vec<Hash>,
    checkpoint: String,
}

/// What a receipt proves.
#[derive(Clone, Debug)]
pub struct Proven {
    /// The sequence of the record.
    pub seq: u64,
    /// The record digest.
    pub record: Digest,
    /// The header of the record.
    pub header: String,
    /// The digest of its content, if it has one.
    pub content: Option<Digest>,
    /// What was signed.
    pub checkpoint: SignedCheckpoint,
}

/// The bytes whose SHA-256 is the digest of a record.
fn preimage_of(record: &Record) -> Vec<u8> {
    match &record.content {
        None => [&[0], &record.json[..]].concat(),
        Some(content) => [&[1], &record.json[..], &content.digest.0].concat(),
    }
}

impl Receipt {
    /// The receipt of a record in a checkpoint.
    pub fn new(record: &Record, inclusion: &Inclusion, checkpoint: &SignedCheckpoint) -> Self {
        Self {
            index: inclusion.index,
            preimage: preimage_of(record),
            proof: inclusion.proof.clone(),
            checkpoint: checkpoint.text().into(),
        }
    }

    /// Reads a receipt without believing it.
    pub fn parse(text: &str) -> Result<Self, ReceiptError> {
        let malformed = ReceiptError::Malformed;
        let (proof, checkpoint) = text
            .split_once("\n\n")
            .ok_or(malformed("there is no empty line in front of a checkpoint"))?;
        let mut lines = proof.split('\n');
        if lines.next() != Some(MAGIC) {
            return Err(malformed("it does not begin with c2sp.org/tlog-proof@v1"));
        }
        let extra = lines.next().and_then(|line| line.strip_prefix("extra "));
        let extra = extra.ok_or(malformed("there is no line `extra` with the record"))?;
        let preimage =
            BASE64_STANDARD.decode(extra).map_err(|_| malformed("`extra` is not base64"))?;
        let digits = lines.next().and_then(|line| line.strip_prefix("index "));
        let index = digits.and_then(|digits| digits.parse::<u64>().ok());
        let index = index.filter(|index| digits == Some(index.to_string().as_str()));
        let index = index.ok_or(malformed("there is no line `index` with a number"))?;
        let hash = |line| Hash::parse_hash(line).map_err(|_| malformed("a hash is not one"));
        let proof: Vec<Hash> = lines.map(hash).collect::<Result<_, _>>()?;
        if proof.len() > HASHES_MAX {
            return Err(malformed("there are more hashes than a tree has levels"));
        }
        Ok(Self { index, preimage, proof, checkpoint: checkpoint.into() })
    }

    /// What it proves, to whoever trusts the key.
    pub fn verify(&self, key: &VerifierKey) -> Result<Proven, ReceiptError> {
        let checkpoint = SignedCheckpoint::verify(&self.checkpoint, key)?;
        let record = sha256(&[&self.preimage]);
        let inclusion = Inclusion {
            size: checkpoint.size(),
            index: self.index,
            leaf: record_hash(&record.0),
            proof: self.proof.clone(),
        };
        if self.index >= checkpoint.size() || !inclusion.holds(checkpoint.root()) {
            return Err(ReceiptError::NotIncluded);
        }
        let malformed = ReceiptError::Malformed("`extra` is not a record");
        let (header, content) = match self.preimage.split_first() {
            Some((0, header)) => (header, None),
            Some((1, rest)) => {
                let (header, digest) = rest.split_last_chunk().ok_or(malformed)?;
                (header, Some(Digest(*digest)))
            }
            _ => return Err(malformed),
        };
        let header = String::from_utf8(header.to_vec()).map_err(|_| malformed)?;
        Ok(Proven { seq: self.index + 1, record, header, content, checkpoint })
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{MAGIC}\nextra {}", BASE64_STANDARD.encode(&self.preimage))?;
        writeln!(f, "index {}", self.index)?;
        for hash in &self.proof {
            writeln!(f, "{hash}")?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}
