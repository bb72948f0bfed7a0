//! Any bytes as an export that is imported.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| pail::client::fuzz::import(bytes));
