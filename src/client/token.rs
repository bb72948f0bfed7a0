//! `pail token`: makes a token, and what the server's file is to say of it.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Args;
use serde_json::json;

use super::{
    error::Error,
    options::duration,
    output::{Format, Output},
};
use crate::auth;

/// Bytes of a token that nobody guesses.
const RANDOM_BYTES: usize = 32;

/// Makes a token, writes it to a file, and prints what the file of 'pail serve --auth' is to say of it
///
/// The token is in the file TO alone, which nobody else may read: it is for 'pail --token-file', or for the header
/// "authorization: Bearer …" of any client. What is printed has only its hash. No server is asked.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  pail token ci --to ci.token --expires 90d >> auth.toml
  pail list --token-file ci.token")]
pub struct Token {
    /// Whose it is; rules call it token:IDENTITY
    identity: String,
    /// The file for the token, which must not be there yet
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// How long it is good: a whole number of ms, s, m, h or d [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expires: Option<Duration>,
}

impl Token {
    pub(super) fn run(self, out: &mut Output<'_>) -> Result<(), Error> {
        let Self { identity, to, expires } = self;
        if identity.is_empty() || identity.chars().any(char::is_control) {
            return Err(Error::Usage(
                "an identity is a text of at least one character, without control characters".to_owned(),
            ));
        }
        let mut random = [0; RANDOM_BYTES];
        getrandom::fill(&mut random).map_err(|error| Error::File(format!("no randomness is to be had: {error}")))?;
        let token = format!("pail_{}", URL_SAFE_NO_PAD.encode(random));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&to);
        let written = file.and_then(|mut file| writeln!(file, "{token}"));
        written.map_err(|error| Error::File(format!("{}: can't be written: {error}", to.display())))?;

        let sha256: String = auth::hash(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let expires = expires.map(|after| whole_seconds(SystemTime::now() + after).to_string());
        if out.format == Format::Json {
            writeln!(out.to, "{}", json!({ "identity": identity, "sha256": sha256, "expires": expires }))?;
            return Ok(());
        }
        let identity = toml::Value::String(identity);
        writeln!(out.to, "[[token]]\nidentity = {identity}\nsha256 = \"{sha256}\"")?;
        if let Some(expires) = expires {
            writeln!(out.to, "expires = {expires}")?;
        }
        writeln!(out.to)?;
        Ok(())
    }
}

fn whole_seconds(time: SystemTime) -> prost_types::Timestamp {
    prost_types::Timestamp { nanos: 0, ..time.into() }
}
