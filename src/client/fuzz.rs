//! The parsers of what people and files say, for `fuzz/`, and for nobody else: see the feature `fuzzing`.

use super::{dump::Reader, shell, txn::Transaction};

/// Reads a line of the shell, and a transaction.
pub fn shell(text: &str) {
    shell::parse(text);
    // What it makes of it is nobody's business here.
    drop(Transaction::parse(text));
}

/// Reads an export to its end, or to what is wrong with it.
pub fn import(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    while let Ok(Some(_)) = reader.next() {}
}
