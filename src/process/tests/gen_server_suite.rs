//! The cases of OTP's `gen_server_SUITE` that have a meaning here; those of names are in the registry's tests. Left out are
//! those of other nodes (`call_remote…`, `stop8` to `stop10`, `abcast`, `multicall…`, `cast_fast`), of time-outs and bad
//! returns, of `enter_loop` (`spec_init…`, `otp_5854`), of hibernation, and of `sys` and its reports.
//!
//! One of those differs on purpose: in `terminate_crash_format` a crash in `terminate` is the reason of the end. Here the
//! reason stays: see `terminate_comes_last_and_what_it_does_changes_no_reason`.

use super::*;

/// Ends, or not, in each of the ways that a handler has.
#[derive(Default)]
struct Server {
    /// What `terminate` was given.
    last_words: Arc<Mutex<Option<Exit>>>,
}

/// Ends the process once it is handled.
struct Stop(Exit);

struct StartedP;

impl GenServer for Server {
    type Identity = &'static str;
    type Cast = Option<Stop>;

    fn handle_cast(&mut self, stop: Option<Stop>, me: &mut Context<'_, Self>) {
        if let Some(Stop(exit)) = stop {
            me.stop(exit);
        }
    }

    fn handle_info(&mut self, info: Info, me: &mut Context<'_, Self>) {
        let Info::Down(down) = info else { panic!("{info:?}") };
        me.stop(down.exit);
    }

    fn terminate(&mut self, exit: &Exit) {
        *self.last_words.lock() = Some(exit.clone());
    }
}

impl Call<StartedP> for Server {
    type Reply = bool;

    fn handle_call(&mut self, _: StartedP, _: &mut Context<'_, Self>) -> bool {
        true
    }
}

impl Call<Stop> for Server {
    type Reply = &'static str;

    fn handle_call(&mut self, Stop(exit): Stop, me: &mut Context<'_, Self>) -> &'static str {
        me.stop(exit);
        "stopped"
    }
}

/// Panics with the message.
impl Call<&str> for Server {
    type Reply = ();

    fn handle_call(&mut self, message: &str, _: &mut Context<'_, Self>) {
        panic!("{message}");
    }
}

fn server() -> (Process<Server>, Arc<Mutex<Option<Exit>>>) {
    let server = Server::default();
    let last_words = Arc::clone(&server.last_words);
    (Process::start("server", server), last_words)
}

/// A server, and one who is linked to it and traps exits.
fn linked() -> (Process<Server>, Process<Witness>) {
    let ((server, _), parent) = (server(), witness());
    parent.trap_exit(true);
    parent.link(&server).unwrap();
    (server, parent)
}

fn last_exit(process: &Process<Witness>) -> Exit {
    process.call(|state: &mut Witness| state.exits.pop().unwrap().1).unwrap()
}

#[test]
fn start() {
    let (server, parent) = linked();
    assert_eq!(server.call(StartedP), Ok(true));
    let stopped = Exit::new(Reason::Shutdown, "stopped");
    assert_eq!(server.call(Stop(stopped.clone())), Ok("stopped"));
    assert_eq!(server.call(StartedP), Err(CallError::NoProc));
    assert_eq!(last_exit(&parent), stopped);
}

#[test]
fn stop1() {
    let (server, last_words) = server();
    assert_eq!(server.stop(&Reason::Normal.into()), Ok(()));
    assert!(!server.is_alive());
    assert_eq!(server.stop(&Reason::Normal.into()), Err(NoProc));
    assert_eq!(*last_words.lock(), Some(Reason::Normal.into()));
}

#[test]
fn stop2() {
    let (server, last_words) = server();
    let other = Exit::new(Reason::Crashed, "other reason");
    assert_eq!(server.stop(&other), Ok(()));
    assert!(!server.is_alive());
    assert_eq!(*last_words.lock(), Some(other));
}

#[test]
fn crash() {
    for exit in [Reason::Shutdown.into(), Exit::new(Reason::Shutdown, "stop reason")] {
        let (server, parent) = linked();
        assert_eq!(server.call(Stop(exit.clone())), Ok("stopped"));
        assert_eq!(last_exit(&parent), exit);
    }
    let (server, parent) = linked();
    let crashed = Exit::new(Reason::Crashed, "crashed");
    assert_eq!(server.call("crashed"), Err(CallError::Crashed(crashed.clone())));
    assert_eq!(last_exit(&parent), crashed);
}

#[test]
fn call() {
    let (server, _) = server();
    assert_eq!((server.call(StartedP), server.call(StartedP)), (Ok(true), Ok(true)));
    assert_eq!(server.call(Stop(Reason::Normal.into())), Ok("stopped"));
    assert_eq!(server.call(Stop(Reason::Normal.into())), Err(CallError::NoProc));
}

#[test]
fn cast() {
    let (server, last_words) = server();
    server.cast(None).unwrap();
    assert_eq!((server.call(StartedP), last_words.lock().clone()), (Ok(true), None));
    let stopped = Exit::new(Reason::Shutdown, "stopped");
    server.cast(Some(Stop(stopped.clone()))).unwrap();
    assert_eq!(*last_words.lock(), Some(stopped));
    assert!(matches!(server.cast(None), Err(CastError::NoProc)));
}

#[test]
fn info() {
    let ((server, last_words), target) = (server(), witness());
    server.monitor(&target);
    stop(&target, Reason::Expired);
    assert_eq!(*last_words.lock(), Some(Reason::Expired.into()));
    assert_eq!(server.why(), Some(Reason::Expired.into()));
}
