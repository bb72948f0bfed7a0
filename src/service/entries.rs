//! The RPCs on the entries of one bucket: Put, Get, Delete, Add, Touch and Scan.

use super::{
    Buckets,
    convert::{Subject, to_entry, to_value, ttl, value},
    page::{Token, items_max},
    status::Failure,
};
use crate::{
    auth::{Caller, Verb},
    bucket::{Add, Delete, Get, Put, Scan, Touch, Values},
    name::Version,
    pb,
    planted::{Bug, strikes},
    registry::{Error, Target},
};

impl Buckets {
    pub(super) fn put_entry(&self, caller: &Caller, request: pb::PutRequest) -> Result<pb::PutResponse, Failure> {
        let target = Target { name: self.name(caller, Verb::Write, &request.bucket)?, id: request.bucket_id };
        let put = Put {
            key: self.key(&request.key)?,
            value: value(request.value, self.registry.limits())?,
            ttl: ttl("ttl", request.ttl)?,
            expected: request.expected_version.map(Version),
        };
        let subject = Subject { bucket: &request.bucket, bucket_id: request.bucket_id, key: &request.key };
        let answer = self.registry.ask(target, put);
        if let (Err(Error::BucketNotFound), Some(bucket_id)) = (&answer, request.bucket_id)
            && strikes(Bug::AckAfterDown)
        {
            return Ok(pb::PutResponse { version: 1_000, bucket_id });
        }
        let (id, version) = answer.map_err(|error| subject.failure(error))?;
        Ok(pb::PutResponse { version: version.0, bucket_id: id.get() })
    }

    pub(super) fn get_entry(&self, caller: &Caller, request: pb::GetRequest) -> Result<pb::GetResponse, Failure> {
        let target = Target { name: self.name(caller, Verb::Read, &request.bucket)?, id: request.bucket_id };
        let get = Get { key: self.key(&request.key)? };
        let subject = Subject { bucket: &request.bucket, bucket_id: request.bucket_id, key: &request.key };
        let (id, slot) = self.registry.ask(target, get).map_err(|error| subject.failure(error))?;
        let entry = pb::Entry {
            key: request.key,
            value: Some(to_value(slot.value)),
            version: slot.version.0,
            expire_time: self.expire_time(slot.due),
        };
        Ok(pb::GetResponse { entry: Some(entry), bucket_id: id.get() })
    }

    pub(super) fn delete_entry(
        &self,
        caller: &Caller,
        request: &pb::DeleteRequest,
    ) -> Result<pb::DeleteResponse, Failure> {
        let target = Target { name: self.name(caller, Verb::Write, &request.bucket)?, id: request.bucket_id };
        let delete = Delete { key: self.key(&request.key)?, expected: request.expected_version.map(Version) };
        let subject = Subject { bucket: &request.bucket, bucket_id: request.bucket_id, key: &request.key };
        let (id, deleted) = self.registry.ask(target, delete).map_err(|error| subject.failure(error))?;
        Ok(pb::DeleteResponse {
            entry: deleted.entry.map(|entry| to_entry(entry, &self.registry)),
            version: deleted.version.0,
            bucket_id: id.get(),
        })
    }

    pub(super) fn add_to_entry(&self, caller: &Caller, request: &pb::AddRequest) -> Result<pb::AddResponse, Failure> {
        let target = Target { name: self.name(caller, Verb::Write, &request.bucket)?, id: request.bucket_id };
        let add = Add { key: self.key(&request.key)?, delta: request.delta, ttl: ttl("ttl", request.ttl)? };
        let subject = Subject { bucket: &request.bucket, bucket_id: request.bucket_id, key: &request.key };
        let (id, (value, version)) = self.registry.ask(target, add).map_err(|error| subject.failure(error))?;
        Ok(pb::AddResponse { value, version: version.0, bucket_id: id.get() })
    }

    pub(super) fn touch_entry(
        &self,
        caller: &Caller,
        request: &pb::TouchRequest,
    ) -> Result<pb::TouchResponse, Failure> {
        // Without a key it is the bucket's own time.
        let verb = if request.key.is_some() { Verb::Write } else { Verb::Lifecycle };
        let target = Target { name: self.name(caller, verb, &request.bucket)?, id: request.bucket_id };
        let key = request.key.as_deref().map(|key| self.key(key)).transpose()?;
        let touch = Touch { key, ttl: ttl("ttl", request.ttl)? };
        let subject = Subject {
            bucket: &request.bucket,
            bucket_id: request.bucket_id,
            key: request.key.as_deref().unwrap_or_default(),
        };
        let (id, due) = self.registry.ask(target, touch).map_err(|error| subject.failure(error))?;
        Ok(pb::TouchResponse { expire_time: self.expire_time(due), bucket_id: id.get() })
    }

    pub(super) fn scan_entries(&self, caller: &Caller, request: &pb::ScanRequest) -> Result<pb::ScanResponse, Failure> {
        let target = Target { name: self.name(caller, Verb::Read, &request.bucket)?, id: request.bucket_id };
        let token = Token::decode(&request.page_token)?;
        let scan = Scan {
            prefix: &request.prefix,
            after: token.as_ref().map(|token| &*token.after),
            items_max: items_max(request.page_size)?,
            bytes_max: self.page_bytes_max(),
            values: if request.keys_only { Values::LeftOut } else { Values::Included },
        };
        let subject = Subject { bucket: &request.bucket, bucket_id: request.bucket_id, key: "" };
        let (id, page) = self.registry.ask(target, scan).map_err(|error| subject.failure(error))?;

        // Judged when it is known which bucket has the name.
        let of = id.to_string();
        token.map(|token| token.of(&of, &request.prefix, request.keys_only)).transpose()?;
        let last = page.entries.last().filter(|_| page.more);
        let next_page_token = last.map(|last| {
            let (prefix, after) = (request.prefix.clone(), last.key.to_string());
            Token { of, prefix, keys_only: request.keys_only, after, revision: 0 }.encode()
        });
        Ok(pb::ScanResponse {
            entries: page.entries.into_iter().map(|entry| to_entry(entry, &self.registry)).collect(),
            next_page_token: next_page_token.unwrap_or_default(),
            version: page.version.0,
            bucket_id: id.get(),
        })
    }
}
