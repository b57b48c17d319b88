//! Where contents that are too large to stand beside their header are kept.

use crate::content::{ContentError, ContentStore};
use acta_events::{Content, Digest, record::SALT_BYTES};
use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};

/// Files beside a journal on disk, or memory beside one in memory. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Contents {
    /// Files, each synced before the record that refers to it.
    Files(Arc<ContentStore>),
    /// Memory, as lasting as the journal beside it; each with its salt in front.
    Memory(Arc<Mutex<HashMap<Digest, Bytes>>>),
}

impl Contents {
    /// Memory only.
    pub fn in_memory() -> Self {
        Self::Memory(Arc::default())
    }

    /// Keeps a content. Blocking.
    pub fn put(&self, content: &Content) -> Result<(), ContentError> {
        match self {
            Self::Files(files) => files.put(content),
            Self::Memory(map) => {
                let stored = [&content.salt[..], &content.bytes].concat();
                map.lock().insert(content.digest(), stored.into());
                Ok(())
            }
        }
    }

    /// Reads a content. Blocking.
    pub fn read(&self, digest: Digest, len: u64) -> Result<Bytes, ContentError> {
        let mut bytes = self.read_salted(digest, len)?;
        bytes.advance(SALT_BYTES);
        Ok(bytes)
    }

    /// Reads a content with its salt in front. Blocking.
    pub fn read_salted(&self, digest: Digest, len: u64) -> Result<Bytes, ContentError> {
        match self {
            Self::Files(files) => files.read_salted(digest, len),
            Self::Memory(map) => {
                map.lock().get(&digest).cloned().ok_or(ContentError::Missing { digest })
            }
        }
    }

    /// Takes a content away for good. Blocking.
    pub fn remove(&self, digest: Digest) -> Result<(), ContentError> {
        match self {
            Self::Files(files) => files.remove(digest),
            Self::Memory(map) => {
                map.lock().remove(&digest);
                Ok(())
            }
        }
    }
}
