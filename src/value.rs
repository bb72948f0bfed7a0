//! What an entry holds.

/// A value, in memory of its own and no larger than it must be.
#[derive(Clone, Debug)]
pub enum Value {
    /// A text.
    Text(Box<str>),
    /// Bytes.
    Data(Box<[u8]>),
    /// A signed integer.
    Integer(i64),
    /// A floating-point number, whose bits are kept, also those of a NaN.
    Number(f64),
    /// A truth value.
    Flag(bool),
}

impl Value {
    /// Bytes that it has besides its slot in the map.
    #[must_use]
    pub const fn heap_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Data(data) => data.len(),
            Self::Integer(_) | Self::Number(_) | Self::Flag(_) => 0,
        }
    }
}
