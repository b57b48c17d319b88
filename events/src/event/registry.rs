//! Events of runtimes and config bundles: what there is to make workers from.

use serde::{Deserialize, Serialize};

/// What is known of a template without its command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateSummary {
    /// Its name in the manifest, without a `-default` suffix.
    pub name: String,
    /// Whether it can be started here.
    pub startable: bool,
}

/// See [`Event::RuntimeRegistered`](super::Event::RuntimeRegistered). The runtime is named in the envelope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuntimeRegistered {
    /// Such as `embedded_worker_runtime`.
    pub kind: String,
    /// For people.
    pub label: String,
    /// What workers can be made from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<TemplateSummary>,
}

/// See [`Event::RuntimeUpdated`](super::Event::RuntimeUpdated).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuntimeUpdated {
    /// For people.
    pub label: String,
    /// What workers can be made from, from now on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<TemplateSummary>,
}

/// See [`Event::RuntimeStopped`](super::Event::RuntimeStopped).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuntimeStopped {}

/// See [`Event::RemoteRuntimeRegistered`](super::Event::RemoteRuntimeRegistered). The runtime, under
/// the alias that it has here, is named in the envelope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemoteRuntimeRegistered {
    /// For people.
    pub label: String,
    /// Where it is.
    pub remote: RemoteAddress,
}

/// Where a service is reached, and how one shows there who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteAddress {
    /// Its base address, without a trailing slash, user or password.
    pub url: String,
    /// The name of the environment variable that has the token; never the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_env: Option<String>,
}

/// See [`Event::RuntimeRetired`](super::Event::RuntimeRetired).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuntimeRetired {}

/// Where a config bundle came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Such as `operator`.
    pub source: String,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A config bundle by identifier and digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BundleRef {
    /// Its identifier: at most 128 characters.
    pub id: String,
    /// Its digest: 64 lower-case hexadecimal digits.
    pub digest: String,
}

/// See [`Event::ConfigBundleStored`](super::Event::ConfigBundleStored).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigBundleStored {
    /// The bundle.
    pub bundle: BundleRef,
    /// As its author numbers it.
    pub revision: String,
    /// The workspace it is for.
    pub workspace_id: String,
    /// When it was made, as its author wrote it.
    pub created_at: String,
    /// Where it came from.
    pub provenance: Provenance,
    /// The selectors of its profiles, in order.
    pub profiles: Vec<String>,
    /// How many declarations it has.
    pub declaration_count: u64,
}
