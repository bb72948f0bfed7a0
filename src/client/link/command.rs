//! The command that runs under a bucket, as a child process that does not outlive `pail link`.
//!
//! On Linux the kernel sees to that: a process can ask to be killed when its parent ends. It must ask itself, so pail
//! is started again as [`Exec`], which asks, makes sure that the parent is still there, and then becomes the command.
//! The parent that counts is the *thread* that started it: this must be one that lives as long as `pail link`, which
//! the main thread does. The kernel kills the command alone, not the command's own children.
//!
//! What we send by ourselves reaches these too, where there is no terminal: then the command is the head of a process
//! group. On a terminal it stays in ours, because the terminal lets only one group read from it and sends Ctrl-C to all
//! of it.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Write as _},
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    process::{Command, ExitCode},
    time::Duration,
};

use rustix::process::{Pid, Signal, getppid, kill_process, kill_process_group};
use tokio::{
    process::Child,
    signal::unix::{self, SignalKind},
    time::timeout,
};

use super::fence::now;
use crate::client::{ended::Ended, error::root_cause, output::one_line};

/// As shells have it: the command is there and can't be run, or it is not there.
pub(super) const EXIT_NOT_RUN: u8 = 126;
const EXIT_NOT_FOUND: u8 = 127;

/// A command that runs. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    pid: Pid,
    scope: Scope,
    signals: Signals,
}

/// Whom our signals reach.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Scope {
    /// The command alone; Ctrl-C reaches it by itself.
    Terminal,
    /// The command and its children.
    Group,
}

impl Running {
    /// Starts a command, which gets these variables and holds the socket. To be called on a thread that lives as long
    /// as the process.
    pub(super) fn start(words: &[OsString], variables: &[(&str, String)], socket: OwnedFd) -> io::Result<Self> {
        let scope = if File::open("/dev/tty").is_ok() { Scope::Terminal } else { Scope::Group };
        let mut command = Command::new(own_binary()?);
        command.arg0("pail").arg(Exec::NAME).arg(std::process::id().to_string()).args(words);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        if scope == Scope::Group {
            command.process_group(0);
        }
        let signals = Signals::listen()?; // before there is anyone to pass them on to, so that none is lost
        let child = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
        drop(socket); // from here the child alone has this copy
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        let pid = pid.ok_or_else(|| io::Error::other("the child has no process id"))?;
        Ok(Self { child, pid, scope, signals })
    }

    /// Waits for its end. Meanwhile it is sent the signals that we are sent.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, it can be called again.
    pub(super) async fn ended(&mut self) -> io::Result<Ended> {
        loop {
            let signal = tokio::select! {
                status = self.child.wait() => return status.map(Ended),
                signal = self.signals.next() => signal,
            };
            if self.scope == Scope::Group || signal != Signal::INT {
                self.send(signal);
            }
        }
    }

    /// Ends it: asks it to, and from that moment on does not ask.
    pub(super) async fn end_by(&mut self, until: Duration) {
        let left = until.saturating_sub(now());
        if !left.is_zero() {
            self.send(Signal::TERM);
            timeout(left, self.child.wait()).await.ok();
        }
        // Also where it has ended: its children may not have.
        self.send(Signal::KILL);
        self.child.wait().await.ok();
    }

    fn send(&self, signal: Signal) {
        let sent = match self.scope {
            Scope::Terminal if self.child.id().is_none() => return, // the number may be another's by now
            Scope::Terminal => kill_process(self.pid, signal),
            // A group's number is not given to another while the group has members, its head's end or not.
            Scope::Group => kill_process_group(self.pid, signal),
        };
        sent.ok(); // nobody is left, which was the purpose
    }
}

/// This binary, also where the file has been replaced since it was started.
fn own_binary() -> io::Result<std::path::PathBuf> {
    if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() }
}

/// What is passed on. SIGHUP is not listened for, or `nohup` would be in vain.
#[derive(Debug)]
struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        let listen = unix::signal;
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.interrupt.recv() => Signal::INT,
        }
    }
}

/// A process that becomes a command which ends with its parent. `pail link` starts it, and nobody else: so it is no
/// subcommand, and neither in the help nor in completions.
#[derive(Debug)]
pub struct Exec {
    parent: Option<Pid>,
    command: Vec<OsString>,
}

impl Exec {
    const NAME: &str = "link-exec";

    /// Whether these arguments of a process ask for it.
    pub fn asked_for(args: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let mut args = args.into_iter().skip(1);
        let is_asked_for = args.next()? == Self::NAME;
        let parent = args.next()?.to_str()?.parse().ok()?;
        is_asked_for.then(|| Self { parent: Pid::from_raw(parent), command: args.collect() })
    }

    /// Does not return, unless the command can't be run.
    #[must_use]
    pub fn run(self) -> ExitCode {
        #[cfg(target_os = "linux")]
        if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
            return not_run(&self.command, &error.into());
        }
        // The parent may have ended before it could be asked to be told.
        if getppid() != self.parent {
            return EXIT_NOT_RUN.into();
        }
        let Some((program, arguments)) = self.command.split_first() else { return EXIT_NOT_FOUND.into() };
        not_run(&self.command, &Command::new(program).args(arguments).exec())
    }
}

fn not_run(command: &[OsString], error: &io::Error) -> ExitCode {
    let program = command.first().map(|program| program.to_string_lossy()).unwrap_or_default();
    writeln!(io::stderr(), "pail: cannot run {program:?}: {}", one_line(&root_cause(error))).ok();
    if error.kind() == io::ErrorKind::NotFound { EXIT_NOT_FOUND.into() } else { EXIT_NOT_RUN.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pail_link_asks_for_a_process_that_becomes_its_command() {
        let asked_for = |args: &[&str]| Exec::asked_for(args.iter().map(OsString::from));
        let exec = asked_for(&["pail", "link-exec", "7", "ls", "-l"]).unwrap();
        assert_eq!((exec.parent, exec.command), (Pid::from_raw(7), vec!["ls".into(), "-l".into()]));
        for others in [&["pail"][..], &["pail", "link", "b", "--", "ls"], &["pail", "link-exec", "b", "ls"]] {
            assert!(asked_for(others).is_none());
        }
    }
}
