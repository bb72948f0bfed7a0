//! The client in the same binary: one file a group of commands, and the shell.
//!
//! A command reads its arguments, asks the server, and prints what it answered. It knows the API and nothing of the
//! server's inside: whatever it does, any gRPC client can.

use std::{
    io::{self, BufWriter, IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::Subcommand;

mod entries;
mod error;
#[cfg(test)]
mod fake;
mod json;
mod lifecycle;
mod options;
mod output;
mod shell;
pub mod usage;
mod value;
mod watch;

use error::{EXIT_OK, Error};
pub use options::{Address, Options};
pub use output::Format;
use output::Output;

/// The commands that ask a server.
#[derive(Debug, Subcommand)]
#[allow(missing_docs)] // each is described where its arguments are
pub enum Command {
    Create(lifecycle::Create),
    Lookup(lifecycle::Lookup),
    List(lifecycle::List),
    Stop(lifecycle::Stop),
    Put(entries::Put),
    Get(entries::Get),
    Delete(entries::Delete),
    Scan(entries::Scan),
    Watch(watch::Watch),
    Shell(shell::Shell),
}

/// Runs a command to its end and says how it ended: on standard error for people, in the exit code for scripts.
///
/// # Cancel safety
///
/// Dropped half-way, the call that was under way may have happened; it never half happened.
pub async fn run(command: Command, options: &Options) -> ExitCode {
    let stdout = io::stdout();
    let is_terminal = stdout.is_terminal();
    let mut to = BufWriter::new(stdout);
    let outcome = execute(command, options, &mut Output { format: options.output, is_terminal, to: &mut to }).await;

    let outcome = outcome.and(to.flush().map_err(Error::from));
    let Err(error) = outcome else { return EXIT_OK.into() };
    if let Some(line) = error.line(options) {
        writeln!(io::stderr(), "{line}").ok(); // where nobody reads it, the exit code still tells
    }
    error.exit_code().into()
}

async fn execute(command: Command, options: &Options, out: &mut Output<'_>) -> Result<(), Error> {
    match command {
        Command::Create(create) => create.run(options, out).await,
        Command::Lookup(lookup) => lookup.run(options, out).await,
        Command::List(list) => list.run(options, out).await,
        Command::Stop(stop) => stop.run(options, out).await,
        Command::Put(put) => put.run(options, out).await,
        Command::Get(get) => get.run(options, out).await,
        Command::Delete(delete) => delete.run(options, out).await,
        Command::Scan(scan) => scan.run(options, out).await,
        Command::Watch(watch) => watch.run(options, out).await,
        Command::Shell(shell) => shell.run(options, out).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    #[command(no_binary_name = true)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    /// What each command prints, and how the last one ends.
    async fn printed(format: Format, lines: &[&str]) -> (String, Result<(), String>) {
        let options = Options { output: format, ..fake::serve().await };
        let (mut to, mut outcome) = (Vec::new(), Ok(()));
        for line in lines {
            let line = Line::try_parse_from(line.split(' ')).unwrap();
            let out = &mut Output { format, is_terminal: false, to: &mut to };
            outcome = execute(line.command, &options, out).await.map_err(|error| error.line(&options).unwrap());
        }
        (String::from_utf8(to).unwrap(), outcome)
    }

    #[tokio::test]
    async fn each_command_prints_fields_with_tabs_between_them() {
        let lines = [
            "create shopping",
            "create shopping",
            "lookup shopping",
            "put shopping milk 1",
            "put shopping debt -5 --int --expect 0",
            "get shopping milk",
            "get shopping debt",
            "scan shopping",
            "scan shopping m --keys-only",
            "list",
            "delete shopping milk",
            "delete shopping milk",
            "watch shopping",
            "stop shopping --reason killed",
        ];
        let expected = "\
shopping\t1\tcreated
shopping\t1\texists
name:     shopping
id:       1
version:  0
entries:  0
bytes:    0
created:  - (revision 0)
expires:  never
milk\t1\tput
debt\t1\tput
1
-5
debt\t1\tinteger\t-5
milk\t1\ttext\t1
milk\t1
shopping\t1\t0\t2\t0
milk\t9\tdeleted
milk\t9\tabsent
-\tDOWN\tshopping\t0\tNOPROC\t
shopping\t1\tstopped
";
        assert_eq!(printed(Format::Text, &lines).await, (expected.to_owned(), Ok(())));
    }

    #[tokio::test]
    async fn json_is_the_answer_with_the_names_of_the_api() {
        let lines = ["create b", "put b k -5 --int", "get b k", "watch a --verbose"];
        let expected = r#"{"bucket":{"byte_size":0,"create_revision":0,"create_time":null,"entry_count":0,"expire_time":null,"id":1,"name":"b","version":0},"created":true,"revision":1}
{"bucket_id":1,"version":1}
{"bucket_id":1,"entry":{"expire_time":null,"key":"k","value":{"integer":"-5"},"version":1}}
{"revision":5,"started":{"monitors":[],"registry_id":"r"}}
{"down":{"bucket":"a","bucket_id":0,"detail":"","reason":"NOPROC","ref":0,"revision":0,"time":null,"version":0},"revision":5}
{"revision":5,"synced":{}}
"#;
        assert_eq!(printed(Format::Json, &lines).await, (expected.to_owned(), Ok(())));
    }

    #[tokio::test]
    async fn a_list_goes_through_every_page_or_to_its_limit() {
        let creates = ["create a", "create b", "create c", "create d", "create e"];
        let list = async |list| printed(Format::Text, &[&creates[..], &[list]].concat()).await.0.lines().count() - 5;
        assert_eq!((list("list").await, list("list --limit 3").await, list("list --limit 0").await), (5, 3, 0));
    }

    #[tokio::test]
    async fn an_answer_that_refuses_says_why_and_so_does_a_watch_that_ends_with_one() {
        let error = async |lines: &[&str]| printed(Format::Text, lines).await.1.unwrap_err();
        assert_eq!(error(&["get shopping milk"]).await, r#"pail: no bucket "shopping" (BUCKET_NOT_FOUND)"#);
        assert_eq!(
            error(&["create b", "put b k v --expect 7"]).await,
            "pail: the entry is at version 0 (VERSION_MISMATCH)"
        );
        let (events, outcome) = printed(Format::Text, &["watch --prefix p"]).await;
        assert_eq!(events, "-\tCREATED\tp\t1\tinitial\n-\tDRAINING\n");
        assert_eq!(outcome, Err("pail: the server is draining (DRAINING)".to_owned()));
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_or_not_answering_is_told_apart_from_a_refusal() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr: Address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let ask = async |options: &Options| {
            let command = Line::try_parse_from(["get", "b", "sleep"]).unwrap().command;
            let out = &mut Output { format: Format::Text, is_terminal: false, to: &mut Vec::new() };
            let error = execute(command, options, out).await.unwrap_err();
            (error.exit_code(), error.line(options).unwrap())
        };

        // It accepts and never says a word; then nobody is there.
        let options = Options { addr, timeout: std::time::Duration::from_millis(50), ..Options::for_test() };
        let (code, line) = ask(&options).await;
        assert_eq!((code, line.contains("the time was up (50ms, see --timeout)")), (3, true), "{line}");
        drop(listener);
        let (code, line) = ask(&options).await;
        assert_eq!((code, line.contains("connection refused; is 'pail serve' running there?")), (3, true), "{line}");

        let options = Options { timeout: options.timeout, ..fake::serve().await };
        let (code, line) = ask(&options).await;
        assert_eq!((code, line.contains("the time was up")), (3, true), "{line}");
    }
}
