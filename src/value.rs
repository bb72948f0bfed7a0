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

    /// Whether it is the same, in kind and in bits: a NaN is itself, and 0.0 is not -0.0.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => one == other,
            (Self::Data(one), Self::Data(other)) => one == other,
            (Self::Integer(one), Self::Integer(other)) => one == other,
            (Self::Number(one), Self::Number(other)) => one.to_bits() == other.to_bits(),
            (Self::Flag(one), Self::Flag(other)) => one == other,
            _ => false,
        }
    }
}
