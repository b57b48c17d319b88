//! `acta spawn`.

use super::client::{Call, Client};
use super::output::{Format, Output, cell_at, note};
use acta_events::{BundleRef, IdempotencyKey, ProfileSelector};
use clap::Args;
use serde_json::{Map, Value, json};

const HELP: &str = "\
Prints the id of the new worker, and nothing else, so that it can be kept:
  worker=$(acta spawn --template echo)
  acta spawn --objective \"Tidy up the changelog\" --profile builtin:coder
  acta spawn --role reviewer --purpose \"Second pair of eyes\" \\
             --bundle team@<digest> --profile named:reviewer --capability read=\"to review\"
Without --objective and --role the worker is an assistant.";

/// Options of `acta spawn`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct SpawnArgs {
    /// What the worker is made from, as in the manifest; otherwise its profile decides
    #[arg(long, value_name = "NAME")]
    template: Option<String>,

    /// runtime-default, builtin:<name>, or named:<selector> of the bundle
    #[arg(long, default_value = "runtime-default", value_parser = parse_profile)]
    profile: ProfileSelector,

    /// The worker has a task: this
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["purpose", "role"])]
    objective: Option<String>,

    /// The worker has a role
    #[arg(long, value_name = "NAME")]
    role: Option<String>,

    /// What an assistant or a role is for
    #[arg(long, value_name = "TEXT")]
    purpose: Option<String>,

    /// The worker's config bundle, stored before
    #[arg(long, value_name = "ID@DIGEST", value_parser = parse_bundle)]
    bundle: Option<BundleRef>,

    /// A capability that the worker asks for; may be repeated
    #[arg(long = "capability", value_name = "NAME[=REASON]", value_parser = parse_capability)]
    capabilities: Vec<Capability>,

    /// Makes a repeated command recognisable: it happens once. A fresh one unless given
    #[arg(long, value_name = "KEY", value_parser = IdempotencyKey::parse)]
    idempotency_key: Option<IdempotencyKey>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Capability {
    name: String,
    reason: Option<String>,
}

pub(super) async fn run(args: SpawnArgs, client: &Client, out: &mut Output) -> anyhow::Result<()> {
    let call = Call::post(&["workers"], args.request()).key(args.idempotency_key.as_ref());
    let answer = client.send(call).await?;
    if out.format == Format::Json {
        return out.json(&answer);
    }
    let worker = &answer["worker"];
    let Some(id) = worker["worker_id"].as_str() else {
        return Err(client.not_acta("a worker without an id").into());
    };
    out.line(id)?;
    if cell_at(worker, "execution.backend") == "unconnected" {
        let why = cell_at(worker, "execution.last_result.message");
        let why =
            if why.is_empty() { "no template for it can be started here".into() } else { why };
        note(&format!("note: the worker is not connected: {why}"));
    }
    Ok(())
}

impl SpawnArgs {
    fn request(&self) -> Value {
        let mut intent = Map::new();
        let mut set = |name: &str, value: &Option<String>| {
            intent.extend(value.clone().map(|text| (name.to_owned(), text.into())));
        };
        let kind = match (&self.objective, &self.role) {
            (Some(_), _) => "task",
            (None, Some(_)) => "role",
            (None, None) => "assistant",
        };
        set("kind", &Some(kind.into()));
        set("objective", &self.objective);
        set("role", &self.role);
        set("purpose", &self.purpose);
        let mut request = json!({ "intent": intent, "profile": self.profile });
        if let Some(template) = &self.template {
            request["template"] = template.as_str().into();
        }
        if let Some(bundle) = &self.bundle {
            request["config_bundle"] = json!(bundle);
        }
        let capability = |Capability { name, reason }: &Capability| match reason {
            None => json!({ "name": name }),
            Some(reason) => json!({ "name": name, "reason": reason }),
        };
        if !self.capabilities.is_empty() {
            request["requested_capabilities"] = self.capabilities.iter().map(capability).collect();
        }
        request
    }
}

fn parse_profile(text: &str) -> Result<ProfileSelector, String> {
    match text.split_once(':') {
        None if matches!(text, "runtime-default" | "runtime_default") => {
            Ok(ProfileSelector::RuntimeDefault)
        }
        // The prefix is part of the name of a built-in profile.
        Some(("builtin", name)) if !name.is_empty() => Ok(ProfileSelector::Builtin(text.into())),
        Some(("named", name)) if !name.is_empty() => Ok(ProfileSelector::Named(name.into())),
        _ => Err("a profile is runtime-default, builtin:<name> or named:<selector>".into()),
    }
}

fn parse_bundle(text: &str) -> Result<BundleRef, String> {
    let hex = |digest: &str| {
        digest.len() == 64 && digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    match text.rsplit_once('@') {
        Some((id, digest)) if !id.is_empty() && hex(digest) => {
            Ok(BundleRef { id: id.into(), digest: digest.into() })
        }
        _ => Err("a bundle is <id>@<digest>, the digest 64 lower-case hexadecimal digits".into()),
    }
}

fn parse_capability(text: &str) -> Result<Capability, String> {
    let (name, reason) = match text.split_once('=') {
        None => (text, None),
        Some((name, reason)) => (name, Some(reason)),
    };
    if name.trim().is_empty() {
        return Err("a capability has a name: <name> or <name>=<reason>".into());
    }
    Ok(Capability { name: name.into(), reason: reason.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use crate::cli::{Cli, Command};
    use clap::Parser;
    use serde_json::{Value, json};

    #[test]
    fn arguments_become_a_create_request() {
        let digest = "ab".repeat(32);
        let bundle = format!("team:x@{digest}");
        let check = |arguments: &[&str], expected: Option<Value>| {
            let cli = Cli::try_parse_from(["acta", "spawn"].iter().chain(arguments));
            let request = cli.map(|cli| match cli.command {
                Command::Spawn(args) => args.request(),
                other => panic!("{other:?}"),
            });
            match (request, expected) {
                (Ok(request), Some(expected)) => assert_eq!(request, expected, "{arguments:?}"),
                (Err(error), None) => assert_eq!(error.exit_code(), 2),
                (request, _) => panic!("{arguments:?}: {request:?}"),
            }
        };
        let default = json!({"kind": "runtime_default"});
        check(&[], Some(json!({"intent": {"kind": "assistant"}, "profile": default})));
        check(
            &["--template", "echo", "--objective", "say it"],
            Some(json!({
                "intent": {"kind": "task", "objective": "say it"}, "profile": default, "template": "echo"
            })),
        );
        check(
            &["--role", "coder", "--purpose", "p", "--profile", "builtin:coder"],
            Some(json!({
                "intent": {"kind": "role", "role": "coder", "purpose": "p"},
                "profile": {"kind": "builtin", "value": "builtin:coder"}
            })),
        );
        check(
            &[
                "--bundle",
                &bundle,
                "--profile=named:n",
                "--capability",
                "a",
                "--capability=b=why=so",
            ],
            Some(json!({
                "intent": {"kind": "assistant"},
                "profile": {"kind": "named", "value": "n"},
                "config_bundle": {"id": "team:x", "digest": digest},
                "requested_capabilities": [{"name": "a"}, {"name": "b", "reason": "why=so"}]
            })),
        );
        for wrong in [
            &["--objective", "o", "--purpose", "p"][..],
            &["--objective", "o", "--role", "r"],
            &["--profile", "coder"],
            &["--profile", "builtin:"],
            &["--bundle", "team"],
            &["--bundle", "team@ABCD"],
            &["--capability", "=why"],
            &["--idempotency-key", "with space"],
        ] {
            check(wrong, None);
        }
    }
}
