//! A key of the shared memory, short ones without an allocation.
//!
//! A key is copied wherever it is kept, and a search in a list of keys compares it at a dozen places. One
//! that lies where it is kept costs neither a counter to change nor a cache line to fetch, and two of
//! them are compared as numbers; longer ones are shared.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Bytes of the longest key that needs no allocation.
const SHORT_BYTES_MAX: usize = 30;

/// A key; cheap to clone. Ordered by its bytes.
#[derive(Clone)]
pub(crate) struct Key(Bytes);

#[derive(Clone)]
enum Bytes {
    /// Zeros follow the key.
    Short {
        length: u8,
        bytes: [u8; SHORT_BYTES_MAX],
    },
    Long(Arc<[u8]>),
}

impl Key {
    /// Returns a key that needs no allocation; none: it would need one.
    pub(crate) fn short(key: &[u8]) -> Option<Self> {
        let length = u8::try_from(key.len()).ok()?;
        let mut bytes = [0; SHORT_BYTES_MAX];
        bytes.get_mut(..key.len())?.copy_from_slice(key);
        Some(Self(Bytes::Short { length, bytes }))
    }
}

/// Returns half of a short key, as a number that sorts as its bytes do; the halves overlap by two bytes.
#[inline]
fn half(bytes: &[u8; SHORT_BYTES_MAX], from: usize) -> u128 {
    const HALF_BYTES: usize = size_of::<u128>();
    let half = bytes[from..from + HALF_BYTES].try_into();
    u128::from_be_bytes(half.expect("these are 16 bytes"))
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Short { length, bytes } => &bytes[..usize::from(*length)],
            Bytes::Long(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for Key {
    fn from(key: &[u8]) -> Self {
        Self::short(key).unwrap_or_else(|| Self(Bytes::Long(key.into())))
    }
}

impl From<Vec<u8>> for Key {
    fn from(key: Vec<u8>) -> Self {
        Self::from(key.as_slice())
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (
                Bytes::Short { length, bytes },
                Bytes::Short { length: other_length, bytes: other_bytes },
            ) => {
                let (one, two) = (half(bytes, 0), half(other_bytes, 0));
                if one != two {
                    return one.cmp(&two);
                }
                let from = SHORT_BYTES_MAX - size_of::<u128>();
                let ends = half(bytes, from).cmp(&half(other_bytes, from));
                // Where all bytes are equal the longer key has zeros at its end.
                ends.then(length.cmp(other_length))
            }
            _ => compare_bytes(self, other),
        }
    }
}

/// Out of the way of the code for short keys, which is worth a place in every search.
#[cold]
fn compare_bytes(one: &[u8], other: &[u8]) -> Ordering {
    one.cmp(other)
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_keys_are_their_bytes_and_sort_by_them() {
        assert_eq!(size_of::<Key>(), SHORT_BYTES_MAX + 2);
        let mut keys: Vec<Key> = Vec::new();
        for length in [0, 1, SHORT_BYTES_MAX - 1, SHORT_BYTES_MAX, SHORT_BYTES_MAX + 1, 300] {
            let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let key = Key::from(bytes.clone());
            assert_eq!((&*key, key == Key::from(&*bytes)), (&*bytes, true));
            keys.push(key);
        }
        for other in [&[0_u8, 2][..], &[0; 2], &[0; 17], &[255], &[0, 0, 1], b"a", b"a\0", b"a\0b"]
        {
            keys.push(Key::from(other));
        }
        let mut late = [7_u8; SHORT_BYTES_MAX];
        for at in [0, 15, 16, SHORT_BYTES_MAX - 1] {
            late[at] = 200;
            keys.push(Key::from(&late[..]));
        }
        keys.push(Key::from(&[0_u8; SHORT_BYTES_MAX + 5][..]));
        let mut bytes: Vec<Vec<u8>> = keys.iter().map(|key| key.to_vec()).collect();
        for (one, other) in keys.iter().flat_map(|one| keys.iter().map(move |other| (one, other))) {
            assert_eq!(one.cmp(other), (**one).cmp(&**other), "{one:?} {other:?}");
            assert_eq!(one == other, **one == **other, "{one:?} {other:?}");
        }
        keys.sort();
        bytes.sort();
        assert_eq!(keys.iter().map(|key| key.to_vec()).collect::<Vec<_>>(), bytes);
    }
}
