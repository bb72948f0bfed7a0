//! Any text as a line of the shell, and as a transaction.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| pail::client::fuzz::shell(text));
