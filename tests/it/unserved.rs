//! What a later release serves says so when it is asked for: it is never ignored.

use pail::pb::{self, EventKind};
use tonic::Code;

use super::support::{Server, incarnations, names, prefix, refused};

const CODE: Code = Code::Unimplemented;
const WHY: &str = "UNIMPLEMENTED";

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
            ("kinds", kinds(EventKind::Put)),
            ("kinds", kinds(EventKind::Deleted)),
        ];
        for (field, request) in rows {
            refused(client.watch(request).await.map(drop), CODE, WHY, &[("field", field)]);
        }
    }
    assert_eq!(server.registry.monitors(), 0);
}
