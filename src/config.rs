//! What `pail serve` can be told, and how that holds together.

mod settings;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;

pub use self::settings::{Settings, with_environment};
use crate::{
    limits::{Limits, bounded, time},
    telemetry::{self, LogFormat},
    tls,
};

/// Serves buckets over gRPC until it is told to stop
///
/// SIGTERM or SIGINT drains: calls that were let in finish, those who watch are told why, and the process ends within
/// --drain-timeout. A second signal ends it at once. The log goes to stderr.
///
/// Each option may also be in the environment, --drain-timeout as PAIL_DRAIN_TIMEOUT, or in a file, as drain-timeout
/// = "5s". SIGHUP has the file read again: a new --log-level holds from then on, the rest takes a restart. It also
/// has the certificates and --auth read again, which happens within 5 s of any change of theirs. A file that is no
/// good changes nothing, and the log says why.
#[derive(Args, Clone, Debug)]
#[allow(clippy::doc_markdown)] // the docs are the help
#[command(after_help = "\
Examples:
  pail serve
  pail serve --listen '[::]:4040' --log-format json
  pail serve --listen 127.0.0.1:0         a free port; the log says which
  pail serve --print-config > pail.toml   a file with all there is to set
  pail serve --config pail.toml
  pail serve --tls-cert cert.pem --tls-key key.pem --tls-client-ca ca.pem

Exit codes:
  0    told to stop, and drained
  1    its registry crashed too often
  2    an option, the file, the address or the port is no good
  130  SIGINT came twice (143: SIGTERM)")]
pub struct Serve {
    /// The address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4040")]
    pub listen: SocketAddr,

    /// The address of a port for operators: a page at /, /metrics, and gRPC-Web [default: none]
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<SocketAddr>,

    /// From the signal to stop to the end of the process, at most: seconds, or a number with ms or s
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time(Duration::ZERO, YEAR))]
    pub drain_timeout: Duration,

    /// Threads that serve connections [default: one for each core]
    #[arg(long, value_name = "COUNT", default_value_t = cores(), hide_default_value = true, value_parser = bounded(1, 1_024))]
    pub workers: usize,

    /// The form of the log on stderr
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// What is logged: a level, or directives such as info,pail=debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,

    /// Where spans of calls are sent to by OTLP: the address of a collector, such as http://127.0.0.1:4317 [default: none]
    #[arg(long, value_name = "URL", help_heading = "Traces")]
    pub otlp: Option<http::Uri>,

    /// Which part of the calls is traced whose clients have not decided: 0 is none, 1 is all
    #[arg(long, value_name = "PART", default_value = "0.01", value_parser = part, help_heading = "Traces")]
    pub trace_sample: f64,

    /// A file with settings, in TOML: the options' names, without dashes before them
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Prints all settings as a file, each with where it comes from, and ends
    #[arg(long)]
    pub print_config: bool,

    /// Who may do what: a file of tokens, rules and quotas, in TOML. Without it everyone may do everything. Read
    /// again when it changes
    #[arg(long, value_name = "FILE", help_heading = "Access")]
    pub auth: Option<PathBuf>,

    /// Where TLS's files are.
    #[command(flatten)]
    pub tls: tls::Files,

    /// The bounds.
    #[command(flatten)]
    pub limits: Limits,
}

impl Serve {
    /// What no option can see by itself.
    ///
    /// # Errors
    ///
    /// A line for the operator, that names the options.
    pub fn check(&self) -> Result<(), String> {
        let Limits { value_bytes_max, message_bytes_max, key_bytes_max, name_bytes_max, watch_names_max, .. } =
            self.limits;
        if value_bytes_max > message_bytes_max / 2 {
            return Err(format!(
                "--value-bytes-max is {value_bytes_max}: at most half of --message-bytes-max ({message_bytes_max}) is allowed"
            ));
        }
        // A page has one entry at least, and a token that holds its key and the prefix.
        if key_bytes_max > message_bytes_max / 32 {
            return Err(format!(
                "--key-bytes-max is {key_bytes_max}: at most a 32nd of --message-bytes-max ({message_bytes_max}) is allowed"
            ));
        }
        // A Watch answers with all the names that it was asked for, a ref and an id for each.
        if watch_names_max.saturating_mul(name_bytes_max + 32) > message_bytes_max {
            return Err(format!(
                "--watch-names-max is {watch_names_max}: with names of {name_bytes_max} bytes they don't fit a message \
                 (--message-bytes-max is {message_bytes_max})"
            ));
        }
        if let Some(otlp) = &self.otlp
            && (otlp.scheme_str() != Some("http") || otlp.host().is_none())
        {
            return Err(format!("--otlp is {otlp}: http://HOST:PORT is allowed"));
        }
        if let Err(error) = telemetry::filter(&self.log_level) {
            return Err(format!("--log-level {:?} is refused: {error}", self.log_level));
        }
        Ok(())
    }
}

/// A number from 0 to 1.
fn part(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|part| (0.0..=1.0).contains(part)).ok_or("must be a number from 0 to 1")
}

/// How many cores this process may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The longest time that a drain can be given.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        serve: Serve,
    }

    fn parse(args: &[&str]) -> Serve {
        Cli::try_parse_from(["pail"].iter().chain(args)).unwrap().serve
    }

    #[test]
    fn the_defaults_hold_together() {
        let serve = parse(&[]);
        assert_eq!((serve.listen.port(), serve.drain_timeout), (4_040, Duration::from_secs(10)));
        assert_eq!((serve.log_format, serve.check()), (LogFormat::Text, Ok(())));
    }

    #[test]
    fn a_value_has_to_fit_a_message_twice() {
        assert!(parse(&["--value-bytes-max", "2097152"]).check().is_ok());
        let line = parse(&["--value-bytes-max", "2097153"]).check().unwrap_err();
        assert!(line.contains("--value-bytes-max") && line.contains("--message-bytes-max"), "{line}");
    }
}
