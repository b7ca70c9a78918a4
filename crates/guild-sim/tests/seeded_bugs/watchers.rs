//! The checkers that look at a play while it goes on, each with a notion of its own of what is right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guild_core::graph::Graph;
use guild_core::id::{BootEpoch, CommitVersion, RunId, TaskId};
use guild_core::limits::Limits;
use guild_memory::store::Crash;
use guild_memory::{
    Commits, Durability, GroupNo, KeyRange, Memory, NameTable, Pin, Recovered, Snapshot,
};
use guild_sim::checker::serial::Recorder;
use guild_sim::checker::serial::versions::{self, Commit};

use super::play::Play;
use super::{Checker, Objections};

type Rows = BTreeMap<String, String>;

const PINS_MAX: usize = 2;

/// What a session has read, by its own account.
pub(crate) struct Reads {
    pub(crate) at: CommitVersion,
    pub(crate) keys: Vec<String>,
    /// All lists.
    pub(crate) all: bool,
}

/// All checkers of a play but the one of its clients.
pub(crate) struct Watchers {
    pub(crate) objections: Objections,
    epoch: BootEpoch,
    names: NameTable,
    recorder: Recorder,
    commits: Vec<Commit>,
    /// How often "count" was raised.
    count: u64,
    completed: BTreeSet<TaskId>,
    /// What there was after each group.
    states: BTreeMap<CommitVersion, Rows>,
    sealed: Vec<(GroupNo, CommitVersion)>,
    acknowledged: CommitVersion,
    pins: Vec<(Pin, Rows)>,
    followed: (CommitVersion, Rows),
}

impl Watchers {
    pub(crate) fn new(memory: &mut Memory, recovered: Recovered, tasks: Arc<Graph>) -> Self {
        let mut names = recovered.names;
        names.add_run(RunId(0), "run", tasks);
        memory.take_records();
        Self {
            objections: Objections::new(),
            epoch: recovered.epoch,
            names,
            recorder: Recorder::default(),
            commits: Vec::new(),
            count: 0,
            completed: BTreeSet::new(),
            states: [(CommitVersion::default(), Rows::new())].into(),
            sealed: Vec::new(),
            acknowledged: CommitVersion::default(),
            pins: Vec::new(),
            followed: Default::default(),
        }
    }

    pub(crate) fn object(&mut self, checker: Checker, objection: String) {
        self.objections.entry(checker).or_insert(objection);
    }

    pub(crate) fn take_records(&mut self, memory: &mut Memory) {
        for record in memory.take_records() {
            self.commits.extend(self.recorder.take(&record, &self.names));
        }
    }

    pub(crate) fn committed(&mut self) {
        self.count += 1;
    }

    pub(crate) fn completed(&mut self, task: TaskId, is_newest: bool, is_accepted: bool) {
        if is_accepted && !is_newest {
            self.object(Checker::Leases, format!("an old lease of {task:?} has completed it"));
        }
        if is_accepted && !self.completed.insert(task) {
            self.object(Checker::Leases, format!("{task:?} was completed twice"));
        }
    }

    /// Looks for what may have been the reason of a refusal.
    pub(crate) fn refused(&mut self, reads: &Reads, conflict: &str) {
        let newer = self.commits.iter().filter(|commit| commit.version > reads.at.0);
        let mut changed = newer.flat_map(|commit| commit.writes.iter().chain(&commit.deletes));
        let is_read =
            |key: &String| reads.keys.contains(key) || reads.all && key.starts_with("list/");
        if !changed.any(is_read) {
            self.object(Checker::Refusals, format!("nothing it read has changed: {conflict}"));
        }
    }

    pub(crate) fn sealed(&mut self, group: GroupNo, memory: &Memory) {
        let snapshot = memory.snapshots().latest();
        let rows = rows(&snapshot);
        let count = rows.get("count").map_or(0, |count| count.parse().unwrap());
        if count != self.count {
            let message = format!("{} additions of 1 add up to {count}", self.count);
            self.object(Checker::Sums, message);
        }
        self.follow(&snapshot, &rows);
        self.states.insert(snapshot.version(), rows);
        self.sealed.push((group, snapshot.version()));
    }

    pub(crate) fn acknowledged(&mut self, group: GroupNo) {
        let newest = self.sealed.iter().rfind(|(sealed, _)| *sealed <= group);
        self.acknowledged = newest.map_or(self.acknowledged, |(_, version)| *version);
    }

    /// Applies the commits since the last look to what was there then.
    fn follow(&mut self, snapshot: &Snapshot, now: &Rows) {
        let (at, mut followed) = std::mem::take(&mut self.followed);
        match snapshot.commits_after(at) {
            Err(error) => self.object(Checker::Watch, error.to_string()),
            Ok(commits) => {
                for commit in commits {
                    for (key, entry) in commit.changes_in(&KeyRange::all()) {
                        match entry {
                            Some(entry) => followed.insert(key, text(&entry.value)),
                            None => followed.remove(&key),
                        };
                    }
                }
                if followed != *now {
                    let version = snapshot.version();
                    let message = format!("the commits from {at} on do not lead to {version}");
                    self.object(Checker::Watch, message);
                }
            }
        }
        self.followed = (snapshot.version(), now.clone());
    }

    /// Pins the newest version, and looks at one that was pinned before.
    pub(crate) fn pin(&mut self, play: &mut Play) {
        let snapshot = play.memory.snapshots().latest();
        if self.pins.len() == PINS_MAX {
            let (pin, then) = self.pins.remove(play.draws.below(PINS_MAX));
            let version = pin.version();
            match snapshot.as_of(version) {
                Ok(found) if rows(&found) == then => {}
                Ok(_) => self.object(Checker::Pins, format!("version {version} has changed")),
                Err(error) => self.object(Checker::Pins, error.to_string()),
            }
        }
        // Only what is sealed is a state that everybody agrees on.
        if let (Some(rows), Ok(pin)) =
            (self.states.get(&snapshot.version()), play.memory.pins().pin(snapshot.version()))
        {
            self.pins.push((pin, rows.clone()));
        }
    }

    /// Cuts the power now, on a copy of the disk, and judges what a start finds there.
    pub(crate) fn power_cut(&mut self, play: &mut Play) {
        let batches_kept = play.draws.below(play.disk.unsynced_batches() + 1);
        let disk = play.disk.after(Crash::PowerCut { batches_kept });
        let opened = Memory::open(
            Some(Box::new(disk.open())),
            Durability::Disk,
            Limits::default(),
            Commits::Driven,
        );
        let (memory, recovered) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.object(Checker::PowerCut, error.to_string()),
        };
        if recovered.epoch <= self.epoch {
            let message = format!("boot {} follows boot {}", recovered.epoch.0, self.epoch.0);
            self.object(Checker::Epochs, message);
        }
        let snapshot = memory.snapshots().latest();
        let (version, found) = (snapshot.version(), rows(&snapshot));
        if version < self.acknowledged {
            let message = format!("{} was acknowledged, {version} is there", self.acknowledged);
            self.object(Checker::PowerCut, message);
        }
        if self.states.get(&version) != Some(&found) {
            let message = format!("version {version} is none that was sealed like this");
            self.object(Checker::PowerCut, message);
        }
        let outputs = recovered.runs.first().map_or(&[][..], |run| &run.outputs);
        for (task, output) in outputs.iter().enumerate() {
            if output.is_some() != found.contains_key(&format!("done/{task:04}")) {
                let message = format!("task {task} and its writes are not there together");
                self.object(Checker::PowerCut, message);
            }
        }
    }

    pub(crate) fn finish(&mut self, play: &Play) {
        assert!(play.history.transactions.len() > 50, "too little has happened");
        for anomaly in versions::check(&self.commits).anomalies {
            self.object(Checker::Versions, format!("{}: {}", anomaly.kind, anomaly.message));
        }
    }
}

fn rows(snapshot: &Snapshot) -> Rows {
    snapshot.scan(b"").map(|entry| (text(entry.key()), text(&entry.value))).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
