//! Where the options of `pail serve` come from: the command line, else the environment, else a file, else they are left as
//! they are.
//!
//! An option has one name: `--drain-timeout` is `PAIL_DRAIN_TIMEOUT`, and `drain-timeout` in the file, which is TOML. clap reads
//! them all. What the file says goes behind the command line where nothing else was said, so that it is checked as it
//! would be there.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
};

use clap::{ArgMatches, Command, FromArgMatches as _, parser::ValueSource};
use toml::Value;

use super::Serve;
use crate::{client::usage, followed::at_line};

const SUBCOMMAND: &str = "serve";

/// What is asked of a run, and is no setting of a server.
const NO_SETTINGS: [&str; 2] = ["config", "print-config"];

/// Gives each option of `pail serve` its variable in the environment.
#[must_use]
pub fn with_environment(command: Command) -> Command {
    command.mut_subcommand(SUBCOMMAND, |serve| {
        serve.mut_args(|arg| match arg.get_long() {
            Some(long) if long != "print-config" => {
                let variable = variable(long);
                arg.env(variable).hide_env(true)
            }
            _ => arg,
        })
    })
}

fn variable(long: &str) -> String {
    format!("PAIL_{}", long.replace('-', "_").to_uppercase())
}

/// What a server was told, and by what. Its `Display` is a file that says the same, with what is left as it is commented out.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What was told.
    pub serve: Serve,
    all: Vec<Setting>,
}

#[derive(Clone, Debug)]
struct Setting {
    name: String,
    /// `None` where there is none.
    value: Option<String>,
    origin: Origin,
}

#[derive(Clone, Debug)]
enum Origin {
    CommandLine,
    Environment,
    File(PathBuf),
    Default,
}

impl Settings {
    /// Reads them. `command` is that of the whole command line [with its environment](with_environment), and `args` begin with the
    /// program.
    ///
    /// # Errors
    /// A line for the operator.
    pub fn read(command: &Command, args: &[OsString]) -> Result<Self, String> {
        let parse = |args: Vec<OsString>| {
            let parsed = command.clone().try_get_matches_from(&args);
            parsed.map_err(|error| usage::one_line(&error, command, args))
        };
        let matches = parse(args.to_vec())?;
        let file = match of_serve(&matches)?.get_one::<PathBuf>("config") {
            Some(path) => File::read(path, command)?,
            None => File::default(),
        };
        let unsaid = file.unsaid(of_serve(&matches)?);
        let matches = parse(args.iter().cloned().chain(unsaid.iter().map(|(_, option)| option.into())).collect())?;
        let matches = of_serve(&matches)?;
        if let Some(option) = of_clients(command, matches) {
            return Err(format!("--{option} is an option of clients, and this is a server (see 'pail serve --help')"));
        }
        let serve = Serve::from_arg_matches(matches).map_err(|error| error.to_string())?;
        serve.check()?;
        let of_file: BTreeSet<&str> = unsaid.iter().map(|(name, _)| name.as_str()).collect();
        let setting = |name: String, id: &str| {
            let value = matches.get_raw(id).and_then(|mut values| values.next());
            let origin = match matches.value_source(id) {
                _ if of_file.contains(&*name) => Origin::File(file.path.clone()),
                Some(ValueSource::CommandLine) => Origin::CommandLine,
                Some(ValueSource::EnvVariable) => Origin::Environment,
                _ => Origin::Default,
            };
            Setting { name, value: value.map(|value| value.to_string_lossy().into_owned()), origin }
        };
        let all = names(command).map(|(name, id)| setting(name, &id)).collect();
        Ok(Self { serve, all })
    }

    /// The names of those that differ.
    #[must_use]
    pub fn differ(&self, from: &Self) -> Vec<&str> {
        let pairs = self.all.iter().zip(&from.all);
        pairs.filter(|(new, old)| new.value != old.value).map(|(new, _)| new.name.as_str()).collect()
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |Setting { name, value, origin }: &Setting| {
            let comment = if matches!(origin, Origin::Default) { "# " } else { "" };
            let value = value.as_deref().map(|value| as_toml(value).to_string()).unwrap_or_default();
            format!("{comment}{name} = {value}")
        };
        let lines: Vec<String> = self.all.iter().map(line).collect();
        let width = lines.iter().map(String::len).max().unwrap_or_default();
        for (line, Setting { name, value, origin }) in lines.iter().zip(&self.all) {
            write!(f, "{line:width$}  # ")?;
            match origin {
                Origin::CommandLine => writeln!(f, "command line")?,
                Origin::Environment => writeln!(f, "environment: {}", variable(name))?,
                Origin::File(path) => writeln!(f, "file: {}", path.display())?,
                Origin::Default => writeln!(f, "{}", if value.is_some() { "default" } else { "not set" })?,
            }
        }
        Ok(())
    }
}

/// An option that the server does not have, and was told all the same.
fn of_clients(command: &Command, matches: &ArgMatches) -> Option<String> {
    let mut said = command.get_arguments().filter(|arg| {
        arg.is_global_set() && matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
    });
    said.find_map(|arg| arg.get_long()).map(str::to_owned)
}

/// A whole number as one, anything else as a text.
fn as_toml(value: &str) -> Value {
    value.parse().map_or_else(|_| Value::String(value.to_owned()), Value::Integer)
}

/// The settings: their names, and clap's for them.
fn names(command: &Command) -> impl Iterator<Item = (String, String)> {
    let args = command.find_subcommand(SUBCOMMAND).into_iter().flat_map(Command::get_arguments);
    let named = args.filter_map(|arg| Some((arg.get_long()?.to_owned(), arg.get_id().to_string())));
    named.filter(|(name, _)| !NO_SETTINGS.contains(&name.as_str()))
}

fn of_serve(matches: &ArgMatches) -> Result<&ArgMatches, String> {
    matches.subcommand_matches(SUBCOMMAND).ok_or_else(|| format!("it is no longer about 'pail {SUBCOMMAND}'"))
}

/// What a file says.
#[derive(Default)]
struct File {
    path: PathBuf,
    /// Names, clap's names, and options as they would be on the command line.
    options: Vec<(String, String, String)>,
}

impl File {
    fn read(path: &Path, command: &Command) -> Result<Self, String> {
        let refused = |why: String| format!("{}: {why}", path.display());
        let text = fs::read_to_string(path).map_err(|error| refused(format!("can't be read: {error}")))?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| refused(at_line(&text, &error)))?;
        let mut file = Self { path: path.to_owned(), options: Vec::new() };
        for (name, value) in table {
            let Some((_, id)) = names(command).find(|(known, _)| *known == name) else {
                return Err(refused(unknown(&name, command)));
            };
            let value = match value {
                Value::String(text) => text,
                Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => value.to_string(),
                other => return Err(refused(format!("{name} is {}: a text or a number is allowed", other.type_str()))),
            };
            let option = format!("--{name}={value}");
            file.options.push((name, id, option));
        }
        // By itself: what is overruled by something else is to be right too.
        let args = ["pail", SUBCOMMAND].into_iter().chain(file.options.iter().map(|(.., option)| option.as_str()));
        let args: Vec<OsString> = args.map(Into::into).collect();
        let parsed = command.clone().try_get_matches_from(&args);
        parsed.map_err(|error| refused(usage::one_line(&error, command, args)))?;
        Ok(file)
    }

    /// The names and the options of which nothing else says anything.
    fn unsaid(&self, matches: &ArgMatches) -> Vec<(String, String)> {
        let is_said =
            |id: &str| matches!(matches.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable));
        let unsaid = self.options.iter().filter(|(_, id, _)| !is_said(id));
        unsaid.map(|(name, _, option)| (name.clone(), option.clone())).collect()
    }
}

/// As similar as clap finds enough to speak of.
const SIMILAR: f64 = 0.7;

fn unknown(name: &str, command: &Command) -> String {
    let similar = names(command).map(|(known, _)| (strsim::jaro_winkler(name, &known), known));
    let similar = similar.filter(|(how, _)| *how > SIMILAR).max_by(|(one, _), (other, _)| one.total_cmp(other));
    match similar {
        Some((_, known)) => format!("there is no setting {name:?}; a similar one exists: {known}"),
        None => format!("there is no setting {name:?}: 'pail serve --print-config' tells all that there are"),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser, Subcommand};

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(subcommand)]
        command: Commands,
    }

    #[derive(Debug, Subcommand)]
    enum Commands {
        Serve(Serve),
    }

    /// What is read with these in the file, if there is to be one, and on the command line.
    fn read(file: Option<&str>, args: &[&str]) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pail.toml");
        let mut all: Vec<OsString> =
            ["pail", "serve"].into_iter().chain(args.iter().copied()).map(Into::into).collect();
        if let Some(file) = file {
            fs::write(&path, file).unwrap();
            all.extend(["--config".into(), path.clone().into()]);
        }
        let read = Settings::read(&with_environment(Cli::command()), &all);
        read.map_err(|line| line.replace(&*path.to_string_lossy(), "pail.toml"))
    }

    fn line(settings: &Settings, name: &str) -> String {
        let text = settings.to_string();
        let line = text.lines().find(|line| line.contains(&format!("{name} = "))).unwrap().split_whitespace();
        line.map(|word| if word.ends_with("pail.toml") { "pail.toml" } else { word }).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_command_line_goes_before_the_file_and_the_file_before_the_default() {
        let settings = read(Some("workers = 3\nlog-level = 'debug'"), &["--log-level", "warn"]).unwrap();
        assert_eq!(line(&settings, "log-level"), "log-level = \"warn\" # command line");
        assert_eq!(line(&settings, "workers"), "workers = 3 # file: pail.toml");
        assert_eq!(line(&settings, "entries-max"), "# entries-max = 1000000 # default");
        assert_eq!(line(&settings, "connection-age-max"), "# connection-age-max = # not set");
        assert_eq!((settings.serve.workers, &*settings.serve.log_level), (3, "warn"));
    }

    #[test]
    fn what_is_printed_is_a_file_that_says_the_same() {
        let settings = read(Some("drain-timeout = '1500ms'"), &["--listen", "[::1]:0"]).unwrap();
        let again = read(Some(&settings.to_string()), &[]).unwrap();
        assert_eq!(again.differ(&settings), <[&str; 0]>::default());
        assert_eq!(again.serve.listen, settings.serve.listen);
        assert_eq!(read(None, &[]).unwrap().differ(&again), ["listen", "drain-timeout"]);
    }

    #[test]
    fn a_file_that_is_no_good_is_a_line_that_says_where_and_what_is_allowed() {
        for (file, why) in [
            ("lisen = ':1'", "pail.toml: there is no setting \"lisen\"; a similar one exists: listen"),
            ("log_level = 'info'", "pail.toml: there is no setting \"log_level\"; a similar one exists: log-level"),
            ("config = 'other.toml'", "pail.toml: there is no setting \"config\""),
            ("zzz = 1", "pail.toml: there is no setting \"zzz\": 'pail serve --print-config' tells all that there are"),
            ("workers = 0", "pail.toml: invalid value '0' for '--workers <COUNT>'"),
            ("workers = [1]", "pail.toml: workers is array: a text or a number is allowed"),
            ("listen = '[::1]:1'\nworkers =", "pail.toml: line 2: "),
            ("value-bytes-max = 4194304", "--value-bytes-max is 4194304: at most half of --message-bytes-max"),
        ] {
            let line = read(Some(file), &[]).unwrap_err();
            assert!(line.starts_with(why), "{line}");
            assert!(!line.contains('\n'), "{line}");
        }
        let line = read(Some("workers = 0"), &["--workers", "1"]).unwrap_err();
        assert!(line.starts_with("pail.toml: invalid value '0'"), "what is overruled is to be right too: {line}");
        assert!(read(None, &["--config", "/there/is/none"]).unwrap_err().starts_with("/there/is/none: can't be read"));
    }

    #[test]
    fn each_setting_has_a_variable() {
        let command = with_environment(Cli::command());
        let serve = command.find_subcommand("serve").unwrap();
        for (name, id) in names(&command) {
            let arg = serve.get_arguments().find(|arg| *arg.get_id() == *id).unwrap();
            assert_eq!(arg.get_env().unwrap().to_str().unwrap(), variable(&name));
        }
        assert_eq!(variable("drain-timeout"), "PAIL_DRAIN_TIMEOUT");
    }
}
