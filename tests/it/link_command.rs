//! `pail link`: a bucket lives for as long as a command runs, the command for as long as the bucket lives, and of two
//! who want the same name one at a time has it.

use std::{
    collections::HashMap,
    fs,
    future::pending,
    io::Read as _,
    net::SocketAddr,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc::channel,
    },
    thread,
    time::{Duration, Instant},
};

use pail::pb::{self, Reason};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

use super::{
    binary::{Running, Served, complaint, pail},
    random::Random,
    support::{Client, Server, Watching, names, until, why},
};

/// A command that says who it is, and then does nothing until it is ended.
const STAY: &str = "echo here $$ >&2; exec sleep 1000";

fn link(address: SocketAddr, args: &[&str]) -> Command {
    let mut command = pail(&[&["link"], args].concat());
    command.env("PAIL_ADDR", address.to_string());
    command
}

/// Starts one whose command says `here` and its process id, and waits for that.
fn linked(address: SocketAddr, args: &[&str], script: &str) -> (Running, u32) {
    let mut running = Running::start(link(address, &[args, &["--", "sh", "-c", script]].concat()));
    let here = running.line("here");
    (running, here.split(' ').nth(1).unwrap().parse().unwrap())
}

/// Whether a process can do anything yet: neither gone nor a zombie.
fn is_alive(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains(['Z', 'X']))
}

async fn dies(pid: u32) {
    until(async || (!is_alive(pid)).then_some(())).await;
}

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
}

/// Every bucket of this name that comes and goes.
async fn follow(client: &Client, name: &str) -> Watching {
    let mut watching = client.watch(pb::WatchRequest { follow: true, ..names(&[name]) }).await.unwrap();
    watching.started().await;
    assert_eq!(watching.down().await.reason(), Reason::Noproc);
    watching.synced().await;
    watching
}

/// The next life of that name, from its CREATED to its DOWN.
async fn life(watching: &mut Watching) -> (u64, Reason, String) {
    let id = watching.creation().await.bucket_id;
    let down = watching.down().await;
    assert_eq!(down.bucket_id, id);
    (id, down.reason(), down.detail)
}

#[tokio::test]
async fn while_its_command_runs_the_bucket_lives_and_after_status_0_it_goes_down_with_normal() {
    let server = Server::start();
    let mut events = follow(&server.client().await, "b").await;

    let script = "echo $PAIL_BUCKET $PAIL_BUCKET_ID $PAIL_ADDR; cat";
    let mut running = link(server.address, &["b", "--", "sh", "-c", script]).stdin(Stdio::piped()).spawn().unwrap();
    let id = events.creation().await.bucket_id;
    server.client().await.lookup("b").await.unwrap();
    drop(running.stdin.take());

    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("b {id} {}\n", server.address));
    assert!(output.stderr.is_empty(), "{:?}", String::from_utf8_lossy(&output.stderr));
    let down = events.down().await;
    assert_eq!((down.bucket_id, why(&down)), (id, ("b", Reason::Normal, "")));
}

#[tokio::test]
async fn a_command_that_fails_takes_its_bucket_down_with_crashed_and_says_how() {
    let server = Server::start();
    let mut events = follow(&server.client().await, "b").await;
    let rows: [(&[&str], i32, &str); 5] = [
        (&["sh", "-c", "exit 3"], 3, "exit 3"),
        (&["sh", "-c", "kill -9 $$"], 137, "signal 9"),
        (&["sh", "-c", "kill -TERM $$"], 143, "signal 15"),
        (&["no-such-command"], 127, "exit 127"),
        (&["/"], 126, "exit 126"),
    ];
    for (command, code, detail) in rows {
        let output = link(server.address, &[&["b", "--"], command].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{command:?}: {output:?}");
        let (_, reason, said) = life(&mut events).await;
        assert_eq!((reason, &*said), (Reason::Crashed, detail), "{command:?}");
    }
}

#[tokio::test]
async fn a_name_that_is_taken_is_said_in_one_line_and_nothing_is_run() {
    let server = Server::start();
    let id = server.client().await.created("b").await;

    let (code, line) = complaint(&link(server.address, &["b", "--", "echo", "run"]).output().unwrap());

    let expected =
        format!("pail: bucket \"b\" is taken, by the one with the id {id}; --wait waits for its end (BUCKET_EXISTS)\n");
    assert_eq!((code, line), (1, expected));
}

#[tokio::test]
async fn who_waits_gets_the_name_after_its_holder_and_a_greater_token() {
    let server = Server::start();
    let mut events = follow(&server.client().await, "b").await;
    let (mut first, _) = linked(server.address, &["b"], STAY);
    let mut second = Running::start(link(server.address, &["b", "--wait", "--verbose", "--", "true"]));
    second.line("waiting for its end");
    assert!(second.child.try_wait().unwrap().is_none());

    first.signal("TERM");

    assert_eq!((first.code().await, second.code().await), (143, 0));
    let (one, two) = (life(&mut events).await, life(&mut events).await);
    assert_eq!((one.1, two.1), (Reason::Crashed, Reason::Normal));
    assert!(one.0 < two.0);
}

#[tokio::test]
async fn who_waits_for_a_server_that_is_not_there_tries_again_and_who_does_not_wait_says_so() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();

    let (code, line) = complaint(&link(address, &["b", "--", "true"]).output().unwrap());
    assert_eq!((code, line.contains("connection refused")), (3, true), "{line}");

    let mut waiting = Running::start(link(address, &["b", "--wait", "--", "true"]));
    waiting.line("trying again in 100ms");
    waiting.line("trying again in 200ms");
}

#[tokio::test]
async fn a_shared_bucket_outlives_a_good_bye_and_ends_with_the_fault_of_one() {
    let server = Server::start();
    let mut events = follow(&server.client().await, "b").await;
    let (mut stays, pid) = linked(server.address, &["b", "--share"], STAY);

    let leaves = link(server.address, &["b", "--share", "--", "true"]).output().unwrap();
    assert_eq!(leaves.status.code(), Some(0), "{leaves:?}");
    server.client().await.lookup("b").await.unwrap();
    let fails = link(server.address, &["b", "--share", "--", "sh", "-c", "exit 3"]).output().unwrap();
    assert_eq!(fails.status.code(), Some(3), "{fails:?}");

    assert_eq!(life(&mut events).await.1, Reason::Crashed);
    let line = stays.line("lost");
    assert!(line.contains("the command was ended: it went down with CRASHED, exit 3"), "{line}");
    assert_eq!((stays.code().await, is_alive(pid)), (1, false));
}

#[tokio::test]
async fn a_bucket_that_is_ended_ends_its_command_which_has_a_moment_for_it() {
    let server = Server::start();
    let client = server.client().await;
    let script = "trap 'echo asked >&2; exit 5' TERM; echo here $$ >&2; while :; do sleep 0.01; done";
    let (mut running, pid) = linked(server.address, &["b"], script);

    let stop = pb::StopRequest { bucket: "b".into(), detail: "enough".into(), ..Default::default() };
    client.stop_with(pb::StopRequest { reason: Reason::Killed.into(), ..stop }).await.unwrap();

    running.line("asked");
    let line = running.line("lost");
    assert!(line.ends_with("the command was ended: it went down with KILLED, enough"), "{line}");
    assert_eq!((running.code().await, is_alive(pid)), (1, false));
}

#[tokio::test]
async fn a_command_that_does_not_listen_is_killed_after_the_grace() {
    let server = Server::start();
    let script = "trap '' TERM; echo here $$ >&2; while :; do sleep 0.01; done";
    let (mut running, pid) = linked(server.address, &["b", "--grace", "100ms"], script);

    server.client().await.stop("b").await.unwrap();

    let line = running.line("lost");
    assert!(line.ends_with("it went down with NORMAL"), "{line}");
    assert_eq!((running.code().await, is_alive(pid)), (1, false));
}

#[tokio::test]
async fn a_command_lives_no_longer_than_its_bucket_may() {
    let server = Server::start();
    let mut events = follow(&server.client().await, "b").await;

    let mut running = Running::start(link(server.address, &["b", "--ttl", "200ms", "--", "sleep", "1000"]));

    let line = running.line("lost");
    assert!(line.ends_with("it went down with EXPIRED"), "{line}");
    assert_eq!((running.code().await, life(&mut events).await.1), (1, Reason::Expired));
}

#[tokio::test]
async fn without_a_terminal_the_children_of_the_command_are_ended_too() {
    let server = Server::start();
    let pail = link(server.address, &["b", "--", "sh", "-c", "sleep 1000 & echo here $! >&2; wait"]);
    let mut alone = Command::new("setsid");
    alone.arg(pail.get_program()).args(pail.get_args()).env("PAIL_ADDR", server.address.to_string());
    alone.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = Running::start(alone);
    let child = running.line("here").split(' ').nth(1).unwrap().parse().unwrap();

    server.client().await.stop("b").await.unwrap();

    assert_eq!(running.code().await, 1);
    dies(child).await;
}

#[tokio::test]
async fn signals_are_passed_on_and_how_the_command_takes_them_is_what_counts() {
    let server = Server::start();
    let mut events = follow(&server.client().await, "b").await;
    let script = "trap 'exit 7' TERM; echo here $$ >&2; while :; do sleep 0.01; done";
    let (mut running, _) = linked(server.address, &["b"], script);

    running.signal("TERM");

    assert_eq!(running.code().await, 7);
    let (_, reason, detail) = life(&mut events).await;
    assert_eq!((reason, &*detail), (Reason::Crashed, "exit 7"));
}

#[tokio::test]
async fn killed_itself_it_takes_the_command_and_the_bucket_with_it() {
    let server = Server::start();
    let mut events = follow(&server.client().await, "b").await;
    let (running, pid) = linked(server.address, &["b", "--lease", "15s"], STAY);

    running.signal("KILL");

    assert_eq!(life(&mut events).await.1, Reason::Noconnection);
    dies(pid).await;
}

#[tokio::test]
async fn killed_itself_it_keeps_the_name_until_the_last_child_of_its_command_is_gone() {
    let server = Server::start();
    let client = server.client().await;
    let mut events = follow(&client, "b").await;
    let script = "sleep 1000 & echo here $! >&2; echo shell $$ >&2; wait";
    let (mut running, child) = linked(server.address, &["b", "--lease", "15s"], script);
    let shell = running.line("shell").split(' ').nth(1).unwrap().parse().unwrap();

    running.signal("KILL");
    dies(shell).await;
    let (code, line) = complaint(&link(server.address, &["b", "--", "echo", "run"]).output().unwrap());
    assert_eq!((code, line.contains("BUCKET_EXISTS")), (1, true), "{line}");

    kill(child);
    assert_eq!(life(&mut events).await.1, Reason::Noconnection);
}

#[tokio::test]
async fn frozen_for_longer_than_its_lease_it_has_lost_and_knows_it_when_it_wakes() {
    let server = Server::start();
    let mut events = follow(&server.client().await, "b").await;
    let (mut running, pid) = linked(server.address, &["b", "--lease", "2s"], STAY);

    running.signal("STOP");
    let (_, reason, detail) = life(&mut events).await;
    assert_eq!((reason, detail.contains("lease of 2s")), (Reason::Noconnection, true), "{detail}");
    assert!(is_alive(pid), "nobody can help that: see the fencing token");
    running.signal("CONT");

    assert_eq!((running.code().await, is_alive(pid)), (3, false));
}

#[tokio::test]
async fn a_server_that_is_killed_ends_the_command() {
    let mut served = Served::start(&[]);
    let (mut running, pid) = linked(served.address, &["b", "--lease", "15s"], STAY);

    served.running.child.kill().unwrap();

    running.line("lost");
    assert_eq!((running.code().await, is_alive(pid)), (3, false));
}

#[tokio::test]
async fn a_server_that_drains_ends_the_command_with_its_bucket() {
    let mut server = Server::start();
    let (mut running, pid) = linked(server.address, &["b"], STAY);

    server.shut_down();

    running.line("lost");
    assert_eq!((running.code().await, is_alive(pid)), (3, false));
    server.ended().await;
}

/// The way of one connection to a server. Once it is told to be silent, nothing arrives any more, and nobody is told;
/// once that can't be told any more, it breaks.
async fn way_to(server: SocketAddr) -> (SocketAddr, oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (silence, silent) = oneshot::channel();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(server).await.unwrap();
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => {}
            is_silent = silent => if is_silent.is_ok() {
                pending::<()>().await; // with both sockets in hand
            },
        }
    });
    (address, silence)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_silent_network_the_command_is_dead_before_another_may_have_the_name() {
    let server = Server::start();
    let mut events = follow(&server.client().await, "b").await;
    let (address, silence) = way_to(server.address).await;
    let (mut running, pid) =
        linked(address, &["b", "--lease", "3s"], "trap '' TERM; echo here $$ >&2; while :; do sleep 0.01; done");
    events.creation().await;

    silence.send(()).unwrap();

    let dead = async { (running.code().await, is_alive(pid), Instant::now()) };
    let down = async { (events.down().await, Instant::now()) };
    let ((code, is_alive, dead_at), (down, down_at)) = tokio::join!(dead, down);
    assert_eq!((code, is_alive, down.reason()), (3, false, Reason::Noconnection));
    assert!(dead_at < down_at, "it was dead only {:?} after the name was free", dead_at - down_at);
    let line = running.line("lost");
    assert!(line.contains("no answer for"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_breaks_ends_the_command_at_once() {
    let server = Server::start();
    let (address, silence) = way_to(server.address).await;
    let script = "trap 'echo asked >&2' TERM; echo here $$ >&2; while :; do sleep 0.01; done";
    let (mut running, pid) = linked(address, &["b", "--lease", "15s", "--grace", "1h"], script);

    drop(silence);

    running.line("lost");
    assert_eq!((running.code().await, is_alive(pid)), (3, false));
    assert!(!running.seen.iter().any(|line| line == "asked"), "there is no time to ask");
}

#[test]
fn a_wrong_command_line_takes_nothing() {
    let server = Server::start();
    let before = server.registry.revision();
    for wrong in [
        &["b"][..],
        &["b", "--"],
        &["b", "true"],
        &["b", "--lease", "999ms", "--", "true"],
        &["b", "--lease", "16s", "--", "true"],
        &["b", "--grace", "soon", "--", "true"],
        &["b", "--wait", "--share", "--", "true"],
    ] {
        assert_eq!(complaint(&link(server.address, wrong).output().unwrap()).0, 2, "{wrong:?}");
    }
    let (code, line) = complaint(&link(server.address, &["", "--", "true"]).output().unwrap());
    assert_eq!((code, line.contains("INVALID_NAME")), (1, true), "{line}");
    assert_eq!(server.registry.revision(), before);
}

const ROUNDS: usize = 1_000;
/// How often a holder writes its id…
const MARKS: usize = 100;
/// …in so many bytes, microseconds since 1970. None lies across the end of a page, where a kill can cut a write in two.
const MARK_BYTES: usize = 16;
/// Far longer than all rounds take.
const ROUNDS_DEADLINE: Duration = Duration::from_secs(180);

/// One who wants the lock, again and again, and is sometimes killed: at any moment, or at work. Returns how often it
/// was not, and so must have left all its marks.
fn contend(address: SocketAddr, log: &str, rounds: &AtomicUsize, mut random: Random) -> usize {
    let mark = format!("printf %s $PAIL_BUCKET_ID >> {log}");
    let script = format!("echo at work; i=0; while [ $i -lt {MARKS} ]; do {mark}; i=$((i+1)); done");
    let mut done = 0;
    while rounds.fetch_add(1, SeqCst) < ROUNDS {
        let mut child = link(address, &["lock", "--wait", "--", "sh", "-c", &script]).spawn().unwrap();
        let kill_within_us = match random.below(8) {
            0 => Some(40_000),
            1 => {
                child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
                Some(1_000)
            }
            _ => None,
        };
        if let Some(us) = kill_within_us {
            // Not for luck: it is killed at whatever moment this is.
            thread::sleep(Duration::from_micros(random.below(us)));
            child.kill().unwrap();
        }
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() || kill_within_us.is_some(), "{output:?}");
        done += usize::from(output.status.success());
    }
    done
}

/// Whether each who wrote had done so before the next one began. A later holder has a greater id.
fn is_in_turns(log: &[u64]) -> bool {
    log.is_sorted()
}

#[test]
fn who_writes_in_between_is_found_out() {
    assert!(is_in_turns(&[1, 1, 2, 2, 5]));
    assert!(!is_in_turns(&[1, 1, 2, 1, 2]));
}

#[test]
fn in_a_thousand_rounds_of_two_contenders_there_are_never_two_holders() {
    let mut random = Random::seeded();
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let rounds = Arc::new(AtomicUsize::new(0));
    let (tell, told) = channel();
    for _ in 0..2 {
        let random = random.split();
        let (address, log, rounds, tell) = (server.address, log.clone(), Arc::clone(&rounds), tell.clone());
        thread::spawn(move || tell.send(contend(address, log.to_str().unwrap(), &rounds, random)));
    }
    drop(tell);

    let deadline = Instant::now() + ROUNDS_DEADLINE;
    let next =
        || told.recv_timeout(deadline.saturating_duration_since(Instant::now())).expect("both come to their end");
    let done = next() + next();

    let log = fs::read_to_string(&log).unwrap();
    let log: Vec<u64> =
        log.as_bytes().chunks(MARK_BYTES).map(|mark| str::from_utf8(mark).unwrap().parse().unwrap()).collect();
    assert!(is_in_turns(&log), "two held it at once");
    let mut marks = HashMap::<u64, usize>::new();
    log.iter().for_each(|&id| *marks.entry(id).or_default() += 1);
    let whole = marks.values().filter(|&&marks| marks == MARKS).count();
    println!(
        "{done} rounds of {ROUNDS} were not killed; of {} holders {} were, at work",
        marks.len(),
        marks.len() - whole
    );
    assert!(done <= whole && whole < marks.len(), "who was not killed did all its work, and some were killed at it");
}
