//! Names stretches of keys: from one key on and below another, in the order of their bytes.

use std::fmt;
use std::ops::{Bound, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

use crate::snapshot::Key;
use crate::transaction::text;

/// A stretch of keys. Made by [`KeyRange::prefix`], or from a range of texts: `"a".."b"`, `"a"..="b"`,
/// `"a"..`, `.."b"`, `..`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    from: Key,
    /// The first key behind the range; none: it has no end.
    to: Option<Key>,
}

impl KeyRange {
    /// Returns the range of all keys.
    pub fn all() -> Self {
        Self { from: Key::from(&[][..]), to: None }
    }

    /// Returns the range of the keys that begin with a prefix.
    pub fn prefix(prefix: impl AsRef<str>) -> Self {
        let from = prefix.as_ref().as_bytes();
        Self { from: Key::from(from), to: behind(from) }
    }

    /// Returns whether a key lies in the range.
    pub fn contains(&self, key: impl AsRef<[u8]>) -> bool {
        let key = key.as_ref();
        *key >= *self.from && self.to.as_ref().is_none_or(|to| *key < **to)
    }

    /// Returns whether no key can lie in the range.
    pub fn is_empty(&self) -> bool {
        self.to.as_ref().is_some_and(|to| to <= &self.from)
    }

    /// Returns whether all of another range lies in this one.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.from <= other.from && Self::ends_within(other, self)
    }

    /// Returns whether some key could lie in both ranges.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let begins_before_end =
            |one: &Self, other: &Self| other.to.as_ref().is_none_or(|to| one.from < *to);
        !self.is_empty()
            && !other.is_empty()
            && begins_before_end(self, other)
            && begins_before_end(other, self)
    }

    fn ends_within(inner: &Self, outer: &Self) -> bool {
        match (&inner.to, &outer.to) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(inner), Some(outer)) => inner <= outer,
        }
    }

    /// Returns the prefix that all keys of the range, and only they, begin with.
    pub(crate) fn as_prefix(&self) -> Option<&[u8]> {
        (behind(&self.from) == self.to).then_some(&*self.from)
    }

    /// Returns the first key of the range and the first one behind it, if it has an end.
    pub(crate) fn ends(&self) -> (&[u8], Option<&[u8]>) {
        (&self.from, self.to.as_deref())
    }

    /// Returns the range as bounds of a map; one that is upside down is empty.
    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let to = match &self.to {
            None => Bound::Unbounded,
            Some(to) => Bound::Excluded((&**to).max(&*self.from)),
        };
        (Bound::Included(&self.from), to)
    }

    /// Returns the bounds of the range up to a key within it, itself included; none: all of it.
    pub(crate) fn bounds_to<'a>(
        &'a self,
        last: Option<&'a Key>,
    ) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
        let (from, to) = self.bounds();
        (from, last.map_or(to, |last| Bound::Included(&**last)))
    }

    fn new(from: &str, to: Option<Vec<u8>>) -> Self {
        Self { from: Key::from(from.as_bytes()), to: to.map(Key::from) }
    }
}

/// Returns the first key that is greater than all with this prefix; none: there is no such key.
fn behind(prefix: &[u8]) -> Option<Key> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut behind = prefix[..=kept].to_vec();
    behind[kept] += 1;
    Some(behind.into())
}

/// Returns the next key in the order of bytes.
fn next(key: &str) -> Vec<u8> {
    let mut next = key.as_bytes().to_vec();
    next.push(0);
    next
}

impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.as_prefix(), &self.to) {
            (Some(prefix), _) => write!(f, "`{}*`", text(prefix)),
            (None, Some(to)) => write!(f, "`{}`..`{}`", text(&self.from), text(to)),
            (None, None) => write!(f, "`{}`..", text(&self.from)),
        }
    }
}

impl From<RangeFull> for KeyRange {
    fn from(_: RangeFull) -> Self {
        Self::all()
    }
}

/// Writes the conversions for one type of text.
macro_rules! from_ranges_of {
    ($text:ty) => {
        impl From<Range<$text>> for KeyRange {
            fn from(range: Range<$text>) -> Self {
                let (from, to): (&str, &str) = (&range.start, &range.end);
                Self::new(from, Some(to.into()))
            }
        }

        impl From<RangeInclusive<$text>> for KeyRange {
            fn from(range: RangeInclusive<$text>) -> Self {
                let (from, to): (&str, &str) = (range.start(), range.end());
                Self::new(from, Some(next(to)))
            }
        }

        impl From<RangeFrom<$text>> for KeyRange {
            fn from(range: RangeFrom<$text>) -> Self {
                Self::new(&range.start, None)
            }
        }

        impl From<RangeTo<$text>> for KeyRange {
            fn from(range: RangeTo<$text>) -> Self {
                let to: &str = &range.end;
                Self::new("", Some(to.into()))
            }
        }

        impl From<RangeToInclusive<$text>> for KeyRange {
            fn from(range: RangeToInclusive<$text>) -> Self {
                Self::new("", Some(next(&range.end)))
            }
        }
    };
}

from_ranges_of!(&str);
from_ranges_of!(String);

/// Ranges that a transaction has removed; overlapping ones are one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet(Vec<KeyRange>);

impl RangeSet {
    pub(crate) fn insert(&mut self, mut range: KeyRange) {
        if range.is_empty() {
            return;
        }
        self.0.retain(|other| {
            let starts_behind = |one: &KeyRange, other: &KeyRange| {
                other.to.as_ref().is_some_and(|to| one.from > *to)
            };
            let is_apart = starts_behind(other, &range) || starts_behind(&range, other);
            if !is_apart {
                range.from = range.from.clone().min(other.from.clone());
                range.to = match (range.to.take(), &other.to) {
                    (Some(one), Some(other)) => Some(one.max(other.clone())),
                    (None, _) | (_, None) => None,
                };
            }
            is_apart
        });
        let place = self.0.partition_point(|other| other.from < range.from);
        self.0.insert(place, range);
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        let behind = self.0.partition_point(|range| *range.from <= *key);
        behind.checked_sub(1).is_some_and(|place| self.0[place].contains(key))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &KeyRange> {
        self.0.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_their_rust_form_says() {
        for (range, shown, inside, outside) in [
            (KeyRange::prefix("a/"), "`a/*`", vec!["a/", "a/\u{10ffff}"], vec!["a", "a0", "b"]),
            ("a".."c").into_tuple("`a`..`c`", &["a", "b", "bz"], &["", "c"]),
            ("a"..="c").into_tuple("`a`..`c\0`", &["a", "c"], &["c\0", "ca"]),
            ("b"..).into_tuple("`b`..", &["b", "\u{10ffff}"], &["a", ""]),
            (.."b").into_tuple("``..`b`", &["", "a"], &["b"]),
            (..="b").into_tuple("``..`b\0`", &["b"], &["b\0"]),
            (..).into_tuple("`*`", &["", "x"], &[]),
            ("c".."a").into_tuple("`c`..`a`", &[], &["a", "b", "c"]),
        ] {
            assert_eq!(range.to_string(), shown);
            assert!(inside.iter().all(|key| range.contains(key)), "{range}");
            assert!(!outside.iter().any(|key| range.contains(key)), "{range}");
        }
    }

    type Case = (KeyRange, &'static str, Vec<&'static str>, Vec<&'static str>);

    trait IntoTuple: Into<KeyRange> {
        fn into_tuple(
            self,
            shown: &'static str,
            inside: &[&'static str],
            outside: &[&'static str],
        ) -> Case {
            (self.into(), shown, inside.to_vec(), outside.to_vec())
        }
    }

    impl<T: Into<KeyRange>> IntoTuple for T {}

    #[test]
    fn overlapping_ranges_are_one() {
        let mut set = RangeSet::default();
        for (from, to) in [("a", "b"), ("e", "g"), ("c", "d"), ("x", "x"), ("d", "f")] {
            set.insert((from..to).into());
        }
        let ranges: Vec<String> = set.iter().map(ToString::to_string).collect();
        assert_eq!(ranges, ["`a*`", "`c`..`g`"]);
        for (key, inside) in [("a", true), ("b", false), ("c", true), ("fz", true), ("g", false)] {
            assert_eq!(set.contains(key.as_bytes()), inside, "{key}");
        }
        set.insert(KeyRange::all());
        assert_eq!((set.len(), set.contains(b"zz")), (1, true));
    }
}
