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
pub(super) const FOOTER_BYTES: usize = 52;

const CHECKSUM_BYTES: usize = 4;
const MAGIC: [u8; 8] = *b"ACTAINDX";
const FORMAT: u16 = 3;
/// Has no filter.
const FORMAT_2: u16 = 2;

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
    /// Pages of entries.
    pub(super) pages: u64,
    /// Pages of the filter; zero if there is none.
    pub(super) filter_pages: u16,
}

impl Extent {
    /// Groups of up to 255 entry pages, each with a fence page behind it.
    pub(super) fn groups(&self) -> u64 {
        self.pages.div_ceil(FENCES_PER_PAGE)
    }

    /// Pages with the first fence of each group.
    pub(super) fn top_pages(&self) -> u64 {
        self.groups().div_ceil(FENCES_PER_PAGE)
    }

    /// Entry pages of one group.
    pub(super) fn group_len(&self, group: u64) -> u64 {
        (self.pages - group * FENCES_PER_PAGE).min(FENCES_PER_PAGE)
    }

    /// Where in the file, in pages, the fences of a group are.
    pub(super) fn fence_page(&self, group: u64) -> u64 {
        ((group + 1) * FENCES_PER_PAGE).min(self.pages) + group
    }

    /// Where in the file, in pages, the first fences of groups begin.
    pub(super) fn top_start(&self) -> u64 {
        self.pages + self.groups()
    }

    /// Where in the file, in pages, the filter begins.
    pub(super) fn filter_start(&self) -> u64 {
        self.top_start() + self.top_pages()
    }

    /// Length of the whole file. `None` for a number of pages that no file can have.
    pub(super) fn file_bytes(&self) -> Option<u64> {
        let pages = self.pages.checked_add(self.groups())?.checked_add(self.top_pages())?;
        let pages = pages.checked_add(u64::from(self.filter_pages))?;
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

/// The entries of a page, which begins with their number.
pub(super) fn decode_entries<E: Entry>(page: &Page) -> Option<Vec<E>> {
    let (count, mut bytes) = page[..BODY_BYTES].split_first_chunk()?;
    let count = u16::from_be_bytes(*count);
    let mut entries: Vec<E> = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        entries.push(E::decode(entries.last(), &mut bytes)?);
    }
    Some(entries).filter(|entries| !entries.is_empty())
}

/// The last bytes of a file.
pub(super) fn encode_footer<E: Entry>(extent: &Extent) -> Vec<u8> {
    footer_of::<E>(FORMAT, extent)
}

fn footer_of<E: Entry>(format: u16, extent: &Extent) -> Vec<u8> {
    let mut footer = Vec::with_capacity(FOOTER_BYTES);
    footer.extend_from_slice(&MAGIC);
    for number in [format, E::TABLE_CODE, PAGE_BYTES as u16, extent.filter_pages] {
        footer.extend_from_slice(&number.to_be_bytes());
    }
    for number in [extent.first.0, extent.last.0, extent.count, extent.pages] {
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
    let number = |at| array(footer, at).map(u64::from_be_bytes).ok_or_else(|| damaged("footer"));
    let filter_pages = array(footer, 14).map(u16::from_be_bytes).unwrap_or_default();
    let extent = Extent { first, last, count: number(32)?, pages: number(40)?, filter_pages };
    let is_old = filter_pages == 0 && footer_of::<E>(FORMAT_2, &extent) == footer;
    if !is_old && encode_footer::<E>(&extent) != footer {
        let checksum = crc32fast::hash(&footer[..FOOTER_BYTES - CHECKSUM_BYTES]);
        let intact = footer.ends_with(&checksum.to_be_bytes());
        return Err(damaged(if intact { "another file or format" } else { "footer" }));
    }
    if extent.file_bytes() != Some(file_bytes) {
        return Err(damaged("length"));
    }
    Ok(extent)
}
