//! Names and numbers of the contract, as types: checked once, where they come in.

use std::{fmt, num::NonZeroU64, ops::Bound};

use crate::limits::Limits;

/// A bucket's name: UTF-8 without control characters, 1 byte to [`Limits::name_bytes_max`].
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct BucketName<'a>(&'a str);

impl<'a> BucketName<'a> {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Invalid`], where it is none.
    pub fn parse(text: &'a str, limits: &Limits) -> Result<Self, Invalid> {
        length(text, limits.name_bytes_max)?;
        // Names go into logs and onto terminals.
        match text.char_indices().find(|(_, char)| char.is_control()) {
            None => Ok(Self(text)),
            Some((at, _)) => Err(Invalid::Control { at }),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

/// An entry's key: UTF-8, 1 byte to [`Limits::key_bytes_max`].
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Key<'a>(&'a str);

impl<'a> Key<'a> {
    /// Checks a key.
    ///
    /// # Errors
    /// [`Invalid`], where it is none.
    pub fn parse(text: &'a str, limits: &Limits) -> Result<Self, Invalid> {
        length(text, limits.key_bytes_max)?;
        Ok(Self(text))
    }

    /// The key.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

fn length(text: &str, max: usize) -> Result<(), Invalid> {
    match text.len() {
        0 => Err(Invalid::Empty { max }),
        len if len > max => Err(Invalid::TooLong { max, actual: len }),
        _ => Ok(()),
    }
}

/// What is wrong with a name or a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Invalid {
    /// It is empty.
    #[error("it is empty; 1 to {max} bytes are allowed")]
    Empty {
        /// The bytes that are allowed.
        max: usize,
    },
    /// It is too long.
    #[error("it has {actual} bytes; 1 to {max} are allowed")]
    TooLong {
        /// The bytes that are allowed.
        max: usize,
        /// The bytes that there are.
        actual: usize,
    },
    /// It has a control character.
    #[error("it has a control character at byte {at}; none is allowed")]
    Control {
        /// Its place.
        at: usize,
    },
}

/// A bucket's id: one for each bucket that ever was. It is the revision of its creation.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BucketId(NonZeroU64);

impl BucketId {
    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for BucketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a bucket's last change; 0 for one without a change, and for an absent entry.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Version(pub u64);

impl Version {
    /// The next one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a registry's lifecycle event.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Revision(NonZeroU64);

impl Revision {
    /// The revision with this number; 1 for 0, which means none.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
    }

    /// The next one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }

    /// The id of the bucket that was created at this revision.
    #[must_use]
    pub fn as_id(self) -> BucketId {
        BucketId(self.0)
    }
}

impl From<BucketId> for Revision {
    /// The revision of a bucket's creation.
    fn from(id: BucketId) -> Self {
        Self(id.0)
    }
}

impl From<BucketId> for crate::process::Pid {
    fn from(id: BucketId) -> Self {
        Self::new(id.0)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a page begins, in the order of bytes: after the last item of the page before, or with the prefix.
pub(crate) fn page_begin<'a>(prefix: &'a str, after: Option<&'a str>) -> Bound<&'a str> {
    match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_1_to_255_bytes_without_control_characters() {
        let limits = Limits::default();
        let parse = |text: &str| BucketName::parse(text, &limits).map(|name| name.as_str().len());
        assert_eq!(parse(""), Err(Invalid::Empty { max: 255 }));
        assert_eq!(parse(&"n".repeat(255)), Ok(255));
        assert_eq!(parse(&"n".repeat(256)), Err(Invalid::TooLong { max: 255, actual: 256 }));
        assert_eq!(parse("na\u{1b}[31mme"), Err(Invalid::Control { at: 2 }));
        assert_eq!(parse("наполовину / any text"), Ok(31));
    }

    #[test]
    fn a_key_is_1_to_1024_bytes_of_anything() {
        let limits = Limits::default();
        let parse = |text: &str| Key::parse(text, &limits).map(|key| key.as_str().len());
        assert_eq!(parse(""), Err(Invalid::Empty { max: 1_024 }));
        assert_eq!(parse(&"k".repeat(1_024)), Ok(1_024));
        assert_eq!(parse(&"k".repeat(1_025)), Err(Invalid::TooLong { max: 1_024, actual: 1_025 }));
        assert_eq!(parse("\0\n"), Ok(2));
    }
}
