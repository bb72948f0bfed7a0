//! A wrong command line as one clear line: what is wrong, what was perhaps meant, and where help is.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Command, Error};

use super::{
    error::{EXIT_OK, EXIT_USAGE},
    output::one_line as flat,
};

/// Prints what clap has to say, in one line unless it is the help or the version that were asked for.
#[must_use]
pub fn exit(error: &Error, command: &Command) -> ExitCode {
    if !error.use_stderr() {
        error.print().ok(); // a reader that has gone misses nothing
        return EXIT_OK.into();
    }
    writeln!(io::stderr(), "pail: {}", one_line(error, command, std::env::args_os())).ok();
    EXIT_USAGE.into()
}

/// Clap's paragraphs, up to the usage, in one line.
#[must_use]
pub fn one_line(error: &Error, command: &Command, args: impl IntoIterator<Item = OsString>) -> String {
    let rendered = error.to_string();
    let said = ["\n\nUsage:", "\n\nFor more information"].iter().fold(rendered.as_str(), |said, &end| {
        said.split_once(end).map_or(said, |(said, _)| said) // the tail says what our own says shorter
    });
    let said = said.strip_prefix("error: ").unwrap_or(said).replace("\n\n  tip: ", "; ");
    let said = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");

    let mut args = args.into_iter().skip(1);
    let help = match args.find_map(|arg| command.find_subcommand(arg)) {
        Some(subcommand) => format!("pail {} --help", subcommand.get_name()),
        None => "pail --help".to_owned(),
    };
    format!("{} (see '{help}')", flat(&said))
}
