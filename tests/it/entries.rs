//! Entries: Put, Get, Delete and Scan of one bucket, its versions, and its id.

use pail::pb::{self, value::Kind};
use tonic::Code;

use super::support::{Server, delete, get, put, refused, scan};

#[tokio::test]
async fn every_kind_of_value_comes_back_to_the_byte() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    let nan = f64::from_bits(0x7ff8_0000_dead_beef);
    let kinds = [
        Kind::Text(String::new()),
        Kind::Text("müsli\0\n".to_owned()),
        Kind::Data(Vec::new()),
        Kind::Data((0..=255).collect()),
        Kind::Integer(i64::MIN),
        Kind::Integer(0),
        Kind::Integer(i64::MAX),
        Kind::Number(nan),
        Kind::Number(-0.0),
        Kind::Number(f64::NEG_INFINITY),
        Kind::Flag(false),
        Kind::Flag(true),
    ];
    // NaN is not equal to itself: numbers are compared by their bits.
    let bits = |kind: &Kind| match kind {
        Kind::Number(number) => Err(number.to_bits()),
        other => Ok(other.clone()),
    };
    for kind in kinds {
        client.put("b", "k", kind.clone()).await.unwrap();

        let got = client.get("b", "k").await.unwrap().entry.unwrap().value.unwrap().kind.unwrap();
        let scanned = client.scan(scan("b")).await.unwrap().entries.remove(0).value.unwrap().kind.unwrap();
        let deleted = client.delete("b", "k").await.unwrap().entry.unwrap().value.unwrap().kind.unwrap();
        for back in [got, scanned, deleted] {
            assert_eq!(bits(&back), bits(&kind));
        }
    }
}

#[tokio::test]
async fn an_unset_value_is_refused() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    for value in [None, Some(pb::Value { kind: None })] {
        let request = pb::PutRequest { value, ..put("b", "k", "") };
        let details =
            refused(client.put_with(request).await, Code::InvalidArgument, "INVALID_VALUE", &[("field", "value")]);
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "value");
    }
    assert_eq!(client.lookup("b").await.unwrap().version, 0);
}

#[tokio::test]
async fn each_change_takes_the_next_version_of_its_bucket() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;

    assert_eq!(client.put("b", "x", "1").await.unwrap().version, 1);
    assert_eq!(client.put("b", "y", "1").await.unwrap().version, 2);
    assert_eq!(client.put("b", "x", "1").await.unwrap().version, 3, "also a Put of an equal value");
    let deleted = client.delete("b", "y").await.unwrap();
    assert_eq!((deleted.version, deleted.entry.unwrap().version), (4, 2));
    let absent = client.delete("b", "y").await.unwrap();
    assert_eq!((absent.version, absent.entry), (4, None), "what changes nothing takes none");
    assert_eq!(client.get("b", "x").await.unwrap().entry.unwrap().version, 3);
    assert_eq!(client.lookup("b").await.unwrap().version, 4);
    assert_eq!(client.scan(scan("b")).await.unwrap().version, 4);
}

#[tokio::test]
async fn a_put_with_an_expected_version_happens_only_at_that_version() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    let put_at = |version| pb::PutRequest { expected_version: Some(version), ..put("b", "k", "v") };
    let facts = |actual| [("bucket", "b"), ("key", "k"), ("actual_version", actual)];
    let refused = |result, actual| refused(result, Code::FailedPrecondition, "VERSION_MISMATCH", &facts(actual));

    refused(client.put_with(put_at(1)).await, "0");
    assert_eq!(client.put_with(put_at(0)).await.unwrap().version, 1);
    refused(client.put_with(put_at(0)).await, "1");
    assert_eq!(client.put_with(put_at(1)).await.unwrap().version, 2);
    refused(client.put_with(put_at(1)).await, "2");
    refused(client.put_with(put_at(3)).await, "2");
    client.delete("b", "k").await.unwrap();
    refused(client.put_with(put_at(2)).await, "0");
    assert_eq!(client.lookup("b").await.unwrap().version, 3, "what is refused changes nothing");
}

#[tokio::test]
async fn a_delete_with_an_expected_version_happens_only_at_that_version() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    let delete_at = |version| pb::DeleteRequest { expected_version: Some(version), ..delete("b", "k") };
    let facts = |actual| [("bucket", "b"), ("key", "k"), ("actual_version", actual)];
    let refused = |result, actual| refused(result, Code::FailedPrecondition, "VERSION_MISMATCH", &facts(actual));

    refused(client.delete_with(delete_at(1)).await, "0");
    assert_eq!(client.delete_with(delete_at(0)).await.unwrap().entry, None, "0 expects that it is absent");
    client.put("b", "k", "v").await.unwrap();
    refused(client.delete_with(delete_at(0)).await, "1");
    refused(client.delete_with(delete_at(2)).await, "1");
    assert_eq!(client.delete_with(delete_at(1)).await.unwrap().entry.unwrap().version, 1);
}

#[tokio::test]
async fn of_racing_puts_at_one_version_exactly_one_happens() {
    let server = Server::start();
    let clients = [server.client().await, server.client().await, server.client().await, server.client().await];
    clients[0].created("b").await;
    for version in 0..50 {
        let request = || pb::PutRequest { expected_version: Some(version), ..put("b", "k", "v") };
        let [a, b, c, d] = clients.each_ref().map(|client| client.put_with(request()));
        let (a, b, c, d) = tokio::join!(a, b, c, d);
        let won = [a, b, c, d].into_iter().filter(Result::is_ok).count();
        assert_eq!(won, 1);
    }
}

#[tokio::test]
async fn every_entry_call_names_the_bucket_that_took_it_and_takes_its_id() {
    let server = Server::start();
    let client = server.client().await;
    let old = client.created("b").await;
    client.stop("b").await.unwrap();
    let id = client.created("b").await;
    let (bucket, living, dead) = ("b", Some(id), Some(old));
    let facts = [("bucket", bucket), ("bucket_id", &*old.to_string())];
    let facts_with_key = [facts[0], facts[1], ("key", "k")];
    macro_rules! each {
        ($method:ident, $request:expr, $facts:expr) => {{
            assert_eq!(client.$method($request).await.unwrap().bucket_id, id);
            let mut request = $request;
            request.bucket_id = living;
            assert_eq!(client.$method(request).await.unwrap().bucket_id, id);
            let mut request = $request;
            request.bucket_id = dead;
            let details = refused(client.$method(request).await, Code::NotFound, "BUCKET_NOT_FOUND", $facts);
            let resource = details.resource_info().unwrap();
            assert_eq!((&*resource.resource_type, &*resource.resource_name), ("bucket", bucket));
        }};
    }
    each!(put_with, put(bucket, "k", "v"), &facts_with_key);
    each!(get_with, get(bucket, "k"), &facts_with_key);
    each!(scan, scan(bucket), &facts);
    each!(delete_with, delete(bucket, "k"), &facts_with_key);
    assert_eq!(client.lookup("b").await.unwrap().version, 3, "nothing was written into a namesake");
}

#[tokio::test]
async fn a_missing_key_and_a_missing_bucket_differ() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;

    let facts = [("bucket", "b"), ("key", "k")];
    let details = refused(client.get("b", "k").await, Code::NotFound, "KEY_NOT_FOUND", &facts);
    let resource = details.resource_info().unwrap();
    assert_eq!((&*resource.resource_type, &*resource.resource_name), ("key", "k"));

    let facts = [("bucket", "c"), ("key", "k")];
    refused(client.get("c", "k").await, Code::NotFound, "BUCKET_NOT_FOUND", &facts);
}
