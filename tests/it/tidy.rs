//! The rules of the house, read from the sources: what a layer may know, and what no file may hold.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A source: its path from the root of the repository, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }

    /// What is compiled into a release: without comments, and up to the tests at the end.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let code = self.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        code.lines().enumerate().map(|(n, line)| (n + 1, line.split("//").next().unwrap_or_default()))
    }

    /// Places in the code that hold one of the words.
    fn holds<'a>(&'a self, words: &'a [&str]) -> impl Iterator<Item = String> + 'a {
        self.code()
            .filter(|(_, line)| words.iter().any(|word| has_word(line, word)))
            .map(|(n, line)| format!("{}:{n}: {}", self.path, line.trim()))
    }
}

/// Whether the line has the word, and not as a part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part))
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push(Source { path: path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), text });
            }
        }
    }
    assert!(!found.is_empty());
    found
}

#[track_caller]
fn assert_none(places: impl Iterator<Item = String>, rule: &str) {
    let places: Vec<_> = places.collect();
    assert!(places.is_empty(), "{rule}:\n{}", places.join("\n"));
}

fn is_test(source: &Source) -> bool {
    source.path.ends_with("/tests.rs") || source.path.contains("/tests/")
}

#[test]
fn processes_and_buckets_know_no_runtime_and_no_wire() {
    const PLACES: [&str; 5] = ["src/process/", "src/bucket/", "src/value.rs", "src/name.rs", "src/budget.rs"];
    let sources = sources("src");
    let sources = sources.iter().filter(|source| source.is_in(&PLACES) && !is_test(source));
    let found = sources.flat_map(|source| source.holds(&["tokio", "tonic", "hyper", "prost", "http", "h2", "pb"]));
    assert_none(found, "process and bucket compile without tokio and tonic");
}

#[test]
fn the_registry_and_watches_know_no_runtime_and_no_sockets() {
    let sources = sources("src");
    let sources = sources.iter().filter(|source| source.is_in(&["src/registry/", "src/watch/"]) && !is_test(source));
    let found = sources.flat_map(|source| source.holds(&["tokio", "tonic", "hyper", "prost", "http", "h2", "pb"]));
    assert_none(found, "registry and watch know no gRPC and no runtime");
}

#[test]
fn layers_look_down_only() {
    // Each with what lies above it.
    const LAYERS: [(&[&str], &[&str]); 4] = [
        (&["src/process/"], &["crate::bucket", "crate::registry", "crate::watch", "crate::service", "crate::server"]),
        (&["src/bucket.rs"], &["crate::registry", "crate::watch", "crate::service", "crate::server"]),
        (&["src/registry/"], &["crate::watch", "crate::service", "crate::server"]),
        (&["src/watch/"], &["crate::service", "crate::server"]),
    ];
    let sources = sources("src");
    for (places, above) in LAYERS {
        let sources = sources.iter().filter(|source| source.is_in(places) && !is_test(source));
        let found = sources.flat_map(|source| {
            // A `use` may be spread over lines: what follows `use crate::{` has no `crate::` of its own.
            let flat = source
                .code()
                .map(|(_, line)| line)
                .collect::<Vec<_>>()
                .join(" ")
                .replace("use crate::{", "use crate::{ ");
            let names: Vec<_> = above.iter().map(|name| name.trim_start_matches("crate::")).collect();
            let used = flat.split("use crate::{ ").skip(1).filter_map(|block| block.split(';').next());
            let in_block = used.flat_map(|block| block.split([' ', ',']).map(str::to_owned).collect::<Vec<_>>());
            let spread = in_block.filter(move |word| names.iter().any(|name| word.starts_with(&format!("{name}::"))));
            let spread: Vec<_> = spread.map(|word| format!("{}: {word}", source.path)).collect();
            source.holds(above).chain(spread).collect::<Vec<_>>()
        });
        assert_none(found, "layers look down only");
    }
}

#[test]
fn only_one_file_makes_a_status() {
    const CODES: [&str; 17] = [
        "Status::new",
        "Status::ok",
        "Status::cancelled",
        "Status::unknown",
        "Status::invalid_argument",
        "Status::deadline_exceeded",
        "Status::not_found",
        "Status::already_exists",
        "Status::permission_denied",
        "Status::resource_exhausted",
        "Status::failed_precondition",
        "Status::aborted",
        "Status::out_of_range",
        "Status::unimplemented",
        "Status::internal",
        "Status::unavailable",
        "Status::with_details",
    ];
    // The client's are its own: what it makes of an answer that did not come.
    let elsewhere = |source: &&Source| !source.is_in(&["src/service/status.rs", "src/client/"]) && !is_test(source);
    let sources = sources("src");
    let found = sources.iter().filter(elsewhere).flat_map(|source| source.holds(&CODES));
    assert_none(found, "a Status is made in service/status.rs, from a Failure");
}

#[test]
fn every_file_says_what_it_is_first() {
    let silent = ["src", "tests"].into_iter().flat_map(sources).filter(|source| !source.text.starts_with("//! "));
    assert_none(silent.map(|source| source.path), "a file begins with //! and what it is");
}

#[test]
fn nothing_is_left_for_later_and_nothing_is_skipped() {
    // In pieces, or this file would hold them.
    let words = [["todo", "!("], ["dbg", "!("], ["#[ign", "ore"], ["unbounded", "_channel"], ["should", "_panic"]];
    let words = words.map(|pieces| pieces.concat());
    let sources = ["src", "tests"].into_iter().flat_map(sources);
    let found = sources.flat_map(|source| {
        let lines = source.text.lines().enumerate();
        let found = lines.filter(|(_, line)| words.iter().any(|word| line.contains(word)));
        found.map(|(n, line)| format!("{}:{}: {line}", source.path, n + 1)).collect::<Vec<_>>()
    });
    assert_none(found, "zero technical debt");
}

#[test]
fn no_test_sleeps_without_saying_why() {
    let word = ["sleep", "("].concat();
    let found = sources("tests").into_iter().flat_map(|source| {
        let lines: Vec<_> = source.text.lines().collect();
        let bare = (0..lines.len())
            .filter(|&n| lines[n].contains(&word) && !lines[n.saturating_sub(1)].trim_start().starts_with("//"));
        bare.map(|n| format!("{}:{}: {}", source.path, n + 1, lines[n].trim())).collect::<Vec<_>>()
    });
    assert_none(found, "no sleeping for luck");
}
