//! What a stream has said and the connection has not sent. A stream that goes on for ever says nothing more while something
//! waits: what a slow client has yet to read stays where it is kept once for all.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

/// The last bytes of one stream.
#[derive(Debug, Default)]
pub(super) struct Unsent(Arc<Last>);

#[derive(Debug, Default)]
struct Last {
    waits: AtomicBool,
    sent: AtomicWaker,
}

/// Bytes that HTTP/2 drops when it has handed them to the socket, or the stream is over.
struct Waiting {
    bytes: Bytes,
    last: Arc<Last>,
}

impl Unsent {
    /// Ready when nothing waits.
    pub(super) fn poll_sent(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.0.waits.load(SeqCst) {
            return Poll::Ready(());
        }
        self.0.sent.register(cx.waker());
        // They may have gone just before.
        if self.0.waits.load(SeqCst) { Poll::Pending } else { Poll::Ready(()) }
    }

    /// The same bytes, which wait from now on.
    pub(super) fn wait_for(&self, bytes: Bytes) -> Bytes {
        self.0.waits.store(true, SeqCst);
        Bytes::from_owner(Waiting { bytes, last: Arc::clone(&self.0) })
    }
}

impl AsRef<[u8]> for Waiting {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.last.waits.store(false, SeqCst);
        self.last.sent.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn bytes_wait_until_the_last_part_of_them_is_dropped() {
        let (unsent, cx) = (Unsent::default(), Context::from_waker(Waker::noop()));
        assert!(unsent.poll_sent(&cx).is_ready());
        let mut bytes = unsent.wait_for(Bytes::from_static(b"all of it"));
        let part = bytes.split_to(3);
        assert_eq!((&*part, &*bytes), (&b"all"[..], &b" of it"[..]));
        drop(part);
        assert!(unsent.poll_sent(&cx).is_pending());
        drop(bytes);
        assert!(unsent.poll_sent(&cx).is_ready());
    }
}
