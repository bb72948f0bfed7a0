//! What the server tells its operator: log lines on stderr, as text or as JSON.
//!
//! Panics go the same way, so that nothing is printed past the log. Text that came from a client is recorded with `?`,
//! which escapes it: no name can forge a line.

use std::{
    error::Error,
    fmt,
    io::{self, IsTerminal as _},
    panic::{self, PanicHookInfo},
};

use clap::ValueEnum;
use tracing_subscriber::{EnvFilter, filter::ParseError, reload, util::SubscriberInitExt as _};

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line, for machines.
    Json,
}

/// What is logged, which can be changed while it is.
pub struct LogLevel(Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>);

impl LogLevel {
    /// Logs this from now on: a list of directives such as `info,pail::watch=debug`.
    ///
    /// # Errors
    ///
    /// If it can't be read; then nothing is changed.
    pub fn set(&self, directives: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok((self.0)(filter(directives)?)?)
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogLevel")
    }
}

/// What is logged by these directives.
///
/// # Errors
///
/// If they can't be read.
pub fn filter(directives: &str) -> Result<EnvFilter, ParseError> {
    // h2 warns of each client that it sends away: anybody could fill the log. Who wants it can say so.
    EnvFilter::try_new(format!("h2=error,{directives}"))
}

/// Sends events to stderr and panics with them.
///
/// # Errors
///
/// If the directives can't be read, or a subscriber is installed already.
pub fn install(format: LogFormat, directives: &str) -> Result<LogLevel, Box<dyn Error + Send + Sync>> {
    let filter = filter(directives)?;
    let lines = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // A line that can't be written is lost. To complain of that on stderr, as is the default, panics where nobody reads
        // it any more; and the panic's own line would panic again, which is the end of the process.
        .log_internal_errors(false);
    let level = match format {
        LogFormat::Text => {
            let lines = lines.with_env_filter(filter).with_filter_reloading();
            let handle = lines.reload_handle();
            lines.finish().try_init()?;
            LogLevel(Box::new(move |filter| handle.reload(filter)))
        }
        LogFormat::Json => {
            let lines = lines.json().with_env_filter(filter).with_filter_reloading();
            let handle = lines.reload_handle();
            lines.finish().try_init()?;
            LogLevel(Box::new(move |filter| handle.reload(filter)))
        }
    };
    panic::set_hook(Box::new(log_panic));
    Ok(level)
}

/// Whoever catches a panic knows whom it hurt, and logs that; only the hook knows where it happened.
fn log_panic(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("not a text");
    tracing::error!(panic = ?message, location = info.location().map(tracing::field::display), "a thread panicked");
}
