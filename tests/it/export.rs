//! Export and import: what goes out comes in, to the bit; and whatever is interrupted is gone on with.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, SystemTime},
};

use pail::pb::{self, transact_op::Op, value::Kind};
use serde_json::Value as Json;
use tempfile::TempDir;

use super::{
    cli::{Running, complaint, pail},
    support::{Client, DEADLINE, Server, length, put, scan, until, value},
};

const HEADER: &str = r#"{"pail_export":1,"registry_id":"r","revision":1,"time":"2025-11-24T16:00:00Z","prefix":""}"#;

fn command(address: SocketAddr, args: &[&str]) -> Command {
    let mut command = pail(args);
    command.env("PAIL_ADDR", address.to_string());
    command
}

fn run(server: &Server, args: &[&str]) -> Output {
    command(server.address, args).output().unwrap()
}

/// The one line on standard error of a command that is done.
#[track_caller]
fn done(output: &Output) -> String {
    let line = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(output.status.success() && line.lines().count() == 1, "{output:?}");
    line
}

/// Everything, or what has the prefix, as lines.
#[track_caller]
fn exported(server: &Server, args: &[&str]) -> String {
    let output = run(server, &[&["export"], args].concat());
    done(&output);
    String::from_utf8(output.stdout).unwrap()
}

/// Imports these lines from standard input.
fn import(server: &Server, args: &[&str], lines: &str) -> Output {
    let mut child = command(server.address, &[&["import"], args].concat()).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).ok(); // one that fails reads no further
    child.wait_with_output().unwrap()
}

/// An export without what is each server's own: ids, versions and times.
fn content(export: &str) -> Vec<Json> {
    const OWN: [&str; 7] = ["registry_id", "revision", "time", "bucket_id", "create_time", "expire_time", "version"];
    let line = |line| {
        let mut line: Json = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().retain(|field, _| !OWN.contains(&field.as_str()));
        line
    };
    export.lines().map(line).collect()
}

/// A bucket with entries k0000, k0001, …, each of so many bytes.
async fn filled(client: &Client, bucket: &str, entries: usize, bytes: usize) {
    client.created(bucket).await;
    for chunk in (0..entries).collect::<Vec<_>>().chunks(1_000) {
        let put = |n: &usize| {
            let (key, value) = (format!("k{n:04}"), value(vec![b'x'; bytes]));
            pb::TransactOp { op: Some(Op::Put(pb::TransactPut { key, value, ttl: None })) }
        };
        let success = chunk.iter().map(put).collect();
        client.transact(pb::TransactRequest { bucket: bucket.into(), success, ..Default::default() }).await.unwrap();
    }
}

async fn keys(client: &Client, bucket: &str) -> Vec<String> {
    let page = client.scan(pb::ScanRequest { page_size: 1_000, ..scan(bucket) }).await.unwrap();
    page.entries.into_iter().map(|entry| entry.key).collect()
}

/// Between a client and a server. It lets so many bytes through in one direction, then none until it is told.
struct Valve {
    address: SocketAddr,
    /// Told: all the rest. Dropped: the connection is lost.
    turn: Sender<()>,
    /// Tells when it holds something.
    holds: Receiver<()>,
}

enum Direction {
    ToServer,
    ToClient,
}

impl Valve {
    fn before(server: &Server, direction: &Direction, bytes: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, server) = (listener.local_addr().unwrap(), server.address);
        let ((turn, turned), (hold, holds)) = (channel(), channel());
        let to_server = matches!(direction, Direction::ToServer);
        thread::spawn(move || {
            let client = listener.accept().unwrap().0;
            let server = TcpStream::connect(server).unwrap();
            let (held, free) = if to_server { (client, server) } else { (server, client) };
            let back = (free.try_clone().unwrap(), held.try_clone().unwrap());
            thread::spawn(move || pass(back.0, back.1, usize::MAX, None));
            pass(held, free, bytes, Some(&(hold, turned)));
        });
        Self { address, turn, holds }
    }
}

/// Passes so many bytes on, says that it holds more, and passes the rest after its turn; closes both in the end.
fn pass(mut from: TcpStream, mut to: TcpStream, mut left: usize, valve: Option<&(Sender<()>, Receiver<()>)>) {
    let mut buffer = [0; 8 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if let Some((hold, turned)) = valve.filter(|_| read > left) {
            hold.send(()).ok(); // the test may not want to know
            if turned.recv().is_err() {
                break;
            }
            left = usize::MAX;
        }
        left -= read;
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        stream.shutdown(Shutdown::Both).ok(); // it may be closed already
    }
}

/// A folder for files, and paths in it.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str, lines: &str) -> String {
        fs::write(self.0.path().join(name), lines).unwrap();
        self.path(name)
    }
}

/// Starts an export of everything to a file, and waits until some of it is there and the valve holds the rest.
async fn held_export(valve: &Valve, path: &str) -> Running {
    let running = Running::start(command(valve.address, &["export", path, "--timeout", "1m"]));
    valve.holds.recv_timeout(DEADLINE).unwrap();
    until(async || fs::metadata(path).is_ok_and(|file| file.len() > 0).then_some(())).await;
    running
}

#[tokio::test]
async fn what_is_exported_and_imported_is_exported_alike_to_the_bit() {
    let (from, to) = (Server::start(), Server::start());
    let client = from.client().await;
    client.created("empty").await;
    client.created("a \"name\" of 牛乳 \u{1f9c0}").await;
    let bucket = "a \"name\" of 牛乳 \u{1f9c0}";
    let nans = [0x7ff8_0000_0000_0000, 0x7ff8_0000_0000_0001, 0xfff0_dead_beef_0001, 0x7fff_ffff_ffff_ffff];
    let kinds = [
        ("text", Kind::Text("two\nlines, \"quotes\", \\ and \u{0}\u{1b}[2J\u{2028}".into())),
        ("no text", Kind::Text(String::new())),
        ("data", Kind::Data((0..=255).collect())),
        ("least", Kind::Integer(i64::MIN)),
        ("most", Kind::Integer(i64::MAX)),
        ("minus 0", Kind::Number(-0.0)),
        ("tiny", Kind::Number(5e-324)),
        ("sum", Kind::Number(0.1 + 0.2)),
        ("large", Kind::Number(f64::MAX)),
        ("infinite", Kind::Number(f64::INFINITY)),
        ("-infinite", Kind::Number(f64::NEG_INFINITY)),
        ("true\nfalse\t\"\\", Kind::Flag(true)),
        ("日本\r\n\u{0}", Kind::Flag(false)),
    ];
    let nans = nans.map(|bits| (format!("nan {bits:x}"), Kind::Number(f64::from_bits(bits))));
    for (key, kind) in kinds.into_iter().map(|(key, kind)| (key.to_owned(), kind)).chain(nans.clone()) {
        client.put(bucket, &key, kind).await.unwrap();
    }

    let export = exported(&from, &[]);
    let header: Json = serde_json::from_str(export.lines().next().unwrap()).unwrap();
    let revision = client.lookup(bucket).await.unwrap().create_revision;
    assert_eq!((&header["registry_id"], &header["revision"]), (&"a registry".into(), &revision.into()));
    assert_eq!(
        done(&import(&to, &[], &export)),
        format!("pail: imported 2 buckets, 17 entries, {} bytes\n", export.len())
    );

    assert_eq!(content(&exported(&to, &[])), content(&export));
    let there = to.client().await;
    let entries = client.scan(scan(bucket)).await.unwrap().entries;
    for entry in entries {
        let got = there.get(bucket, &entry.key).await.unwrap().entry.unwrap().value.unwrap();
        let bits = |value: &pb::Value| match value.kind {
            Some(Kind::Number(number)) => format!("{:x}", number.to_bits()),
            _ => format!("{value:?}"),
        };
        assert_eq!(bits(&got), bits(&entry.value.unwrap()), "{:?}", entry.key);
    }
    assert_eq!(there.lookup("empty").await.unwrap().entry_count, 0);
}

#[tokio::test]
async fn many_pages_are_exported_in_order_each_entry_once_and_a_prefix_is_kept_to() {
    let (from, to) = (Server::start(), Server::start());
    let client = from.client().await;
    for bucket in ["user/a", "user/b", "user/c", "z"] {
        filled(&client, bucket, if bucket == "z" { 1 } else { 5_000 }, 10).await;
    }

    let export = exported(&from, &["--prefix", "user/"]);

    let lines = content(&export);
    assert_eq!(lines.len(), 1 + 3 * 5_001 + 1);
    for (n, bucket) in ["user/a", "user/b", "user/c"].into_iter().enumerate() {
        let lines = &lines[1 + n * 5_001..][..5_001];
        assert_eq!(lines[0]["bucket"], bucket);
        let keys = lines[1..].iter().map(|line| line["key"].as_str().unwrap().to_owned());
        assert!(keys.eq((0..5_000).map(|n| format!("k{n:04}"))), "{bucket}");
    }
    assert_eq!(lines.last().unwrap().to_string(), r#"{"end":{"buckets":3,"entries":15000}}"#);
    let folder = Folder::new();
    done(&run(&to, &["import", &folder.file("export", &export)]));
    assert_eq!(content(&exported(&to, &["--prefix", "user/"])), lines);
}

#[tokio::test]
async fn an_export_that_was_killed_is_gone_on_with_to_the_same_end() {
    let server = Server::start();
    let client = server.client().await;
    for bucket in ["a", "b"] {
        filled(&client, bucket, 3_000, 1_000).await;
    }
    let (whole, folder) = (exported(&server, &[]), Folder::new());
    let path = folder.path("export");
    let valve = Valve::before(&server, &Direction::ToClient, 1_500_000);
    let mut export = held_export(&valve, &path).await;

    assert!(export.child.try_wait().unwrap().is_none(), "it waits for the rest");
    export.signal("KILL");
    export.child.wait().unwrap();
    let half = fs::read_to_string(&path).unwrap();
    assert!(half.lines().count() > 10 && half.len() < whole.len() / 2, "{} bytes", half.len());

    let summary = done(&run(&server, &["export", &path, "--resume"]));
    let resumed = fs::read_to_string(&path).unwrap();
    assert_eq!(summary, format!("pail: exported 2 buckets, 6000 entries, {} bytes\n", resumed.len()));
    assert!(resumed.lines().skip(1).eq(whole.lines().skip(1)), "all but the header, which has its time");
}

#[tokio::test]
async fn an_export_is_gone_on_with_wherever_it_was_cut() {
    let server = Server::start();
    let client = server.client().await;
    for bucket in ["a", "b", "c"] {
        filled(&client, bucket, if bucket == "b" { 0 } else { 3 }, 5).await;
    }
    let (whole, folder) = (exported(&server, &[]), Folder::new());
    let header = whole.find('\n').unwrap() + 1;

    // In the middle of each line, at its end, and after it.
    let ends: Vec<_> = whole.match_indices('\n').map(|(end, _)| end).collect();
    for cut in ends.iter().flat_map(|&end| [end - 20, end, end + 1]).chain([0]) {
        let path = folder.file("export", &whole[..cut]);
        done(&run(&server, &["export", &path, "--resume"]));
        let resumed = fs::read_to_string(&path).unwrap();
        if cut >= header {
            assert_eq!(resumed, whole, "cut at {cut}");
        } else {
            assert_eq!(content(&resumed), content(&whole), "cut at {cut}");
        }
    }
}

#[tokio::test]
async fn an_export_leaves_a_file_alone_unless_it_is_told_and_goes_on_only_with_its_own() {
    let (server, other) = (Server::start(), Server::start());
    let client = server.client().await;
    filled(&client, "a", 2, 5).await;
    let folder = Folder::new();
    let path = folder.path("export");
    let read = || fs::read_to_string(&path).unwrap();

    done(&run(&server, &["export", &path, "--resume"]));
    let whole = read();
    let (code, line) = complaint(&run(&server, &["export", &path]));
    assert_eq!((code, line.contains("is there already: --resume goes on with it, --force")), (2, true), "{line}");
    client.put("a", "new", "v").await.unwrap();
    done(&run(&server, &["export", &path, "--resume"]));
    assert_eq!(read(), whole, "it was whole");
    done(&run(&server, &["export", &path, "--force"]));
    assert_ne!(read(), whole);

    let (code, line) = complaint(&run(&server, &["export", &path, "--resume", "--prefix", "p"]));
    assert_eq!((code, line.contains("with the prefix \"\", and not \"p\"")), (2, true), "{line}");
    folder.file("export", &whole.replace("a registry", "another registry"));
    let (code, line) = complaint(&run(&other, &["export", &path, "--resume"]));
    assert_eq!((code, line.contains("is an export of registry another registry")), (1, true), "{line}");
    folder.file("export", &whole.replace("\"key\":\"k0001\"", "\"kex\":\"k0001\""));
    let (code, line) = complaint(&run(&server, &["export", &path, "--resume"]));
    assert_eq!((code, line.contains("can not be gone on with: line 4: ")), (1, true), "{line}");
    let (code, line) = complaint(&run(&server, &["export", &folder.path("no/such/folder")]));
    assert_eq!((code, line.contains("cannot write")), (2, true), "{line}");
}

#[tokio::test]
async fn a_bucket_that_ends_while_it_is_exported_is_cut_short_with_a_line_and_an_import_copes() {
    let (server, to) = (Server::start(), Server::start());
    let client = server.client().await;
    for bucket in ["a", "b", "c"] {
        filled(&client, bucket, if bucket == "a" { 3_000 } else { 2 }, 1_000).await;
    }
    let folder = Folder::new();
    let path = folder.path("export");
    let valve = Valve::before(&server, &Direction::ToClient, 1_500_000);
    let mut export = held_export(&valve, &path).await;

    client.stop("a").await.unwrap();
    client.created("a").await; // a namesake, which is another bucket
    client.stop("c").await.unwrap();
    valve.turn.send(()).unwrap();

    let line = export.line("exported");
    assert!(line.contains("; left out 1 that ended meanwhile; 1 cut short by"), "{line}");
    assert_eq!(export.code().await, 0);
    let lines = content(&fs::read_to_string(&path).unwrap());
    let of = |field: &str| lines.iter().filter_map(|line| line[field].as_str()).collect::<Vec<_>>();
    assert_eq!((of("bucket"), of("gone")), (vec!["a", "b"], vec!["a"]));
    let kept = of("key").len() - 2;
    assert!((1_000..3_000).contains(&kept), "{kept}");

    let line = done(&run(&to, &["import", &path]));
    assert!(line.contains("; 1 cut short by"), "{line}");
    let there = to.client().await;
    assert_eq!(there.lookup("a").await.unwrap().entry_count, kept as u64);
    assert_eq!(there.lookup("b").await.unwrap().entry_count, 2);
}

#[tokio::test]
async fn a_bucket_that_ended_before_its_export_is_gone_on_with_is_cut_short() {
    let server = Server::start();
    let client = server.client().await;
    for bucket in ["a", "b"] {
        filled(&client, bucket, 3, 5).await;
    }
    let (whole, folder) = (exported(&server, &[]), Folder::new());
    let cut = whole.find(r#"{"key":"k0002""#).unwrap();
    client.stop("a").await.unwrap();
    for namesake in [false, true] {
        if namesake {
            client.created("a").await;
        }
        let path = folder.file("export", &whole[..cut]);
        done(&run(&server, &["export", &path, "--resume"]));
        let lines = content(&fs::read_to_string(&path).unwrap());
        assert_eq!(lines[1..5].iter().map(Json::to_string).collect::<Vec<_>>()[3], r#"{"gone":"a"}"#);
        assert_eq!(lines[5]["bucket"], "b");
        assert_eq!(lines.last().unwrap().to_string(), r#"{"end":{"buckets":2,"entries":5}}"#);
    }
}

/// An import that the valve holds in the middle, when some of it is answered.
fn held_import(valve: &Valve, path: &str) -> Running {
    let running = Running::start(command(valve.address, &["import", path, "--timeout", "1m"]));
    valve.holds.recv_timeout(DEADLINE).unwrap();
    running
}

async fn two_buckets(folder: &Folder) -> (String, String) {
    let from = Server::start();
    let client = from.client().await;
    for bucket in ["a", "b"] {
        filled(&client, bucket, 3_000, 1_000).await;
    }
    let export = exported(&from, &[]);
    (folder.file("export", &export), export)
}

#[tokio::test]
async fn an_import_that_was_killed_is_run_again_and_all_is_there_once() {
    let (server, folder) = (Server::start(), Folder::new());
    let (path, export) = two_buckets(&folder).await;
    let valve = Valve::before(&server, &Direction::ToServer, 1_500_000);
    let mut import = held_import(&valve, &path);

    import.signal("KILL");
    import.child.wait().unwrap();

    let (code, line) = complaint(&run(&server, &["import", &path]));
    assert_eq!((code, line.contains("line 2: bucket \"a\" is there already; --merge")), (1, true), "{line}");
    done(&run(&server, &["import", &path, "--merge"]));
    assert_eq!(content(&exported(&server, &[])), content(&export));
    done(&run(&server, &["import", &path, "--merge"]));
    assert_eq!(content(&exported(&server, &[])), content(&export), "twice is once");
}

#[tokio::test]
async fn an_import_that_is_interrupted_or_loses_its_connection_says_how_to_go_on() {
    let folder = Folder::new();
    let (path, export) = two_buckets(&folder).await;
    for interrupted in [true, false] {
        let server = Server::start();
        let valve = Valve::before(&server, &Direction::ToServer, 1_500_000);
        let mut import = held_import(&valve, &path);

        if interrupted {
            import.signal("INT");
        } else {
            drop(valve.turn);
        }

        let line = import.line("go on with --from-line ");
        assert_eq!(import.code().await, if interrupted { 130 } else { 3 }, "{line}");
        let options: Vec<_> = line.split("go on with ").nth(1).unwrap().split(' ').collect();
        let from: u64 = options[1].parse().unwrap();
        assert!((500..3_000).contains(&from) && options[2..] == ["--merge"], "{line}");
        let summary = done(&run(&server, &[&["import", &path], &options[..]].concat()));
        let rest = 3_002 - from + 1 + 3_000; // of the first bucket, whose last line is 3,002, and of the second
        assert!(summary.contains(&format!("1 bucket, {rest} entries")), "{from}: {summary}");
        assert_eq!(content(&exported(&server, &[])), content(&export));
    }
}

#[tokio::test]
async fn an_export_that_is_cut_off_is_imported_as_far_as_it_goes_and_that_is_an_error() {
    let (from, to) = (Server::start(), Server::start());
    filled(&from.client().await, "a", 4, 5).await;
    let export = exported(&from, &[]);
    let there = to.client().await;
    let cut = export.find(r#"{"key":"k0002""#).unwrap() + 10;

    let (code, line) = complaint(&import(&to, &[], &export[..cut]));

    let words = "pail: line 5: the export is cut off here: its end is missing; what stands before it is imported: go on with \
                 --from-line 5\n";
    assert_eq!((code, &*line), (1, words));
    assert_eq!(keys(&there, "a").await, ["k0000", "k0001"]);
    done(&import(&to, &["--from-line", "5"], &export));
    assert_eq!(content(&exported(&to, &[])), content(&export));

    there.stop("a").await.unwrap();
    let (code, line) = complaint(&import(&to, &["--from-line", "5"], &export));
    let words = "line 2: bucket \"a\", which an earlier import has created, is not there any more (NOT_FOUND); ";
    assert!(code == 1 && line.contains(words) && line.ends_with("--from-line 2\n"), "{line}");
    there.lookup("a").await.unwrap_err();
}

#[tokio::test]
async fn a_bucket_whose_time_comes_while_it_is_imported_is_no_error() {
    let (server, folder) = (Server::start(), Folder::new());
    let client = server.client().await;
    let (_, export) = two_buckets(&folder).await;
    let bucket = export.lines().nth(1).unwrap();
    let soon = prost_types::Timestamp::from(SystemTime::now() + Duration::from_secs(5)); // enough to begin in
    let mortal = bucket.replace('}', &format!(r#","expire_time":"{soon}"}}"#));
    let path = folder.file("mortal", &export.replace(bucket, &mortal));
    let valve = Valve::before(&server, &Direction::ToServer, 1_500_000);

    let mut import = held_import(&valve, &path);
    until(async || client.lookup("a").await.is_err().then_some(())).await;
    valve.turn.send(()).unwrap();

    let line = import.line("imported");
    assert_eq!(import.code().await, 0);
    let number = |before: &str| line.split(before).nth(1).unwrap().split(' ').next().unwrap().parse::<u64>().unwrap();
    assert_eq!((number("imported "), number("buckets, ") + number("left out ")), (2, 6_000), "{line}");
    assert_eq!(client.lookup("b").await.unwrap().entry_count, 3_000);
}

#[tokio::test]
async fn a_line_that_is_wrong_is_named_and_what_stands_before_it_is_imported() {
    let server = Server::start();
    let client = server.client().await;
    let entry = |key: &str| format!("{{\"key\":\"{key}\",\"value\":{{\"text\":\"v\"}},\"version\":1}}");
    let bucket = r#"{"bucket":"a","bucket_id":7}"#;
    let too_long = entry(&"k".repeat(1_025));
    let (k, l) = (entry("k"), entry("l"));
    for (wrong, expected) in [
        ("nonsense", "line 4: it is no JSON object: "),
        (r#"{"key":"k"}"#, "line 4: as an entry it is wrong: missing field `value`; "),
        (
            too_long.as_str(),
            "it has 1025 bytes; 1 to 1024 are allowed (INVALID_KEY); what stands before it is imported: ",
        ),
        (r#"{"bucket":"","bucket_id":8}"#, "line 4: "),
        (r#"{"end":{"buckets":2,"entries":1}}"#, "line 4: lines are missing, or there are too many: "),
    ] {
        let lines = [HEADER, bucket, &k, wrong, &l].join("\n");
        let (code, line) = complaint(&import(&server, &["--merge"], &lines));
        assert!(code == 1 && line.contains(expected) && line.ends_with("--from-line 4 --merge\n"), "{wrong}: {line}");
        assert!(client.get("a", "k").await.is_ok(), "{wrong}");
        client.stop("a").await.unwrap();
    }
    let (code, line) = complaint(&import(&server, &[], "milk\t1\n"));
    assert_eq!((code, line.contains("line 1: this is no export of pail")), (1, true), "{line}");
    assert_eq!(complaint(&run(&server, &["import", "no such file"])).0, 2);
    let (code, line) = complaint(&import(&server, &["-o", "json"], &format!("{HEADER}\nx\n")));
    let json: Json = serde_json::from_str(&line).unwrap();
    assert_eq!((code, &json["reason"], &json["metadata"]["line"]), (1, &"FILE".into(), &"2".into()), "{line}");
}

#[tokio::test]
async fn a_bucket_that_is_there_is_not_touched_unless_it_may_be_or_nobody_ever_wrote_to_it() {
    let (from, to) = (Server::start(), Server::start());
    let client = from.client().await;
    for bucket in ["a", "b", "c", "d"] {
        filled(&client, bucket, 2, 5).await;
    }
    let (export, there) = (exported(&from, &[]), to.client().await);
    let unwritten = there.created("a").await;
    there.created("c").await;
    there.put("c", "k0000", "old").await.unwrap();
    there.put("c", "other", "old").await.unwrap();

    let (code, line) = complaint(&import(&to, &[], &export));

    let words = "line 8: bucket \"c\" is there already; --merge puts the entries into it (ALREADY_EXISTS); what stands \
                 before it is imported: go on with --from-line 8";
    assert!(code == 1 && line.contains(words), "{line}");
    assert_eq!((there.lookup("a").await.unwrap().id, keys(&there, "a").await.len()), (unwritten, 2));
    assert_eq!(keys(&there, "b").await.len(), 2);
    assert_eq!(keys(&there, "c").await, ["k0000", "other"]);
    assert_eq!(there.get("c", "k0000").await.unwrap().entry.unwrap().value, value("old"));

    there.stop("b").await.unwrap(); // which an import that goes on after it has nothing to do with
    done(&import(&to, &["--from-line", "8", "--merge"], &export));
    there.lookup("b").await.unwrap_err();
    assert_eq!(keys(&there, "c").await, ["k0000", "k0001", "other"]);
    assert_eq!(there.get("c", "k0000").await.unwrap().entry.unwrap().value, value(vec![b'x'; 5]));
    assert_eq!(keys(&there, "d").await.len(), 2);
}

#[tokio::test]
async fn what_is_left_of_a_time_to_live_is_kept_and_what_is_past_its_time_left_out() {
    let (from, to) = (Server::start(), Server::start());
    let (client, there) = (from.client().await, to.client().await);
    let create = pb::CreateRequest { bucket: "a".into(), ttl: length(3_600, 0), ..Default::default() };
    client.create_with(create).await.unwrap();
    client.put_with(pb::PutRequest { ttl: length(1_800, 0), ..put("a", "short", "v") }).await.unwrap();
    client.put("a", "for ever", "v").await.unwrap();

    done(&import(&to, &[], &exported(&from, &[])));

    let instant = |time: Option<prost_types::Timestamp>| SystemTime::try_from(time.unwrap()).unwrap();
    let kept = |before, after| {
        let (before, after) = (instant(before), instant(after));
        // The clock is one, but for what is lost between two looks at it.
        let slack = Duration::from_millis(100);
        assert!(after + slack >= before && after <= before + DEADLINE, "{before:?}, then {after:?}");
    };
    kept(client.lookup("a").await.unwrap().expire_time, there.lookup("a").await.unwrap().expire_time);
    let entry = async |client: &Client, key: &str| client.get("a", key).await.unwrap().entry.unwrap().expire_time;
    kept(entry(&client, "short").await, entry(&there, "short").await);
    assert_eq!(entry(&there, "for ever").await, None);

    let past = r#","expire_time":"2025-11-24T16:00:00Z"}"#;
    let lines = [
        HEADER,
        &format!(r#"{{"bucket":"old","bucket_id":7{past}"#),
        r#"{"key":"k","value":{"flag":true},"version":1}"#,
        r#"{"bucket":"young","bucket_id":8}"#,
        &format!(r#"{{"key":"k","value":{{"flag":true}},"version":1{past}"#),
        r#"{"key":"l","value":{"flag":true},"version":2}"#,
        r#"{"end":{"buckets":2,"entries":3}}"#,
    ];
    let line = done(&import(&to, &[], &lines.join("\n")));
    assert!(
        line.contains("imported 1 bucket, 1 entry, ") && line.contains("; left out 3 whose time was over"),
        "{line}"
    );
    there.lookup("old").await.unwrap_err();
    assert_eq!(keys(&there, "young").await, ["l"]);
}

#[tokio::test]
async fn a_large_value_goes_out_and_comes_in() {
    let (from, to) = (Server::start(), Server::start());
    let client = from.client().await;
    client.created("a").await;
    let text = "\u{0}".repeat(1 << 20); // six times as long as a line
    for key in ["k", "l", "m"] {
        client.put("a", key, text.as_str()).await.unwrap();
    }

    done(&import(&to, &[], &exported(&from, &[])));

    assert!(to.client().await.get("a", "m").await.unwrap().entry.unwrap().value == value(text.as_str()));
}

#[tokio::test]
async fn an_export_that_goes_into_an_import_needs_no_file() {
    let (from, to) = (Server::start(), Server::start());
    filled(&from.client().await, "a", 2_500, 10).await;
    let mut export = command(from.address, &["export"]).spawn().unwrap();
    let lines = export.stdout.take().unwrap();

    let imported = command(to.address, &["import", "-o", "json"]).stdin(lines).output().unwrap();

    assert!(export.wait().unwrap().success());
    let summary: Json = serde_json::from_str(&done(&imported)).unwrap();
    assert_eq!((&summary["buckets"], &summary["entries"], &summary["skipped"]), (&1.into(), &2_500.into(), &0.into()));
}
