//! `shell`: the text session of Elixir's guide to key-value stores, over gRPC.
//!
//! Each line is a request and gets its answer: rows if there are any, then `OK`, or `NOT FOUND`, `UNKNOWN COMMAND`, or
//! `ERROR` with the words and the reason. On a terminal there is a prompt with history and completion; from a pipe there
//! are the answers alone.

mod grammar;
mod terminal;

use std::io::{self, BufRead, IsTerminal as _, Write, stdin};

use clap::Args;

use self::grammar::{COMMANDS, Request};
use super::{
    entries::each_entry,
    error::{EXIT_NO_ANSWER, Error},
    lifecycle::{Description, each_bucket},
    options::{Client, Options},
    output::{Escaped, Format, Output, is_hostile},
    touch, value,
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
/// CREATE, PUT, GET, DELETE, ADD, TOUCH, LOOKUP, LIST, SCAN and STOP, in any case; HELP explains them. On a terminal it has a history
/// and completes commands and the names of buckets. From a pipe it reads commands until the end and prints the answers.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pail shell
  printf 'CREATE shopping\\nPUT shopping milk 1\\nGET shopping milk\\n' | pail shell")]
pub struct Shell {}

impl Shell {
    pub(super) async fn run(self, options: &Options, out: &mut Output<'_>) -> Result<(), Error> {
        if options.output == Format::Json {
            return Err(Error::Usage("the shell answers in text; leave '--output json' out".to_owned()));
        }
        let session = Session { client: options.connect().await?, options };
        if stdin().is_terminal() && out.is_terminal {
            terminal::talk(session, out.to).await
        } else {
            session.read(stdin().lock(), out.to).await
        }
    }
}

/// A conversation over one connection.
struct Session<'a> {
    client: Client,
    options: &'a Options,
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
        Ok(())
    }

    /// Answers one line. What the server refuses is an answer; an error is only what leaves no answer.
    async fn answer(&mut self, line: &str, out: &mut dyn Write) -> Result<Next, Error> {
        let outcome = match Request::parse(line) {
            Ok(None) => return Ok(Next::Line),
            Ok(Some(Request::Quit)) => return Ok(Next::End),
            Ok(Some(request)) => self.execute(request, out).await,
            Err(grammar::Unknown) => {
                writeln!(out, "UNKNOWN COMMAND")?;
                return Ok(Next::Line);
            }
        };
        match outcome {
            Ok(()) => writeln!(out, "OK")?,
            Err(error @ Error::Call(_)) if error.exit_code() != EXIT_NO_ANSWER => match error.reason().as_deref() {
                Some("BUCKET_NOT_FOUND" | "KEY_NOT_FOUND") => writeln!(out, "NOT FOUND")?,
                _ => writeln!(out, "ERROR {}", error.words(self.options))?,
            },
            Err(error) => return Err(error),
        }
        Ok(Next::Line)
    }

    /// Carries a request out, and prints its rows.
    async fn execute(&mut self, request: Request, out: &mut dyn Write) -> Result<(), Error> {
        let Self { client, options } = self;
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
            Request::Help => {
                for command in &COMMANDS {
                    writeln!(out, "{:<24} {}", command.usage, command.what)?;
                }
            }
            Request::Quit => {}
        }
        Ok(())
    }
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

    async fn session_with(options: Options, lines: impl AsRef<[u8]>) -> String {
        let session = Session { client: options.connect().await.unwrap(), options: &options };
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
        let mut session = Session { client: options.connect().await.unwrap(), options: &options };
        let error = session.answer("GET b hang-up", &mut Vec::new()).await.unwrap_err();
        assert_eq!(error.exit_code(), EXIT_NO_ANSWER);
    }
}
