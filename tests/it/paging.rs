//! Pages of List and Scan: in order, each item once, and a token that belongs to its request.

use std::collections::BTreeSet;

use pail::pb;
use prost::Message as _;
use tonic::{Code, Status};

use super::support::{Client, Server, refused, scan};

/// In the order of their bytes, which is not that of their letters.
const NAMES: [&str; 9] = ["B", "a", "a/", "a/1", "a/10", "a/2", "b", "ä", "🧀"];

fn list(prefix: &str, page_size: i32) -> pb::ListRequest {
    pb::ListRequest { prefix: prefix.into(), page_size, page_token: String::new() }
}

/// The names of every page.
async fn all_names(client: &Client, mut request: pb::ListRequest) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    loop {
        let page = client.list(request.clone()).await.unwrap();
        pages.push(page.buckets.into_iter().map(|bucket| bucket.name).collect());
        if page.next_page_token.is_empty() {
            return pages;
        }
        request.page_token = page.next_page_token;
    }
}

/// The keys of every page.
async fn all_keys(client: &Client, mut request: pb::ScanRequest) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    loop {
        let page = client.scan(request.clone()).await.unwrap();
        pages.push(page.entries.into_iter().map(|entry| entry.key).collect());
        if page.next_page_token.is_empty() {
            return pages;
        }
        request.page_token = page.next_page_token;
    }
}

#[track_caller]
fn invalid_token<T: std::fmt::Debug>(result: Result<T, Status>) {
    refused(result, Code::InvalidArgument, "INVALID_PAGE_TOKEN", &[("field", "page_token")]);
}

async fn with_buckets(names: &[&str]) -> (Server, Client) {
    let server = Server::start();
    let client = server.client().await;
    for name in names.iter().rev() {
        client.created(name).await;
    }
    (server, client)
}

async fn with_entries(keys: &[&str]) -> (Server, Client) {
    let (server, client) = with_buckets(&["b"]).await;
    for key in keys.iter().rev() {
        client.put("b", key, *key).await.unwrap();
    }
    (server, client)
}

#[tokio::test]
async fn a_list_is_in_the_order_of_the_bytes_of_names_and_keeps_to_its_prefix() {
    let (_server, client) = with_buckets(&NAMES).await;

    assert_eq!(all_names(&client, list("", 0)).await, [NAMES]);
    assert_eq!(all_names(&client, list("a/", 0)).await, [["a/", "a/1", "a/10", "a/2"]]);
    assert_eq!(all_names(&client, list("a/", 3)).await, [&["a/", "a/1", "a/10"][..], &["a/2"]]);
    assert_eq!(all_names(&client, list("a/2", 1)).await, [["a/2"]]);
    assert_eq!(all_names(&client, list("c", 1)).await, [[""; 0]]);
    for size in 1..=9 {
        assert_eq!(all_names(&client, list("", size)).await.concat(), NAMES, "pages of {size}");
    }
}

#[tokio::test]
async fn a_scan_is_in_the_order_of_the_bytes_of_keys_and_keeps_to_its_prefix() {
    let (_server, client) = with_entries(&NAMES).await;
    let scan = |prefix: &str, page_size| pb::ScanRequest { prefix: prefix.into(), page_size, ..scan("b") };

    assert_eq!(all_keys(&client, scan("", 0)).await, [NAMES]);
    assert_eq!(all_keys(&client, scan("a/", 3)).await, [&["a/", "a/1", "a/10"][..], &["a/2"]]);
    assert_eq!(all_keys(&client, scan("c", 1)).await, [[""; 0]]);
    for size in 1..=9 {
        assert_eq!(all_keys(&client, scan("", size)).await.concat(), NAMES, "pages of {size}");
    }
}

#[tokio::test]
async fn a_scan_has_values_unless_only_keys_are_asked_for() {
    let (_server, client) = with_entries(&["k"]).await;

    let entry = client.scan(scan("b")).await.unwrap().entries.remove(0);
    assert_eq!(entry.value.unwrap().kind, Some(pb::value::Kind::Text("k".to_owned())));
    let entry = client.scan(pb::ScanRequest { keys_only: true, ..scan("b") }).await.unwrap().entries.remove(0);
    assert_eq!((&*entry.key, entry.value, entry.version), ("k", None, 1));
}

#[tokio::test]
async fn a_token_belongs_to_the_arguments_of_its_list() {
    let (server, client) = with_buckets(&NAMES).await;
    let token = client.list(list("a", 1)).await.unwrap().next_page_token;

    for (prefix, page_token) in
        [("", &*token), ("a/", &token), ("b", &token), ("a", "nonsense"), ("a", "!"), ("a", "YQ")]
    {
        let request = pb::ListRequest { page_token: page_token.into(), ..list(prefix, 1) };
        invalid_token(client.list(request).await);
    }
    let bigger = pb::ListRequest { page_token: token.clone(), ..list("a", 3) };
    let names: Vec<_> = client.list(bigger).await.unwrap().buckets.into_iter().map(|bucket| bucket.name).collect();
    assert_eq!(names, ["a/", "a/1", "a/10"], "page_size may change");

    client.put("b", "k", "v").await.unwrap();
    client.put("b", "l", "v").await.unwrap();
    let of_scan = client.scan(pb::ScanRequest { page_size: 1, ..scan("b") }).await.unwrap().next_page_token;
    invalid_token(client.list(pb::ListRequest { page_token: of_scan, ..list("", 1) }).await);
    drop(server);
}

#[tokio::test]
async fn a_token_belongs_to_the_arguments_and_the_bucket_of_its_scan() {
    let (_server, client) = with_entries(&NAMES).await;
    let first = pb::ScanRequest { prefix: "a".into(), page_size: 1, ..scan("b") };
    let page_token = client.scan(first.clone()).await.unwrap().next_page_token;
    let next = pb::ScanRequest { page_token, ..first };

    invalid_token(client.scan(pb::ScanRequest { prefix: String::new(), ..next.clone() }).await);
    invalid_token(client.scan(pb::ScanRequest { keys_only: true, ..next.clone() }).await);
    client.created("c").await;
    invalid_token(client.scan(pb::ScanRequest { bucket: "c".into(), ..next.clone() }).await);
    let bigger = client.scan(pb::ScanRequest { page_size: 2, ..next.clone() }).await.unwrap();
    assert_eq!(bigger.entries.len(), 2, "page_size may change");

    client.stop("b").await.unwrap();
    client.created("b").await;
    invalid_token(client.scan(next).await);
}

#[tokio::test]
async fn a_token_survives_the_end_of_its_bucket_and_of_its_key() {
    let (_server, client) = with_buckets(&NAMES).await;
    for key in ["k1", "k2", "k3"] {
        client.put("B", key, "v").await.unwrap();
    }

    let page = client.list(list("", 2)).await.unwrap();
    client.stop("a").await.unwrap();
    let rest = pb::ListRequest { page_token: page.next_page_token, ..list("", 0) };
    assert_eq!(all_names(&client, rest).await.concat(), NAMES[2..]);

    let first = pb::ScanRequest { page_size: 1, ..scan("B") };
    let page_token = client.scan(first.clone()).await.unwrap().next_page_token;
    client.delete("B", "k1").await.unwrap();
    assert_eq!(all_keys(&client, pb::ScanRequest { page_token, ..first }).await.concat(), ["k2", "k3"]);
}

#[tokio::test]
async fn what_lives_throughout_is_listed_exactly_once_while_others_come_and_go() {
    let (server, client) = with_buckets(&[]).await;
    let stable: BTreeSet<String> = (0..60).map(|n| format!("{n:02}")).collect();
    for name in &stable {
        client.created(name).await;
    }
    let churn = server.client().await;
    let churn = tokio::spawn(async move {
        for n in (0..60).cycle() {
            let name = format!("{n:02}x");
            churn.created(&name).await;
            churn.stop(&name).await.unwrap();
        }
    });

    for _ in 0..5 {
        let names = all_names(&client, list("", 7)).await.concat();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
        let listed: BTreeSet<String> = names.into_iter().filter(|name| !name.ends_with('x')).collect();
        assert_eq!(listed, stable);
    }
    assert!(!churn.is_finished(), "there was something to come and go");
    churn.abort();
}

#[tokio::test]
async fn every_page_of_a_list_has_the_revision_of_the_first() {
    let (_server, client) = with_buckets(&["a", "b", "c", "d", "e"]).await;
    let mut request = list("", 2);
    let first = client.list(request.clone()).await.unwrap();
    assert_eq!(first.revision, client.lookup("a").await.unwrap().create_revision, "the last event's");

    request.page_token = first.next_page_token;
    while !request.page_token.is_empty() {
        client.created(&format!("new {}", request.page_token)).await;
        let page = client.list(request.clone()).await.unwrap();
        assert_eq!(page.revision, first.revision);
        request.page_token = page.next_page_token;
    }
    assert!(client.list(list("", 1)).await.unwrap().revision > first.revision);
}

#[tokio::test]
async fn a_page_has_100_items_if_unset_and_1000_at_most() {
    let (_server, client) = with_buckets(&["b"]).await;
    for n in 0..1_001 {
        client.put("b", &format!("{n:04}"), "").await.unwrap();
    }
    for n in 1..1_001 {
        client.create(&format!("{n:04}")).await.unwrap();
    }
    for (asked, given) in [(0, 100), (1, 1), (999, 999), (1_000, 1_000), (1_001, 1_000), (i32::MAX, 1_000)] {
        let page = client.scan(pb::ScanRequest { page_size: asked, ..scan("b") }).await.unwrap();
        assert_eq!((page.entries.len(), page.next_page_token.is_empty()), (given, false), "a scan of {asked}");
        let page = client.list(list("", asked)).await.unwrap();
        assert_eq!((page.buckets.len(), page.next_page_token.is_empty()), (given, false), "a list of {asked}");
    }
}

#[tokio::test]
async fn no_page_of_a_scan_is_larger_than_a_message_may_be() {
    let (_server, client) = with_buckets(&["b"]).await;
    let keys: Vec<_> = (0..9).map(|n| format!("{n}")).collect();
    for key in &keys {
        client.put("b", key, vec![7; 1 << 20]).await.unwrap();
    }

    // The client refuses a message of more than 4 MiB, so that this would fail by itself.
    let mut request = pb::ScanRequest { page_size: 1_000, ..scan("b") };
    let mut found = Vec::new();
    loop {
        let page = client.scan(request.clone()).await.unwrap();
        assert!(page.encoded_len() <= 4 << 20);
        assert!(page.entries.len() >= 3 || page.next_page_token.is_empty(), "a page is not smaller than it must be");
        found.extend(page.entries.into_iter().map(|entry| entry.key));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(found, keys, "a short page with a token is not the end");

    let only_keys = pb::ScanRequest { keys_only: true, ..scan("b") };
    assert_eq!(all_keys(&client, only_keys).await, [keys], "values that are left out take no room");
}

#[tokio::test]
async fn a_page_that_is_exactly_the_rest_has_no_token() {
    let (_server, client) = with_entries(&["k1", "k2"]).await;

    let scanned = client.scan(pb::ScanRequest { page_size: 2, ..scan("b") }).await.unwrap();
    let listed = client.list(list("", 1)).await.unwrap();

    assert_eq!((scanned.entries.len(), &*scanned.next_page_token), (2, ""));
    assert_eq!((listed.buckets.len(), &*listed.next_page_token), (1, ""));
}
