//! Records the commits of a guild, as its event log tells them, for the check of their order.

use std::collections::BTreeMap;

use guild_core::event::{Event, EventRecord, Names};
use guild_core::id::TaskId;

use super::versions::Commit;

/// Turns the events of a guild that records histories into the commits of a history.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    /// The event at which the newest attempt of each task began.
    began: BTreeMap<TaskId, u64>,
}

impl Recorder {
    /// Takes the next event; returns the commit that it tells of. Without
    /// `GuildBuilder::record_histories` there is none.
    pub fn take(&mut self, record: &EventRecord, names: &dyn Names) -> Option<Commit> {
        match &record.event {
            Event::TaskAssigned { task, .. } => {
                self.began.insert(*task, record.seq);
                None
            }
            Event::TaskEnded { task, .. } => {
                self.began.remove(task);
                None
            }
            Event::MemoryCommitted { version, task, reads: Some(reads), .. } => {
                let mut commit = Commit {
                    version: version.0,
                    task: task.map(|task| format!("{}/{}", names.run(task.run), names.task(task))),
                    from: task.and_then(|task| self.began.remove(&task)).unwrap_or(record.seq),
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
}
