//! `txn`: a transaction that is written as lines of text.

mod grammar;

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write as _, stdin},
    path::PathBuf,
};

use clap::Args;

pub(super) use self::grammar::Transaction;
use super::{
    error::Error,
    options::{Client, Options},
    output::{Escaped, Format, Output},
    value,
};
use crate::pb::{TransactRequest, TransactResult, transact_op::Op};

/// Checks, then changes, several entries of one bucket at once: all or nothing
///
/// Reads lines from standard input or from a file. First come the checks; where all of them hold, the operations after them
/// are done, else those after the line "else". An operation sees what those before it did, and nobody else sees the middle.
/// If any of them is refused, nothing is changed.
///
/// Prints a line for each operation: the key, the version, what was done (put, added, deleted, got, or absent where a delete
/// or a get found nothing), and the kind and the value of the entry that a put or an add left, a delete removed or a get
/// found. Exits with 0 where the checks held and with 1 where they did not; a refusal is 1 too, and prints nothing on
/// standard output.
#[derive(Args, Debug)]
#[command(after_help = "\
Lines:
  check KEY present | absent          the entry is there, or not
  check KEY version N                 it is at this version; 0: it is absent
  check KEY KIND VALUE                it is this value, of this kind
  put KEY VALUE [ttl TIME]            sets a text
  put KEY KIND VALUE [ttl TIME]       sets a value of another kind
  add KEY DELTA [ttl TIME]            adds to an integer
  delete KEY
  get KEY
  else                                what follows is done where a check does not hold
A KIND is text, int, num, bool or data (in base64). A TIME is a whole number of ms, s, m, h or d.
A word with blanks in it is quoted: \"a b\" or 'a b'; within \"\" there are \\\", \\\\, \\n and \\t.
A line that begins with # is a comment.

Examples:
  printf 'add stock -1\\nadd sold 1\\n' | pail txn shop
  pail txn shop --file order.txt
  pail txn locks --id 1764000000000001 <<'END'
  check door absent
  put door 'taken by ann' ttl 30s
  else
  get door
  END")]
pub struct Txn {
    /// The name of the bucket
    name: String,
    /// Read the transaction from this file [default: standard input]
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Only if the living bucket has this id
    #[arg(long)]
    id: Option<u64>,
}

impl Txn {
    pub(super) async fn run(self, options: &Options, out: &mut Output<'_>) -> Result<(), Error> {
        let transaction = self.read()?;
        let mut client = options.connect().await?;
        transact(&mut client, options, (self.name, self.id), transaction, out).await
    }

    fn read(&self) -> Result<Transaction, Error> {
        let (bytes, name) = match &self.file {
            None => {
                if stdin().is_terminal() {
                    // Where it waits for a person it says so.
                    writeln!(io::stderr(), "pail: a transaction, line by line; Ctrl-D sends it").ok();
                }
                (value::read_bounded(stdin(), "standard input")?, "standard input".to_owned())
            }
            Some(path) => {
                let name = path.display().to_string();
                let file = File::open(path).map_err(|error| Error::Usage(format!("cannot read {name}: {error}")))?;
                (value::read_bounded(file, &name)?, name)
            }
        };
        let text = String::from_utf8(bytes).map_err(|_| Error::Usage(format!("{name} is no text in UTF-8")))?;
        Transaction::parse(&text).map_err(|wrong| Error::Usage(format!("{name}, {wrong} (see 'pail txn --help')")))
    }
}

/// Sends a transaction to a bucket, of this id where there is one, and prints what became of it.
pub(super) async fn transact(
    client: &mut Client,
    options: &Options,
    (bucket, bucket_id): (String, Option<u64>),
    Transaction { checks, success, failure }: Transaction,
    out: &mut Output<'_>,
) -> Result<(), Error> {
    let request = TransactRequest { bucket, bucket_id, checks, success, failure };
    let (success, failure) = (request.success.clone(), request.failure.clone());
    let answer = client.transact(options.request(request)).await?.into_inner();
    if out.format == Format::Json {
        out.json(&answer)?;
    } else {
        out.header("KEY\tVERSION\tWHAT\tKIND\tVALUE")?;
        let ops = if answer.succeeded { success } else { failure };
        for (op, result) in ops.iter().filter_map(|op| op.op.as_ref()).zip(&answer.results) {
            writeln!(out.to, "{}", line(op, result))?;
        }
    }
    if answer.succeeded { Ok(()) } else { Err(Error::NotHeld) }
}

/// What became of an operation.
fn line(op: &Op, result: &TransactResult) -> String {
    let (key, done) = match op {
        Op::Put(put) => (&put.key, "put"),
        Op::Add(add) => (&add.key, "added"),
        Op::Delete(delete) => (&delete.key, "deleted"),
        Op::Get(get) => (&get.key, "got"),
    };
    let key = Escaped(key);
    let Some(entry) = &result.entry else { return format!("{key}\t-\tabsent\t-\t-") };
    let (kind, value) = value::fields(entry.value.as_ref());
    format!("{key}\t{}\t{done}\t{kind}\t{value}", entry.version)
}
