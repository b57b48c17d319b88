//! The request to create a worker: what it is for, and what it may use.
//!
//! Only the form is checked here. Whether its config bundle is stored and declares its
//! profile is decided upon the state; which template it is made from is the manifest's to say.

use crate::{
    bundle::{check_ref, refuse_blank, refuse_large, refuse_text},
    error::{Code, Rejection, shown},
    object::{self, Object},
};
use acta_events::{
    BundleRef, ID_CHARS_MAX, IntentKind, NamedRef, ProfileSelector, WorkerCreated, WorkerTexts,
};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The most entries that one list of the request has.
pub const LIST_ENTRIES_MAX: usize = 64;

/// A create request as a client writes it. Unknown fields are ignored, and a list that is
/// `null` is empty.
#[derive(Clone, Debug, Deserialize)]
pub struct CreateRequest {
    #[serde(deserialize_with = "object::object")]
    intent: Intent,
    #[serde(deserialize_with = "object::object")]
    profile: ProfileSelector,
    #[serde(default, deserialize_with = "object::object_or_null")]
    config_bundle: Option<BundleRef>,
    #[serde(default, deserialize_with = "object::objects_or_null")]
    requested_capabilities: Option<Vec<Capability>>,
    #[serde(default, deserialize_with = "object::objects_or_null")]
    workspace_refs: Option<Vec<NamedRef>>,
    #[serde(default, deserialize_with = "object::objects_or_null")]
    mount_refs: Option<Vec<NamedRef>>,
    #[serde(default)]
    template: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Intent {
    Assistant {
        #[serde(default)]
        purpose: Option<String>,
    },
    Task {
        objective: String,
    },
    Role {
        role: String,
        #[serde(default)]
        purpose: Option<String>,
    },
}

#[derive(Clone, Debug, Deserialize)]
struct Capability {
    name: String,
    #[serde(default)]
    reason: Option<String>,
}

/// A create request of the right form.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedCreate {
    /// What is to be recorded, as yet without a template and a host.
    pub created: WorkerCreated,
    /// Its free text.
    pub texts: WorkerTexts,
    /// The template that was asked for by name.
    pub template: Option<String>,
}

impl CreateRequest {
    /// Reads a request from JSON and checks it.
    pub fn parse(json: &[u8]) -> Result<CheckedCreate, Rejection> {
        let Object(request) = serde_json::from_slice::<Object<Self>>(json).map_err(|error| {
            let message =
                format!("the body is not a create request: {}", shown(&error.to_string()));
            Rejection::new(Code::InvalidJson, message)
        })?;
        request.check()
    }

    /// Checks the form, and tells what is recorded in the open from what is content.
    pub fn check(self) -> Result<CheckedCreate, Rejection> {
        let mut texts = WorkerTexts::default();
        let intent = self.intent.check(&mut texts)?;
        check_profile(&self.profile)?;
        self.config_bundle.as_ref().map_or(Ok(()), check_ref)?;
        let capabilities = self.requested_capabilities.unwrap_or_default();
        let (requested_capabilities, reasons) = check_capabilities(capabilities)?;
        texts.capability_reasons = reasons;
        let created = WorkerCreated {
            intent,
            profile: self.profile,
            template: None,
            host: None,
            config_bundle: self.config_bundle,
            requested_capabilities,
            workspace_refs: check_refs("workspace_refs", self.workspace_refs)?,
            mount_refs: check_refs("mount_refs", self.mount_refs)?,
        };
        refuse_large("the profile and the lists of a create request", &created)?;
        let template = self.template.map(|name| check_name("template", &name)).transpose()?;
        Ok(CheckedCreate { created, texts, template })
    }
}

impl Intent {
    fn check(self, texts: &mut WorkerTexts) -> Result<IntentKind, Rejection> {
        match self {
            Self::Assistant { purpose } => {
                texts.purpose = purpose;
                Ok(IntentKind::Assistant)
            }
            Self::Task { objective } => {
                refuse_blank("intent.objective", &objective)?;
                texts.objective = Some(objective);
                Ok(IntentKind::Task)
            }
            Self::Role { role, purpose } => {
                texts.purpose = purpose;
                Ok(IntentKind::Role { role: check_name("intent.role", &role)? })
            }
        }
    }
}

fn check_profile(profile: &ProfileSelector) -> Result<(), Rejection> {
    match profile {
        ProfileSelector::RuntimeDefault => Ok(()),
        ProfileSelector::Builtin(value) | ProfileSelector::Named(value) => {
            refuse_blank("profile.value", value)
                .and_then(|()| refuse_text("profile.value", value))
                .map_err(|refused| Rejection::new(Code::InvalidProfileSelector, refused.message))
        }
    }
}

/// The name of something: short, and without control characters. Outer white space is not
/// part of it.
fn check_name(field: &str, name: &str) -> Result<String, Rejection> {
    refuse_blank(field, name)?;
    let name = name.trim();
    if name.chars().nth(ID_CHARS_MAX).is_some() || name.chars().any(char::is_control) {
        return Err(Rejection::invalid(format!(
            "`{field}` is `{}`; it may have {ID_CHARS_MAX} characters, none of them a control \
             character",
            shown(name)
        )));
    }
    Ok(name.into())
}

fn refuse_many(field: &str, count: usize) -> Result<(), Rejection> {
    if count > LIST_ENTRIES_MAX {
        let message = format!("`{field}` has {count} entries; it may have {LIST_ENTRIES_MAX}");
        return Err(Rejection::invalid(message));
    }
    Ok(())
}

type Capabilities = (Vec<String>, BTreeMap<usize, String>);

fn check_capabilities(capabilities: Vec<Capability>) -> Result<Capabilities, Rejection> {
    refuse_many("requested_capabilities", capabilities.len())?;
    let mut names = Vec::with_capacity(capabilities.len());
    let mut reasons = BTreeMap::new();
    for (at, Capability { name, reason }) in capabilities.into_iter().enumerate() {
        names.push(check_name(&format!("requested_capabilities[{at}].name"), &name)?);
        reasons.extend(reason.map(|reason| (at, reason)));
    }
    Ok((names, reasons))
}

fn check_refs(field: &str, refs: Option<Vec<NamedRef>>) -> Result<Vec<NamedRef>, Rejection> {
    let refs = refs.unwrap_or_default();
    refuse_many(field, refs.len())?;
    let check = |(at, NamedRef { name, reference }): (usize, NamedRef)| {
        let name = check_name(&format!("{field}[{at}].name"), &name)?;
        let field = format!("{field}[{at}].reference");
        refuse_blank(&field, &reference)?;
        refuse_text(&field, &reference)?;
        Ok(NamedRef { name, reference })
    };
    refs.into_iter().enumerate().map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn task() -> Value {
        json!({
            "intent": {"kind": "task", "objective": "Write the report"},
            "profile": {"kind": "builtin", "value": "builtin:coder"},
            "config_bundle": {"id": "b-1", "digest": "0".repeat(64)},
            "requested_capabilities": [{"name": "read"}, {"name": "write", "reason": "to save"}],
            "workspace_refs": [{"name": "main", "reference": "workspace:main"}],
            "mount_refs": null,
            "template": " echo ",
            "unknown": true,
        })
    }

    fn parse(json: &Value) -> Result<CheckedCreate, Rejection> {
        CreateRequest::parse(&serde_json::to_vec(json).unwrap())
    }

    #[test]
    fn free_text_is_told_from_what_is_recorded_in_the_open() {
        let checked = parse(&task()).unwrap();
        assert_eq!(checked.template.as_deref(), Some("echo"));
        assert_eq!(checked.texts.objective.as_deref(), Some("Write the report"));
        assert_eq!(checked.texts.capability_reasons, BTreeMap::from([(1, "to save".into())]));
        let open = serde_json::to_string(&checked.created).unwrap();
        assert!(!open.contains("report") && !open.contains("save"), "{open}");
        assert_eq!(
            serde_json::from_str::<Value>(&open).unwrap(),
            json!({
                "intent": {"kind": "task"},
                "profile": {"kind": "builtin", "value": "builtin:coder"},
                "config_bundle": {"id": "b-1", "digest": "0".repeat(64)},
                "requested_capabilities": ["read", "write"],
                "workspace_refs": [{"name": "main", "reference": "workspace:main"}],
            })
        );
    }

    #[test]
    fn every_kind_of_intent_and_profile_is_understood() {
        for (intent, kind, purpose) in [
            (json!({"kind": "assistant"}), IntentKind::Assistant, None),
            (json!({"kind": "assistant", "purpose": "p"}), IntentKind::Assistant, Some("p")),
            (
                json!({"kind": "role", "role": "coder", "purpose": "p"}),
                IntentKind::Role { role: "coder".into() },
                Some("p"),
            ),
        ] {
            let json = json!({"intent": intent, "profile": {"kind": "runtime_default"}});
            let checked = parse(&json).unwrap();
            assert_eq!(checked.created.intent, kind);
            assert_eq!(checked.texts.purpose.as_deref(), purpose);
            assert_eq!(checked.template, None);
        }
        for (profile, selector) in [
            (
                json!({"kind": "builtin", "value": "coder"}),
                ProfileSelector::Builtin("coder".into()),
            ),
            (json!({"kind": "named", "value": "x"}), ProfileSelector::Named("x".into())),
        ] {
            let mut json = task();
            json["profile"] = profile;
            assert_eq!(parse(&json).unwrap().created.profile, selector, "the value is kept");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let entry = |n: usize| json!({"name": format!("{n}"), "reference": "r"});
        let many: Vec<_> = (0..65).map(entry).collect();
        let wide = |_| json!({"name": "n", "reference": "r".repeat(1000)});
        let wide: Vec<_> = (0..20).map(wide).collect();
        let rows = [
            ("intent", json!({"kind": "task", "objective": " \n"}), "intent.objective"),
            ("intent", json!({"kind": "role", "role": " "}), "intent.role"),
            ("intent", json!({"kind": "role", "role": "r".repeat(121)}), "intent.role"),
            ("config_bundle", json!({"id": "a/b", "digest": "0".repeat(64)}), "config_bundle.id"),
            ("config_bundle", json!({"id": "a", "digest": "0"}), "config_bundle.digest"),
            (
                "requested_capabilities",
                json!([{"name": "a"}, {"name": ""}]),
                "capabilities[1].name",
            ),
            ("requested_capabilities", json!(many), "65 entries; it may have 64"),
            ("workspace_refs", json!(many), "65 entries; it may have 64"),
            ("workspace_refs", json!(wide), "at most 12288"),
            ("mount_refs", json!([{"name": "", "reference": "r"}]), "mount_refs[0].name"),
            ("mount_refs", json!([{"name": "n", "reference": ""}]), "mount_refs[0].reference"),
            ("mount_refs", json!([{"name": "n", "reference": "/etc"}]), "mount_refs[0].reference"),
            ("template", json!(" "), "`template`"),
            ("template", json!("t\u{0}"), "`template`"),
        ];
        for (field, value, named) in rows {
            let mut json = task();
            json[field] = value.clone();
            let refused = parse(&json).expect_err(named);
            assert_eq!(refused.code, Code::InvalidRequest, "{field} = {value}");
            assert!(refused.message.contains(named), "{field} = {value}: {refused}");
        }
    }

    #[test]
    fn a_profile_that_names_nothing_is_an_invalid_selector() {
        for value in ["", "  ", "/bin/sh", "a\u{7}"] {
            for kind in ["builtin", "named"] {
                let mut json = task();
                json["profile"] = json!({"kind": kind, "value": value});
                assert_eq!(parse(&json).unwrap_err().code, Code::InvalidProfileSelector);
            }
        }
    }

    #[test]
    fn a_body_of_another_shape_is_invalid_json() {
        for json in [
            json!({}),
            json!({"intent": {"kind": "assistant"}}),
            json!({"profile": {"kind": "runtime_default"}}),
            json!({"intent": {"kind": "dream"}, "profile": {"kind": "runtime_default"}}),
            json!({"intent": {"kind": "task"}, "profile": {"kind": "runtime_default"}}),
            json!({"intent": {"kind": "assistant"}, "profile": {"kind": "builtin"}}),
            json!([]),
        ] {
            assert_eq!(parse(&json).unwrap_err().code, Code::InvalidJson, "{json}");
        }
        assert_eq!(CreateRequest::parse(b"{").unwrap_err().code, Code::InvalidJson);
    }
}
