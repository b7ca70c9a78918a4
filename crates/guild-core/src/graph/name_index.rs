//! Finds things by name in a list, without a tree of names: a million names are hashed and sorted
//! in the time in which a tree compares a few thousand of them.

use super::TaskName;
use crate::digest::Digest;
use crate::id::TaskIndex;

/// The places of names in a list that is kept elsewhere, by their hashes. Names of one hash are told
/// apart by whoever has the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameIndex(Vec<(u64, u32)>);

impl NameIndex {
    /// Indexes the names with these [hashes](Self::hash), in the order of the list.
    pub fn new(hashes: impl IntoIterator<Item = u64>) -> Self {
        Self(sorted(hashes.into_iter().zip(0..).collect()))
    }

    /// Indexes the names of tasks, in the order of the list; those that are numbers have no text to be
    /// found by.
    pub fn of_tasks<'a>(names: impl IntoIterator<Item = &'a TaskName>) -> Self {
        let hash = |name: &TaskName| match name {
            TaskName::Named(name) => Self::hash(name),
            TaskName::Number(number) => u64::from(*number),
        };
        Self::new(names.into_iter().map(hash))
    }

    /// Returns the task of a name, if `name_of` returns the name at each place of the list.
    pub fn find_task<'a>(
        &self,
        name: &str,
        name_of: impl Fn(u32) -> &'a TaskName,
    ) -> Option<TaskIndex> {
        let is = |place: u32| matches!(name_of(place), TaskName::Named(other) if **other == *name);
        self.find(Self::hash(name), is).map(TaskIndex)
    }

    /// Returns the hash of a name.
    pub fn hash(name: &str) -> u64 {
        Digest::of(name.as_bytes())
    }

    /// Returns the first place whose name is found at an earlier place too, if `same` says of two
    /// places whether their names are equal.
    pub fn duplicate(&self, same: impl Fn(u32, u32) -> bool) -> Option<u32> {
        let groups = self.0.chunk_by(|(one, _), (other, _)| one == other);
        let again = groups.filter(|group| group.len() > 1).filter_map(|group| {
            let places = || group.iter().map(|(_, place)| *place);
            let is_again =
                |place: &u32| places().any(|before| before < *place && same(before, *place));
            places().find(is_again)
        });
        again.min()
    }

    /// Returns the first place of a name with this hash, if `is` says of a place whether the name is
    /// there.
    pub fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        let from = self.0.partition_point(|(other, _)| *other < hash);
        let same = self.0[from..].iter().take_while(|(other, _)| *other == hash);
        same.map(|(_, place)| *place).find(|place| is(*place))
    }
}

/// Sorts hashes with their places. Hashes are spread evenly, so their upper bits say about where each
/// belongs: it is put there at once, and only neighbours are left to be compared.
fn sorted(places: Vec<(u64, u32)>) -> Vec<(u64, u32)> {
    let bits = places.len().next_power_of_two().trailing_zeros().max(1);
    let bucket = |hash: u64| (hash >> (u64::BITS - bits)) as usize;
    let mut next = vec![0_u32; (1 << bits) + 1];
    for (hash, _) in &places {
        next[bucket(*hash) + 1] += 1;
    }
    for at in 1..next.len() {
        next[at] += next[at - 1];
    }
    let mut sorted = vec![(0, 0); places.len()];
    for entry in places {
        let place = &mut next[bucket(entry.0)];
        sorted[*place as usize] = entry;
        *place += 1;
    }
    // By now each number is the end of its bucket.
    let mut start = 0;
    for end in next.into_iter().map(|end| end as usize) {
        sorted[start..end].sort_unstable();
        start = end;
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = ["b", "a", "c", "a", "c"];

    /// Indexes the names, with so many different hashes.
    fn index(names: &[&str], hashes: u64) -> NameIndex {
        NameIndex::new(names.iter().map(|name| NameIndex::hash(name) % hashes))
    }

    #[test]
    fn hashes_are_sorted_however_they_are_spread() {
        for count in [0, 1, 2, 3, 64, 1_000] {
            for spread in [|hash| hash, |hash| hash >> 60, |hash| hash >> 32, |_| u64::MAX] {
                let hash = |n: u64| spread(NameIndex::hash(&n.to_string()));
                let places: Vec<(u64, u32)> = (0..count).map(hash).zip(0..).collect();
                let mut expected = places.clone();
                expected.sort_unstable();
                assert_eq!(sorted(places), expected);
            }
        }
    }

    #[test]
    fn the_first_name_that_comes_again_is_found_whatever_the_hashes() {
        for hashes in [u64::MAX, 2, 1] {
            let same = |names: &'static [&str]| {
                move |one: u32, other: u32| names[one as usize] == names[other as usize]
            };
            assert_eq!(index(&NAMES, hashes).duplicate(same(&NAMES)), Some(3));
            assert_eq!(index(&NAMES[..3], hashes).duplicate(same(&NAMES)), None);
        }
    }

    #[test]
    fn a_name_is_found_among_others_of_its_hash() {
        for hashes in [u64::MAX, 2, 1] {
            let index = index(&NAMES[..3], hashes);
            let find = |name: &str| {
                index.find(NameIndex::hash(name) % hashes, |place| NAMES[place as usize] == name)
            };
            assert_eq!(
                [find("b"), find("a"), find("c"), find("d")],
                [Some(0), Some(1), Some(2), None]
            );
        }
    }
}
