//! The configuration of `acta serve`: a file beside environment and flags, and `acta config show`,
//! which tells where each value comes from.
//!
//! A flag wins over the environment, the environment over the file, the file over the default.
//! What the file says becomes arguments of the command line, so that there is one place that
//! knows what an option takes.

use super::config_file::{self, Settings};
use super::output::{Format, Output, table};
use super::serve_args::ServeArgs;
use super::{Cli, UsageError};
use anyhow::{Context as _, Result};
use clap::{
    Arg, ArgMatches, Args as _, Command, CommandFactory as _, FromArgMatches as _, Subcommand,
    parser::ValueSource,
};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

const HELP: &str = "\
Examples:
  acta config show
  acta config show --config /etc/acta/acta.toml --listen 0.0.0.0:8080
  ACTA_CONFIG=/etc/acta/acta.toml acta config show -o json

Takes the options of `acta serve`, and starts nothing.";

/// The subcommands of `acta config`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Tell the value of every option of `acta serve`, and where it comes from
    #[command(after_help = HELP)]
    Show(Box<ServeArgs>),
}

/// Why no command came of the arguments.
#[derive(Debug)]
pub(super) enum Unparsed {
    /// Clap says why, and how to say it.
    Arguments(clap::Error),
    /// The configuration file cannot be used.
    File(anyhow::Error),
}

impl From<clap::Error> for Unparsed {
    fn from(error: clap::Error) -> Self {
        Self::Arguments(error)
    }
}

/// Parses the arguments of the process, with the file that they or the environment name.
pub(super) fn parse(arguments: &[OsString]) -> Result<(Cli, ArgMatches), Unparsed> {
    let matches = matches(arguments)?.whole;
    Ok((Cli::from_arg_matches(&matches)?, matches))
}

/// The arguments as they were given, and with what the file adds.
struct Matches {
    given: ArgMatches,
    file: Option<(PathBuf, Settings)>,
    whole: ArgMatches,
}

fn matches(arguments: &[OsString]) -> Result<Matches, Unparsed> {
    let given = command().try_get_matches_from(arguments)?;
    let path = of_serve(&given).and_then(|serve| serve.get_one::<PathBuf>("config")).cloned();
    let Some(path) = path else {
        return Ok(Matches { whole: given.clone(), given, file: None });
    };
    let settings = config_file::read(&path, &takes_value()).map_err(Unparsed::File)?;
    let with_file = with_file(arguments, of_serve(&given), &settings);
    // The arguments alone were understood, so it is the file that is not.
    let whole = command().try_get_matches_from(with_file).map_err(|error| {
        let text = error.to_string();
        let why = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Unparsed::File(anyhow::anyhow!(
            "the configuration {} cannot be used: {why}",
            path.display()
        ))
    })?;
    Ok(Matches { given, file: Some((path, settings)), whole })
}

/// The command line, in which every option of `acta serve` has a variable: `ACTA_` and its name.
fn command() -> Command {
    let show = |config: Command| config.mut_subcommand("show", with_variables);
    Cli::command().mut_subcommand("serve", with_variables).mut_subcommand("config", show)
}

fn with_variables(serve: Command) -> Command {
    serve.mut_args(|arg: Arg| {
        if arg.get_env().is_some() || arg.get_long().is_none() {
            return arg;
        }
        let name = arg.get_id().as_str().to_uppercase();
        arg.env(format!("ACTA_{name}"))
    })
}

/// What belongs to the options of `acta serve`.
fn of_serve(matches: &ArgMatches) -> Option<&ArgMatches> {
    match matches.subcommand()? {
        ("serve", serve) => Some(serve),
        ("config", config) => config.subcommand().map(|(_, show)| show),
        _ => None,
    }
}

/// The arguments with what the file says about options that are given nowhere else.
fn with_file(
    arguments: &[OsString],
    serve: Option<&ArgMatches>,
    settings: &Settings,
) -> Vec<OsString> {
    let is_given = |name: &str| {
        let source = serve.and_then(|serve| serve.value_source(&id(name)));
        matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    };
    let mut all = arguments.to_vec();
    for (name, values) in settings.iter().filter(|(name, _)| !is_given(name)) {
        all.extend(values.iter().map(|value| match value {
            Some(value) => format!("--{name}={value}").into(),
            None => format!("--{name}").into(),
        }));
    }
    all
}

fn id(name: &str) -> String {
    name.replace('-', "_")
}

fn options() -> Vec<Arg> {
    let command = with_variables(ServeArgs::augment_args(Command::new("serve")));
    command.get_arguments().filter(|arg| arg.get_long().is_some()).cloned().collect()
}

/// The names of all options, and whether each takes a value.
fn takes_value() -> BTreeMap<String, bool> {
    let options = options().into_iter();
    let named = options.map(|arg| {
        (arg.get_long().unwrap_or_default().to_owned(), arg.get_action().takes_values())
    });
    named.collect()
}

/// One option as it is.
struct Row {
    name: String,
    value: Option<String>,
    source: &'static str,
    /// The variable or the file.
    place: Option<String>,
}

/// `acta config show`, from the arguments of the process.
pub(super) fn show(arguments: &[OsString], args: &ServeArgs, out: &mut Output) -> Result<()> {
    let matches = matches(arguments).map_err(|_| UsageError("the configuration changed".into()))?;
    let rows = rows(&matches).context("these are no options of `acta serve`")?;
    if out.format == Format::Json {
        let options = rows.into_iter().map(|row| {
            let Row { name, value, source, place } = row;
            (name, json!({"value": value, "source": source, "place": place}))
        });
        out.json(&json!({ "options": options.collect::<Map<String, Value>>() }))?;
    } else {
        let cells = |row: Row| {
            let from = match (row.source, row.place) {
                ("unset", _) => "-".to_owned(),
                (source, None) => source.to_owned(),
                (source, Some(place)) => format!("{source} {place}"),
            };
            vec![row.name, row.value.unwrap_or_else(|| "-".into()), from]
        };
        let rows: Vec<_> = rows.into_iter().map(cells).collect();
        out.text(&table(&["OPTION", "VALUE", "FROM"], &rows))?;
    }
    out.flush()?;
    // What `acta serve` would refuse, after what it is about.
    args.operator_tokens().map_err(|error| UsageError(error.to_string()))?;
    Ok(())
}

fn rows(matches: &Matches) -> Option<Vec<Row>> {
    let (given, whole) = (of_serve(&matches.given)?, of_serve(&matches.whole)?);
    let row = |arg: Arg| {
        let name = arg.get_long().unwrap_or_default().to_owned();
        let id = arg.get_id().as_str();
        let in_file = matches.file.as_ref().filter(|(_, settings)| settings.contains_key(&name));
        let (source, place) = match (given.value_source(id), in_file) {
            (Some(ValueSource::CommandLine), _) => ("flag", None),
            (Some(ValueSource::EnvVariable), _) => {
                ("environment", arg.get_env().map(|name| name.to_string_lossy().into_owned()))
            }
            (_, Some((path, _))) => ("file", Some(shown(path))),
            (Some(_), None) => ("default", None),
            (None, None) => ("unset", None),
        };
        let value = match (name.as_str(), arg.get_action().takes_values()) {
            ("token", _) => whole.value_source(id).map(|_| "(hidden)".to_owned()),
            (_, false) => Some(whole.get_flag(id).to_string()),
            (_, true) => whole.get_raw(id).map(|values| {
                let values = values.map(|value| value.to_string_lossy());
                values.collect::<Vec<_>>().join(", ")
            }),
        };
        Row { name, value, source, place }
    };
    Some(options().into_iter().map(row).collect())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;
    use std::fs;

    fn arguments(text: &str) -> Vec<OsString> {
        text.split(' ').map(Into::into).collect()
    }

    #[test]
    fn every_option_has_a_variable_and_a_name_in_a_file() {
        let options = options();
        assert!(options.len() > 20, "{}", options.len());
        for arg in options {
            let name = arg.get_long().unwrap();
            let variable = arg.get_env().unwrap_or_default().to_str().unwrap();
            assert!(variable.starts_with("ACTA_"), "{name}: {variable}");
            assert_eq!(id(name), arg.get_id().as_str(), "the file finds an option by its flag");
        }
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acta.toml");
        fs::write(&path, "event-page-max = 7\n[audit]\nreads = true\n").unwrap();
        let check = |more: &str, event_page_max: u64, source: &str| {
            let line = format!("acta serve --config {}{more}", path.display());
            let (cli, _) = parse(&arguments(&line)).unwrap();
            let cli::Command::Serve(args) = cli.command else { panic!("not serve") };
            assert_eq!(args.limits.event_page_max, event_page_max, "{more}");
            assert!(args.audit_reads, "{more}");
            let rows = rows(&matches(&arguments(&line)).unwrap()).unwrap();
            let row = rows.iter().find(|row| row.name == "event-page-max").unwrap();
            assert_eq!((row.source, row.value.clone()), (source, Some(event_page_max.to_string())));
            let row = rows.iter().find(|row| row.name == "transcript-page-max").unwrap();
            assert_eq!((row.source, row.value.as_deref()), ("default", Some("256")));
        };
        check("", 7, "file");
        check(" --event-page-max 9", 9, "flag");
    }

    #[test]
    fn what_the_file_cannot_say_is_blamed_on_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acta.toml");
        for (text, expected) in [
            ("event-page-max = 0", "event-page-max"),
            ("listen = \"nowhere\"", "nowhere"),
            ("listen = [\"127.0.0.1:1\", \"127.0.0.1:2\"]", "multiple times"),
            ("listne = 1", "`listne`"),
        ] {
            fs::write(&path, text).unwrap();
            let line = format!("acta serve --config {}", path.display());
            let Err(Unparsed::File(error)) = parse(&arguments(&line)) else { panic!("{text}") };
            let error = format!("{error:#}");
            assert!(error.contains(expected) && error.contains("acta.toml"), "{text}: {error}");
        }
        let missing = parse(&arguments("acta serve --config missing.toml"));
        assert!(matches!(missing, Err(Unparsed::File(_))), "{missing:?}");
    }
}
