//! Writing one run file.

use super::{
    entry::{Entry, FENCE_BYTES, Fence},
    error::IndexError,
    files::RunName,
    filter::Filter,
    page::{BODY_BYTES, Checksum, Extent, FENCES_PER_PAGE, PAGE_BYTES, encode_footer},
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

const WRITE_BYTES: usize = 256 * 1024;

/// Writes entries, which must come in order, to a temporary file that [`RunWriter::finish`]
/// turns into the run. Holds one page, the fences of one group, one fence per group, and the filter.
#[derive(Debug)]
pub(super) struct RunWriter<'a, E> {
    dir: &'a Path,
    name: RunName,
    /// Set until the temporary file was renamed.
    temporary: Option<String>,
    file: BufWriter<File>,
    checksum: Checksum,
    /// The page that is being filled, which begins with the number of its entries.
    page: Vec<u8>,
    in_page: u16,
    last: Option<E>,
    /// Pages written, of all kinds.
    written: u64,
    entry_pages: u64,
    count: u64,
    group: Vec<Fence>,
    tops: Vec<Fence>,
    filter: Option<Filter>,
}

impl<'a, E: Entry> RunWriter<'a, E> {
    /// Starts the temporary file, over an abandoned one, for so many entries at most.
    pub(super) fn create(dir: &'a Path, name: RunName, count_max: u64) -> Result<Self, IndexError> {
        let temporary = name.temporary::<E>();
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(dir.join(&temporary))
            .map_err(|error| IndexError::io(&temporary, error))?;
        Ok(Self {
            dir,
            name,
            temporary: Some(temporary),
            file: BufWriter::with_capacity(WRITE_BYTES, file),
            checksum: Checksum::of_file::<E>(name.first, name.last),
            page: Vec::with_capacity(PAGE_BYTES),
            in_page: 0,
            last: None,
            written: 0,
            entry_pages: 0,
            count: 0,
            group: Vec::new(),
            tops: Vec::new(),
            filter: if E::IS_FILTERED { Filter::for_keys(count_max) } else { None },
        })
    }

    fn failed(&self, error: io::Error) -> IndexError {
        IndexError::io(&self.name.temporary::<E>(), error)
    }

    /// Adds an entry.
    pub(super) fn push(&mut self, entry: &E) -> Result<(), IndexError> {
        if self.page.len() + E::BYTES_MAX > BODY_BYTES {
            self.finish_page()?;
        }
        if self.page.is_empty() {
            self.group.push(entry.fence());
            self.page.extend_from_slice(&[0; 2]);
        }
        if let Some(filter) = &mut self.filter {
            filter.insert(&entry.fence());
        }
        entry.encode(self.last.as_ref(), &mut self.page);
        self.last = Some(*entry);
        self.in_page += 1;
        self.count += 1;
        Ok(())
    }

    /// Ends the page of entries, if one was begun, and the group, if it is full.
    fn finish_page(&mut self) -> Result<(), IndexError> {
        if !self.page.is_empty() {
            self.page[..2].copy_from_slice(&self.in_page.to_be_bytes());
            self.write_page()?;
            self.entry_pages += 1;
            (self.in_page, self.last) = (0, None);
        }
        if self.group.len() as u64 == FENCES_PER_PAGE { self.finish_group() } else { Ok(()) }
    }

    fn write_page(&mut self) -> Result<(), IndexError> {
        self.checksum.seal(&mut self.page, self.written);
        self.file.write_all(&self.page).map_err(|error| self.failed(error))?;
        self.page.clear();
        self.written += 1;
        Ok(())
    }

    fn finish_group(&mut self) -> Result<(), IndexError> {
        self.tops.extend(self.group.first());
        self.page.extend(self.group.iter().flatten());
        self.group.clear();
        self.write_page()
    }

    /// Ends the file, makes it durable and gives it its name. The caller makes the name
    /// durable by `files::sync`, once for both tables.
    pub(super) fn finish(mut self) -> Result<(), IndexError> {
        self.finish_page()?;
        if !self.group.is_empty() {
            self.finish_group()?;
        }
        for fences in std::mem::take(&mut self.tops).chunks(BODY_BYTES / FENCE_BYTES) {
            self.page.extend(fences.iter().flatten());
            self.write_page()?;
        }
        let filter = self.filter.take();
        let filter_pages = filter.iter().flat_map(Filter::pages);
        for page in filter_pages {
            self.page.extend_from_slice(page);
            self.write_page()?;
        }
        let filter_pages = filter.map_or(0, |filter| filter.pages().len());
        let extent = Extent {
            first: self.name.first,
            last: self.name.last,
            count: self.count,
            pages: self.entry_pages,
            filter_pages: u16::try_from(filter_pages).expect("filters are small"),
        };
        let end = self
            .file
            .write_all(&encode_footer::<E>(&extent))
            .and_then(|()| self.file.flush())
            .and_then(|()| self.file.get_ref().sync_all());
        end.map_err(|error| self.failed(error))?;
        let (from, to) = (self.name.temporary::<E>(), self.name.file_name::<E>());
        fs::rename(self.dir.join(from), self.dir.join(to)).map_err(|error| self.failed(error))?;
        self.temporary = None;
        Ok(())
    }
}

impl<E> Drop for RunWriter<'_, E> {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // What stays is overwritten by the next attempt, or removed at the next start.
            let _ = fs::remove_file(self.dir.join(temporary));
        }
    }
}

/// Writes entries that are already in order as one run, without making its name durable.
pub(super) fn write_run<E: Entry>(
    dir: &Path,
    name: RunName,
    count_max: usize,
    entries: impl Iterator<Item = E>,
) -> Result<(), IndexError> {
    let mut writer = RunWriter::create(dir, name, count_max as u64)?;
    for entry in entries {
        writer.push(&entry)?;
    }
    writer.finish()
}
