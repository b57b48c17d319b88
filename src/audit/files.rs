//! The tree on disk: a file for each level of tiles, tile after tile, and what says how far they
//! are good.
//!
//! ```text
//! <tree>/level-<L>   the hashes of level 8·L, 32 bytes each: tile N is at N · 8192
//! <tree>/state       magic "ACTT" · format u16 · 0 u16 · size u64 · block digest [32] · root [32]
//!                    · SHA-256 of all that [32]
//! ```
//!
//! Big-endian. Levels are written and synced before the state is replaced, so that the state never
//! says more than there is. What lies in a level beyond the state is written again.

use super::tree::TreeError;
use acta_events::{Digest, sha256};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};
use tlog_tiles::{HASH_SIZE, Hash};

const STATE: &str = "state";
const MAGIC: &[u8; 4] = b"ACTT";
const FORMAT: u16 = 1;
const BODY_BYTES: usize = 4 + 2 + 2 + 8 + 32 + 32;

/// How far the files go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct State {
    pub(super) size: u64,
    /// The digest of the block that ends there.
    pub(super) block: Digest,
    /// The root at that size.
    pub(super) root: Hash,
}

impl State {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BODY_BYTES + 32);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_be_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&self.size.to_be_bytes());
        bytes.extend_from_slice(&self.block.0);
        bytes.extend_from_slice(&self.root.0);
        let checksum = sha256(&[&bytes]);
        bytes.extend_from_slice(&checksum.0);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, checksum) = bytes.split_at_checked(BODY_BYTES)?;
        let intact = sha256(&[body]).0 == *checksum
            && &body[..4] == MAGIC
            && body[4..6] == FORMAT.to_be_bytes();
        intact.then_some(())?;
        Some(Self {
            size: u64::from_be_bytes(body[8..16].try_into().ok()?),
            block: Digest(body[16..48].try_into().ok()?),
            root: Hash(body[48..80].try_into().ok()?),
        })
    }
}

/// The directory of the tree. Every call blocks.
#[derive(Clone, Debug)]
pub(super) struct Files {
    dir: PathBuf,
}

impl Files {
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// One that is there already, to be looked at only.
    pub(super) fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Whether anything says how far the files go.
    pub(super) fn has_state(&self) -> bool {
        self.dir.join(STATE).exists()
    }

    fn level(&self, level: u8) -> PathBuf {
        self.dir.join(format!("level-{level}"))
    }

    /// What the files hold; nothing if there are none, or none that can be trusted.
    pub(super) fn state(&self) -> Option<State> {
        State::decode(&fs::read(self.dir.join(STATE)).ok()?)
    }

    /// From now on nothing is known of what the levels hold.
    pub(super) fn forget(&self) -> io::Result<()> {
        match fs::remove_file(self.dir.join(STATE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => File::open(&self.dir)?.sync_all(),
        }
    }

    /// `count` hashes of a level, from the `first` on.
    pub(super) fn read(&self, level: u8, first: u64, count: usize) -> Result<Vec<u8>, TreeError> {
        let mut bytes = vec![0; count * HASH_SIZE];
        if count == 0 {
            return Ok(bytes);
        }
        let read = File::open(self.level(level))
            .and_then(|file| file.read_exact_at(&mut bytes, first * HASH_SIZE as u64));
        match read {
            Ok(()) => Ok(bytes),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound
                ) =>
            {
                Err(TreeError::Damaged { level, tile: first / super::TILE_WIDTH })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes hashes of a level, from the `first` on, and syncs them.
    pub(super) fn write(&self, level: u8, first: u64, hashes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let file =
            options.create(true).truncate(false).write(true).mode(0o600).open(self.level(level))?;
        file.write_all_at(hashes, first * HASH_SIZE as u64)?;
        file.sync_data()
    }

    /// Says how far the levels go, once they have been written and synced.
    pub(super) fn replace_state(&self, state: &State) -> io::Result<()> {
        replace(&self.dir.join(STATE), &state.encode())?;
        File::open(&self.dir)?.sync_all()
    }
}

/// Write, fsync, rename: the file is there as a whole, the old or the new. Whether it is the new
/// after a power loss is only known once the directory has been synced.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}
