//! Where an export goes: standard output, or a file that can be gone on with.

use super::sequence_of;
use crate::cli::output::Output;
use acta_events::Sequence;
use anyhow::{Context as _, Result};
use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
};

/// How much of a file is looked at at once for the end of a line.
const CHUNK_BYTES: u64 = 64 << 10;

pub(super) enum Sink<'a> {
    Stdout(&'a mut Output),
    File(BufWriter<File>),
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
        Ok(Self::File(BufWriter::new(file)))
    }

    /// A file to go on with, and the sequence of its last whole line. What comes after that line
    /// is cut off.
    pub(super) fn resume(path: &Path) -> Result<(Self, Sequence)> {
        let what = || format!("{} cannot be gone on with", path.display());
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = options.with_context(what)?;
        let len = file.metadata().with_context(what)?.len();
        let end = line_start(&mut file, len).with_context(what)?;
        let mut last = Sequence::ZERO;
        if end > 0 {
            let start = line_start(&mut file, end - 1).with_context(what)?;
            let mut line = String::new();
            file.seek(SeekFrom::Start(start)).with_context(what)?;
            (&file).take(end - start).read_to_string(&mut line).with_context(what)?;
            last = sequence_of(&line).with_context(what)?;
        }
        file.set_len(end).with_context(what)?;
        file.seek(SeekFrom::Start(end)).with_context(what)?;
        Ok((Self::File(BufWriter::new(file)), last))
    }

    pub(super) fn line(&mut self, line: &str) -> Result<()> {
        match self {
            Self::Stdout(out) => out.line(line),
            Self::File(file) => file
                .write_all(line.as_bytes())
                .and_then(|()| file.write_all(b"\n"))
                .context("the file cannot be written"),
        }
    }

    /// Hands on what is buffered; a file is on its disk afterwards.
    pub(super) fn finish(&mut self) -> Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::File(file) => file
                .flush()
                .and_then(|()| file.get_ref().sync_all())
                .context("the file cannot be written"),
        }
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
        let long = format!("{{\"seq\":1,\"text\":\"{}\"}}\n", "x".repeat(200_000));
        let check = |before: &str, seq, kept: &str| {
            fs::write(&path, before).unwrap();
            let (mut sink, last) = Sink::resume(&path).unwrap();
            assert_eq!(last, Sequence(seq));
            sink.line("{}").unwrap();
            sink.finish().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{kept}{{}}\n"));
        };
        check("", 0, "");
        check("{\"seq\":", 0, "");
        check("{\"seq\":7}\n", 7, "{\"seq\":7}\n");
        check("{\"seq\":7}\n{\"seq\":8,", 7, "{\"seq\":7}\n");
        check("{\"sequence\":\"00009\"}\n", 9, "{\"sequence\":\"00009\"}\n");
        check(&format!("{long}{{\"se"), 1, &long);
        check(&format!("{long}{long}"), 1, &format!("{long}{long}"));
        fs::write(&path, "what is this\n").unwrap();
        assert!(Sink::resume(&path).is_err(), "it is somebody else's file");
        assert_eq!(fs::read_to_string(&path).unwrap(), "what is this\n");
        assert!(Sink::create(&path).is_err());
    }
}
