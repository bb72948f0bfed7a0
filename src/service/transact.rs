//! Transact: several changes of one bucket at once.

use super::{
    Buckets,
    convert::{Subject, to_entry, ttl, value},
    status::{Failure, Reason},
};
use crate::{
    auth::{Caller, Verb, Verbs},
    bucket::{Check, Condition, Op, Place, Transact, TransactError},
    limits::OPS_MAX,
    name::Version,
    pb,
    registry::{Error, Target},
};

impl Buckets {
    pub(super) fn transact_entries(
        &self,
        caller: &Caller,
        request: &pb::TransactRequest,
    ) -> Result<pb::TransactResponse, Failure> {
        let target = Target { name: self.name(caller, verbs(request), &request.bucket)?, id: request.bucket_id };
        let count = request.checks.len() + request.success.len() + request.failure.len();
        if count > OPS_MAX {
            let words = format!("the transaction has {count} checks and operations; {OPS_MAX} are allowed");
            return Err(Failure::new(Reason::TooLarge, words).limit(OPS_MAX, count));
        }
        let transact = Transact {
            checks: self.checks(&request.checks)?,
            success: self.ops("success", &request.success)?,
            failure: self.ops("failure", &request.failure)?,
            results_bytes_max: self.page_bytes_max(),
        };
        let subject = Subject { bucket: &request.bucket, bucket_id: request.bucket_id, key: "" };
        let (id, done) = self.registry.ask(target, transact).map_err(|error| match error {
            Error::Transact(error) => refused(request, error),
            error => subject.failure(error),
        })?;
        let result =
            |entry: Option<_>| pb::TransactResult { entry: entry.map(|entry| to_entry(entry, &self.registry)) };
        Ok(pb::TransactResponse {
            succeeded: done.succeeded,
            results: done.results.into_iter().map(result).collect(),
            version: done.version.0,
            bucket_id: id.get(),
        })
    }

    fn checks<'a>(&self, checks: &'a [pb::TransactCheck]) -> Result<Vec<Check<'a>>, Failure> {
        use pb::transact_check::Condition as Wire;
        let check = |(index, check): (usize, &'a pb::TransactCheck)| {
            let place = format!("checks[{index}]");
            let key = self.key(&check.key).map_err(|failure| failure.field(&place))?;
            let condition = match &check.condition {
                Some(Wire::VersionEquals(version)) => Condition::Version(Version(*version)),
                Some(Wire::ValueEquals(wanted)) => {
                    let wanted = value(Some(wanted.clone()), self.registry.limits());
                    Condition::Value(wanted.map_err(|failure| failure.field(&place))?)
                }
                Some(Wire::Present(present)) => Condition::Present(*present),
                None => {
                    let words = "the check is unset: version_equals, value_equals or present is required";
                    return Err(Failure::new(Reason::InvalidOption, words).field(&place));
                }
            };
            Ok(Check { key, condition })
        };
        checks.iter().enumerate().map(check).collect()
    }

    fn ops<'a>(&self, list: &str, ops: &'a [pb::TransactOp]) -> Result<Vec<Op<'a>>, Failure> {
        let op = |(index, op): (usize, &'a pb::TransactOp)| {
            self.op(op).map_err(|failure| failure.field(&format!("{list}[{index}].{}", kind(op))))
        };
        ops.iter().enumerate().map(op).collect()
    }

    fn op<'a>(&self, op: &'a pb::TransactOp) -> Result<Op<'a>, Failure> {
        use pb::transact_op::Op as Wire;
        match &op.op {
            Some(Wire::Put(put)) => {
                let value = value(put.value.clone(), self.registry.limits())?;
                Ok(Op::Put(self.key(&put.key)?, value, ttl("ttl", put.ttl)?))
            }
            Some(Wire::Delete(delete)) => Ok(Op::Delete(self.key(&delete.key)?)),
            Some(Wire::Add(add)) => Ok(Op::Add(self.key(&add.key)?, add.delta, ttl("ttl", add.ttl)?)),
            Some(Wire::Get(get)) => Ok(Op::Get(self.key(&get.key)?)),
            None => {
                let words = "the operation is unset: put, delete, add or get is required";
                Err(Failure::new(Reason::InvalidOption, words))
            }
        }
    }
}

/// What one has to be allowed: a check tells what is there as much as a get does.
fn verbs(request: &pb::TransactRequest) -> Verbs {
    use pb::transact_op::Op as Wire;
    let reads = |op: &pb::TransactOp| matches!(op.op, Some(Wire::Get(_)));
    let mut ops = request.success.iter().chain(&request.failure);
    let read = (!request.checks.is_empty() || ops.clone().any(reads)).then_some(Verb::Read);
    let write = ops.any(|op| !reads(op)).then_some(Verb::Write);
    // One that does nothing still tells whether there is such a bucket.
    let any = (read.is_none() && write.is_none()).then_some(Verb::Read);
    read.into_iter().chain(write).chain(any).collect()
}

fn refused(request: &pb::TransactRequest, error: TransactError) -> Failure {
    let bucket = |key| Subject { bucket: &request.bucket, bucket_id: request.bucket_id, key };
    match error {
        TransactError::Bucket(error) => bucket("").failure(Error::from(error)),
        TransactError::Op { place: Place { success, index }, error } => {
            let (list, ops) = if success { ("success", &request.success) } else { ("failure", &request.failure) };
            let failure = bucket(ops.get(index).map_or("", key)).failure(Error::Bucket(error));
            failure.field(&format!("{list}[{index}].{}", ops.get(index).map_or("", kind)))
        }
        TransactError::ResultsTooLarge { limit } => {
            let words =
                format!("the results would have more than {limit} bytes, which is all that a response may have");
            Failure::new(Reason::TooLarge, words).with("limit", limit).with("bucket", &request.bucket)
        }
    }
}

fn kind(op: &pb::TransactOp) -> &'static str {
    use pb::transact_op::Op as Wire;
    match &op.op {
        Some(Wire::Put(_)) => "put",
        Some(Wire::Delete(_)) => "delete",
        Some(Wire::Add(_)) => "add",
        Some(Wire::Get(_)) => "get",
        None => "op",
    }
}

fn key(op: &pb::TransactOp) -> &str {
    use pb::transact_op::Op as Wire;
    match &op.op {
        Some(Wire::Put(put)) => &put.key,
        Some(Wire::Delete(delete)) => &delete.key,
        Some(Wire::Add(add)) => &add.key,
        Some(Wire::Get(get)) => &get.key,
        None => "",
    }
}
