//! From the text of a manifest to what it means.

use super::{
    EXTERNAL, Manifest, Template,
    exec::{Exec, FORM},
};
use crate::{error::shown, object::Object};
use acta_events::ID_CHARS_MAX;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The largest manifest, in bytes.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The most entries of a manifest. With a record's header in mind, which lists them all.
pub const ENTRIES_MAX: usize = 256;

/// How many problems are told on one line.
const PROBLEMS_SHOWN_MAX: usize = 4;

/// What is quoted of a parser's message, in characters.
const CAUSE_CHARS_MAX: usize = 240;

/// A manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("cannot read the manifest {path}: {cause}")]
    Unreadable {
        /// Where it was looked for.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The file is larger than a manifest may be.
    #[error("the manifest {path} is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge {
        /// Where it is.
        path: PathBuf,
    },
    /// The file says something that makes no sense.
    #[error("the manifest {path} is malformed: {problems}")]
    Malformed {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        problems: Problems,
    },
}

/// Everything that is wrong with a manifest, in the order of the file: each says what, where, and
/// what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, further) = self.0.split_at(self.0.len().min(PROBLEMS_SHOWN_MAX));
        f.write_str(&shown.join("; "))?;
        if further.is_empty() { Ok(()) } else { write!(f, "; and {} more", further.len()) }
    }
}

impl std::error::Error for Problems {}

impl From<String> for Problems {
    fn from(problem: String) -> Self {
        Self(vec![problem])
    }
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow, default)]
    workspace_templates: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    default_template: Option<&'a RawValue>,
    #[serde(borrow, default)]
    profiles: BTreeMap<String, &'a RawValue>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    runtime: Option<String>,
    #[serde(default)]
    note: Option<String>,
    #[serde(borrow, default)]
    exec: Option<&'a RawValue>,
}

impl Manifest {
    /// Reads a manifest from a file.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        let unreadable = |cause| ManifestError::Unreadable { path: path.into(), cause };
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(unreadable)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(ManifestError::TooLarge { path: path.into() });
        }
        let malformed = |problems| ManifestError::Malformed { path: path.into(), problems };
        match str::from_utf8(&bytes) {
            Ok(text) => Self::parse(text).map_err(malformed),
            Err(error) => {
                let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
                let (line, column) = place(&valid);
                let what = format!("it is not valid UTF-8 (line {line}, column {column})");
                Err(malformed(what.into()))
            }
        }
    }

    /// Reads a manifest from its text.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        let Object(document) = serde_json::from_str::<Object<Document<'_>>>(text)
            .map_err(|error| located(text, text, &error))?;
        if document.workspace_templates.len() > ENTRIES_MAX {
            return Err(format!("`workspace_templates` has more than {ENTRIES_MAX} entries").into());
        }
        let (mut templates, mut problems) = (Vec::new(), Vec::new());
        for (at, raw) in document.workspace_templates.iter().enumerate() {
            match entry(text, at, raw) {
                Ok(template) => templates.extend(template),
                Err(problem) => problems.push(problem),
            }
        }
        let mut manifest = Self {
            templates,
            default_template: None,
            profiles: BTreeMap::new(),
            is_fallback: false,
        };
        // A template that could not be read is not missing.
        let are_all_known = problems.is_empty();
        if let Some(raw) = document.default_template {
            match manifest.reference(text, "default_template", raw, are_all_known) {
                Ok(name) => manifest.default_template = name,
                Err(problem) => problems.push(problem),
            }
        }
        for (profile, raw) in document.profiles {
            let field = format!("profiles[\"{}\"]", shown(&profile));
            match manifest.reference(text, &field, raw, are_all_known) {
                Ok(name) => manifest.profiles.extend(name.map(|name| (profile, name))),
                Err(problem) => problems.push(problem),
            }
        }
        let summaries = manifest.templates();
        if let Err(refused) = crate::bundle::refuse_large("the names of the templates", &summaries)
        {
            problems.push(refused.message);
        }
        if problems.is_empty() { Ok(manifest) } else { Err(Problems(problems)) }
    }

    /// The template that is named in the place of another, if one is.
    fn reference(
        &self,
        text: &str,
        field: &str,
        raw: &RawValue,
        are_all_known: bool,
    ) -> Result<Option<String>, String> {
        let named: Option<String> = serde_json::from_str(raw.get())
            .map_err(|error| format!("`{field}`: {}", located(text, raw.get(), &error)))?;
        let Some(name) = named.as_deref().map(str::trim).filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let (line, column) = position(text, raw.get());
        let wrong = |what: String| {
            Err(format!("`{field}` is `{}`, {what} (line {line}, column {column})", shown(name)))
        };
        if name == EXTERNAL {
            return wrong("which cannot be started here".into());
        }
        if are_all_known && self.find(name).is_none() {
            return wrong(format!("which is none of: {}", self.known().join(", ")));
        }
        Ok(Some(name.to_owned()))
    }
}

fn trimmed(text: Option<String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// An entry; `None` if it has no name, or the one that has no entry.
fn entry(text: &str, at: usize, raw: &RawValue) -> Result<Option<Template>, String> {
    let number = at + 1;
    let Object(entry) = serde_json::from_str::<Object<Entry<'_>>>(raw.get())
        .map_err(|error| format!("entry {number}: {}", located(text, raw.get(), &error)))?;
    let name = trimmed(entry.name).unwrap_or_default();
    let name = name.strip_suffix("-default").unwrap_or(&name).to_owned();
    if name.is_empty() {
        return Ok(None);
    }
    let runtime = trimmed(entry.runtime).unwrap_or_else(|| name.clone());
    let (line, column) = position(text, raw.get());
    for name in [&name, &runtime] {
        if name.chars().nth(ID_CHARS_MAX).is_some() || name.chars().any(char::is_control) {
            let name = shown(name);
            return Err(format!(
                "entry {number} is called `{name}`; a name has at most {ID_CHARS_MAX} characters, \
                 none of them a control character (line {line}, column {column})"
            ));
        }
    }
    if runtime == EXTERNAL || name == EXTERNAL {
        return Ok(None);
    }
    let malformed = |raw: &str, error: String| {
        let (line, column) = position(text, raw);
        let name = shown(&name);
        format!(
            "entry {number} (`{name}`), `exec` at line {line}, column {column}: {error}; {FORM}"
        )
    };
    let exec = match entry.exec.filter(|raw| raw.get() != "null") {
        None => None,
        Some(raw) => {
            let Object(exec) = serde_json::from_str::<Object<Exec>>(raw.get())
                .map_err(|error| malformed(raw.get(), located(text, raw.get(), &error)))?;
            exec.check().map_err(|error| malformed(raw.get(), error))?;
            Some(exec)
        }
    };
    Ok(Some(Template { name, runtime, note: trimmed(entry.note), exec }))
}

/// What serde_json found wrong in `part`, with the place in the whole text.
fn located(text: &str, part: &str, error: &serde_json::Error) -> String {
    let message = error.to_string();
    let (at_line, at_column) = (error.line(), error.column());
    let cause =
        message.strip_suffix(&format!(" at line {at_line} column {at_column}")).unwrap_or(&message);
    let (line, column) = match (position(text, part), at_line) {
        ((line, column), 0 | 1) => (line, column + at_column.saturating_sub(1)),
        ((line, _), further) => (line + further - 1, at_column),
    };
    // Only the text of the file can make it long or unprintable.
    let cause: String = cause.chars().filter(|c| !c.is_control()).take(CAUSE_CHARS_MAX).collect();
    format!("{cause} (line {line}, column {column})")
}

/// Line and column, from 1, at which `part`, a part of `text`, begins.
fn position(text: &str, part: &str) -> (usize, usize) {
    let offset = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    place(text.get(..offset).unwrap_or_default())
}

/// Line and column, from 1, of what follows this text.
fn place(before: &str) -> (usize, usize) {
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
