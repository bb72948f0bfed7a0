//! Waiting for the one who has the name: for the DOWN of that very bucket, and not by asking again and again.

use crate::{
    client::{
        error::Error,
        options::{Client, Options},
        watch::heard,
    },
    limits::HEARTBEAT_DEFAULT,
    pb::{Incarnation, WatchRequest, event::Event, watch_response::Response},
};

/// Waits until this bucket is down; it may be already.
pub(super) async fn until_down(
    client: &mut Client,
    bucket: String,
    bucket_id: u64,
    options: &Options,
) -> Result<(), Error> {
    let silence_max = HEARTBEAT_DEFAULT * 2 + options.timeout;
    let request = WatchRequest { incarnations: vec![Incarnation { bucket, bucket_id }], ..WatchRequest::default() };
    let mut answers = heard(options.timeout, client.watch(request)).await?.into_inner();
    while let Some(answer) = heard(silence_max, answers.message()).await? {
        let Some(Response::Events(events)) = answer.response else { continue };
        if events.events.iter().any(|event| matches!(event.event, Some(Event::Down(_)))) {
            break;
        }
    }
    Ok(())
}
