//! Elixir, as the one who knows: `oracle.exs` in a BEAM of its own.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// Runs scripts until it is dropped.
pub(crate) struct Beam {
    child: Child,
    scripts: Option<ChildStdin>,
    traces: BufReader<ChildStdout>,
}

impl Beam {
    /// Starts it; fails where there is no Elixir.
    pub(crate) fn start() -> io::Result<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/oracle.exs");
        let mut child = Command::new("elixir").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (scripts, traces) = (child.stdin.take(), child.stdout.take().expect("it is piped"));
        Ok(Self { child, scripts, traces: BufReader::new(traces) })
    }

    /// The trace of a script, a line for each of its lines.
    pub(crate) fn run(&mut self, script: &[String]) -> Vec<String> {
        let mut scripts = self.scripts.as_ref().expect("it is piped");
        let sent = scripts.write_all((script.join("\n") + "\n\n").as_bytes());
        sent.and_then(|()| scripts.flush()).expect("oracle.exs takes a script");
        let mut trace = Vec::new();
        loop {
            let mut line = String::new();
            self.traces.read_line(&mut line).expect("oracle.exs answers");
            match line.strip_suffix('\n') {
                Some("") => return trace,
                Some(line) => trace.push(line.to_owned()),
                None => panic!("oracle.exs ended in the middle of a trace; it had said:\n{}", trace.join("\n")),
            }
        }
    }
}

impl Drop for Beam {
    /// It ends where there are no more scripts.
    fn drop(&mut self) {
        self.scripts = None;
        drop(self.child.wait());
    }
}
