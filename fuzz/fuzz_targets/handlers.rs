//! Any bytes as requests, one after the other, to a service of its own: a byte for the RPC, a byte for the length, and so many
//! bytes of the message. An answer is a response or a refusal, never a fault of the server's.

#![no_main]

use std::{
    fmt,
    sync::OnceLock,
    task::{Context, Poll, Waker},
};

use futures_util::{FutureExt as _, StreamExt as _};
use libfuzzer_sys::fuzz_target;
use pail::{
    clock::SystemClock, limits::Limits, pb::bucket_service_server::BucketService as _, registry::Registry,
    service::Buckets,
};
use prost::Message;
use tokio::runtime::{Builder, Runtime};
use tonic::{Code, Request, Response, Status};

fuzz_target!(|bytes: &[u8]| {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let _timers = RUNTIME.get_or_init(|| Builder::new_current_thread().enable_time().build().unwrap()).enter();
    let limits = Limits { buckets_max: 8, entries_max: 8, ..Limits::default() };
    let registry = Registry::start(limits, std::sync::Arc::new(SystemClock::default()), "fuzz".to_owned());
    let service = Buckets::new(registry.clone());
    let mut rest = bytes;
    while let [rpc, length, after @ ..] = rest {
        let (message, after) = after.split_at(usize::from(*length).min(after.len()));
        rest = after;
        call(&service, *rpc, message);
    }
    registry.deliver();
});

fn call(service: &Buckets, rpc: u8, message: &[u8]) {
    match rpc % 12 {
        0 => judge(request(message).map(|request| service.create(request).now_or_never().unwrap())),
        1 => judge(request(message).map(|request| service.lookup(request).now_or_never().unwrap())),
        2 => judge(request(message).map(|request| service.list(request).now_or_never().unwrap())),
        3 => judge(request(message).map(|request| service.stop(request).now_or_never().unwrap())),
        4 => judge(request(message).map(|request| service.put(request).now_or_never().unwrap())),
        5 => judge(request(message).map(|request| service.get(request).now_or_never().unwrap())),
        6 => judge(request(message).map(|request| service.delete(request).now_or_never().unwrap())),
        7 => judge(request(message).map(|request| service.add(request).now_or_never().unwrap())),
        8 => judge(request(message).map(|request| service.touch(request).now_or_never().unwrap())),
        9 => judge(request(message).map(|request| service.scan(request).now_or_never().unwrap())),
        10 => judge(request(message).map(|request| service.transact(request).now_or_never().unwrap())),
        _ => {
            let Some(request) = request(message) else { return };
            let Ok(answer) = service.watch(request).now_or_never().unwrap() else { return };
            let mut responses = answer.into_inner();
            for _ in 0..10 {
                match responses.poll_next_unpin(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(Some(response)) => drop(response.unwrap().encode_to_vec()),
                    Poll::Ready(None) => return,
                    Poll::Pending => {}
                }
            }
        }
    }
}

/// The request that these bytes are, if they are one.
fn request<T: Message + Default>(message: &[u8]) -> Option<Request<T>> {
    T::decode(message).ok().map(Request::new)
}

fn judge<T: fmt::Debug>(answer: Option<Result<Response<T>, Status>>) {
    if let Some(Err(status)) = answer {
        assert!(!matches!(status.code(), Code::Internal | Code::Unknown), "{status:?}");
    }
}
