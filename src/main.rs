//! The program `pail`: the server and its client.

fn main() {}
