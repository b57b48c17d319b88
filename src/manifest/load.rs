//! Where the manifest is looked for.

use super::Manifest;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The variable that names the manifest.
const PATH_VARIABLE: &str = "WORKSPACE_MANIFEST_PATH";

/// Where a container has it.
const CONTAINER_PATH: &str = "/app/manifest.json";

/// Where it is looked for in the end, from the working directory.
const NEAR: [&str; 3] = ["manifest.json", "../manifest.json", "../../manifest.json"];

/// A manifest, and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// What workers can be made from.
    pub manifest: Manifest,
    /// Where it came from.
    pub source: Source,
    /// What was wrong, if it is only the fallback: the path and the cause.
    pub warning: Option<String>,
}

/// Where a manifest came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file.
    Path(PathBuf),
    /// Nowhere; names are known, but nothing can be started.
    Fallback,
}

impl Manifest {
    /// Reads the manifest: `path` if one is given, else what `WORKSPACE_MANIFEST_PATH` names,
    /// else `/app/manifest.json`, else `manifest.json` in `.`, `..` or `../..`. A path that is
    /// named and cannot be used is not passed over for another. Whatever happens there is
    /// something to go on with; the caller logs the warning.
    pub fn load(path: Option<&Path>) -> Loaded {
        Self::load_from(&Self::locate(path))
    }

    /// The path that [`Self::load`] reads; none if none is named and none is in the usual places.
    pub fn locate(path: Option<&Path>) -> Option<PathBuf> {
        let variable = std::env::var_os(PATH_VARIABLE);
        located(path, variable, Path::new(CONTAINER_PATH), Path::new(""))
    }

    fn load_from(path: &Option<PathBuf>) -> Loaded {
        let failed = match path {
            Some(path) => match Self::read(path) {
                Ok(manifest) => {
                    return Loaded { manifest, source: Source::Path(path.clone()), warning: None };
                }
                Err(error) => error.to_string(),
            },
            None => format!(
                "there is no manifest at {CONTAINER_PATH}, {}; name one with `--manifest` or \
                 {PATH_VARIABLE}",
                NEAR.join(", ")
            ),
        };
        let warning = format!("{failed}; templates are known by name, but none can be started");
        Loaded { manifest: Self::fallback(), source: Source::Fallback, warning: Some(warning) }
    }
}

fn located(
    named: Option<&Path>,
    variable: Option<OsString>,
    container: &Path,
    near: &Path,
) -> Option<PathBuf> {
    let variable = variable.filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = named.map(Path::to_path_buf).or(variable) {
        return Some(path);
    }
    let candidates = NEAR.iter().map(|each| near.join(each));
    std::iter::once(container.to_path_buf()).chain(candidates).find(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_named_path_comes_first_then_the_variable_then_the_usual_places() {
        let dir = tempfile::tempdir().unwrap();
        let (container, here) = (dir.path().join("app.json"), dir.path().join("a/b"));
        fs::create_dir_all(&here).unwrap();
        let find = |named: Option<&str>, variable: Option<&str>| {
            located(named.map(Path::new), variable.map(Into::into), &container, &here)
        };
        assert_eq!(find(None, None), None);
        assert_eq!(find(None, Some("")), None, "an empty variable is none");
        for (at, found) in [
            (dir.path().join("manifest.json"), here.join("../../manifest.json")),
            (dir.path().join("a/manifest.json"), here.join("../manifest.json")),
            (here.join("manifest.json"), here.join("manifest.json")),
            (container.clone(), container.clone()),
        ] {
            fs::write(at, "{}").unwrap();
            assert_eq!(find(None, None), Some(found), "nearer places win");
        }
        assert_eq!(find(None, Some("v")), Some("v".into()), "even if there is no such file");
        assert_eq!(find(Some("n"), Some("v")), Some("n".into()));
    }

    #[test]
    fn a_manifest_that_cannot_be_used_is_replaced_by_names_with_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing.json");
        let broken = dir.path().join("broken.json");
        fs::write(&broken, "{\n  \"workspace_templates\": 5}").unwrap();
        let huge = dir.path().join("huge.json");
        fs::write(&huge, " ".repeat(1024 * 1024 + 1)).unwrap();
        for (path, cause) in [
            (&missing, "No such file"),
            (&broken, "line 2"),
            (&huge, "larger than 1048576 bytes"),
            (&dir.path().to_path_buf(), "directory"),
        ] {
            let loaded = Manifest::load(Some(path));
            assert_eq!(loaded.source, Source::Fallback);
            assert_eq!(loaded.manifest, Manifest::fallback());
            let warning = loaded.warning.unwrap();
            assert!(warning.contains(path.to_str().unwrap()), "{warning}");
            assert!(warning.contains(cause), "{warning}");
        }
    }

    #[test]
    fn a_manifest_says_where_it_came_from() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest.json");
        fs::write(&path, "{}").unwrap();
        let loaded = Manifest::load(Some(&path));
        assert_eq!(loaded.source, Source::Path(path));
        assert_eq!(loaded.warning, None);
    }
}
