//! The client in the same binary: one file a group of commands, and the shell.
//!
//! A command reads its arguments, asks the server, and prints what it answered. It knows the API and nothing of the
//! server's inside: whatever it does, any gRPC client can.

use std::{
    io::{self, BufWriter, IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::Subcommand;

mod entries;
mod error;
#[cfg(test)]
mod fake;
mod json;
mod lifecycle;
mod options;
mod output;
mod shell;
pub mod usage;
mod value;
mod watch;

use error::{EXIT_OK, Error};
pub use options::{Address, Options};
pub use output::Format;
use output::Output;

/// The commands that ask a server.
#[derive(Debug, Subcommand)]
#[allow(missing_docs)] // each is described where its arguments are
pub enum Command {
    Create(lifecycle::Create),
    Lookup(lifecycle::Lookup),
    List(lifecycle::List),
    Stop(lifecycle::Stop),
    Put(entries::Put),
    Get(entries::Get),
    Delete(entries::Delete),
    Scan(entries::Scan),
    Watch(watch::Watch),
    Shell(shell::Shell),
}

/// Runs a command to its end and says how it ended: on standard error for people, in the exit code for scripts.
///
/// # Cancel safety
///
/// Dropped half-way, the call that was under way may have happened; it never half happened.
pub async fn run(command: Command, options: &Options) -> ExitCode {
    let stdout = io::stdout();
    let is_terminal = stdout.is_terminal();
    let mut to = BufWriter::new(stdout);
    let outcome = execute(command, options, &mut Output { format: options.output, is_terminal, to: &mut to }).await;

    let outcome = outcome.and(to.flush().map_err(Error::from));
    let Err(error) = outcome else { return EXIT_OK.into() };
    if let Some(line) = error.line(options) {
        writeln!(io::stderr(), "{line}").ok(); // where nobody reads it, the exit code still tells
    }
    error.exit_code().into()
}

async fn execute(command: Command, options: &Options, out: &mut Output<'_>) -> Result<(), Error> {
    match command {
        Command::Create(create) => create.run(options, out).await,
        Command::Lookup(lookup) => lookup.run(options, out).await,
        Command::List(list) => list.run(options, out).await,
        Command::Stop(stop) => stop.run(options, out).await,
        Command::Put(put) => put.run(options, out).await,
        Command::Get(get) => get.run(options, out).await,
        Command::Delete(delete) => delete.run(options, out).await,
        Command::Scan(scan) => scan.run(options, out).await,
        Command::Watch(watch) => watch.run(options, out).await,
        Command::Shell(shell) => shell.run(options, out).await,
    }
}
