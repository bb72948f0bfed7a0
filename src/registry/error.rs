//! Why the registry refused. A refused request changed nothing, but for a crash, which ends its bucket.

use crate::{bucket, budget::OverQuota, name::BucketId, process::Exit};

/// Why a request to the registry failed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// No bucket of this name lives, or it is not the one with the id that was given.
    #[error("no such bucket")]
    BucketNotFound,
    /// A bucket of this name lives, and none was to.
    #[error("bucket {id} has the name")]
    BucketExists {
        /// Which one it is.
        id: BucketId,
    },
    /// There are as many buckets as there may be.
    #[error("there may be {limit} buckets")]
    TooManyBuckets {
        /// How many that is.
        limit: usize,
    },
    /// The identity that creates it has as many buckets as it may.
    #[error(transparent)]
    OverQuota(OverQuota),
    /// The bucket refused.
    #[error(transparent)]
    Bucket(bucket::Error),
    /// An operation of a transaction was refused, and with it all of them.
    #[error(transparent)]
    Transact(bucket::TransactError),
    /// This very call crashed the bucket, which is down now.
    #[error("the call crashed bucket {id}: {exit}")]
    BucketCrashed {
        /// Which bucket it was.
        id: BucketId,
        /// Why it is down.
        exit: Exit,
    },
    /// This very call crashed the registrar, which has been started again.
    #[error("the call crashed the registry: {0}")]
    RegistryCrashed(Exit),
    /// The registrar crashed too often: the server is about to end.
    #[error("the registry has given up")]
    GaveUp,
}

impl From<bucket::Error> for Error {
    fn from(error: bucket::Error) -> Self {
        match error {
            bucket::Error::Expired => Self::BucketNotFound,
            error => Self::Bucket(error),
        }
    }
}

impl From<bucket::TransactError> for Error {
    fn from(error: bucket::TransactError) -> Self {
        match error {
            bucket::TransactError::Bucket(error) => error.into(),
            error => Self::Transact(error),
        }
    }
}
