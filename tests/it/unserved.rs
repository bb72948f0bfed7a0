//! What a later release serves says so when it is asked for: it is never ignored.

use pail::pb::{self, EventKind};
use tonic::Code;

use super::support::{Server, incarnations, names, prefix, put, refused};

const CODE: Code = Code::Unimplemented;
const WHY: &str = "UNIMPLEMENTED";

#[tokio::test]
async fn rpcs_that_are_not_served_yet_say_so() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    let mut rpc = client.rpc();
    let bucket = || "b".to_owned();

    refused(rpc.add(pb::AddRequest { bucket: bucket(), ..Default::default() }).await, CODE, WHY, &[]);
    refused(rpc.touch(pb::TouchRequest { bucket: bucket(), ..Default::default() }).await, CODE, WHY, &[]);
    refused(rpc.transact(pb::TransactRequest { bucket: bucket(), ..Default::default() }).await, CODE, WHY, &[]);
    refused(rpc.pipeline(tokio_stream::pending()).await.map(drop), CODE, WHY, &[]);
    refused(rpc.link(tokio_stream::pending()).await.map(drop), CODE, WHY, &[]);
}

#[tokio::test]
async fn fields_that_are_not_served_yet_say_so_when_they_are_set() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    let hour = Some(prost_types::Duration { seconds: 3_600, nanos: 0 });
    let facts = |field| [("field", field)];

    let request = |name: &str| pb::CreateRequest { bucket: name.into(), ..Default::default() };
    let ttl = pb::CreateRequest { ttl: hour, ..request("c") };
    refused(client.rpc().create(ttl).await, CODE, WHY, &facts("ttl"));
    let idle_ttl = pb::CreateRequest { idle_ttl: hour, ..request("c") };
    refused(client.rpc().create(idle_ttl).await, CODE, WHY, &facts("idle_ttl"));
    refused(client.lookup("c").await, Code::NotFound, "BUCKET_NOT_FOUND", &[("bucket", "c")]);

    let ttl = pb::PutRequest { ttl: hour, ..put("b", "k", "v") };
    refused(client.put_with(ttl).await, CODE, WHY, &facts("ttl"));
    assert_eq!(client.lookup("b").await.unwrap().version, 0);
}

#[tokio::test]
async fn options_of_a_watch_that_are_not_served_yet_say_so_when_they_are_set() {
    let server = Server::start();
    let client = server.client().await;
    client.created("b").await;
    for base in [names(&["b"]), incarnations(&[("b", 1)]), prefix("")] {
        let kinds = |kind: EventKind| pb::WatchRequest { kinds: vec![kind.into()], ..base.clone() };
        let rows = [
            ("entries", pb::WatchRequest { entries: true, ..base.clone() }),
            ("key_prefix", pb::WatchRequest { key_prefix: Some(String::new()), ..base.clone() }),
            ("keys_only", pb::WatchRequest { keys_only: true, ..base.clone() }),
            ("follow", pb::WatchRequest { follow: true, ..base.clone() }),
            ("after_revision", pb::WatchRequest { after_revision: Some(0), ..base.clone() }),
            ("registry_id", pb::WatchRequest { registry_id: Some(String::new()), ..base.clone() }),
            ("kinds", kinds(EventKind::Put)),
            ("kinds", kinds(EventKind::Deleted)),
        ];
        for (field, request) in rows {
            refused(client.watch(request).await.map(drop), CODE, WHY, &[("field", field)]);
        }
    }
    assert_eq!(server.registry.monitors(), 0);
}
