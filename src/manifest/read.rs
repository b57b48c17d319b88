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
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The largest manifest, in bytes.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The most entries of a manifest. With a record's header in mind, which lists them all.
pub const ENTRIES_MAX: usize = 256;

/// What is quoted of a parser's message, in characters.
const CAUSE_CHARS_MAX: usize = 240;

/// A manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("cannot read the manifest {path}: {source}")]
    Unreadable {
        /// Where it was looked for.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than a manifest may be.
    #[error("the manifest {path} is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge {
        /// Where it is.
        path: PathBuf,
    },
    /// The file says something that makes no sense.
    #[error("the manifest {path} is malformed: {message}")]
    Malformed {
        /// Where it is.
        path: PathBuf,
        /// What is wrong, where, and what would be right.
        message: String,
    },
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow, default)]
    workspace_templates: Vec<&'a RawValue>,
    #[serde(default)]
    default_template: Option<String>,
    #[serde(default)]
    profiles: BTreeMap<String, String>,
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
        let unreadable = |source| ManifestError::Unreadable { path: path.into(), source };
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
            .map_err(unreadable)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(ManifestError::TooLarge { path: path.into() });
        }
        Self::parse(&text)
            .map_err(|message| ManifestError::Malformed { path: path.into(), message })
    }

    /// Reads a manifest from its text. An error says what is wrong, where, and what would be
    /// right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Object(document) = serde_json::from_str::<Object<Document<'_>>>(text)
            .map_err(|error| located(text, text, &error))?;
        if document.workspace_templates.len() > ENTRIES_MAX {
            return Err(format!("`workspace_templates` has more than {ENTRIES_MAX} entries"));
        }
        let mut templates = Vec::new();
        for (at, raw) in document.workspace_templates.iter().enumerate() {
            templates.extend(entry(text, at, raw)?);
        }
        let manifest = Self {
            templates,
            default_template: trimmed(document.default_template),
            profiles: document.profiles,
            is_fallback: false,
        };
        manifest.check()?;
        Ok(manifest)
    }

    /// Whether what stands for another template names one.
    fn check(&self) -> Result<(), String> {
        let mut references: Vec<(String, &str)> = Vec::new();
        references.extend(
            self.default_template.iter().map(|name| ("default_template".into(), name.as_str())),
        );
        references.extend(
            self.profiles.iter().map(|(profile, name)| {
                (format!("profiles[\"{}\"]", shown(profile)), name.as_str())
            }),
        );
        for (field, name) in references {
            let known = || self.known().join(", ");
            if name == EXTERNAL {
                return Err(format!("`{field}` is `external`, which cannot be started here"));
            }
            if self.find(name).is_none() {
                let name = shown(name);
                return Err(format!("`{field}` is `{name}`, which is none of: {}", known()));
            }
        }
        let summaries = self.templates();
        crate::bundle::refuse_large("the names of the templates", &summaries)
            .map_err(|refused| refused.message)
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
    for name in [&name, &runtime] {
        if name.chars().nth(ID_CHARS_MAX).is_some() || name.chars().any(char::is_control) {
            let name = shown(name);
            return Err(format!(
                "entry {number} is called `{name}`; a name has at most {ID_CHARS_MAX} characters, \
                 none of them a control character"
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
    let before = text.get(..offset).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
