//! Reading one immutable run file.

use super::{
    entry::{Entry, FENCE_BYTES, Fence, KeyEntry, Posting, array},
    error::IndexError,
    files::RunName,
    filter::Filter,
    page::{
        BODY_BYTES, Checksum, Extent, FENCES_PER_PAGE, FOOTER_BYTES, PAGE_BYTES, Page,
        decode_entries, decode_footer, entry_page_at,
    },
};
use acta_events::Sequence;
use std::{fs::File, marker::PhantomData, os::unix::fs::FileExt, path::Path};

/// A run file, open for reading. It stays readable when it is removed from its directory.
#[derive(Debug)]
pub(super) struct Run<E> {
    file: File,
    name: String,
    extent: Extent,
    checksum: Checksum,
    /// The first fence of each entry page, or of each group when that would be too much.
    fences: Vec<Fence>,
    by_group: bool,
    filter: Option<Filter>,
    table: PhantomData<E>,
}

impl<E: Entry> Run<E> {
    /// Opens a file, verifying its footer, its fences and its filter. The fences of entry pages are kept
    /// in memory when they take at most `fence_bytes_max`.
    pub(super) fn open(
        dir: &Path,
        name: &RunName,
        fence_bytes_max: u64,
    ) -> Result<Self, IndexError> {
        let text = name.file_name::<E>();
        let file = File::open(dir.join(&text)).map_err(|error| IndexError::io(&text, error))?;
        let bytes = file.metadata().map_err(|error| IndexError::io(&text, error))?.len();
        let footer_at = bytes
            .checked_sub(FOOTER_BYTES as u64)
            .ok_or_else(|| IndexError::damaged(&text, "cut short"))?;
        let mut footer = [0; FOOTER_BYTES];
        file.read_exact_at(&mut footer, footer_at)
            .map_err(|error| IndexError::reading(&text, error))?;
        let extent = decode_footer::<E>(&footer, &text, (name.first, name.last), bytes)?;
        let mut run = Self {
            file,
            name: text,
            extent,
            checksum: Checksum::of_file::<E>(name.first, name.last),
            fences: Vec::new(),
            by_group: extent.pages * FENCE_BYTES as u64 > fence_bytes_max,
            filter: None,
            table: PhantomData,
        };
        run.fences = run.load_fences()?;
        run.filter = run.load_filter()?;
        Ok(run)
    }

    fn load_fences(&self) -> Result<Vec<Fence>, IndexError> {
        let mut fences = Vec::new();
        let groups = self.extent.groups();
        if self.by_group {
            for top in 0..self.extent.top_pages() {
                let count = (groups - top * FENCES_PER_PAGE).min(FENCES_PER_PAGE);
                fences.extend(self.fence_page(self.extent.top_start() + top, count)?);
            }
        } else {
            for group in 0..groups {
                fences.extend(self.group(group)?);
            }
        }
        Ok(fences)
    }

    fn load_filter(&self) -> Result<Option<Filter>, IndexError> {
        let (start, count) = (self.extent.filter_start(), u64::from(self.extent.filter_pages));
        let mut bodies: Vec<[u8; BODY_BYTES]> = Vec::with_capacity(count as usize);
        let mut page = [0; PAGE_BYTES];
        for at in start..start + count {
            self.read_page(at, &mut page)?;
            bodies.push(array(&page, 0).ok_or_else(|| self.damaged("filter"))?);
        }
        Ok((count > 0).then(|| Filter::of_pages(bodies.into_iter())))
    }

    /// First sequence covered.
    pub(super) fn first(&self) -> Sequence {
        self.extent.first
    }

    /// Last sequence covered.
    pub(super) fn last(&self) -> Sequence {
        self.extent.last
    }

    /// Entries in the run.
    pub(super) fn count(&self) -> u64 {
        self.extent.count
    }

    /// Bytes of the fences in memory.
    pub(super) fn fence_bytes(&self) -> usize {
        self.fences.len() * FENCE_BYTES
    }

    /// Bytes of the filter, which is in memory.
    pub(super) fn filter_bytes(&self) -> usize {
        self.filter.as_ref().map_or(0, Filter::bytes)
    }

    /// What the file is called.
    pub(super) fn name(&self) -> RunName {
        RunName { first: self.extent.first, last: self.extent.last }
    }

    fn damaged(&self, what: &'static str) -> IndexError {
        IndexError::damaged(&self.name, what)
    }

    fn read_page(&self, at: u64, page: &mut Page) -> Result<(), IndexError> {
        self.file
            .read_exact_at(page, at * PAGE_BYTES as u64)
            .map_err(|error| IndexError::reading(&self.name, error))?;
        if self.checksum.holds(page, at) { Ok(()) } else { Err(self.damaged("page")) }
    }

    fn fence_page(&self, at: u64, count: u64) -> Result<Vec<Fence>, IndexError> {
        let mut page = [0; PAGE_BYTES];
        self.read_page(at, &mut page)?;
        (0..count as usize)
            .map(|n| array(&page, n * FENCE_BYTES).ok_or_else(|| self.damaged("fences")))
            .collect()
    }

    fn group(&self, group: u64) -> Result<Vec<Fence>, IndexError> {
        self.fence_page(self.extent.fence_page(group), self.extent.group_len(group))
    }

    /// The last entry page that begins before the target, or the first page.
    fn page_of(&self, before: &impl Fn(&Fence) -> bool) -> Result<u64, IndexError> {
        let place = self.fences.partition_point(before).saturating_sub(1) as u64;
        if !self.by_group {
            return Ok(place);
        }
        let within = self.group(place)?.partition_point(before).saturating_sub(1) as u64;
        Ok(place * FENCES_PER_PAGE + within)
    }

    /// Reads all entries, in order, and checks what look-ups rely upon: that they ascend, that
    /// fences are what pages begin with, and that the filter denies none of them.
    pub(super) fn each(&self, mut visit: impl FnMut(&E)) -> Result<(), IndexError> {
        let mut reader = self.reader();
        let (mut count, mut last, mut group) = (0, None, Vec::new());
        for page in 0..self.extent.pages {
            let within = page % FENCES_PER_PAGE;
            if within == 0 {
                group = self.group(page / FENCES_PER_PAGE)?;
            }
            reader.load(page)?;
            let first = reader.entries.first().map(Entry::fence);
            let kept = if self.by_group { page / FENCES_PER_PAGE } else { page } as usize;
            let is_kept = !self.by_group || within == 0;
            if group.get(within as usize) != first.as_ref()
                || (is_kept && self.fences.get(kept) != first.as_ref())
            {
                return Err(self.damaged("fences"));
            }
            for entry in &reader.entries {
                let fence = entry.fence();
                if last.is_some_and(|last| last >= fence) {
                    return Err(self.damaged("order of entries"));
                }
                if self.filter.as_ref().is_some_and(|filter| !filter.may_have(&fence)) {
                    return Err(self.damaged("filter"));
                }
                last = Some(fence);
                count += 1;
                visit(entry);
            }
        }
        if count == self.extent.count { Ok(()) } else { Err(self.damaged("number of entries")) }
    }

    /// Reads entries by their place in the run.
    pub(super) fn reader(&self) -> Reader<'_, E> {
        Reader { run: self, entries: Vec::new(), loaded: None }
    }
}

/// Where an entry is in a run. There is none at a place behind the last entry of the last page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    page: u64,
    within: usize,
}

/// Reads a run, the entries of one page in memory at a time.
#[derive(Debug)]
pub(super) struct Reader<'a, E> {
    run: &'a Run<E>,
    entries: Vec<E>,
    loaded: Option<u64>,
}

impl<E: Entry> Reader<'_, E> {
    fn load(&mut self, page: u64) -> Result<(), IndexError> {
        if self.loaded != Some(page) {
            self.loaded = None;
            let mut bytes = [0; PAGE_BYTES];
            self.run.read_page(entry_page_at(page), &mut bytes)?;
            self.entries = decode_entries(&bytes).ok_or_else(|| self.run.damaged("entries"))?;
            self.loaded = Some(page);
        }
        Ok(())
    }

    /// The entry at a place; `None` at the end.
    pub(super) fn get(&mut self, place: Place) -> Result<Option<E>, IndexError> {
        if place.page >= self.run.extent.pages {
            return Ok(None);
        }
        self.load(place.page)?;
        Ok(self.entries.get(place.within).copied())
    }

    /// The place behind that of an entry.
    pub(super) fn next(&mut self, place: Place) -> Result<Place, IndexError> {
        self.load(place.page)?;
        Ok(self.normal(Place { within: place.within + 1, ..place }))
    }

    /// The place before another; `None` before the first.
    fn previous(&mut self, place: Place) -> Result<Option<Place>, IndexError> {
        if let Some(within) = place.within.checked_sub(1) {
            return Ok(Some(Place { within, ..place }));
        }
        let Some(page) = place.page.checked_sub(1) else { return Ok(None) };
        self.load(page)?;
        Ok(Some(Place { page, within: self.entries.len() - 1 }))
    }

    /// Behind the entries of the page that is loaded, the beginning of the next one.
    fn normal(&self, place: Place) -> Place {
        if place.within < self.entries.len() {
            return place;
        }
        Place { page: place.page + 1, within: 0 }
    }

    /// Place of the first entry that is not before the target, behind the last if all are.
    /// `before` must be true of the entries up to some place and false of those behind it.
    fn seek(&mut self, before: impl Fn(&Fence) -> bool) -> Result<Place, IndexError> {
        if self.run.extent.count == 0 {
            return Ok(Place::default());
        }
        let page = self.run.page_of(&before)?;
        self.load(page)?;
        let within = self.entries.partition_point(|entry| before(&entry.fence()));
        Ok(self.normal(Place { page, within }))
    }
}

impl Run<KeyEntry> {
    /// The newest sequence of a key in this run.
    pub(super) fn key(&self, digest: &[u8; 16]) -> Result<Option<Sequence>, IndexError> {
        if self.filter.as_ref().is_some_and(|filter| !filter.may_have(digest)) {
            return Ok(None);
        }
        let mut reader = self.reader();
        let place = reader.seek(|fence| fence < digest)?;
        Ok(reader.get(place)?.filter(|key| key.digest == *digest).map(|key| key.seq))
    }
}

/// Whether a posting's fence is before `(worker, seq)`.
fn before_seq(worker: u32, seq: Sequence) -> impl Fn(&Fence) -> bool {
    let target = Posting { worker, seq, items: 0, kind: super::PostingKind::Other, run: 0 };
    let target = target.fence();
    move |fence| fence[..12] < target[..12]
}

/// Whether a posting's fence is before the first of the worker with at least `items` items.
fn before_items(worker: u32, items: u32) -> impl Fn(&Fence) -> bool {
    let (worker, items) = (worker.to_be_bytes(), items.to_be_bytes());
    move |fence| (&fence[..4], &fence[12..]) < (&worker[..], &items[..])
}

impl Run<Posting> {
    /// Adds postings of a worker in `after < seq <= through`, oldest first, until `found`
    /// holds `limit`.
    pub(super) fn after(
        &self,
        worker: u32,
        (after, through): (Sequence, Sequence),
        limit: usize,
        found: &mut Vec<Posting>,
    ) -> Result<(), IndexError> {
        let mut reader = self.reader();
        let mut place = reader.seek(before_seq(worker, after.next()))?;
        while found.len() < limit {
            match reader.get(place)? {
                Some(posting) if posting.worker == worker && posting.seq <= through => {
                    found.push(posting);
                }
                _ => break,
            }
            place = reader.next(place)?;
        }
        Ok(())
    }

    /// Adds postings of a worker with `seq <= at`, newest first, until `found` holds `limit`.
    pub(super) fn before(
        &self,
        worker: u32,
        at: Sequence,
        limit: usize,
        found: &mut Vec<Posting>,
    ) -> Result<(), IndexError> {
        let mut reader = self.reader();
        let mut place = reader.seek(before_seq(worker, at.next()))?;
        while found.len() < limit
            && let Some(previous) = reader.previous(place)?
        {
            place = previous;
            match reader.get(place)? {
                Some(posting) if posting.worker == worker => found.push(posting),
                _ => break,
            }
        }
        Ok(())
    }

    /// Adds postings of a worker with `seq <= through` that complete an item from `from_item`
    /// on, until `found` holds `limit`. Pages without one are stepped over.
    pub(super) fn items(
        &self,
        worker: u32,
        (from_item, through): (u32, Sequence),
        limit: usize,
        found: &mut Vec<Posting>,
    ) -> Result<(), IndexError> {
        let mut reader = self.reader();
        let mut place = reader.seek(before_items(worker, from_item))?;
        while found.len() < limit {
            let posting = match reader.get(place)? {
                Some(posting) if posting.worker == worker && posting.seq <= through => posting,
                _ => break,
            };
            if posting.kind.completes_item() {
                found.push(posting);
            }
            place = reader.next(place)?;
            if place.within == 0 {
                // What follows in the next pages may be thousands of pieces of text.
                let Some(next_item) = posting.items.checked_add(1) else { break };
                place = reader.seek(before_items(worker, next_item))?;
            }
        }
        Ok(())
    }
}
