//! `shell`: the text session of Elixir's guide to key-value stores, over gRPC.
//!
//! Each line is a request and gets its answer: rows if there are any, then `OK`, or `NOT FOUND`, `UNKNOWN COMMAND`, or
//! `ERROR` with the words and the reason. On a terminal there is a prompt with history and completion; from a pipe there
//! are the answers alone.

mod grammar;
mod terminal;

use std::{
    io::{self, BufRead, IsTerminal as _, Write, stdin},
    sync::atomic::{AtomicU64, Ordering},
};

use clap::Args;

use tokio::signal::ctrl_c;

use self::grammar::{COMMANDS, Request};
use super::{
    entries::each_entry,
    error::{EXIT_NO_ANSWER, Error},
    lifecycle::{Description, each_bucket},
    options::{Client, Options},
    output::{Escaped, Format, Output, is_hostile},
    touch,
    txn::{Transaction, transact},
    value,
};
use crate::{
    limits::SHELL_LINE_BYTES_MAX,
    pb::{
        AddRequest, CreateRequest, DeleteRequest, GetRequest, LookupRequest, PutRequest, Reason, ScanRequest,
        StopRequest, TouchRequest, Value, value::Kind,
    },
};

/// Talks with the server, a command a line
///
/// CREATE, PUT, GET, DELETE, ADD, TOUCH, TXN, LOOKUP, LIST, SCAN, STOP, WATCH, EXPORT and IMPORT, in any case; HELP explains
/// them. A transaction is one line with semicolons in it, or TXN and the bucket, its lines, and END. On a terminal it has a
/// history and completes commands and the names of buckets, and Ctrl-C ends a request. From a pipe it reads commands until
/// the end and prints the answers.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pail shell
  echo 'TXN shop check stock present; add stock -1' | pail shell
  printf 'CREATE shopping\\nPUT shopping milk 1\\nGET shopping milk\\n' | pail shell")]
pub struct Shell {}

/// Reads a line, and does nothing of it.
#[cfg(feature = "fuzzing")]
pub(super) fn parse(line: &str) {
    drop(Request::parse(line));
}

impl Shell {
    pub(super) async fn run(self, options: &Options, out: &mut Output<'_>) -> Result<(), Error> {
        if options.output == Format::Json {
            return Err(Error::Usage("the shell answers in text; leave '--output json' out".to_owned()));
        }
        let on_terminal = stdin().is_terminal() && out.is_terminal;
        let session = Session { client: options.connect().await?, options, on_terminal, pending: None };
        if on_terminal { terminal::talk(session, out.to).await } else { session.read(stdin().lock(), out.to).await }
    }
}

/// A conversation over one connection.
struct Session<'a> {
    client: Client,
    options: &'a Options,
    /// Whether Ctrl-C ends a request, and not the shell.
    on_terminal: bool,
    pending: Option<Pending>,
}

/// A transaction whose lines are still coming.
struct Pending {
    bucket: String,
    /// None where they have become too many.
    text: Option<String>,
}

impl Pending {
    /// Takes a line, up to the bound of a line that holds them all.
    fn take(&mut self, line: &str) {
        self.text = self.text.take().filter(|text| text.len() + line.len() < SHELL_LINE_BYTES_MAX).map(|mut text| {
            text.push_str(line.trim_end_matches(['\r', '\n']));
            text.push('\n');
            text
        });
    }
}

/// Whether the conversation goes on.
#[derive(Debug, Eq, PartialEq)]
enum Next {
    Line,
    End,
}

impl Session<'_> {
    /// Answers line after line until the input ends. A lost connection ends it too: no later answer could be trusted to
    /// belong to the state that the script believes in.
    async fn read(mut self, mut input: impl BufRead, out: &mut dyn Write) -> Result<(), Error> {
        while let Some(line) = next_line(&mut input)? {
            let next = match line {
                Line::TooLong if self.pending.is_some() => {
                    self.pending.iter_mut().for_each(|pending| pending.text = None);
                    Next::Line
                }
                Line::TooLong => {
                    writeln!(out, "ERROR a line is at most {SHELL_LINE_BYTES_MAX} bytes (TOO_LARGE)")?;
                    Next::Line
                }
                Line::Text(line) => self.answer(&line, out).await?,
            };
            out.flush()?;
            if next == Next::End {
                break;
            }
        }
        if self.pending.is_some() {
            writeln!(out, "ERROR the transaction has no END, and nothing of it was done")?;
        }
        Ok(())
    }

    /// Answers one line. What the server refuses is an answer; an error is only what leaves no answer.
    async fn answer(&mut self, line: &str, out: &mut dyn Write) -> Result<Next, Error> {
        let request = match self.pending.take() {
            None => Request::parse(line),
            Some(Pending { bucket, text }) if line.trim().eq_ignore_ascii_case("END") => {
                let Some(text) = text else {
                    writeln!(out, "ERROR a transaction is at most {SHELL_LINE_BYTES_MAX} bytes (TOO_LARGE)")?;
                    return Ok(Next::Line);
                };
                Ok(Some(Request::Txn { bucket, text }))
            }
            Some(mut pending) => {
                pending.take(line);
                self.pending = Some(pending);
                return Ok(Next::Line);
            }
        };
        let outcome = match request {
            Ok(None) => return Ok(Next::Line),
            Ok(Some(Request::BeginTxn { bucket })) => {
                self.pending = Some(Pending { bucket, text: Some(String::new()) });
                return Ok(Next::Line);
            }
            Ok(Some(Request::Quit)) => return Ok(Next::End),
            Ok(Some(request)) => self.execute(request, out).await,
            Err(grammar::Unknown) => {
                writeln!(out, "UNKNOWN COMMAND")?;
                return Ok(Next::Line);
            }
        };
        match outcome {
            Ok(()) => writeln!(out, "OK")?,
            Err(Error::NotHeld) => writeln!(out, "NOT HELD")?,
            Err(error) if matches!(error, Error::Output(_)) || error.exit_code() == EXIT_NO_ANSWER => {
                return Err(error);
            }
            Err(error) => match error.reason().as_deref() {
                Some("BUCKET_NOT_FOUND" | "KEY_NOT_FOUND") if matches!(error, Error::Call(_)) => {
                    writeln!(out, "NOT FOUND")?;
                }
                _ => writeln!(out, "ERROR {}", error.words(self.options))?,
            },
        }
        Ok(Next::Line)
    }

    /// Carries a request out, and prints its rows.
    async fn execute(&mut self, request: Request, out: &mut dyn Write) -> Result<(), Error> {
        let Self { client, options, on_terminal, .. } = self;
        match request {
            Request::Create { bucket } => {
                client.create(options.request(CreateRequest { bucket, ..CreateRequest::default() })).await?;
            }
            Request::Lookup { bucket } => {
                let answer = client.lookup(options.request(LookupRequest { bucket })).await?.into_inner();
                writeln!(out, "{}", Description(&answer.bucket.unwrap_or_default()))?;
            }
            Request::List { prefix } => {
                each_bucket(client, options, prefix, None, |bucket| writeln!(out, "{}", Escaped(&bucket.name))).await?;
            }
            Request::Stop { bucket, reason } => {
                let reason = Reason::from(reason).into();
                client.stop(options.request(StopRequest { bucket, reason, ..StopRequest::default() })).await?;
            }
            Request::Put { bucket, key, text } => {
                let value = Some(Value { kind: Some(Kind::Text(text)) });
                client.put(options.request(PutRequest { bucket, key, value, ..PutRequest::default() })).await?;
            }
            Request::Get { bucket, key } => {
                let request = GetRequest { bucket, key, ..GetRequest::default() };
                let answer = client.get(options.request(request)).await?.into_inner();
                writeln!(out, "{}", shown(answer.entry.and_then(|entry| entry.value)))?;
            }
            Request::Delete { bucket, key } => {
                let request = DeleteRequest { bucket, key, ..DeleteRequest::default() };
                client.delete(options.request(request)).await?;
            }
            Request::Add { bucket, key, delta } => {
                let request = AddRequest { bucket, key, delta, ..AddRequest::default() };
                writeln!(out, "{}", client.add(options.request(request)).await?.into_inner().value)?;
            }
            Request::Touch { bucket, key, ttl } => {
                let request = TouchRequest { bucket, key, ttl, ..TouchRequest::default() };
                let answer = client.touch(options.request(request)).await?.into_inner();
                writeln!(out, "{}", touch::expiry(answer.expire_time))?;
            }
            Request::Scan { bucket, prefix } => {
                let request = ScanRequest { bucket, prefix, ..ScanRequest::default() };
                each_entry(client, options, request, None, |entry| {
                    writeln!(out, "{}\t{}", Escaped(&entry.key), value::fields(entry.value.as_ref()).1)
                })
                .await?;
            }
            Request::Txn { bucket, text } => {
                let transaction = Transaction::parse(&text).map_err(|wrong| Error::Usage(wrong.to_string()))?;
                transact(client, options, (bucket, None), transaction, &mut rows(out)).await?;
            }
            Request::Watch(watch) if *on_terminal => {
                // Ctrl-C is how a watch is meant to end.
                unless_interrupted(true, watch.tell(options, &mut rows(out))).await.unwrap_or(Ok(()))?;
            }
            Request::Watch(watch) => watch.run(options, &mut rows(out)).await?,
            Request::Export(export) => {
                let summary = unless_interrupted(*on_terminal, export.export(options, out, *on_terminal)).await;
                let summary = summary.ok_or_else(|| Error::File("interrupted; go on with --resume".to_owned()))??;
                writeln!(out, "{summary}")?;
            }
            Request::Import(import) => {
                let place = AtomicU64::default();
                let summary = unless_interrupted(*on_terminal, import.import(options, &place)).await;
                let interrupted = || {
                    let line = place.load(Ordering::Relaxed);
                    Error::File(format!("interrupted; go on with --from-line {line} --merge"))
                };
                writeln!(out, "{}", summary.ok_or_else(interrupted)??)?;
            }
            Request::Link => {
                return Err(Error::Usage("LINK runs a command: use 'pail link', outside of this shell".to_owned()));
            }
            Request::Help => {
                for command in &COMMANDS {
                    writeln!(out, "{:<24} {}", command.usage, command.what)?;
                }
            }
            Request::BeginTxn { .. } | Request::Quit => {} // answered where the session is
        }
        Ok(())
    }
}

/// Waits for the end of a request. On a terminal Ctrl-C ends the request, and not the shell: then there is none.
async fn unless_interrupted<T>(on_terminal: bool, request: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        answer = request => Some(answer),
        _ = ctrl_c(), if on_terminal => None,
    }
}

/// Rows among the answers.
fn rows(to: &mut dyn Write) -> Output<'_> {
    Output { format: Format::Text, is_terminal: false, to }
}

/// A value as one line: as it is, or escaped where it would be more, or something else, than that.
fn shown(value: Option<Value>) -> String {
    let text = value.and_then(|value| value.kind).map(|kind| value::plain(&kind)).unwrap_or_default();
    if text.contains(is_hostile) { Escaped(&text).to_string() } else { text }
}

enum Line {
    Text(String),
    TooLong,
}

/// The next line, in bounded memory; none at the end.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    let read = io::Read::take(&mut *input, SHELL_LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
    if read == SHELL_LINE_BYTES_MAX && !line.ends_with(b"\n") {
        input.skip_until(b'\n')?;
        return Ok(Some(Line::TooLong));
    }
    // A line that is not UTF-8 keeps its place and becomes one that no command matches.
    Ok((read > 0).then(|| Line::Text(String::from_utf8(line).unwrap_or_else(|_| "\u{fffd}".to_owned()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake;

    async fn session(lines: impl AsRef<[u8]>) -> String {
        session_with(fake::serve().await, lines).await
    }

    async fn session_at(options: &Options) -> Session<'_> {
        Session { client: options.connect().await.unwrap(), options, on_terminal: false, pending: None }
    }

    async fn session_with(options: Options, lines: impl AsRef<[u8]>) -> String {
        let session = session_at(&options).await;
        let mut out = Vec::new();
        session.read(lines.as_ref(), &mut out).await.unwrap();
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn the_session_of_the_guide() {
        let answers = session(
            "CREATE shopping\n\
             PUT shopping milk 1\n\
             PUT shopping eggs 3\n\
             GET shopping milk\n\
             DELETE shopping eggs\n\
             GET shopping eggs\n\
             GET nowhere milk\n\
             HELLO\n\
             \n\
             get shopping milk\n",
        )
        .await;
        assert_eq!(answers, "OK\nOK\nOK\n1\nOK\nOK\nNOT FOUND\nNOT FOUND\nUNKNOWN COMMAND\n1\nOK\n");
    }

    #[tokio::test]
    async fn what_the_server_refuses_is_an_answer_and_the_session_goes_on() {
        let answers = session("CREATE \"\"\nLIST\n").await;
        assert_eq!(answers, "ERROR a name is 1 to 255 bytes (INVALID_NAME)\nOK\n");
    }

    #[tokio::test]
    async fn rows_come_before_ok_and_hostile_text_stays_in_its_row() {
        let answers = session(
            "CREATE b\nPUT b k \"OK\\nforged\"\nPUT b path 'C:\\new'\nGET b k\nGET b path\nSCAN b p\nSTOP b killed\nLIST\n",
        )
        .await;
        assert_eq!(answers, "OK\nOK\nOK\nOK\\nforged\nOK\nC:\\new\nOK\npath\tC:\\\\new\nOK\nOK\nOK\n");
    }

    #[tokio::test]
    async fn add_prints_the_sum_and_touch_the_time() {
        let (options, _) = fake::serve_for_real().await;
        let answers = session_with(
            options,
            "CREATE b\nADD b n 2\nADD b n -5\nTOUCH b n 10s\nTOUCH b n forever\nTOUCH b 1h\nTOUCH b x 1h\nPUT b t 1\nADD b t 1\n",
        )
        .await;
        assert_eq!(
            answers,
            "OK\n2\nOK\n-3\nOK\n2027-01-15T08:00:10Z\nOK\nnever\nOK\n2027-01-15T09:00:00Z\nOK\nNOT FOUND\nOK\n\
             ERROR key \"t\" is no integer: nothing can be added to it (WRONG_TYPE)\n"
        );
    }

    #[tokio::test]
    async fn a_transaction_is_one_line_or_several_up_to_end() {
        let (options, _) = fake::serve_for_real().await;
        let answers = session_with(
            options,
            "CREATE b\nTXN b check k absent; put k 'a; b'\nTXN b check k absent; put k 2; else; get k\n\
             txn b\nadd n 2\n\n# a comment\nget n\nend\nTXN b\nGET k\nEAT k\nEND\nTXN nowhere get k\n\
             TXN b\nPUT k lost\n",
        )
        .await;
        assert_eq!(
            answers,
            "OK\nk\t1\tput\ttext\ta; b\nOK\nk\t1\tgot\ttext\ta; b\nNOT HELD\n\
             n\t2\tadded\tinteger\t2\nn\t2\tgot\tinteger\t2\nOK\n\
             ERROR line 2: \"EAT\" is none of check, put, add, delete, get and else\nNOT FOUND\n\
             ERROR the transaction has no END, and nothing of it was done\n"
        );
    }

    #[tokio::test]
    async fn no_line_of_a_transaction_that_is_too_long_is_taken_for_a_command() {
        let (options, _) = fake::serve_for_real().await;
        let long = "x".repeat(SHELL_LINE_BYTES_MAX + 1);
        let half = "x".repeat(SHELL_LINE_BYTES_MAX / 2);
        for lines in [format!("{long}\n"), format!("# {half}\n# {half}\n")] {
            let lines = format!("CREATE b\nTXN b\n{lines}PUT b k v\nEND\nGET b k\n");
            let answers = session_with(options.clone(), lines).await;
            assert_eq!(answers, "OK\nERROR a transaction is at most 4194304 bytes (TOO_LARGE)\nNOT FOUND\n");
        }
    }

    #[tokio::test]
    async fn what_is_exported_can_be_imported_and_a_watch_prints_its_lines_before_ok() {
        let (options, _) = fake::serve_for_real().await;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a file").display().to_string();
        let answers = session_with(
            options,
            format!(
                "CREATE b\nPUT b k v\nEXPORT '{file}'\nEXPORT '{file}'\nSTOP b\nIMPORT '{file}'\nGET b k\n\
                 IMPORT '{file}'\nWATCH nowhere\nLINK door\nEXPORT\n"
            ),
        )
        .await;
        let lines: Vec<_> = answers.lines().collect();
        assert!(lines[2].starts_with("exported 1 bucket, 1 entry, "), "{answers}");
        assert!(lines[4].starts_with(&format!("ERROR {file} is there already: ")), "{answers}");
        assert!(lines[6].starts_with("imported 1 bucket, 1 entry, "), "{answers}");
        assert!(lines[10].starts_with("ERROR line 2: bucket \"b\" is there already; "), "{answers}");
        assert!(lines[11].contains("\tDOWN\tnowhere\t0\tNOPROC"), "{answers}");
        assert_eq!((lines[3], lines[5], lines[7], lines[8], lines[9], lines[12]), ("OK", "OK", "OK", "v", "OK", "OK"));
        assert_eq!(lines[13], "ERROR LINK runs a command: use 'pail link', outside of this shell");
        assert_eq!(lines[14..], ["UNKNOWN COMMAND"]);
    }

    #[tokio::test]
    async fn quit_ends_the_session_and_the_end_of_the_input_does_too() {
        assert_eq!(session("LIST\nQUIT\nLIST\n").await, "OK\n");
        assert_eq!(session("LIST").await, "OK\n");
        assert_eq!(session("").await, "");
    }

    #[tokio::test]
    async fn a_line_that_is_no_text_or_too_long_costs_only_itself() {
        let mut lines = b"\xff\xfe\n".to_vec();
        lines.resize(SHELL_LINE_BYTES_MAX + 10, b'x');
        lines.extend_from_slice(b"\nLIST\n");
        let answers = session(lines).await;
        assert_eq!(answers, "UNKNOWN COMMAND\nERROR a line is at most 4194304 bytes (TOO_LARGE)\nOK\n");
    }

    #[tokio::test]
    async fn a_lost_connection_ends_the_session() {
        let options = fake::serve().await;
        let mut session = session_at(&options).await;
        let error = session.answer("GET b hang-up", &mut Vec::new()).await.unwrap_err();
        assert_eq!(error.exit_code(), EXIT_NO_ANSWER);
    }
}
