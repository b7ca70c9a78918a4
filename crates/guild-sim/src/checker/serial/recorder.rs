//! Records the commits of a guild, as its event log tells them, for the check of their order.

use std::collections::BTreeMap;

use guild_core::event::{Event, EventRecord, Names};
use guild_core::id::{RunId, TaskId};

use super::versions::Commit;

/// Turns the events of a guild that records histories into the commits of a history.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    /// The event at which the newest attempt of each task of an open run began; 0: it has ended.
    began: BTreeMap<RunId, Vec<u64>>,
}

impl Recorder {
    /// Takes the next event; returns the commit that it tells of. Without
    /// `GuildBuilder::record_histories` there is none.
    pub fn take(&mut self, record: &EventRecord, names: &dyn Names) -> Option<Commit> {
        match &record.event {
            Event::TaskAssigned { task, .. } => {
                self.begin(*task, record.seq);
                None
            }
            Event::RunEnded { run, .. } => {
                self.began.remove(run);
                None
            }
            Event::MemoryCommitted { version, task, reads: Some(reads), .. } => {
                let mut commit = Commit {
                    version: version.0,
                    task: task.map(|task| format!("{}/{}", names.run(task.run), names.task(task))),
                    from: task.and_then(|task| self.end(task)).unwrap_or(record.seq),
                    to: record.seq,
                    snapshot: reads.snapshot.0,
                    reads: reads
                        .keys
                        .iter()
                        .map(|(k, at)| (k.clone(), at.map(|at| at.0)))
                        .collect(),
                    ranges: reads.ranges.clone(),
                    spans: reads.spans.clone(),
                    ..Commit::default()
                };
                for change in &reads.written {
                    let (kind, key) = change.split_at(1);
                    let keys = if kind == "-" { &mut commit.deletes } else { &mut commit.writes };
                    keys.push(key.to_owned());
                }
                Some(commit)
            }
            _ => None,
        }
    }

    fn begin(&mut self, task: TaskId, seq: u64) {
        let began = self.began.entry(task.run).or_default();
        if began.len() <= task.index.at() {
            began.resize(task.index.at() + 1, 0);
        }
        began[task.index.at()] = seq;
    }

    fn end(&mut self, task: TaskId) -> Option<u64> {
        let began = self.began.get_mut(&task.run)?.get_mut(task.index.at())?;
        Some(std::mem::take(began)).filter(|seq| *seq > 0)
    }
}
