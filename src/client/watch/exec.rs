//! What is run for each event.

use std::{
    io::{self, Write as _},
    process::Stdio,
    str::FromStr,
};

use serde_json::Value as Json;
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::client::ended::Ended;

/// A command for the shell.
#[derive(Clone, Debug)]
pub(super) struct Exec(String);

impl FromStr for Exec {
    type Err = &'static str;

    fn from_str(command: &str) -> Result<Self, Self::Err> {
        if command.trim().is_empty() { Err("a command is required") } else { Ok(Self(command.to_owned())) }
    }
}

impl Exec {
    /// Runs it to its end, with `event` as a line on its standard input. It may leave that unread. That it fails is its own
    /// affair, and is told on standard error.
    pub(super) async fn run(&self, event: &Json) -> io::Result<()> {
        let mut command = Command::new("sh");
        let mut child = command.arg("-c").arg(&self.0).stdin(Stdio::piped()).kill_on_drop(true).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(format!("{event}\n").as_bytes()).await {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                _ => {}
            }
        }
        if let Some(fault) = Ended(child.wait().await?).fault() {
            writeln!(io::stderr(), "pail: the command failed ({fault}) for {event}")?;
        }
        Ok(())
    }
}
