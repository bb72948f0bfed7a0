//! What a server is told, and by what.

use std::{
    fs,
    process::{Command, Output},
};

use super::binary::{Running, pail};

fn printed(mut command: Command) -> String {
    let Output { stdout, stderr, status } = command.output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

#[test]
fn print_config_says_what_holds_and_from_where() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pail.toml");
    fs::write(&path, "log-level = \"debug\"\nlinks-max = 7\nlisten = \"[::1]:1\"").unwrap();
    let mut command = pail(&["serve", "--print-config", "--listen", "127.0.0.1:0"]);
    command.env("PAIL_CONFIG", &path).env("PAIL_LINKS_MAX", "8").env("PAIL_DRAIN_TIMEOUT", "3s");
    let printed = printed(command);
    let origin = |setting: &str| {
        let line = printed.lines().find(|line| line.starts_with(setting)).unwrap();
        line.split_once("  # ").unwrap().1.to_owned()
    };
    assert_eq!(origin("listen = \"127.0.0.1:0\""), "command line");
    assert_eq!(origin("links-max = 8"), "environment: PAIL_LINKS_MAX");
    assert_eq!(origin("drain-timeout = \"3s\""), "environment: PAIL_DRAIN_TIMEOUT");
    assert_eq!(origin("log-level = \"debug\""), format!("file: {}", path.display()));
    assert_eq!(origin("# entries-max = 1000000"), "default");
}

#[tokio::test]
async fn what_is_no_good_is_said_in_one_line_and_nothing_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pail.toml");
    fs::write(&path, "workesr = 2").unwrap();
    let mut running = Running::start(pail(&["serve", "--config", path.to_str().unwrap()]));
    let line = running.line("pail: ");
    assert!(line.ends_with("there is no setting \"workesr\"; a similar one exists: workers"), "{line}");
    assert_eq!(running.code().await, 2);
}

#[tokio::test]
async fn hangup_has_the_file_read_again_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pail.toml");
    let said = |text: &str| fs::write(&path, text).unwrap();
    said("log-level = \"off,pail::serve=info\"");
    let mut running = Running::start(pail(&["serve", "--listen", "127.0.0.1:0", "--config", path.to_str().unwrap()]));
    running.line("listening");

    for (text, why) in [
        ("log-level = \"pail=loud\"", "error parsing level filter"),
        ("log-level = ", "line 1: "),
        ("log-level = \"error\"\nworkers = 0", "must be 1 to 1024"),
    ] {
        said(text);
        running.signal("HUP");
        let line = running.line("the configuration was not read again: all is as it was");
        assert!(line.contains(why), "{line}");
    }

    said("log-level = \"info\"\nlinks-max = 5");
    running.signal("HUP");
    running.line("the configuration was read again");
    running.line("these take a restart settings=\"links-max\"");
    running.signal("TERM");
    running.line("a signal to stop"); // which was not to be logged at first
    assert_eq!(running.code().await, 0);
}
