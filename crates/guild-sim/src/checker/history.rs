//! I8: the memory is serialisable.
//!
//! Versions are given 1, 2, 3, ... in the order of the log. Where histories are recorded the
//! commits are replayed in that order over a model that knows the version of each key: every key
//! and range that a commit read must be, at its own place in the order, as it was read. (Kung and
//! Robinson 1981, as in the memory itself, but from the outside.) What a harness has recorded itself,
//! as its clients saw it, was judged by [`serial`](super::serial).

use std::collections::BTreeMap;

use guild_core::event::{HistoryText, LineEvent, TaskText};

use super::board::Board;
use super::check::{Check, End, Seen};
use super::findings::Findings;
use super::scan::{Scan, Until};
use super::verdict::Invariant::I8;

/// Judges commits.
#[derive(Debug, Default)]
pub(super) struct History {
    /// The version of each key that there is.
    keys: BTreeMap<String, u64>,
    /// Whether a commit told what it read.
    has_histories: bool,
    /// Whether a commit did not.
    has_gaps: bool,
    /// The task and version of the line before, if that was a commit of a task.
    open: Option<u64>,
}

impl Check for History {
    fn see(&mut self, seen: &Seen<'_>, board: &Board, findings: &mut Findings) {
        let open = self.open.take();
        match seen.event {
            LineEvent::MemoryCommitted { version, task, history, .. } => {
                follows(*version, board.version, findings);
                self.open = task.is_some().then_some(*version);
                match history {
                    Some(history) if !self.has_gaps => {
                        self.has_histories = true;
                        self.replay(*version, task.as_ref(), history, findings);
                    }
                    Some(_) => {}
                    None => {
                        self.has_gaps = true;
                        self.keys.clear();
                    }
                }
            }
            LineEvent::TaskCompleted { version, .. } if open != Some(*version) => {
                follows(*version, board.version, findings);
            }
            _ => {}
        }
    }

    fn end(&mut self, end: &End<'_>, _: &Board, findings: &mut Findings) {
        for anomaly in end.knowledge.histories.iter().flat_map(|history| &history.anomalies) {
            findings.violate(I8, || format!("{}: {}", anomaly.kind, anomaly.message));
        }
        if self.has_gaps {
            let reason =
                "only the order of commits is checked: the log does not tell what they read";
            findings.cannot_judge(I8, reason);
        } else if !self.has_histories {
            findings.cannot_judge(I8, "no commit read or wrote the memory");
        }
    }
}

impl History {
    fn replay(
        &mut self,
        version: u64,
        task: Option<&TaskText<'_>>,
        history: &HistoryText<'_>,
        findings: &mut Findings,
    ) {
        let who = || match task {
            Some(task) => format!("task `{}` of run `{}`", task.task, task.run),
            None => "a transaction from outside".to_owned(),
        };
        let snapshot = history.snapshot;
        if snapshot >= version {
            findings.violate(I8, || {
                format!("{} commits version {version} and has read {snapshot}", who())
            });
        }
        for (key, seen) in &history.reads {
            let now = self.keys.get(&**key);
            if now != seen.as_ref() {
                findings.violate(I8, || {
                    let (seen, now) = (told(*seen), told(now.copied()));
                    format!(
                        "{} read key `{key}` {seen}, and at its commit {version} it was {now}",
                        who()
                    )
                });
            }
        }
        let prefixes = history.ranges.iter().map(|(prefix, last, rows)| Scan {
            from: prefix,
            until: Until::Prefix,
            last: last.as_deref(),
            rows: *rows,
        });
        let spans = history.spans.iter().map(|(from, to, last, rows)| Scan {
            from,
            until: Until::Key(to.as_deref()),
            last: last.as_deref(),
            rows: *rows,
        });
        for scan in prefixes.chain(spans) {
            if let Err(wrong) = self.check_scan(&scan, snapshot) {
                findings.violate(I8, || {
                    format!("{} read range {scan}: {wrong} at its commit {version}", who())
                });
            }
        }
        for change in &history.keys {
            let (sign, key) = change.split_at_checked(1).unwrap_or(("", change));
            match sign {
                "+" => drop(self.keys.insert(key.to_owned(), version)),
                "-" => drop(self.keys.remove(key)),
                _ => {
                    findings.violate(I8, || format!("{} changes `{change}`, without a sign", who()))
                }
            }
        }
    }

    /// No key of the range is newer than what was read, and there are as many as were seen.
    fn check_scan(&self, scan: &Scan<'_>, snapshot: u64) -> Result<(), String> {
        if let Some(last) = scan.last.filter(|last| !scan.holds(last)) {
            return Err(format!("it ends outside of itself, at `{last}`"));
        }
        let mut there = 0;
        for (key, version) in scan.within(&self.keys) {
            there += 1;
            if *version > snapshot {
                return Err(format!(
                    "key `{key}` of version {version} is newer than the {snapshot} that it read"
                ));
            }
        }
        if there == scan.rows {
            return Ok(());
        }
        Err(format!("it saw {} keys and there were {there}", scan.rows))
    }
}

fn follows(version: u64, newest: u64, findings: &mut Findings) {
    let expected = newest + 1;
    findings.expect(I8, version == expected, || {
        format!("a commit has version {version}, not {expected}: the order of commits has a gap")
    });
}

fn told(version: Option<u64>) -> String {
    version.map_or_else(|| "absent".to_owned(), |version| format!("at version {version}"))
}
