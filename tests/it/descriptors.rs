//! Out of file descriptors: the server neither spins nor stays deaf.

use std::{
    fs,
    net::TcpStream,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use super::binary::{Running, Served};

/// As few as the server can live with, and fewer than there are clients.
const DESCRIPTORS: usize = 40;
const CLIENTS: usize = 80;

/// The processor time that a process has taken, in ticks of 10 ms.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn a_server_without_a_free_descriptor_rests_and_accepts_again_as_soon_as_there_is_one() {
    let mut command = Command::new("sh");
    let run = format!("ulimit -n {DESCRIPTORS}; exec {} serve --listen 127.0.0.1:0", env!("CARGO_BIN_EXE_pail"));
    command.args(["-c", &run]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_remove("PAIL_LISTEN").env_remove("PAIL_LOG_LEVEL");
    let mut served = Served::over(Running::start(command));
    let pid = served.running.child.id();
    served.prints(&["create", "b"]);

    let clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(served.address).unwrap()).collect();
    served.running.line("no connection can be accepted");
    assert!(descriptors(pid) >= DESCRIPTORS, "there is none left");
    let (before, start) = (ticks(pid), Instant::now());
    // Not for luck: this is the time that is measured.
    sleep(Duration::from_secs(1));
    let busy = Duration::from_millis(10 * (ticks(pid) - before));
    assert!(busy < start.elapsed() / 4, "a core spins: {busy:?}");
    assert!(served.running.seen.len() < 20, "the log is flooded: {:?}", served.running.seen);

    drop(clients);
    let start = Instant::now();
    served.prints(&["lookup", "b"]);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}
