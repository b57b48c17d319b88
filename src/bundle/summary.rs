//! Bundles as they stand in answers.

use acta_events::{BundleRef, ConfigBundleStored, Provenance};
use serde::Serialize;

/// The answer to whether a bundle is stored.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Availability<'a> {
    /// Its identifier and digest.
    pub reference: &'a BundleRef,
    /// What is known of it without the document.
    pub summary: Summary<'a>,
}

/// A bundle as it stands in lists.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary<'a> {
    /// Its identifier and digest.
    #[serde(flatten)]
    pub reference: &'a BundleRef,
    /// Always `sha256`.
    pub digest_algorithm: &'static str,
    /// As its author numbers it.
    pub revision: &'a str,
    /// The workspace it is for.
    pub workspace_id: &'a str,
    /// When it was made, as its author wrote it.
    pub created_at: &'a str,
    /// Where it came from.
    pub provenance: &'a Provenance,
    /// How many profiles it declares.
    pub profile_count: u64,
    /// How many declarations it has.
    pub declaration_count: u64,
}

impl<'a> From<&'a ConfigBundleStored> for Summary<'a> {
    fn from(stored: &'a ConfigBundleStored) -> Self {
        Self {
            reference: &stored.bundle,
            digest_algorithm: "sha256",
            revision: &stored.revision,
            workspace_id: &stored.workspace_id,
            created_at: &stored.created_at,
            provenance: &stored.provenance,
            profile_count: stored.profiles.len() as u64,
            declaration_count: stored.declaration_count,
        }
    }
}

impl<'a> From<&'a ConfigBundleStored> for Availability<'a> {
    fn from(stored: &'a ConfigBundleStored) -> Self {
        Self { reference: &stored.bundle, summary: stored.into() }
    }
}
