//! Sorts tasks into a few kinds by their names, so that a page can tell them apart by colour.

use std::collections::BTreeMap;

/// Kinds that get a colour of their own; all others share one.
const KINDS_MAX: usize = 7;

/// Name of the kind of all others.
const OTHER: &str = "other";

/// One kind of task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) name: String,
    pub(super) tasks: u64,
    pub(super) work_us: u64,
}

/// Sorts tasks, each with its name and the time that was spent on it; returns the kinds, the
/// one with the most work first, and the place of each task's kind.
pub(super) fn sort(tasks: &[(&str, u64)]) -> (Vec<Kind>, Vec<usize>) {
    let plain = |name: &str| base(name).to_owned();
    let named = |name: &str| stem(base(name)).to_owned();
    let few = tasks.iter().map(|(name, _)| base(name)).collect::<std::collections::BTreeSet<_>>();
    let kind_of: &dyn Fn(&str) -> String = if few.len() <= KINDS_MAX + 1 { &plain } else { &named };
    let mut kinds: BTreeMap<String, Kind> = BTreeMap::new();
    for (name, work_us) in tasks {
        let name = kind_of(name);
        let fresh = Kind { name: name.clone(), tasks: 0, work_us: 0 };
        let kind = kinds.entry(name).or_insert(fresh);
        kind.tasks += 1;
        kind.work_us += work_us;
    }
    let mut kinds: Vec<Kind> = kinds.into_values().collect();
    kinds.sort_by(|a, b| (b.work_us, b.tasks).cmp(&(a.work_us, a.tasks)).then(a.name.cmp(&b.name)));
    if kinds.len() > KINDS_MAX + 1 {
        let others = kinds.split_off(KINDS_MAX);
        kinds.push(Kind {
            name: format!("{} {OTHER}s", others.len()),
            tasks: others.iter().map(|kind| kind.tasks).sum(),
            work_us: others.iter().map(|kind| kind.work_us).sum(),
        });
    }
    let places: BTreeMap<&str, usize> =
        kinds.iter().enumerate().map(|(place, kind)| (kind.name.as_str(), place)).collect();
    let last = kinds.len().saturating_sub(1);
    let place = |name: &str| places.get(kind_of(name).as_str()).copied().unwrap_or(last);
    let of_task = tasks.iter().map(|(name, _)| place(name)).collect();
    (kinds, of_task)
}

/// Cuts the number of a map off: `count[3]` is a `count`.
fn base(name: &str) -> &str {
    name.find('[').filter(|at| *at > 0).map_or(name, |at| &name[..at])
}

/// Cuts a number at the end off: `mProject_ID0000001` is an `mProject`.
fn stem(name: &str) -> &str {
    let short = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if short.len() == name.len() {
        return name;
    }
    let without_id = short.strip_suffix("ID").filter(|rest| rest.ends_with(['_', '-', '.']));
    let stem = without_id.unwrap_or(short).trim_end_matches(['_', '-', '.']);
    if stem.is_empty() { "task" } else { stem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_at_the_end_of_a_name_tell_no_kind() {
        for (name, kind) in [
            ("mProject_ID0000001", "mProject"),
            ("fast2bfq_00000003", "fast2bfq"),
            ("t17", "t"),
            ("42", "task"),
            ("fasterq-dump_ID0000002", "fasterq-dump"),
            ("GRID", "GRID"),
            ("count", "count"),
        ] {
            assert_eq!(stem(name), kind);
        }
        assert_eq!(base("count[3]"), "count");
    }

    #[test]
    fn few_names_are_kinds_and_many_are_cut_to_the_greatest() {
        let (kinds, places) = sort(&[("step1", 5), ("step2", 9), ("step1[0]", 5)]);
        let told: Vec<_> = kinds.iter().map(|kind| (kind.name.as_str(), kind.tasks)).collect();
        assert_eq!((told, places), (vec![("step1", 2), ("step2", 1)], vec![0, 1, 0]));

        let names: Vec<String> = (0..12).map(|n| format!("{}_1", (b'a' + n) as char)).collect();
        let tasks: Vec<_> = names.iter().map(String::as_str).zip(1..).collect();
        let (kinds, places) = sort(&tasks);
        assert_eq!(
            (kinds.len(), kinds[0].name.as_str(), kinds[7].name.as_str()),
            (8, "l", "5 others")
        );
        assert_eq!((kinds[7].tasks, places[0], places[11]), (5, 7, 0));
    }
}
