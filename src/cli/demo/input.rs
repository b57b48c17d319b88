//! What the workers are sent: arguments, a file, a pipe, or something to begin with.

use super::DemoArgs;
use crate::cli::usage;
use anyhow::{Context as _, Result, bail};
use std::{
    fs::File,
    io::{self, IsTerminal as _, Read},
    path::Path,
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

/// What the service accepts as one content.
const LINE_BYTES_MAX: usize = 16 << 20;
const INPUT_BYTES_MAX: u64 = 64 << 20;
const LINES_MAX: usize = 10_000;
/// How long a pipe that nobody spoke of may be silent before it is taken for none.
const PIPE_WAIT: Duration = Duration::from_secs(3);
/// How long such a pipe may take altogether.
const PIPE_DEADLINE: Duration = Duration::from_secs(60);

/// How much of the inputs a slow worker is given, so that its answer takes seconds.
const EXCERPT_WORDS_MAX: usize = 20;
const EXCERPT_CHARS_MAX: usize = 400;

const DEFAULTS: [&str; 3] = [
    "Every command becomes an event in one log",
    "and every view is a fold over that log,",
    "so that what was so stays so.",
];

/// The inputs, and where they came from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Inputs {
    pub(super) lines: Vec<String>,
    pub(super) source: String,
    /// Lines with nothing on them, which no worker is sent.
    pub(super) blank: usize,
}

impl Inputs {
    fn defaults(why: &str) -> Self {
        let lines = DEFAULTS.map(str::to_owned).into();
        Self { lines, source: format!("Acta itself ({why})"), blank: 0 }
    }

    /// The first lines, up to what a slow worker says in a few seconds.
    pub(super) fn excerpt(&self) -> String {
        let mut taken: Vec<&str> = Vec::new();
        let (mut words, mut chars) = (0, 0);
        for line in &self.lines {
            words += line.split_whitespace().take(EXCERPT_WORDS_MAX + 1).count();
            chars += line.chars().take(EXCERPT_CHARS_MAX + 1).count();
            if words > EXCERPT_WORDS_MAX || chars > EXCERPT_CHARS_MAX {
                break;
            }
            taken.push(line);
        }
        if !taken.is_empty() {
            return taken.join("\n");
        }
        let line = self.lines.first().map(String::as_str).unwrap_or_default();
        let start: String = line.trim_start().chars().take(EXCERPT_CHARS_MAX).collect();
        start.split_whitespace().take(EXCERPT_WORDS_MAX).collect::<Vec<_>>().join(" ")
    }
}

/// Collects the inputs.
pub(super) async fn gather(args: &DemoArgs) -> Result<Inputs> {
    let dash = Path::new("-");
    if args.file.as_deref() == Some(dash) || args.text == ["-"] {
        return split(&read(io::stdin(), "standard input")?, "standard input");
    }
    if let Some(path) = &args.file {
        let name = path.display().to_string();
        let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
        return split(&read(file, &name)?, &name);
    }
    if args.text.is_empty() {
        return piped().await;
    }
    if args.text.iter().any(|text| text.trim().is_empty()) {
        return Err(usage("an input is blank; say something"));
    }
    Ok(Inputs { lines: args.text.clone(), source: "the arguments".into(), blank: 0 })
}

/// Standard input, if it is a pipe or a file and something comes.
async fn piped() -> Result<Inputs> {
    if io::stdin().is_terminal() {
        return Ok(Inputs::defaults("nothing was given"));
    }
    let (sender, mut chunks) = mpsc::channel::<io::Result<Vec<u8>>>(4);
    // Ends with the process at the latest: nothing stops a blocked read.
    std::thread::spawn(move || {
        let mut stdin = io::stdin();
        loop {
            let mut chunk = vec![0; 64 * 1024];
            let read = stdin.read(&mut chunk).map(|count| {
                chunk.truncate(count);
                chunk
            });
            let last = !matches!(&read, Ok(chunk) if !chunk.is_empty());
            if sender.blocking_send(read).is_err() || last {
                return;
            }
        }
    });
    let begun = Instant::now();
    let mut bytes = Vec::new();
    loop {
        let wait = if bytes.is_empty() { PIPE_WAIT } else { PIPE_DEADLINE };
        match timeout_at(begun + wait, chunks.recv()).await {
            Ok(Some(Ok(chunk))) if !chunk.is_empty() => bytes.extend(chunk),
            Ok(Some(Err(error))) => return Err(error).context("cannot read standard input"),
            Ok(_) => break,
            Err(_) if bytes.is_empty() => {
                return Ok(Inputs::defaults("nothing came on standard input in 3 s"));
            }
            Err(_) => bail!(
                "standard input did not end in {} s; to wait for it however long it takes: \
                 acta demo -",
                PIPE_DEADLINE.as_secs()
            ),
        }
        check_size(bytes.len() as u64, "standard input")?;
    }
    if bytes.is_empty() {
        return Ok(Inputs::defaults("standard input was empty"));
    }
    split(&bytes, "standard input")
}

fn read(from: impl Read, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut from = from.take(INPUT_BYTES_MAX + 1);
    from.read_to_end(&mut bytes).with_context(|| format!("cannot read {name}"))?;
    check_size(bytes.len() as u64, name)?;
    Ok(bytes)
}

fn check_size(bytes: u64, name: &str) -> Result<()> {
    if bytes > INPUT_BYTES_MAX {
        bail!("{name} has more than {} MiB; give the demonstration less", INPUT_BYTES_MAX >> 20);
    }
    Ok(())
}

/// Each line that has something on it is an input.
fn split(bytes: &[u8], name: &str) -> Result<Inputs> {
    let mut lines = Vec::new();
    let mut blank = 0;
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = std::str::from_utf8(line).map_err(|error| {
            anyhow::anyhow!(
                "line {number} of {name} is not UTF-8 text: its byte {} cannot be understood",
                error.valid_up_to() + 1
            )
        })?;
        if text.trim().is_empty() {
            blank += 1;
        } else if text.len() > LINE_BYTES_MAX {
            bail!(
                "line {number} of {name} has {} bytes; an input has at most {} MiB",
                text.len(),
                LINE_BYTES_MAX >> 20
            );
        } else if lines.len() == LINES_MAX {
            bail!("{name} has more than {LINES_MAX} lines; give the demonstration fewer");
        } else {
            lines.push(text.to_owned());
        }
    }
    if lines.is_empty() {
        bail!("{name} has no line with anything on it; each line is an input");
    }
    Ok(Inputs { lines, source: name.into(), blank })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_inputs_or_the_line_that_is_not_is_named() {
        let check = |bytes: &[u8], expected: Result<(&[&str], usize), &str>| match (
            split(bytes, "x.txt"),
            expected,
        ) {
            (Ok(inputs), Ok((lines, blank))) => {
                assert_eq!((inputs.lines, inputs.blank), (lines.map_owned(), blank));
            }
            (Err(error), Err(text)) => {
                assert!(error.to_string().contains(text), "{error}");
            }
            (inputs, expected) => panic!("{inputs:?}, not {expected:?}"),
        };
        check(b"one\ntwo\r\n\n three", Ok((&["one", "two", " three"], 1)));
        check("ä\n".as_bytes(), Ok((&["ä"], 0)));
        check(b"", Err("x.txt has no line"));
        check(b"\n  \n", Err("x.txt has no line"));
        check(b"one\nt\xffo\n", Err("line 2 of x.txt is not UTF-8 text: its byte 2"));
        check(&vec![b'x'; LINE_BYTES_MAX + 1], Err("line 1 of x.txt has 16777217 bytes"));
        check(&b"x\n".repeat(LINES_MAX + 1), Err("more than 10000 lines"));
    }

    trait MapOwned {
        fn map_owned(&self) -> Vec<String>;
    }

    impl MapOwned for &[&str] {
        fn map_owned(&self) -> Vec<String> {
            self.iter().map(|line| (*line).to_owned()).collect()
        }
    }

    #[test]
    fn a_slow_worker_is_given_the_beginning() {
        let check = |lines: &[&str], expected: &str| {
            let inputs = Inputs { lines: lines.map_owned(), source: String::new(), blank: 0 };
            assert_eq!(inputs.excerpt(), expected);
        };
        check(&["a b", "c"], "a b\nc");
        check(&["a ".repeat(20).trim(), "b"], "a ".repeat(20).trim());
        check(&[&"a ".repeat(30)], "a ".repeat(20).trim());
        check(&[&"x".repeat(1 << 20)], &"x".repeat(EXCERPT_CHARS_MAX));
    }
}
