//! Where an export goes: standard output, or a file that can be gone on with.

use super::exported::Exported;
use crate::cli::output::Output;
use anyhow::{Context as _, Result};
use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

/// How much of a file is looked at at once for the end of a line.
const CHUNK_BYTES: u64 = 64 << 10;

pub(super) enum Sink<'a> {
    Stdout(&'a mut Output),
    File(BufWriter<File>, PathBuf),
}

impl Sink<'_> {
    /// A new file; one that is there already is left alone.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => anyhow::anyhow!(
                "{} is there already; go on with it by --resume, or take another name",
                path.display()
            ),
            _ => anyhow::Error::new(error).context(format!("{} cannot be made", path.display())),
        })?;
        Ok(Self::File(BufWriter::new(file), path.into()))
    }

    pub(super) fn line(&mut self, line: &str) -> Result<()> {
        match self {
            Self::Stdout(out) => out.line(line),
            Self::File(file, path) => file
                .write_all(line.as_bytes())
                .and_then(|()| file.write_all(b"\n"))
                .with_context(|| format!("{} cannot be written", path.display())),
        }
    }

    /// Hands on what is buffered; a file is on its disk afterwards.
    pub(super) fn finish(&mut self) -> Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::File(file, path) => file
                .flush()
                .and_then(|()| file.get_ref().sync_all())
                .with_context(|| format!("{} cannot be written", path.display())),
        }
    }
}

/// A file to go on with, which nothing has been done to yet.
pub(super) struct Begun {
    file: File,
    path: PathBuf,
    /// Where its last whole line ends.
    end: u64,
    last: Option<Exported>,
}

impl Begun {
    /// An empty one is made where there is none.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let what = || format!("{} cannot be gone on with", path.display());
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = options.with_context(what)?;
        let len = file.metadata().with_context(what)?.len();
        let end = line_start(&mut file, len).with_context(what)?;
        let mut last = None;
        if end > 0 {
            let start = line_start(&mut file, end - 1).with_context(what)?;
            let mut line = String::new();
            file.seek(SeekFrom::Start(start)).with_context(what)?;
            (&file).take(end - start).read_to_string(&mut line).with_context(what)?;
            last = Some(Exported::parse(&line).with_context(what)?);
        }
        Ok(Self { file, path: path.into(), end, last })
    }

    /// What its last whole line tells.
    pub(super) fn last(&self) -> Option<&Exported> {
        self.last.as_ref()
    }

    /// Goes on after the last whole line. What comes after that is cut off.
    pub(super) fn go_on<'a>(mut self) -> Result<Sink<'a>> {
        let what = || format!("{} cannot be gone on with", self.path.display());
        self.file.set_len(self.end).with_context(what)?;
        self.file.seek(SeekFrom::Start(self.end)).with_context(what)?;
        Ok(Sink::File(BufWriter::new(self.file), self.path))
    }
}

/// Where the line begins that ends before `end`: behind the last newline before it.
fn line_start(file: &mut File, end: u64) -> io::Result<u64> {
    let mut to = end;
    while to > 0 {
        let from = to.saturating_sub(CHUNK_BYTES);
        let mut chunk = Vec::new();
        file.seek(SeekFrom::Start(from))?;
        file.take(to - from).read_to_end(&mut chunk)?;
        if let Some(place) = chunk.iter().rposition(|byte| *byte == b'\n') {
            return Ok(from + place as u64 + 1);
        }
        to = from;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_is_gone_on_with_after_its_last_whole_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.ndjson");
        let long = format!("{{\"seq\":1,\"id\":\"a\",\"text\":\"{}\"}}\n", "x".repeat(200_000));
        let check = |before: &str, seq, kept: &str| {
            fs::write(&path, before).unwrap();
            let begun = Begun::open(&path).unwrap();
            assert_eq!(begun.last().map_or(0, |last| last.seq.0), seq);
            assert_eq!(fs::read_to_string(&path).unwrap(), before, "nothing is done to it yet");
            let mut sink = begun.go_on().unwrap();
            sink.line("{}").unwrap();
            sink.finish().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{kept}{{}}\n"));
        };
        check("", 0, "");
        check("{\"seq\":", 0, "");
        check("{\"seq\":7,\"id\":\"a\"}\n", 7, "{\"seq\":7,\"id\":\"a\"}\n");
        check("{\"seq\":7,\"id\":\"a\"}\n{\"seq\":8,", 7, "{\"seq\":7,\"id\":\"a\"}\n");
        let event = "{\"specversion\":\"1.0\",\"id\":\"a\",\"sequence\":\"00009\"}\n";
        check(event, 9, event);
        check(&format!("{long}{{\"se"), 1, &long);
        check(&format!("{long}{long}"), 1, &format!("{long}{long}"));
        fs::write(&path, "what is this\n").unwrap();
        assert!(Begun::open(&path).is_err(), "it is somebody else's file");
        assert_eq!(fs::read_to_string(&path).unwrap(), "what is this\n");
        assert!(Sink::create(&path).is_err());
    }
}
