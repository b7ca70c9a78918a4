//! Hashes a stream of bytes to 64 bits: XXH64 with the seed 0 (Collet, 2012), as `xxh64sum` tells it of a
//! file and `events_hash` of a log.
//!
//! Not meant against forgery: it tells whether two texts are the same.

use std::fmt;

use xxhash_rust::xxh64::{Xxh64, xxh64};

/// A running hash.
#[derive(Clone)]
pub struct Digest(Xxh64);

impl Default for Digest {
    fn default() -> Self {
        Self(Xxh64::new(SEED))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({:016x})", self.value())
    }
}

const SEED: u64 = 0;

impl Digest {
    /// Returns the hash of these bytes.
    pub fn of(bytes: &[u8]) -> u64 {
        xxh64(bytes, SEED)
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the hash of all bytes so far.
    pub fn value(&self) -> u64 {
        self.0.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `xxh64sum` prints.
    #[test]
    fn known_hashes_are_met_in_one_piece_and_in_many() {
        for (text, hash) in [("", 0xef46_db37_51d8_e999), ("a", 0xd24e_c4f1_a98c_6e5b)] {
            assert_eq!(Digest::of(text.as_bytes()), hash);
        }
        let text: Vec<u8> = (0..200).collect();
        for pieces in [1, 7, 32, 199] {
            let mut digest = Digest::default();
            text.chunks(pieces).for_each(|piece| digest.update(piece));
            assert_eq!(digest.value(), Digest::of(&text));
        }
    }
}
