//! Put, Get, Delete and Scan.

use super::{
    Buckets,
    convert::{Subject, to_entry, to_value, value},
    page::{Token, items_max},
    status::Failure,
    unserved,
};
use crate::{
    bucket::{Scan, Values},
    name::Version,
    pb,
};

impl Buckets {
    pub(super) fn put_entry(&self, request: pb::PutRequest) -> Result<pb::PutResponse, Failure> {
        let (name, key) = (self.name(&request.bucket)?, self.key(&request.key)?);
        unserved("ttl", request.ttl.is_some())?;
        let value = value(request.value, self.registry.limits())?;
        let expected = request.expected_version.map(Version);
        let subject = Subject { bucket: &request.bucket, bucket_id: request.bucket_id, key: &request.key };
        let put = self.registry.put(name, request.bucket_id, key, value, expected);
        let (id, version) = put.map_err(|error| subject.failure(error))?;
        Ok(pb::PutResponse { version: version.0, bucket_id: id.get() })
    }

    pub(super) fn get_entry(&self, request: pb::GetRequest) -> Result<pb::GetResponse, Failure> {
        let (name, key) = (self.name(&request.bucket)?, self.key(&request.key)?);
        let subject = Subject { bucket: &request.bucket, bucket_id: request.bucket_id, key: &request.key };
        let got = self.registry.get(name, request.bucket_id, key);
        let (id, (value, version)) = got.map_err(|error| subject.failure(error))?;
        let entry = pb::Entry { key: request.key, value: Some(to_value(value)), version: version.0, expire_time: None };
        Ok(pb::GetResponse { entry: Some(entry), bucket_id: id.get() })
    }

    pub(super) fn delete_entry(&self, request: &pb::DeleteRequest) -> Result<pb::DeleteResponse, Failure> {
        let (name, key) = (self.name(&request.bucket)?, self.key(&request.key)?);
        let expected = request.expected_version.map(Version);
        let subject = Subject { bucket: &request.bucket, bucket_id: request.bucket_id, key: &request.key };
        let deleted = self.registry.delete(name, request.bucket_id, key, expected);
        let (id, deleted) = deleted.map_err(|error| subject.failure(error))?;
        Ok(pb::DeleteResponse { entry: deleted.entry.map(to_entry), version: deleted.version.0, bucket_id: id.get() })
    }

    pub(super) fn scan_entries(&self, request: &pb::ScanRequest) -> Result<pb::ScanResponse, Failure> {
        let name = self.name(&request.bucket)?;
        let items_max = items_max(request.page_size)?;
        let token = Token::decode(&request.page_token)?;
        let scan = Scan {
            prefix: &request.prefix,
            after: token.as_ref().map(|token| &*token.after),
            items_max,
            bytes_max: self.page_bytes_max(),
            values: if request.keys_only { Values::LeftOut } else { Values::Included },
        };
        let subject = Subject { bucket: &request.bucket, bucket_id: request.bucket_id, key: "" };
        let (id, page) = self.registry.scan(name, request.bucket_id, scan).map_err(|error| subject.failure(error))?;

        // Judged when it is known which bucket has the name.
        let of = id.to_string();
        token.map(|token| token.of(&of, &request.prefix, request.keys_only)).transpose()?;
        let last = page.entries.last().filter(|_| page.more);
        let next_page_token = last.map(|last| {
            let (prefix, after) = (request.prefix.clone(), last.key.to_string());
            Token { of, prefix, keys_only: request.keys_only, after, revision: 0 }.encode()
        });
        Ok(pb::ScanResponse {
            entries: page.entries.into_iter().map(to_entry).collect(),
            next_page_token: next_page_token.unwrap_or_default(),
            version: page.version.0,
            bucket_id: id.get(),
        })
    }
}
