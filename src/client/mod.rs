//! The client in the same binary: one file a group of commands, and the shell.
//!
//! A command reads its arguments, asks the server, and prints what it answered. It knows the API and nothing of the
//! server's inside: whatever it does, any gRPC client can.

use std::{
    io::{self, BufWriter, IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::Subcommand;

mod backoff;
mod bench;
mod connector;
mod doctor;
mod dump;
mod ended;
mod entries;
mod error;
mod export;
#[cfg(test)]
mod fake;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
mod import;
mod json;
mod lifecycle;
mod link;
mod metrics;
mod options;
mod output;
mod pipeline;
mod progress;
mod resume;
mod shell;
mod token;
mod top;
mod touch;
mod txn;
pub mod usage;
mod value;
mod watch;
mod words;

use error::{EXIT_OK, Error};
pub use link::Exec;
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
    Add(entries::Add),
    Touch(touch::Touch),
    Txn(txn::Txn),
    Watch(watch::Watch),
    Export(export::Export),
    Import(import::Import),
    Link(link::Link),
    Bench(bench::Bench),
    Token(token::Token),
    Doctor(doctor::Doctor),
    Top(top::Top),
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
        Command::Add(add) => add.run(options, out).await,
        Command::Touch(touch) => touch.run(options, out).await,
        Command::Txn(txn) => txn.run(options, out).await,
        Command::Watch(watch) => watch.run(options, out).await,
        Command::Export(export) => export.run(options, out).await,
        Command::Import(import) => import.run(options, out).await,
        Command::Link(link) => link.run(options).await,
        Command::Bench(bench) => bench.run(options, out).await,
        Command::Token(token) => token.run(out),
        Command::Doctor(doctor) => doctor.run(options, out).await,
        Command::Top(top) => top.run(options).await,
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
        printed_by(&fake::serve().await, format, lines).await
    }

    async fn printed_by(server: &Options, format: Format, lines: &[&str]) -> (String, Result<(), String>) {
        let options = Options { output: format, ..server.clone() };
        let (mut to, mut outcome) = (Vec::new(), Ok(()));
        for line in lines {
            let line = Line::try_parse_from(line.split(' ')).unwrap();
            let out = &mut Output { format, is_terminal: false, to: &mut to };
            outcome =
                execute(line.command, &options, out).await.map_err(|error| error.line(&options).unwrap_or_default());
        }
        (String::from_utf8(to).unwrap(), outcome)
    }

    #[tokio::test]
    async fn what_has_a_time_to_live_says_when_it_expires() {
        let lines = [
            "create b --ttl 1h --idle-ttl 7d",
            "put b k v --ttl 10m",
            "add b n 5 --ttl 500ms",
            "add b n -7",
            "touch b k --ttl 1m",
            "touch b n --forever",
            "touch b --ttl 1d",
            "touch b --forever",
        ];
        let (server, _) = fake::serve_for_real().await;
        let expected = "b\t1800000000000001\tcreated\nk\t1\tput\n5\n-2\n2027-01-15T08:01:00Z\nnever\n\
                        2027-01-16T08:00:00Z\n2027-01-22T08:00:00Z\n";
        assert_eq!(printed_by(&server, Format::Text, &lines).await, (expected.to_owned(), Ok(())));

        let lookup = printed_by(&server, Format::Text, &["lookup b"]).await.0;
        assert!(lookup.ends_with("expires:  2027-01-22T08:00:00Z\n"), "{lookup}");
        let lines = ["get b k", "scan b", "add b n 1", "touch b k --ttl 1s", "touch b n --forever"];
        let expected = r#"{"bucket_id":1800000000000001,"entry":{"expire_time":"2027-01-15T08:01:00Z","key":"k","value":{"text":"v"},"version":1}}
{"expire_time":"2027-01-15T08:01:00Z","key":"k","value":{"text":"v"},"version":1}
{"expire_time":null,"key":"n","value":{"integer":"-2"},"version":3}
{"bucket_id":1800000000000001,"value":"-1","version":4}
{"bucket_id":1800000000000001,"expire_time":"2027-01-15T08:00:01Z"}
{"bucket_id":1800000000000001,"expire_time":null}
"#;
        assert_eq!(printed_by(&server, Format::Json, &lines).await, (expected.to_owned(), Ok(())));
    }

    #[tokio::test]
    async fn what_is_past_its_time_is_not_there() {
        let (server, clock) = fake::serve_for_real().await;
        let outcome = printed_by(&server, Format::Text, &["create b --ttl 1m", "put b k v --ttl 1s"]).await.1;
        assert_eq!(outcome, Ok(()));
        clock.advance(std::time::Duration::from_secs(1));
        let error = async |line| printed_by(&server, Format::Text, &[line]).await.1.unwrap_err();
        assert_eq!(error("touch b k --ttl 1s").await, r#"pail: no key "k" in bucket "b" (KEY_NOT_FOUND)"#);
        clock.advance(std::time::Duration::from_secs(59));
        assert_eq!(error("touch b --ttl 1s").await, r#"pail: no bucket "b" (BUCKET_NOT_FOUND)"#);
    }

    #[tokio::test]
    async fn a_transaction_prints_a_line_for_each_operation_and_fails_where_its_checks_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("transaction");
        let text = "check door absent\nput door 'ann\t1' ttl 30s\nadd n 2\nget nothing\nget n\ndelete n\n\
                    else\nget door\ndelete nothing\n";
        std::fs::write(&path, text).unwrap();
        let (server, _) = fake::serve_for_real().await;
        let txn = format!("txn b --file {}", path.display());

        let (text, outcome) = printed_by(&server, Format::Text, &["create b", &txn]).await;
        let expected = "b\t1800000000000001\tcreated\ndoor\t1\tput\ttext\tann\\t1\nn\t2\tadded\tinteger\t2\n\
                        nothing\t-\tabsent\t-\t-\nn\t2\tgot\tinteger\t2\nn\t2\tdeleted\tinteger\t2\n";
        assert_eq!((text.as_str(), outcome), (expected, Ok(())));

        let (text, outcome) = printed_by(&server, Format::Text, &[&txn]).await;
        let expected = "door\t1\tgot\ttext\tann\\t1\nnothing\t-\tabsent\t-\t-\n";
        assert_eq!((text.as_str(), outcome), (expected, Err("pail: the checks did not hold".to_owned())));

        let (json, outcome) = printed_by(&server, Format::Json, &[&txn]).await;
        let expected = r#"{"bucket_id":1800000000000001,"results":[{"entry":{"expire_time":"2027-01-15T08:00:30Z","key":"door","value":{"text":"ann\t1"},"version":1}},{"entry":null}],"succeeded":false,"version":3}
"#;
        assert_eq!((json.as_str(), outcome), (expected, Err(String::new())));

        std::fs::write(&path, "put k v\nadd door 1").unwrap();
        let (text, outcome) = printed_by(&server, Format::Text, &[&txn, "get b k"]).await;
        assert_eq!((text.as_str(), outcome), ("", Err(r#"pail: no key "k" in bucket "b" (KEY_NOT_FOUND)"#.to_owned())));
        std::fs::write(&path, "eat door").unwrap();
        let error = printed_by(&server, Format::Text, &[&txn]).await.1.unwrap_err();
        assert!(
            error.ends_with("line 1: \"eat\" is none of check, put, add, delete, get and else (see 'pail txn --help')")
        );
    }

    #[test]
    fn a_touch_takes_a_time_or_for_ever() {
        for wrong in ["touch b", "touch b k", "touch b k --ttl 1s --forever", "touch b --ttl 0s", "touch b --ttl 5"] {
            Line::try_parse_from(wrong.split(' ')).err().unwrap();
        }
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
links:    0
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
        let expected = r#"{"bucket":{"byte_size":0,"create_revision":0,"create_time":null,"entry_count":0,"expire_time":null,"id":1,"link_count":0,"name":"b","version":0},"created":true,"revision":1}
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
