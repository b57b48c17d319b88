//! Tile paths of C2SP `tlog-tiles`: `<L>/<N>[.p/<W>]` and `entries/<N>[.p/<W>]`.
//!
//! `N` is written in groups of three digits, all but the last of which begin with `x`:
//! 1234067 is `x001/x234/067`. Published `tlog_tiles` writes a height in front of the level, which
//! the specification does not have, and panics on some paths, so this is our own.

use super::tree::TILE_WIDTH;
use std::fmt;

/// The highest level of tiles that a path may name.
const LEVEL_MAX: u8 = 63;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TileKind {
    /// Hashes of that level.
    Hashes(u8),
    /// The entries of the log.
    Entries,
}

/// Names a tile, or its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TilePath {
    /// What it holds.
    pub kind: TileKind,
    /// Its number in its level.
    pub number: u64,
    /// How many hashes or entries, 1 to 256; 256 is the full tile.
    pub width: u64,
}

impl TilePath {
    /// Reads what stands behind `tile/`. There is one way to write each tile.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once('/')?;
        let kind = match kind {
            "entries" => TileKind::Entries,
            level => TileKind::Hashes(number(level, 1, u64::from(LEVEL_MAX))? as u8),
        };
        let (digits, width) = match rest.split_once(".p/") {
            Some((digits, width)) => (digits, number(width, 1, TILE_WIDTH - 1)?),
            None => (rest, TILE_WIDTH),
        };
        let mut found = 0_u64;
        for group in digits.split('/') {
            let group = number(group.trim_start_matches('x'), 3, 999)?;
            found = found.checked_mul(1000)?.checked_add(group)?;
        }
        let path = Self { kind, number: found, width };
        (path.width > 0 && path.to_string() == text).then_some(path)
    }

    /// How many records a tree needs to have for there to be such a tile.
    pub fn end(&self) -> Option<u64> {
        self.number.checked_mul(TILE_WIDTH)?.checked_add(self.width)
    }
}

fn number(text: &str, digits_min: usize, max: u64) -> Option<u64> {
    let is_number = text.len() >= digits_min && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok().filter(|number| *number <= max))?
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes(level) => write!(f, "{level}")?,
            TileKind::Entries => f.write_str("entries")?,
        }
        let mut groups = vec![format!("{:03}", self.number % 1000)];
        let mut rest = self.number / 1000;
        while rest > 0 {
            groups.push(format!("x{:03}", rest % 1000));
            rest /= 1000;
        }
        for group in groups.iter().rev() {
            write!(f, "/{group}")?;
        }
        if self.width < TILE_WIDTH { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}
