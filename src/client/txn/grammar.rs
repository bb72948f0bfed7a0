//! A transaction's language: a check or an operation a line, in words as the shell has them. Nothing is guessed: how many
//! words there are says what they mean.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use prost_types::Duration;

use crate::{
    client::{options::ttl, words::words},
    pb::{
        TransactAdd, TransactCheck, TransactDelete, TransactGet, TransactOp, TransactPut, Value,
        transact_check::Condition, transact_op::Op, value::Kind,
    },
};

/// What is checked, and what is done then.
#[derive(Debug, Default, PartialEq)]
pub(in crate::client) struct Transaction {
    pub(super) checks: Vec<TransactCheck>,
    pub(super) success: Vec<TransactOp>,
    pub(super) failure: Vec<TransactOp>,
}

/// A line that makes no sense, by its number from 1, and why.
#[derive(Debug, Eq, PartialEq)]
pub(in crate::client) struct Wrong {
    line: usize,
    why: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

/// A line that makes sense.
enum Line {
    Check(TransactCheck),
    Op(Op),
    Else,
}

impl Transaction {
    /// Reads all lines.
    pub(in crate::client) fn parse(text: &str) -> Result<Self, Wrong> {
        let mut it = Self::default();
        let mut failing = false;
        for (index, line) in text.lines().enumerate() {
            let wrong = |why: String| Wrong { line: index + 1, why };
            match parse_line(line).map_err(wrong)? {
                None => {}
                Some(Line::Check(_)) if failing || !it.success.is_empty() => {
                    return Err(wrong("a check stands before all operations, for it is made before them".to_owned()));
                }
                Some(Line::Check(check)) => it.checks.push(check),
                Some(Line::Op(op)) if failing => it.failure.push(TransactOp { op: Some(op) }),
                Some(Line::Op(op)) => it.success.push(TransactOp { op: Some(op) }),
                Some(Line::Else) if failing => return Err(wrong("there is an 'else' already".to_owned())),
                Some(Line::Else) if it.checks.is_empty() => {
                    return Err(wrong("without a check nothing after 'else' is ever done".to_owned()));
                }
                Some(Line::Else) => failing = true,
            }
        }
        if it == Self::default() {
            return Err(Wrong { line: 1, why: "there is nothing to check and nothing to do".to_owned() });
        }
        Ok(it)
    }
}

/// Reads a line; a blank one and a comment are none.
fn parse_line(line: &str) -> Result<Option<Line>, String> {
    if line.trim_start().starts_with('#') {
        return Ok(None);
    }
    let words = words(line).ok_or("a quote is left open, or holds an escape other than \\\", \\\\, \\n and \\t")?;
    let words = words.iter().map(String::as_str).collect::<Vec<_>>();
    let Some((verb, rest)) = words.split_first() else { return Ok(None) };
    let line = match (verb.to_ascii_lowercase().as_str(), rest) {
        ("check", [key, condition @ ..]) => {
            Line::Check(TransactCheck { key: (*key).to_owned(), condition: Some(self::condition(condition)?) })
        }
        ("put", [key, rest @ ..]) => Line::Op(Op::Put(put(key, rest)?)),
        ("add", [key, delta, rest @ ..]) => {
            let delta = delta.parse().map_err(|_| format!("{delta:?} is no whole number of 64 bits"))?;
            let ttl = ttl_of(rest, "add KEY DELTA [ttl TIME]")?;
            Line::Op(Op::Add(TransactAdd { key: (*key).to_owned(), delta, ttl }))
        }
        ("delete", [key]) => Line::Op(Op::Delete(TransactDelete { key: (*key).to_owned() })),
        ("get", [key]) => Line::Op(Op::Get(TransactGet { key: (*key).to_owned() })),
        ("else", []) => Line::Else,
        ("check", _) => return Err(usage(CHECK)),
        ("put", _) => return Err(usage(PUT)),
        ("add", _) => return Err(usage("add KEY DELTA [ttl TIME]")),
        ("delete", _) => return Err(usage("delete KEY")),
        ("get", _) => return Err(usage("get KEY")),
        ("else", _) => return Err("'else' stands alone on its line".to_owned()),
        _ => return Err(format!("{verb:?} is none of check, put, add, delete, get and else")),
    };
    Ok(Some(line))
}

const CHECK: &str = "check KEY present, absent, version N, or KIND VALUE";
const PUT: &str = "put KEY [KIND] VALUE [ttl TIME]";

/// The first thing to look at is the quotes.
fn usage(usage: &str) -> String {
    format!("it must be: {usage}; a word with blanks in it is quoted")
}

fn condition(words: &[&str]) -> Result<Condition, String> {
    match words {
        ["present"] => Ok(Condition::Present(true)),
        ["absent"] => Ok(Condition::Present(false)),
        ["version", version] => {
            let version = version.parse().map_err(|_| format!("{version:?} is no version"))?;
            Ok(Condition::VersionEquals(version))
        }
        [kind, content] => value(kind, content).map(Condition::ValueEquals),
        _ => Err(usage(CHECK)),
    }
}

fn put(key: &str, words: &[&str]) -> Result<TransactPut, String> {
    let (value, rest) = match words {
        [text] | [text, _, _] => (value("text", text)?, &words[1..]),
        [kind, content] | [kind, content, _, _] => (value(kind, content)?, &words[2..]),
        _ => return Err(usage(PUT)),
    };
    Ok(TransactPut { key: key.to_owned(), value: Some(value), ttl: ttl_of(rest, PUT)? })
}

/// `ttl TIME`, or nothing.
fn ttl_of(words: &[&str], line: &str) -> Result<Option<Duration>, String> {
    match words {
        [] => Ok(None),
        ["ttl", time] => ttl(time).map(Some).map_err(|wrong| format!("the ttl {time:?} {wrong}")),
        _ => Err(usage(line)),
    }
}

/// A value of a kind, by the names of `put`'s options.
fn value(kind: &str, content: &str) -> Result<Value, String> {
    let wrong = |is: &str| format!("{content:?} is no {is}");
    let kind = match kind {
        "text" => Kind::Text(content.to_owned()),
        "int" => Kind::Integer(content.parse().map_err(|_| wrong("whole number of 64 bits"))?),
        "num" => Kind::Number(content.parse().map_err(|_| wrong("number such as 1, -2.5, 1e9 or NaN"))?),
        "bool" => Kind::Flag(content.parse().map_err(|_| wrong("true or false"))?),
        "data" => Kind::Data(BASE64_STANDARD.decode(content).map_err(|_| wrong("base64"))?),
        _ => return Err(format!("{kind:?} is none of text, int, num, bool and data; a text with blanks is quoted")),
    };
    Ok(Value { kind: Some(kind) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only operation, or the only check, of a line.
    fn op(line: &str) -> Op {
        Transaction::parse(line).unwrap().success.remove(0).op.unwrap()
    }

    fn check(line: &str) -> Condition {
        Transaction::parse(line).unwrap().checks.remove(0).condition.unwrap()
    }

    fn a(kind: Kind) -> Value {
        Value { kind: Some(kind) }
    }

    #[test]
    fn checks_come_first_and_else_begins_what_is_done_where_they_do_not_hold() {
        let text = "# a comment\n\ncheck a absent\nCHECK b present\nput a 1\nget b\nelse\ndelete a\n";
        let it = Transaction::parse(text).unwrap();
        assert_eq!((it.checks.len(), it.success.len(), it.failure.len()), (2, 2, 1));
    }

    #[test]
    fn a_check_is_of_presence_of_a_version_or_of_a_value() {
        assert_eq!(check("check k present"), Condition::Present(true));
        assert_eq!(check("check k absent"), Condition::Present(false));
        assert_eq!(check("check k version 7"), Condition::VersionEquals(7));
        assert_eq!(check("check k text 'a b'"), Condition::ValueEquals(a(Kind::Text("a b".into()))));
        assert_eq!(check("check k int -5"), Condition::ValueEquals(a(Kind::Integer(-5))));
        assert_eq!(check("check k num 1.5"), Condition::ValueEquals(a(Kind::Number(1.5))));
        assert_eq!(check("check k bool true"), Condition::ValueEquals(a(Kind::Flag(true))));
        assert_eq!(check("check k data AP8="), Condition::ValueEquals(a(Kind::Data(vec![0, 255]))));
    }

    #[test]
    fn a_put_is_read_by_the_number_of_its_words() {
        let put = |line| match op(line) {
            Op::Put(put) => (put.value.unwrap().kind.unwrap(), put.ttl.map(|ttl| ttl.seconds)),
            other => panic!("{other:?}"),
        };
        assert_eq!(put("put k int"), (Kind::Text("int".into()), None));
        assert_eq!(put("put k int 5"), (Kind::Integer(5), None));
        assert_eq!(put("put k int ttl 5s"), (Kind::Text("int".into()), Some(5)));
        assert_eq!(put("put k int 5 ttl 2m"), (Kind::Integer(5), Some(120)));
        assert_eq!(put(r#"put k "two\nlines""#), (Kind::Text("two\nlines".into()), None));
    }

    #[test]
    fn the_other_operations() {
        let ttl = Some(Duration { seconds: 10, nanos: 0 });
        assert_eq!(op("add k -5"), Op::Add(TransactAdd { key: "k".into(), delta: -5, ttl: None }));
        assert_eq!(op("add k 1 ttl 10s"), Op::Add(TransactAdd { key: "k".into(), delta: 1, ttl }));
        assert_eq!(op("delete 'a key'"), Op::Delete(TransactDelete { key: "a key".into() }));
        assert_eq!(op("get k"), Op::Get(TransactGet { key: "k".into() }));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_line_and_why() {
        let why = |text| Transaction::parse(text).unwrap_err().to_string();
        for (text, expected) in [
            ("", "line 1: there is nothing to check and nothing to do"),
            ("get k\n\neat k", "line 3: \"eat\" is none of check, put, add, delete, get and else"),
            ("get k\ncheck k absent", "line 2: a check stands before all operations, for it is made before them"),
            ("check k absent\nelse\nelse", "line 3: there is an 'else' already"),
            ("get k\nelse\nget l", "line 2: without a check nothing after 'else' is ever done"),
            ("get 'k", "line 1: a quote is left open, or holds an escape other than \\\", \\\\, \\n and \\t"),
            ("get a b", "line 1: it must be: get KEY; a word with blanks in it is quoted"),
            (
                "put k rye bread",
                "line 1: \"rye\" is none of text, int, num, bool and data; a text with blanks is quoted",
            ),
            (
                "put k v ttl 5",
                "line 1: the ttl \"5\" must be a whole number with its unit, such as 500ms, 5s, 2m, 1h or 7d",
            ),
            ("put k int x", "line 1: \"x\" is no whole number of 64 bits"),
            ("add k 1.5", "line 1: \"1.5\" is no whole number of 64 bits"),
        ] {
            assert_eq!(why(text), expected, "{text}");
        }
        for wrong in
            ["put k", "put k v for 5s", "put k int 5 ttl 5s x", "check k", "check k version x", "else x", "add k 1 5s"]
        {
            Transaction::parse(wrong).unwrap_err();
        }
    }
}
