//! The tree on disk: files of 65 536 hashes for each level of tiles, tile after tile, and what says how far
//! they are good.
//!
//! ```text
//! <tree>/level-<L>-<P>   the hashes of level 8·L from P · 65 536 on, 32 bytes each; P has 8 digits
//! <tree>/state           magic "ACTT" · format u16 · 0 u16 · size u64 · block digest [32] · root [32]
//!                        · SHA-256 of all that [32]
//! ```
//!
//! Big-endian. Levels are written and synced before the state is replaced, so that the state never
//! says more than there is. What lies in a level beyond the state is written again. A file that is full never
//! changes, so that a snapshot need not take it twice. In format 1 each level was one file, `level-<L>`; such a
//! directory is read, and rewritten by the first who opens it to write.

use super::tree::TreeError;
use acta_events::{Digest, sha256};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};
use tlog_tiles::{HASH_SIZE, Hash};

const STATE: &str = "state";
const MAGIC: &[u8; 4] = b"ACTT";
const FORMAT: u16 = 2;
const FORMAT_WHOLE: u16 = 1;
/// How many hashes a file has.
const PIECE_HASHES: u64 = 65_536;
/// The size of a file that does not change any more.
pub(super) const PIECE_BYTES: u64 = PIECE_HASHES * HASH_SIZE as u64;
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
            && [FORMAT, FORMAT_WHOLE].iter().any(|format| body[4..6] == format.to_be_bytes());
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
    /// How many hashes a file has. In format 1 there is no end to it.
    piece: u64,
    /// Whether what is written has to survive a power loss.
    durable: bool,
}

impl Files {
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let files = Self::at(dir);
        if files.piece == u64::MAX { files.divided() } else { Ok(files) }
    }

    /// One that nobody needs once it has been looked at. Nothing is synced.
    pub(super) fn scratch(dir: &Path) -> io::Result<Self> {
        Ok(Self { durable: false, ..Self::new(dir)? })
    }

    /// One that is there already, to be looked at only.
    pub(super) fn at(dir: &Path) -> Self {
        let state = fs::read(dir.join(STATE)).unwrap_or_default();
        let whole = State::decode(&state).is_some() && state[4..6] == FORMAT_WHOLE.to_be_bytes();
        let piece = if whole { u64::MAX } else { PIECE_HASHES };
        Self { dir: dir.to_owned(), piece, durable: true }
    }

    /// The same tree in files of this format, from one of format 1. Killed on the way, it begins again.
    fn divided(&self) -> io::Result<Self> {
        let ours = Self { piece: PIECE_HASHES, ..self.clone() };
        let Some(state) = self.state() else { return Ok(ours) };
        let whole = self.names(state.size);
        for (level, (name, _)) in (0..).zip(&whole) {
            let mut file = File::open(self.dir.join(name))?;
            for piece in 0.. {
                let mut hashes = Vec::new();
                (&mut file).take(PIECE_BYTES).read_to_end(&mut hashes)?;
                if hashes.is_empty() {
                    break;
                }
                ours.write(level, piece * PIECE_HASHES, &hashes)?;
            }
        }
        ours.replace_state(&state)?;
        for (name, _) in whole {
            fs::remove_file(self.dir.join(name))?;
        }
        Ok(ours)
    }

    /// The names of the files of a tree of that size, and how many bytes of each belong to it.
    pub(super) fn names(&self, size: u64) -> Vec<(String, u64)> {
        let mut names = Vec::new();
        let mut count = size;
        for level in 0.. {
            if count == 0 {
                break;
            }
            for piece in 0..count.div_ceil(self.piece) {
                let hashes = (count - piece * self.piece).min(self.piece);
                names.push((self.name(level, piece), hashes * HASH_SIZE as u64));
            }
            count /= super::TILE_WIDTH;
        }
        names
    }

    /// Whether anything says how far the files go.
    pub(super) fn has_state(&self) -> bool {
        self.dir.join(STATE).exists()
    }

    fn name(&self, level: u8, piece: u64) -> String {
        match self.piece {
            u64::MAX => format!("level-{level}"),
            _ => format!("level-{level}-{piece:08}"),
        }
    }

    /// The file of a hash, where in it that is, and how many hashes from there on it has at most.
    fn place(&self, level: u8, at: u64) -> (PathBuf, u64, u64) {
        let within = at % self.piece;
        let path = self.dir.join(self.name(level, at / self.piece));
        (path, within * HASH_SIZE as u64, self.piece - within)
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
        let (mut rest, mut at) = (&mut bytes[..], first);
        while !rest.is_empty() {
            let (path, offset, room) = self.place(level, at);
            let len = rest
                .len()
                .min(usize::try_from(room).unwrap_or(usize::MAX).saturating_mul(HASH_SIZE));
            let (here, beyond) = rest.split_at_mut(len);
            match File::open(path).and_then(|file| file.read_exact_at(here, offset)) {
                Ok(()) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound
                    ) =>
                {
                    return Err(TreeError::Damaged { level, tile: at / super::TILE_WIDTH });
                }
                Err(error) => return Err(error.into()),
            }
            at += (len / HASH_SIZE) as u64;
            rest = beyond;
        }
        Ok(bytes)
    }

    /// Writes hashes of a level, from the `first` on, and syncs them unless that is spared.
    pub(super) fn write(&self, level: u8, first: u64, hashes: &[u8]) -> io::Result<()> {
        let (mut rest, mut at) = (hashes, first);
        while !rest.is_empty() {
            let (path, offset, room) = self.place(level, at);
            let len = rest
                .len()
                .min(usize::try_from(room).unwrap_or(usize::MAX).saturating_mul(HASH_SIZE));
            let (here, beyond) = rest.split_at(len);
            let mut options = OpenOptions::new();
            let file = options.create(true).truncate(false).write(true).mode(0o600).open(path)?;
            file.write_all_at(here, offset)?;
            if self.durable {
                file.sync_data()?;
            }
            at += (len / HASH_SIZE) as u64;
            rest = beyond;
        }
        Ok(())
    }

    /// Says how far the levels go, once they have been written and synced.
    pub(super) fn replace_state(&self, state: &State) -> io::Result<()> {
        let path = self.dir.join(STATE);
        if !self.durable {
            return fs::write(path, state.encode());
        }
        replace(&path, &state.encode())?;
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
