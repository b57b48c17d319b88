//! manifest.json: what workers can be made from.
//!
//! ```json
//! {
//!   "workspace_templates": [
//!     {"name": "echo", "exec": {"argv": ["cat"], "mode": "session"}},
//!     {"name": "hermes-minimax", "runtime": "hermes"},
//!     {"name": "claude-code-default", "exec": {"argv": ["claude", "-p"], "mode": "per_input",
//!      "env": ["ANTHROPIC_API_KEY"]}}
//!   ],
//!   "default_template": "echo",
//!   "profiles": {"builtin:coder": "claude-code"}
//! }
//! ```
//!
//! A template is known by its name without one `-default` suffix. An entry with a `runtime`
//! is a variant: the first one is what the runtime's name means, and each can be named by its
//! own. `external` is always known, has no entry and is never started here. A malformed file
//! is refused as a whole, since a template that quietly went missing would be found out late.

mod exec;
mod load;
mod read;
#[cfg(test)]
mod tests;

pub use exec::{Exec, Framing, Mode};
pub use load::{Loaded, Source};
pub use read::{ENTRIES_MAX, FILE_BYTES_MAX, ManifestError, Problems};

use crate::error::{Rejection, shown};
use acta_events::{ProfileSelector, TemplateSummary};
use std::collections::BTreeMap;

/// The template of workers that connect in; it is never started here.
pub const EXTERNAL: &str = "external";

/// What is known without a manifest; none of it can be started.
pub const FALLBACK: [&str; 9] = [
    "langgraph",
    "claude-code",
    "openclaw",
    "crewai",
    "autogen",
    "deepagents",
    "hermes",
    "codex",
    "gemini-cli",
];

/// What workers can be made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    templates: Vec<Template>,
    default_template: Option<String>,
    profiles: BTreeMap<String, String>,
    is_fallback: bool,
}

/// An entry of the manifest.
#[derive(Clone, Debug, PartialEq)]
struct Template {
    /// Its own name, without a `-default` suffix.
    name: String,
    /// What it is a variant of; its own name if it is none.
    runtime: String,
    /// For people: such as what it needs.
    note: Option<String>,
    exec: Option<Exec>,
}

impl Manifest {
    /// The names that are known when there is no manifest, none of which can be started.
    pub fn fallback() -> Self {
        let template = |name: &str| Template {
            name: name.into(),
            runtime: name.into(),
            note: None,
            exec: None,
        };
        Self {
            templates: FALLBACK.into_iter().map(template).collect(),
            default_template: None,
            profiles: BTreeMap::new(),
            is_fallback: true,
        }
    }

    /// Every template by the name that it is known by, in the order of the file; `external`
    /// is the last. Variants of one runtime appear once, under the runtime's name.
    pub fn templates(&self) -> Vec<TemplateSummary> {
        let mut summaries: Vec<TemplateSummary> = Vec::new();
        for template in &self.templates {
            if summaries.iter().all(|known| known.name != template.runtime) {
                let name = template.runtime.clone();
                let startable = template.exec.is_some();
                summaries.push(TemplateSummary { name, startable });
            }
        }
        summaries.push(TemplateSummary { name: EXTERNAL.into(), startable: false });
        summaries
    }

    /// How a template is started; `None` if it is not known or has no `exec`.
    pub fn exec_of(&self, name: &str) -> Option<&Exec> {
        self.find(name)?.1.exec.as_ref()
    }

    /// The template that a worker is made from. What is asked for by name is taken or refused,
    /// never replaced. Without a name it is what the profile stands for, else the default,
    /// else the first that can be started; if that one cannot be started, or there is none,
    /// `None`: the worker then has nothing that runs it.
    pub fn choose(
        &self,
        requested: Option<&str>,
        profile: &ProfileSelector,
    ) -> Result<Option<String>, Rejection> {
        if let Some(requested) = requested {
            return self.named(requested.trim()).map(Some);
        }
        let implied = self.of_profile(profile).or_else(|| {
            let default = self.default_template.as_deref()?;
            self.find(default)
        });
        Ok(match implied {
            Some((name, template)) => template.exec.is_some().then(|| name.to_owned()),
            None => {
                let mut summaries = self.templates().into_iter();
                summaries.find(|summary| summary.startable).map(|summary| summary.name)
            }
        })
    }

    fn of_profile(&self, profile: &ProfileSelector) -> Option<(&str, &Template)> {
        let mapped = |key: &str| self.profiles.get(key).and_then(|name| self.find(name));
        match profile {
            ProfileSelector::RuntimeDefault => None,
            ProfileSelector::Named(value) => mapped(value),
            ProfileSelector::Builtin(value) => {
                let bare = value.strip_prefix("builtin:").unwrap_or(value);
                mapped(value)
                    .or_else(|| mapped(&format!("builtin:{bare}")))
                    .or_else(|| self.find(bare))
            }
        }
    }

    fn named(&self, requested: &str) -> Result<String, Rejection> {
        if requested == EXTERNAL {
            return Err(Rejection::invalid(
                "template `external` is not started here: external workers connect in, and are \
                 made with POST /workspaces {\"name\": …, \"runtime\": \"external\"}",
            ));
        }
        let Some((name, template)) = self.find(requested) else {
            let message = format!(
                "there is no template `{}`; known are: {}",
                shown(requested),
                self.known().join(", ")
            );
            return Err(Rejection::invalid(message));
        };
        if template.exec.is_some() {
            return Ok(name.to_owned());
        }
        let missing = if self.is_fallback {
            "there is no readable manifest.json that says how to start it; give one with \
             `--manifest`"
        } else {
            "its entry in the manifest has no `exec`; add {\"argv\": [\"command\", …]}"
        };
        let note = template.note.as_ref().map(|note| format!(" ({})", shown(note)));
        Err(Rejection::invalid(format!(
            "template `{name}` is known but cannot be started: {missing}{}",
            note.unwrap_or_default()
        )))
    }

    /// A template with the name that it is recorded under: that of its runtime, or its own if
    /// it is a further variant.
    fn find(&self, name: &str) -> Option<(&str, &Template)> {
        let exact = |name: &str| {
            let by_runtime = self.templates.iter().find(|each| each.runtime == name);
            if let Some(template) = by_runtime {
                return Some((template.runtime.as_str(), template));
            }
            let by_name = self.templates.iter().find(|each| each.name == name);
            by_name.map(|template| (template.name.as_str(), template))
        };
        exact(name).or_else(|| exact(name.strip_suffix("-default")?))
    }

    /// Every name that can be given, variants in brackets behind what they are variants of.
    fn known(&self) -> Vec<String> {
        let describe = |summary: TemplateSummary| {
            let variants: Vec<&str> = self
                .templates
                .iter()
                .filter(|each| each.runtime == summary.name && each.name != summary.name)
                .map(|each| each.name.as_str())
                .collect();
            match variants.as_slice() {
                [] => summary.name,
                _ => format!("{} ({})", summary.name, variants.join(", ")),
            }
        };
        self.templates().into_iter().map(describe).collect()
    }
}
