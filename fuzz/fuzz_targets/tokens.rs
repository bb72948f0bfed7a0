//! Any bytes as page tokens, as they are and as base64 of what they say: a page, or INVALID_ARGUMENT.

#![no_main]

use std::sync::{Arc, OnceLock};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::FutureExt as _;
use libfuzzer_sys::fuzz_target;
use pail::{
    clock::SystemClock,
    limits::Limits,
    pb::{self, bucket_service_server::BucketService as _},
    registry::Registry,
    service::Buckets,
};
use tonic::{Code, Request};

fuzz_target!(|bytes: &[u8]| {
    static SERVICE: OnceLock<Buckets> = OnceLock::new();
    let service = SERVICE.get_or_init(|| {
        let registry = Registry::start(Limits::default(), Arc::new(SystemClock::default()), "fuzz".to_owned());
        let service = Buckets::new(registry);
        let create = pb::CreateRequest { bucket: "b".into(), ..Default::default() };
        service.create(Request::new(create)).now_or_never().unwrap().unwrap();
        service
    });
    for page_token in [String::from_utf8_lossy(bytes).into_owned(), BASE64_URL_SAFE_NO_PAD.encode(bytes)] {
        let list = pb::ListRequest { page_token: page_token.clone(), ..Default::default() };
        let list = service.list(Request::new(list)).now_or_never().unwrap().map(drop);
        let scan = pb::ScanRequest { bucket: "b".into(), page_token, ..Default::default() };
        let scan = service.scan(Request::new(scan)).now_or_never().unwrap().map(drop);
        for answer in [list, scan] {
            assert!(answer.as_ref().err().is_none_or(|status| status.code() == Code::InvalidArgument), "{answer:?}");
        }
    }
});
