//! Create, Lookup, List and Stop.

use prost::Message as _;

use super::{
    Buckets,
    convert::{Subject, to_bucket, ttl},
    page::{Token, items_max},
    status::{Failure, Reason},
};
use crate::{
    auth::{Caller, Verb},
    bucket::Begin,
    name::Revision,
    pb,
    process::{self, Exit},
    registry::Target,
};

impl Buckets {
    pub(super) fn create_bucket(
        &self,
        caller: &Caller,
        request: &pb::CreateRequest,
    ) -> Result<pb::CreateResponse, Failure> {
        let name = self.name(caller, Verb::Lifecycle, &request.bucket)?;
        let life = Begin { ttl: ttl("ttl", request.ttl)?, idle_ttl: ttl("idle_ttl", request.idle_ttl)? };
        let subject = Subject { bucket: &request.bucket, bucket_id: None, key: "" };
        let (bucket, created) =
            self.registry.create_for(caller.owner(), name, life).map_err(|error| subject.failure(error))?;
        Ok(pb::CreateResponse {
            bucket: Some(to_bucket(&bucket, &self.registry)),
            created,
            revision: Revision::from(bucket.id).get(),
        })
    }

    pub(super) fn lookup_bucket(
        &self,
        caller: &Caller,
        request: &pb::LookupRequest,
    ) -> Result<pb::LookupResponse, Failure> {
        let name = self.name(caller, Verb::Read, &request.bucket)?;
        let subject = Subject { bucket: &request.bucket, bucket_id: None, key: "" };
        let bucket = self.registry.lookup(name).map_err(|error| subject.failure(error))?;
        Ok(pb::LookupResponse { bucket: Some(to_bucket(&bucket, &self.registry)) })
    }

    pub(super) fn list_buckets(&self, caller: &Caller, request: &pb::ListRequest) -> Result<pb::ListResponse, Failure> {
        let items_max = items_max(request.page_size)?;
        let token = Token::decode(&request.page_token)?
            .map(|token| token.of(self.registry.id(), &request.prefix, false))
            .transpose()?;
        let after = token.as_ref().map(|token| &*token.after);
        let subject = Subject { bucket: "", bucket_id: None, key: "" };
        let scopes = Self::scopes(caller, Verb::Read, &request.prefix)?;
        let page = self.registry.list_among(&scopes, after, items_max).map_err(|error| subject.failure(error))?;

        let revision = token.map_or(page.revision.get(), |token| token.revision);
        let mut next_after = page.next_after;
        let mut room = self.page_bytes_max();
        let mut buckets = Vec::with_capacity(page.buckets.len());
        for bucket in &page.buckets {
            let message = to_bucket(bucket, &self.registry);
            let bytes = message.encoded_len() + ITEM_BYTES;
            if bytes > room && !buckets.is_empty() {
                break;
            }
            room = room.saturating_sub(bytes);
            buckets.push(message);
        }
        if buckets.len() < page.buckets.len() {
            next_after = buckets.last().map(|last| last.name.as_str().into());
        }
        let next_page_token = next_after.map(|after| {
            let (of, prefix) = (self.registry.id().to_owned(), request.prefix.clone());
            Token { of, prefix, keys_only: false, after: after.to_string(), revision }.encode()
        });
        Ok(pb::ListResponse { buckets, next_page_token: next_page_token.unwrap_or_default(), revision })
    }

    pub(super) fn stop_bucket(&self, caller: &Caller, request: &pb::StopRequest) -> Result<pb::StopResponse, Failure> {
        let name = self.name(caller, Verb::Lifecycle, &request.bucket)?;
        let exit = self.exit(request)?.by(caller.identity().cloned());
        let subject = Subject { bucket: &request.bucket, bucket_id: request.bucket_id, key: "" };
        let (id, revision) = self
            .registry
            .stop(Target { name, id: request.bucket_id }, &exit)
            .map_err(|error| subject.failure(error))?;
        Ok(pb::StopResponse { bucket_id: id.get(), revision: revision.get() })
    }

    /// The end that a client may give a bucket.
    fn exit(&self, request: &pb::StopRequest) -> Result<Exit, Failure> {
        let reason = match pb::Reason::try_from(request.reason) {
            Ok(pb::Reason::Unspecified | pb::Reason::Normal) => process::Reason::Normal,
            Ok(pb::Reason::Shutdown) => process::Reason::Shutdown,
            Ok(pb::Reason::Killed) => process::Reason::Killed,
            Ok(pb::Reason::Crashed) => process::Reason::Crashed,
            _ => {
                let words = format!("reason is {}: NORMAL, SHUTDOWN, KILLED or CRASHED is allowed", request.reason);
                return Err(Failure::new(Reason::InvalidOption, words).field("reason"));
            }
        };
        let (limit, actual) = (self.registry.limits().detail_bytes_max, request.detail.len());
        if actual > limit {
            let words = format!("the detail has {actual} bytes; {limit} are allowed");
            return Err(Failure::new(Reason::TooLarge, words).field("detail").limit(limit, actual));
        }
        Ok(Exit::new(reason, &request.detail))
    }
}

/// What a page's item costs besides its own bytes: a tag and a length.
const ITEM_BYTES: usize = 6;
