//! What the server tells its operator: log lines on stderr, as text or as JSON.
//!
//! Panics go the same way, so that nothing is printed past the log. Text that came from a client is recorded with `?`,
//! which escapes it: no name can forge a line.

use std::{
    io::{self, IsTerminal as _},
    panic::{self, PanicHookInfo},
};

use clap::ValueEnum;
use tracing_subscriber::{EnvFilter, util::SubscriberInitExt as _};

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line, for machines.
    Json,
}

/// Sends events to stderr and panics with them. `filter` is a list of directives such as `info,pail::watch=debug`.
///
/// # Errors
///
/// If the filter can't be read, or a subscriber is installed already.
pub fn install(format: LogFormat, filter: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let lines = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // A line that can't be written is lost. To complain of that on stderr, as is the default, panics where nobody reads
        // it any more; and the panic's own line would panic again, which is the end of the process.
        .log_internal_errors(false)
        // h2 warns of each client that it sends away: anybody could fill the log. Who wants it can say so.
        .with_env_filter(EnvFilter::try_new(format!("h2=error,{filter}"))?);
    match format {
        LogFormat::Text => lines.finish().try_init()?,
        LogFormat::Json => lines.json().finish().try_init()?,
    }
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Whoever catches a panic knows whom it hurt, and logs that; only the hook knows where it happened.
fn log_panic(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("not a text");
    tracing::error!(panic = ?message, location = info.location().map(tracing::field::display), "a thread panicked");
}
