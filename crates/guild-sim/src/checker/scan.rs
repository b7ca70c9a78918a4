//! A range of keys that a commit has read, as far as it has seen it.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;

/// Where a range ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until<'a> {
    /// Behind the last key that begins with the first one.
    Prefix,
    /// Below this key; none: nowhere.
    Key(Option<&'a str>),
}

/// A range of keys that a commit has read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scan<'a> {
    /// Its first key, or its prefix.
    pub(super) from: &'a str,
    pub(super) until: Until<'a>,
    /// The last key that was seen; none: all of the range.
    pub(super) last: Option<&'a str>,
    /// How many keys were seen.
    pub(super) rows: u64,
}

impl Scan<'_> {
    /// Returns whether a key lies in the range, seen or not.
    pub(super) fn holds(&self, key: &str) -> bool {
        key >= self.from && self.is_before_end(key)
    }

    fn is_before_end(&self, key: &str) -> bool {
        match self.until {
            Until::Prefix => key.starts_with(self.from),
            Until::Key(to) => to.is_none_or(|to| key < to),
        }
    }

    /// Visits what a map has in the part of the range that was seen.
    pub(super) fn within<'m, K: Borrow<str> + Ord, V>(
        &self,
        keys: &'m BTreeMap<K, V>,
    ) -> impl Iterator<Item = (&'m K, &'m V)> {
        let behind =
            |key: &str| !self.is_before_end(key) || self.last.is_some_and(|last| key > last);
        keys.range::<str, _>((Bound::Included(self.from), Bound::Unbounded))
            .take_while(move |(key, _)| !behind((*key).borrow()))
    }
}

impl fmt::Display for Scan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.until {
            Until::Prefix => write!(f, "`{}*`", self.from),
            Until::Key(None) => write!(f, "`{}`..", self.from),
            Until::Key(Some(to)) => write!(f, "`{}`..`{to}`", self.from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_what_lies_between_its_ends_as_far_as_it_was_seen() {
        let keys = ["a", "b", "b/1", "b/2", "c", "d"].map(|key| (key, ()));
        let keys = BTreeMap::from(keys);
        let seen = |from, until, last| {
            let scan = Scan { from, until, last, rows: 0 };
            let seen: Vec<&str> = scan.within(&keys).map(|(key, ())| *key).collect();
            (scan.to_string(), seen.join(" "))
        };
        let expected = |shown: &str, keys: &str| (shown.to_owned(), keys.to_owned());
        assert_eq!(seen("b/", Until::Prefix, None), expected("`b/*`", "b/1 b/2"));
        assert_eq!(seen("b", Until::Prefix, Some("b/1")), expected("`b*`", "b b/1"));
        assert_eq!(seen("b/2", Until::Key(Some("d")), None), expected("`b/2`..`d`", "b/2 c"));
        assert_eq!(seen("b/2", Until::Key(None), Some("c")), expected("`b/2`..", "b/2 c"));
        assert_eq!(seen("c", Until::Key(Some("b")), None).1, "", "it is upside down");
        assert_eq!(seen("c", Until::Prefix, Some("a")).1, "");
    }
}
