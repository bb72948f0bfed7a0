//! The Huffman code of HTTP/2's header fields, to read it (RFC 7541, appendix B).
//!
//! The code is canonical: codes of one length follow each other in the order of their bytes, and those of the next
//! length go on from there. So the lengths are all there is to know.

/// The length in bits of each byte's code.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28,
    28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15,
    6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20,
    20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23,
    24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22,
    22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27,
    24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26,
    26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

const BITS_MIN: usize = 5;
const BITS_MAX: usize = 30;

/// Reads the code.
#[derive(Debug)]
pub(super) struct Huffman {
    /// The bytes in the order of their codes.
    bytes: Vec<u8>,
    /// For each length the first code, and where in `bytes` the byte of that is.
    first: [(u32, usize); BITS_MAX + 2],
}

impl Huffman {
    pub(super) fn new() -> Self {
        let mut bytes = Vec::with_capacity(LENGTHS.len());
        let mut first = [(0, 0); BITS_MAX + 2];
        let mut code = 0;
        for (bits, first) in first.iter_mut().enumerate().skip(BITS_MIN) {
            *first = (code, bytes.len());
            bytes.extend((0..=u8::MAX).filter(|&byte| usize::from(LENGTHS[usize::from(byte)]) == bits));
            let count = bytes.len() - first.1;
            code = (code + u32::try_from(count).unwrap_or_default()) << 1;
        }
        Self { bytes, first }
    }

    /// What is encoded; `None` where it is no such code. The padding of ones at the end is not looked at.
    pub(super) fn decode(&self, encoded: &[u8]) -> Option<Vec<u8>> {
        let mut decoded = Vec::with_capacity(encoded.len() * 8 / BITS_MIN);
        let (mut code, mut bits) = (0, 0);
        for bit in encoded.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
            (code, bits) = (code << 1 | u32::from(bit), bits + 1);
            if bits < BITS_MIN {
                continue;
            }
            if bits > BITS_MAX {
                return None;
            }
            let ((first, at), (_, end)) = (self.first[bits], self.first[bits + 1]);
            if let Some(byte) = self.bytes[at..end].get((code - first) as usize) {
                decoded.push(*byte);
                (code, bits) = (0, 0);
            }
        }
        Some(decoded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_rfc_has_encoded_is_decoded() {
        let huffman = Huffman::new();
        let decoded = |encoded: &[u8]| String::from_utf8(huffman.decode(encoded).unwrap()).unwrap();
        assert_eq!(
            decoded(&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff]),
            "www.example.com"
        );
        assert_eq!(decoded(&[0x64, 0x02]), "302");
        assert_eq!(decoded(&[]), "");
        assert_eq!(huffman.decode(&[0xff; 5]), None);
    }
}
