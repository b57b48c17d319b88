//! Where things are in a run file, and the checksums of its pages and footer.

use super::{
    entry::{Entry, FENCE_BYTES, array},
    error::IndexError,
};
use acta_events::Sequence;

/// Unit of reading, in bytes.
pub(super) const PAGE_BYTES: usize = 4096;
/// What a page holds before its checksum.
pub(super) const BODY_BYTES: usize = PAGE_BYTES - CHECKSUM_BYTES;
/// Fences in one page, and so entry pages in one group.
pub(super) const FENCES_PER_PAGE: u64 = (BODY_BYTES / FENCE_BYTES) as u64;
/// The last bytes of the file.
pub(super) const FOOTER_BYTES: usize = 44;

const CHECKSUM_BYTES: usize = 4;
const MAGIC: [u8; 8] = *b"ACTAINDX";
const FORMAT: u16 = 1;

/// Bytes of one page.
pub(super) type Page = [u8; PAGE_BYTES];

/// What a file holds; everything about it follows from this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// First sequence covered.
    pub(super) first: Sequence,
    /// Last sequence covered.
    pub(super) last: Sequence,
    /// Entries.
    pub(super) count: u64,
}

/// Entries in one page.
pub(super) const fn entries_per_page<E: Entry>() -> u64 {
    (BODY_BYTES / E::WIDTH) as u64
}

impl Extent {
    /// Pages of entries.
    pub(super) fn entry_pages<E: Entry>(&self) -> u64 {
        self.count.div_ceil(entries_per_page::<E>())
    }

    /// Groups of up to 255 entry pages, each with a fence page behind it.
    pub(super) fn groups<E: Entry>(&self) -> u64 {
        self.entry_pages::<E>().div_ceil(FENCES_PER_PAGE)
    }

    /// Pages with the first fence of each group.
    pub(super) fn top_pages<E: Entry>(&self) -> u64 {
        self.groups::<E>().div_ceil(FENCES_PER_PAGE)
    }

    /// Entry pages of one group.
    pub(super) fn group_len<E: Entry>(&self, group: u64) -> u64 {
        (self.entry_pages::<E>() - group * FENCES_PER_PAGE).min(FENCES_PER_PAGE)
    }

    /// Where in the file, in pages, the fences of a group are.
    pub(super) fn fence_page<E: Entry>(&self, group: u64) -> u64 {
        ((group + 1) * FENCES_PER_PAGE).min(self.entry_pages::<E>()) + group
    }

    /// Where in the file, in pages, the first fences of groups begin.
    pub(super) fn top_start<E: Entry>(&self) -> u64 {
        self.entry_pages::<E>() + self.groups::<E>()
    }

    /// Length of the whole file. `None` for a count that no file can have.
    pub(super) fn file_bytes<E: Entry>(&self) -> Option<u64> {
        let pages = self.top_start::<E>() + self.top_pages::<E>();
        pages.checked_mul(PAGE_BYTES as u64)?.checked_add(FOOTER_BYTES as u64)
    }
}

/// Where in the file, in pages, an entry page is: behind the fence pages of earlier groups.
pub(super) fn entry_page_at(page: u64) -> u64 {
    page + page / FENCES_PER_PAGE
}

/// Checksums the pages of one file. The table, the sequences covered and the page's place go
/// in, so that an intact page of another file, or of another place, is not taken for it.
#[derive(Debug, Clone)]
pub(super) struct Checksum(crc32fast::Hasher);

impl Checksum {
    pub(super) fn of_file<E: Entry>(first: Sequence, last: Sequence) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&E::TABLE_CODE.to_be_bytes());
        hasher.update(&first.0.to_be_bytes());
        hasher.update(&last.0.to_be_bytes());
        Self(hasher)
    }

    fn of_page(&self, body: &[u8], at: u64) -> [u8; CHECKSUM_BYTES] {
        let mut hasher = self.0.clone();
        hasher.update(&at.to_be_bytes());
        hasher.update(body);
        hasher.finalize().to_be_bytes()
    }

    /// Fills the body up with zeros and appends the checksum.
    pub(super) fn seal(&self, page: &mut Vec<u8>, at: u64) {
        page.resize(BODY_BYTES, 0);
        page.extend_from_slice(&self.of_page(page, at));
    }

    /// Whether the page is the one that was written there.
    pub(super) fn holds(&self, page: &Page, at: u64) -> bool {
        let (body, checksum) = page.split_at(BODY_BYTES);
        self.of_page(body, at) == checksum
    }
}

/// The last bytes of a file.
pub(super) fn encode_footer<E: Entry>(extent: &Extent) -> Vec<u8> {
    let mut footer = Vec::with_capacity(FOOTER_BYTES);
    footer.extend_from_slice(&MAGIC);
    for number in [FORMAT, E::TABLE_CODE, E::WIDTH as u16, PAGE_BYTES as u16] {
        footer.extend_from_slice(&number.to_be_bytes());
    }
    for number in [extent.first.0, extent.last.0, extent.count] {
        footer.extend_from_slice(&number.to_be_bytes());
    }
    let checksum = crc32fast::hash(&footer);
    footer.extend_from_slice(&checksum.to_be_bytes());
    footer
}

/// Reads the last bytes of a file that is named for `first..=last` and is `file_bytes` long.
pub(super) fn decode_footer<E: Entry>(
    footer: &[u8; FOOTER_BYTES],
    name: &str,
    (first, last): (Sequence, Sequence),
    file_bytes: u64,
) -> Result<Extent, IndexError> {
    let damaged = |what| IndexError::damaged(name, what);
    let count = array(footer, 32).map(u64::from_be_bytes).ok_or_else(|| damaged("footer"))?;
    let extent = Extent { first, last, count };
    if encode_footer::<E>(&extent) != footer {
        let checksum = crc32fast::hash(&footer[..FOOTER_BYTES - CHECKSUM_BYTES]);
        let intact = footer.ends_with(&checksum.to_be_bytes());
        return Err(damaged(if intact { "another file or format" } else { "footer" }));
    }
    if extent.file_bytes::<E>() != Some(file_bytes) {
        return Err(damaged("length"));
    }
    Ok(extent)
}
