//! The binary as a process: started, listened to, signalled, and gone with its test.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Instant,
};

use super::support::{DEADLINE, until};

pub(crate) fn pail(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pail"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for variable in ["PAIL_ADDR", "PAIL_LISTEN", "PAIL_LOG_LEVEL"] {
        command.env_remove(variable);
    }
    command
}

/// A process that does not outlive its test.
pub(crate) struct Running {
    pub(crate) child: Child,
    /// Lines of its standard error, as they come; ends with it.
    stderr: Receiver<String>,
    /// All that were looked at.
    pub(crate) seen: Vec<String>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (lines, stderr) = channel();
        let pipe = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || pipe.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        Self { child, stderr, seen: Vec::new() }
    }

    /// Nobody reads its standard error from its next line on.
    pub(crate) fn stop_listening(&mut self) {
        self.stderr = channel().1;
    }

    /// The next line of standard error that holds the text.
    pub(crate) fn line(&mut self, text: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.stderr.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout) => panic!("no {text:?} came after {:?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended without {text:?}: {:?}", self.seen),
            }
        }
    }

    /// The exit code, once it has ended by itself.
    pub(crate) async fn code(&mut self) -> i32 {
        let child = &mut self.child;
        let status = until(async || child.try_wait().unwrap()).await;
        status.code().expect("it was not killed")
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &*self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// `pail serve` on a free port.
pub(crate) struct Served {
    pub(crate) running: Running,
    pub(crate) address: SocketAddr,
}

impl Served {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::over(Running::start(pail(&[&["serve", "--listen", "127.0.0.1:0"], args].concat())))
    }

    /// A server that was started already.
    pub(crate) fn over(mut running: Running) -> Self {
        let line = running.line("listening");
        let address = line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap();
        Self { address: address.parse().unwrap(), running }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = pail(args);
        command.env("PAIL_ADDR", self.address.to_string());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What a command prints that is done.
    #[track_caller]
    pub(crate) fn prints(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command with this input.
    pub(crate) fn run_with(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }
}

/// The exit code, and the one line on standard error.
#[track_caller]
pub(crate) fn complaint(output: &Output) -> (i32, String) {
    let line = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(line.lines().count(), 1, "one clear line: {line:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    (output.status.code().unwrap(), line)
}
