//! Config bundles: what a worker may refer to, by name, never by value.
//!
//! A bundle holds profile selectors and references to secrets, mounts, policies and
//! capabilities. It holds no secret, no path and no address; [`check`] refuses what looks
//! like one.
//!
//! # Digest
//!
//! SHA-256 over lines. The fields of a line are joined by NUL, the lines are sorted as bytes,
//! and each is ended by a newline:
//!
//! ```text
//! id                 <id>
//! revision           <revision>
//! workspace_id       <workspace_id>
//! created_at         <created_at>
//! provenance.source  <source>
//! provenance.detail  <detail>            an absent detail is an empty field
//! profile  runtime_default  <label>      an absent label is an empty field
//! profile  builtin  <value>  <label>
//! profile  named    <value>  <label>
//! profile  <text>   <label>              a selector that is given as plain text
//! declaration  <kind>  <name>  <reference>
//! ```
//!
//! No field of an accepted bundle contains NUL or a newline, so no two bundles share lines.
//! [`check`] puts profiles and declarations in the order of their lines and drops an empty
//! detail or label, so that equal digests mean equal documents, byte for byte.

mod summary;
#[cfg(test)]
mod tests;
mod text;

use crate::{
    error::{Code, Rejection, shown},
    object,
};
use acta_events::{BundleRef, ConfigBundleStored, Digest, ProfileSelector, Provenance, sha256};
use serde::{Deserialize, Serialize};

pub use summary::{Availability, Summary};
pub(crate) use text::{refuse_blank, refuse_large, refuse_text};

/// The most profiles that a bundle declares.
pub const PROFILES_MAX: usize = 256;

/// The most declarations that a bundle has.
pub const DECLARATIONS_MAX: usize = 256;

/// The longest identifier of a bundle, in characters.
pub const BUNDLE_ID_CHARS_MAX: usize = 128;

/// A bundle as its author writes it. Unknown fields are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigBundle {
    /// What it is.
    #[serde(deserialize_with = "object::object")]
    pub metadata: Metadata,
    /// The profiles that workers with this bundle can run under.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "object::objects")]
    pub profiles: Vec<Profile>,
    /// What those workers may refer to.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "object::objects")]
    pub declarations: Vec<Declaration>,
}

/// What a bundle is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Its identifier.
    pub id: String,
    /// Its own digest, see the module.
    pub digest: String,
    /// As its author numbers it.
    pub revision: String,
    /// The workspace it is for.
    pub workspace_id: String,
    /// When it was made, as its author wrote it.
    pub created_at: String,
    /// Where it came from.
    #[serde(deserialize_with = "object::object")]
    pub provenance: Provenance,
}

/// A profile that a bundle declares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// What a create request selects it by.
    pub selector: Selector,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// The selector of a profile: `{"kind":…,"value":…}` as in a create request, or only its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a selector is {\"kind\":\"builtin\" or \"named\",\"value\":…}, {\"kind\":\"runtime_default\"} or a text"
)]
pub enum Selector {
    /// With its kind.
    Kind(#[serde(deserialize_with = "object::object")] ProfileSelector),
    /// Only its value.
    Text(String),
}

impl Selector {
    /// The value that a create request is compared with.
    pub fn value(&self) -> &str {
        match self {
            Self::Kind(ProfileSelector::RuntimeDefault) => "runtime_default",
            Self::Kind(ProfileSelector::Builtin(value) | ProfileSelector::Named(value))
            | Self::Text(value) => value,
        }
    }
}

/// Something that a bundle's workers may refer to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declaration {
    /// What it is, see [`KINDS`].
    pub kind: String,
    /// What workers call it.
    pub name: String,
    /// What it stands for, such as `secret:github`.
    pub reference: String,
}

/// The kinds of declarations, with the prefixes that their references may have.
pub const KINDS: [(&str, &[&str]); 6] = [
    ("secret_ref", &["secret:", "secret-ref:", "vault:", "keyring:"]),
    ("mount_grant", &["mount:", "mount-grant:"]),
    ("network_policy", &["network:", "network-policy:"]),
    ("shell_policy", &["shell:", "shell-policy:"]),
    ("git_policy", &["git:", "git-policy:"]),
    ("capability_grant", &["capability:", "capability-grant:"]),
];

/// A bundle that may be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedBundle {
    /// What is known of it without the document.
    pub stored: ConfigBundleStored,
    /// The document as JSON. It follows from the digest, byte for byte.
    pub document: Vec<u8>,
}

/// Checks a bundle: what it is, how large it is, its digest, its profiles, its declarations,
/// in this order. The first thing that is wrong is what the answer names.
pub fn check(mut document: ConfigBundle) -> Result<CheckedBundle, Rejection> {
    check_metadata(&document.metadata)?;
    refuse_many("profiles", document.profiles.len(), PROFILES_MAX)?;
    refuse_many("declarations", document.declarations.len(), DECLARATIONS_MAX)?;
    check_digest(&document)?;
    document
        .profiles
        .iter()
        .enumerate()
        .try_for_each(|(at, profile)| check_profile(at, profile))?;
    for (at, declaration) in document.declarations.iter().enumerate() {
        check_declaration(&document.metadata.id, at, declaration)?;
    }
    put_in_order(&mut document);
    let stored = stored(&document);
    refuse_large("the metadata and the profile selectors of a config bundle", &stored)?;
    let document = serde_json::to_vec(&document).map_err(|_| {
        Rejection::new(Code::Internal, "the config bundle could not be written as JSON")
    })?;
    Ok(CheckedBundle { stored, document })
}

/// Checks the identifier and the digest of a reference to a bundle, not that it is stored.
pub fn check_ref(bundle: &BundleRef) -> Result<(), Rejection> {
    check_id("config_bundle.id", &bundle.id)?;
    check_digest_form("config_bundle.digest", &bundle.digest)
}

/// The digest of a bundle, whatever its own `digest` says.
pub fn digest(bundle: &ConfigBundle) -> Digest {
    let metadata = &bundle.metadata;
    let detail = metadata.provenance.detail.as_deref().unwrap_or_default();
    let mut lines = vec![
        line(&["id", &metadata.id]),
        line(&["revision", &metadata.revision]),
        line(&["workspace_id", &metadata.workspace_id]),
        line(&["created_at", &metadata.created_at]),
        line(&["provenance.source", &metadata.provenance.source]),
        line(&["provenance.detail", detail]),
    ];
    lines.extend(bundle.profiles.iter().map(profile_line));
    lines.extend(bundle.declarations.iter().map(declaration_line));
    lines.sort_unstable();
    sha256(&lines.iter().flat_map(|line| [line.as_bytes(), b"\n"]).collect::<Vec<_>>())
}

fn line(fields: &[&str]) -> String {
    fields.join("\0")
}

fn profile_line(profile: &Profile) -> String {
    let label = profile.label.as_deref().unwrap_or_default();
    match &profile.selector {
        Selector::Kind(ProfileSelector::RuntimeDefault) => {
            line(&["profile", "runtime_default", label])
        }
        Selector::Kind(ProfileSelector::Builtin(value)) => {
            line(&["profile", "builtin", value, label])
        }
        Selector::Kind(ProfileSelector::Named(value)) => line(&["profile", "named", value, label]),
        Selector::Text(value) => line(&["profile", value, label]),
    }
}

fn declaration_line(declaration: &Declaration) -> String {
    line(&["declaration", &declaration.kind, &declaration.name, &declaration.reference])
}

/// Makes equal digests mean equal documents.
fn put_in_order(document: &mut ConfigBundle) {
    let drop_empty = |text: &mut Option<String>| {
        text.take_if(|text| text.is_empty());
    };
    drop_empty(&mut document.metadata.provenance.detail);
    for profile in &mut document.profiles {
        drop_empty(&mut profile.label);
        // The one plain text whose line is also that of a selector with a kind.
        if profile.selector == Selector::Text("runtime_default".into()) {
            profile.selector = Selector::Kind(ProfileSelector::RuntimeDefault);
        }
    }
    document.profiles.sort_by_cached_key(profile_line);
    document.declarations.sort_by_cached_key(declaration_line);
}

fn stored(document: &ConfigBundle) -> ConfigBundleStored {
    let metadata = &document.metadata;
    ConfigBundleStored {
        bundle: BundleRef { id: metadata.id.clone(), digest: metadata.digest.clone() },
        revision: metadata.revision.clone(),
        workspace_id: metadata.workspace_id.clone(),
        created_at: metadata.created_at.clone(),
        provenance: metadata.provenance.clone(),
        profiles: document.profiles.iter().map(|each| each.selector.value().into()).collect(),
        declaration_count: document.declarations.len() as u64,
    }
}

fn check_metadata(metadata: &Metadata) -> Result<(), Rejection> {
    check_id("metadata.id", &metadata.id)?;
    check_digest_form("metadata.digest", &metadata.digest)?;
    let texts = [
        ("metadata.revision", &metadata.revision),
        ("metadata.workspace_id", &metadata.workspace_id),
        ("metadata.created_at", &metadata.created_at),
        ("metadata.provenance.source", &metadata.provenance.source),
    ];
    for (field, text) in texts {
        refuse_blank(field, text)?;
    }
    for (field, text) in texts {
        refuse_text(field, text)?;
    }
    match &metadata.provenance.detail {
        Some(detail) => refuse_text("metadata.provenance.detail", detail),
        None => Ok(()),
    }
}

fn check_id(field: &str, id: &str) -> Result<(), Rejection> {
    let starts_well = id.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    let rest = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    if starts_well && id.len() <= BUNDLE_ID_CHARS_MAX && id.bytes().all(rest) {
        return Ok(());
    }
    Err(Rejection::invalid(format!(
        "`{field}` is `{}`; it must be 1 to {BUNDLE_ID_CHARS_MAX} characters: a letter or digit, \
         then letters, digits, `-`, `_`, `.` or `:`",
        shown(id)
    )))
}

fn check_digest_form(field: &str, digest: &str) -> Result<(), Rejection> {
    match Digest::parse(digest) {
        Ok(_) => Ok(()),
        Err(_) => Err(Rejection::invalid(format!(
            "`{field}` is `{}`; it must be 64 lower-case hexadecimal digits",
            shown(digest)
        ))),
    }
}

fn check_digest(document: &ConfigBundle) -> Result<(), Rejection> {
    let actual = digest(document).to_string();
    if actual == document.metadata.digest {
        return Ok(());
    }
    let message = format!(
        "config bundle `{}` says that its digest is {}, but that of its content is {actual}",
        shown(&document.metadata.id),
        document.metadata.digest
    );
    Err(Rejection::new(Code::ConfigBundleDigestMismatch, message))
}

fn refuse_many(field: &str, count: usize, most: usize) -> Result<(), Rejection> {
    if count <= most {
        return Ok(());
    }
    Err(Rejection::invalid(format!("`{field}` has {count} entries; a bundle has at most {most}")))
}

fn check_profile(at: usize, profile: &Profile) -> Result<(), Rejection> {
    let field = format!("profiles[{at}].selector");
    let selector = profile.selector.value();
    refuse_blank(&field, selector)
        .and_then(|()| refuse_text(&field, selector))
        .map_err(|refused| Rejection::new(Code::InvalidProfileSelector, refused.message))?;
    match &profile.label {
        Some(label) => refuse_text(&format!("profiles[{at}].label"), label),
        None => Ok(()),
    }
}

fn check_declaration(bundle: &str, at: usize, declaration: &Declaration) -> Result<(), Rejection> {
    let Declaration { kind, name, reference } = declaration;
    let field = format!("declarations[{at}].name");
    refuse_blank(&field, name)?;
    refuse_text(&field, name)?;
    let unsupported = |why: String| {
        let (bundle, name) = (shown(bundle), shown(name));
        let message = format!("config bundle `{bundle}` declares `{name}`, {why}");
        Err(Rejection::new(Code::UnsupportedConfigDeclaration, message))
    };
    let Some((_, prefixes)) = KINDS.iter().find(|(known, _)| known == kind) else {
        let known = KINDS.map(|(known, _)| known).join(", ");
        return unsupported(format!("whose kind `{}` is none of: {known}", shown(kind)));
    };
    text::check_reference(&format!("declarations[{at}].reference"), reference)?;
    let fits = |prefix: &str| reference.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty());
    if prefixes.iter().any(|prefix| fits(prefix)) {
        return Ok(());
    }
    unsupported(format!(
        "whose reference does not fit its kind `{kind}`: it must start with {} and go on",
        prefixes.join(" or ")
    ))
}
