//! What the two workers are made from.

use super::{DemoArgs, service::Home};
use crate::{
    cli::usage,
    manifest::{Manifest, Mode},
};
use anyhow::{Result, anyhow, bail};
use std::{fs, path::Path};

/// The manifest that Acta is shipped with, for a binary that was taken elsewhere.
const SHIPPED: &str = include_str!("../../../manifest.json");

/// What runs on any Linux machine and shows something.
const PREFERRED: [&str; 2] = ["echo", "stream"];

/// A worker that will be spawned.
#[derive(Clone, Debug)]
pub(super) struct Role {
    pub(super) template: String,
    /// What it is called on the screen.
    pub(super) name: String,
    /// `session` or `per_input`.
    pub(super) mode: &'static str,
    /// Whether it is known to answer with exactly what it was sent.
    pub(super) echoes: bool,
}

/// Where everything is, and who appears.
#[derive(Clone, Debug)]
pub(super) struct Cast {
    pub(super) home: Home,
    pub(super) roles: [Role; 2],
    /// Where the templates come from.
    pub(super) source: String,
}

/// Finds the manifest and two templates that can be started.
pub(super) fn choose(args: &DemoArgs, dir: &Path) -> Result<Cast> {
    let (manifest, path, source) = match Manifest::locate(args.manifest.as_deref()) {
        Some(path) => {
            let source = path.display().to_string();
            (Manifest::read(&path)?, std::path::absolute(path)?, source)
        }
        None => {
            let path = dir.join("manifest.json");
            fs::write(&path, SHIPPED)?;
            let manifest = Manifest::parse(SHIPPED).map_err(|error| anyhow!(error))?;
            (manifest, path, "the manifest that Acta is shipped with".into())
        }
    };
    let names = names(args, &manifest, &source)?;
    let mut roles = names.clone().map(|template| {
        let exec = manifest.exec_of(&template);
        Role {
            name: template.clone(),
            mode: match exec.map(|exec| exec.mode) {
                Some(Mode::PerInput) => "per_input",
                _ => "session",
            },
            echoes: exec.is_some_and(|exec| exec.argv == ["cat"] && exec.mode == Mode::Session),
            template,
        }
    });
    if roles[0].name == roles[1].name {
        for (number, role) in (1..).zip(&mut roles) {
            role.name = format!("{}-{number}", role.name);
        }
    }
    Ok(Cast { home: Home { dir: dir.into(), manifest: path }, roles, source })
}

fn names(args: &DemoArgs, manifest: &Manifest, source: &str) -> Result<[String; 2]> {
    let startable: Vec<String> = manifest
        .templates()
        .into_iter()
        .filter(|template| template.startable)
        .map(|template| template.name)
        .collect();
    let pair = match args.template.as_slice() {
        [] => {
            let preferred = PREFERRED.map(str::to_owned);
            if preferred.iter().all(|name| startable.contains(name)) {
                return Ok(preferred);
            }
            startable.clone()
        }
        given => given.to_vec(),
    };
    for name in &args.template {
        if manifest.exec_of(name).is_none() {
            let known = startable.join(", ");
            return Err(usage(format!(
                "template `{name}` cannot be started with {source}; these can: {known}"
            )));
        }
    }
    match pair.as_slice() {
        [] => bail!("no template of {source} can be started; add one with an `exec`"),
        [only] => Ok([only.clone(), only.clone()]),
        [first, second, ..] => Ok([first.clone(), second.clone()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    #[test]
    fn two_templates_are_found_in_any_manifest_that_has_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.json");
        let check = |entries: &str, given: &str, expected: Result<[&str; 2], &str>| {
            fs::write(&path, format!("{{\"workspace_templates\":[{entries}]}}")).unwrap();
            let mut line = vec!["acta", "demo", "--manifest", path.to_str().unwrap()];
            if !given.is_empty() {
                line.extend(["--template", given]);
            }
            let Command::Demo(args) = Cli::try_parse_from(line).unwrap().command else { panic!() };
            let chosen = choose(&args, dir.path()).map(|cast| cast.roles.map(|role| role.name));
            match (chosen, expected) {
                (Ok(names), Ok(expected)) => assert_eq!(names, expected),
                (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
                (chosen, expected) => panic!("{chosen:?}, not {expected:?}"),
            }
        };
        let entry = |name: &str| format!("{{\"name\":\"{name}\",\"exec\":{{\"argv\":[\"cat\"]}}}}");
        let (a, b) = (entry("a"), entry("b"));
        let all = [&a, &b, &entry("stream"), &entry("echo")].map(String::as_str).join(",");
        check(&all, "", Ok(["echo", "stream"]));
        check(&all, "b,a", Ok(["b", "a"]));
        check(&all, "b", Ok(["b-1", "b-2"]));
        check(&format!("{a},{b}"), "", Ok(["a", "b"]));
        check(&a, "", Ok(["a-1", "a-2"]));
        check(&a, "c", Err("`c` cannot be started"));
        check("{\"name\":\"a\"}", "", Err("can be started"));
        check("{", "", Err("line 1"));
    }

    #[test]
    fn the_shipped_manifest_has_what_the_demonstration_prefers() {
        let manifest = Manifest::parse(SHIPPED).unwrap();
        for name in PREFERRED {
            assert!(manifest.exec_of(name).is_some(), "{name}");
        }
    }
}
