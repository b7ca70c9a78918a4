//! Checks a history of Guild's own memory: each read names the version that it saw.
//!
//! Versions grow with the commits, so the order of the versions of a key is known and nothing has to
//! be inferred. What is checked is that the order of commits explains every read: no read of a
//! version that was not there, no commit whose reads or ranges had changed before it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::scan::{Scan, Until};
use super::cycles::add_cycles;
use super::graph::{Dependency, GraphBuilder, number};
use super::{AnomalyKind, Verdict};

/// One commit, as one line of a history file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// Its version.
    pub version: u64,
    /// The task that committed; none: it came from outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Event at which it began, for the order in real time.
    pub from: u64,
    /// Event at which it was committed.
    pub to: u64,
    /// The version of the snapshot that it read.
    pub snapshot: u64,
    /// Each key that it read, with the version that it saw; null: the key was absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<(String, Option<u64>)>,
    /// Each prefix that it scanned: the last key that it saw (null: all), how many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<(String, Option<String>, u64)>,
    /// Each other range that it scanned: the first key, the first key behind it (null: no end), the last
    /// key that it saw (null: all), how many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spans: Vec<(String, Option<String>, Option<String>, u64)>,
    /// The keys that it wrote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writes: Vec<String>,
    /// The keys that it removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deletes: Vec<String>,
}

/// A version of a key: its number, the commit, and whether the key is there after it.
#[derive(Clone, Copy, Debug)]
struct Version {
    number: u64,
    commit: u32,
    is_present: bool,
}

struct Checker<'a> {
    commits: &'a [Commit],
    keys: BTreeMap<&'a str, (u32, Vec<Version>)>,
    /// Versions from here on are in the history; older ones are not known.
    known_from: u64,
    graph: GraphBuilder,
    verdict: Verdict,
}

/// Checks a history, whose commits are in the order of their versions.
pub fn check(commits: &[Commit]) -> Verdict {
    let mut keys: BTreeMap<&str, (u32, Vec<Version>)> = BTreeMap::new();
    for (commit, place) in commits.iter().zip(0..) {
        let written = commit.writes.iter().map(|key| (key, true));
        for (key, is_present) in written.chain(commit.deletes.iter().map(|key| (key, false))) {
            let next = number(keys.len());
            let (_, versions) = keys.entry(key).or_insert((next, Vec::new()));
            versions.push(Version { number: commit.version, commit: place, is_present });
        }
    }
    let mut checker = Checker {
        commits,
        keys,
        known_from: commits.first().map_or(0, |commit| commit.version),
        graph: GraphBuilder::new(commits.len()),
        verdict: Verdict { transactions: commits.len(), ..Verdict::default() },
    };
    checker.judge_order();
    checker.add_writes();
    for (commit, place) in commits.iter().zip(0..) {
        commit.reads.iter().for_each(|(key, seen)| checker.add_read(place, commit, key, *seen));
        for (prefix, last, rows) in &commit.ranges {
            let last = last.as_deref();
            let scan = Scan { from: prefix, until: Until::Prefix, last, rows: *rows };
            checker.add_scan(place, commit, scan);
        }
        for (from, to, last, rows) in &commit.spans {
            let (until, last) = (Until::Key(to.as_deref()), last.as_deref());
            checker.add_scan(place, commit, Scan { from, until, last, rows: *rows });
        }
    }
    checker.finish()
}

impl<'a> Checker<'a> {
    fn judge_order(&mut self) {
        for pair in self.commits.windows(2) {
            if pair[0].version >= pair[1].version || pair[0].to > pair[1].to {
                let versions = vec![pair[0].version, pair[1].version];
                let message = format!(
                    "commit {} comes before commit {} in the history",
                    versions[0], versions[1]
                );
                self.verdict.add(AnomalyKind::IncompatibleOrder, versions, message);
            }
        }
    }

    fn add_writes(&mut self) {
        for (key, versions) in self.keys.values() {
            for pair in versions.windows(2) {
                self.graph.add(pair[0].commit, pair[1].commit, Dependency::WriteWrite, *key);
            }
        }
    }

    fn add_read(&mut self, place: u32, commit: &'a Commit, key: &'a str, seen: Option<u64>) {
        let Some((number, versions)) = self.keys.get(key) else {
            let is_unknown = seen.is_some_and(|seen| seen >= self.known_from);
            return if is_unknown {
                self.unexpected(commit, key, seen)
            };
        };
        let (number, mut behind) =
            (*number, versions.partition_point(|version| version.number <= commit.snapshot));
        let newest = behind.checked_sub(1).map(|at| versions[at]);
        let is_there = match (seen, newest) {
            (Some(seen), Some(newest)) => newest.is_present && newest.number == seen,
            (Some(seen), None) => seen < self.known_from,
            (None, Some(newest)) => !newest.is_present,
            (None, None) => true,
        };
        if !is_there {
            // What it claims to have seen decides what it depends on.
            if let Some(at) = versions.iter().position(|version| Some(version.number) == seen) {
                behind = at + 1;
            }
            self.unexpected(commit, key, seen);
        }
        let versions = &self.keys[key].1;
        if let Some(writer) = behind.checked_sub(1).map(|at| versions[at].commit) {
            self.graph.add(writer, place, Dependency::WriteRead, number);
        }
        if let Some(next) = versions.get(behind) {
            self.graph.add(place, next.commit, Dependency::ReadWrite, number);
        }
    }

    fn add_scan(&mut self, place: u32, commit: &'a Commit, scan: Scan<'a>) {
        let (mut found, rows) = (0, scan.rows);
        for (_, (number, versions)) in scan.within(&self.keys) {
            let behind = versions.partition_point(|version| version.number <= commit.snapshot);
            if let Some(newest) = behind.checked_sub(1).map(|at| versions[at]) {
                found += u64::from(newest.is_present);
                self.graph.add(newest.commit, place, Dependency::WriteRead, *number);
            }
            if let Some(next) = versions.get(behind) {
                self.graph.add(place, next.commit, Dependency::ReadWrite, *number);
            }
        }
        // Rows from before the history are not known, so only a complete one can be counted.
        if self.known_from == 1 && found != rows {
            let message = format!(
                "commit {} saw {rows} keys in the range {scan}, and there were {found}",
                commit.version
            );
            self.verdict.add(AnomalyKind::UnexpectedElement, vec![commit.version], message);
        }
    }

    fn unexpected(&mut self, commit: &Commit, key: &str, seen: Option<u64>) {
        let seen = seen.map_or_else(|| "nothing".to_owned(), |seen| format!("version {seen}"));
        let message = format!(
            "commit {} saw {seen} of `{key}` in the snapshot of version {}, where something else was",
            commit.version, commit.snapshot
        );
        self.verdict.add(AnomalyKind::UnexpectedElement, vec![commit.version], message);
    }

    fn finish(mut self) -> Verdict {
        let mut moments: Vec<(u64, bool, u32)> = Vec::with_capacity(2 * self.commits.len());
        for (commit, place) in self.commits.iter().zip(0..) {
            moments.push((commit.from, false, place));
            moments.push((commit.to, true, place));
        }
        moments.sort_unstable();
        self.graph.add_realtime(moments.into_iter().map(|(_, is_end, place)| (place, is_end)));
        let index = |place: u32| self.commits[place as usize].version;
        let name = |number: u32| {
            let found = self.keys.iter().find(|(_, (of, _))| *of == number);
            found.map_or_else(String::new, |(key, _)| (*key).to_owned())
        };
        add_cycles(&self.graph.build(), &index, &name, &mut self.verdict);
        self.verdict.anomalies.sort_by_key(|anomaly| anomaly.kind);
        self.verdict
    }
}
