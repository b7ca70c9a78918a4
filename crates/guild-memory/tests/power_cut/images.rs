//! Replays a trace of file operations and builds the disks that a power cut could leave behind.
//!
//! What was synced is there. Of everything since, any part may be there: no write, each write, some
//! of them in any order, some sectors of them. `sync_file_range` counts as nothing. Changes of names
//! become durable with a sync of their directory; before that a journal has kept a prefix of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::common::draws::Draws;

const SECTOR_BYTES: usize = 512;

/// What was done to a file.
#[derive(Debug)]
pub(crate) enum Operation {
    Create,
    Truncate(usize),
    Write { at: usize, data: Vec<u8> },
    Sync,
    SyncRange,
    Rename(String),
    Unlink,
    MakeDir,
}

/// One record of the trace.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) operation: Operation,
}

/// Reads a trace as the recorder writes it.
pub(crate) fn read_trace(path: &Path) -> Vec<Step> {
    let bytes = fs::read(path).unwrap();
    let mut rest = bytes.as_slice();
    let mut steps = Vec::new();
    while let Some((&kind, after)) = rest.split_first() {
        rest = after;
        let mut take = |length: usize| {
            let (taken, after) = rest.split_at(length);
            rest = after;
            taken
        };
        let mut name = || {
            let length = u16::from_le_bytes(take(2).try_into().unwrap());
            String::from_utf8(take(usize::from(length)).to_vec()).unwrap()
        };
        let (name, second) = (name(), name());
        let mut number = || usize::try_from(u64::from_le_bytes(take(8).try_into().unwrap()));
        let (number, length) = (number().unwrap(), number().unwrap());
        let data = take(length).to_vec();
        let operation = match kind {
            1 => Operation::Create,
            2 => Operation::Truncate(number),
            3 => Operation::Write { at: number, data },
            4 => Operation::Sync,
            5 => Operation::SyncRange,
            6 => Operation::Rename(second),
            7 => Operation::Unlink,
            8 => Operation::MakeDir,
            other => panic!("operation {other} in the trace"),
        };
        steps.push(Step { name, operation });
    }
    steps
}

/// What the power cut leaves of everything that was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Survival {
    Nothing,
    Everything,
    /// Some of the writes, also later ones without earlier ones.
    Reordered,
    /// Some sectors of the writes.
    Torn,
}

impl Survival {
    pub(crate) const ALL: [Self; 4] =
        [Self::Nothing, Self::Everything, Self::Reordered, Self::Torn];
}

#[derive(Clone, Copy, Debug)]
enum Node {
    Directory,
    /// The place of its content.
    File(usize),
}

#[derive(Debug)]
enum NameChange {
    Add(String, Node),
    Rename(String, String),
    Remove(String),
}

impl NameChange {
    fn directory(&self) -> &str {
        let (Self::Add(name, _) | Self::Rename(name, _) | Self::Remove(name)) = self;
        name.rsplit_once('/').map_or("", |(directory, _)| directory)
    }

    fn apply(&self, names: &mut BTreeMap<String, Node>) {
        match self {
            Self::Add(name, node) => drop(names.insert(name.clone(), *node)),
            Self::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
            Self::Remove(name) => drop(names.remove(name)),
        }
    }
}

#[derive(Debug, Default)]
struct Content {
    synced: Vec<u8>,
    pending: Vec<Operation>,
}

/// A disk on which some operations are done and fewer are durable.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    contents: Vec<Content>,
    names: BTreeMap<String, Node>,
    synced_names: BTreeMap<String, Node>,
    pending_names: Vec<NameChange>,
}

impl Disk {
    /// Does the next operation of the trace.
    pub(crate) fn perform(&mut self, step: &Step) {
        let name = step.name.clone();
        match &step.operation {
            Operation::Create => {
                self.contents.push(Content::default());
                self.rename(NameChange::Add(name, Node::File(self.contents.len() - 1)));
            }
            Operation::MakeDir => self.rename(NameChange::Add(name, Node::Directory)),
            Operation::Rename(to) => self.rename(NameChange::Rename(name, to.clone())),
            Operation::Unlink => self.rename(NameChange::Remove(name)),
            Operation::SyncRange => {}
            Operation::Sync => self.sync(&name),
            Operation::Truncate(length) => {
                self.content(&name).pending.push(Operation::Truncate(*length));
            }
            Operation::Write { at, data } => {
                let write = Operation::Write { at: *at, data: data.clone() };
                self.content(&name).pending.push(write);
            }
        }
    }

    /// Returns whether a power cut now could lose something.
    pub(crate) fn is_at_risk(&self) -> bool {
        !self.pending_names.is_empty()
            || self.contents.iter().any(|content| !content.pending.is_empty())
    }

    /// Writes what a power cut leaves into an empty directory.
    pub(crate) fn write_image(&self, survival: Survival, draws: &mut Draws, into: &Path) {
        let mut names = self.synced_names.clone();
        let kept = match survival {
            Survival::Nothing => 0,
            Survival::Everything => self.pending_names.len(),
            Survival::Reordered | Survival::Torn => draws.below(self.pending_names.len() + 1),
        };
        self.pending_names[..kept].iter().for_each(|change| change.apply(&mut names));
        // A directory sorts before what is in it; what lost its directory is lost.
        for (name, node) in names {
            let path = into.join(name);
            if !path.parent().unwrap().is_dir() {
                continue;
            }
            match node {
                Node::Directory => fs::create_dir(path).unwrap(),
                Node::File(place) => {
                    fs::write(path, self.contents[place].after(survival, draws)).unwrap();
                }
            }
        }
    }

    fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    fn content(&mut self, name: &str) -> &mut Content {
        match self.names.get(name) {
            Some(Node::File(place)) => &mut self.contents[*place],
            other => panic!("`{name}` is written to and is {other:?}"),
        }
    }

    fn sync(&mut self, name: &str) {
        if name.is_empty() || matches!(self.names.get(name), Some(Node::Directory)) {
            let (synced, pending) = std::mem::take(&mut self.pending_names)
                .into_iter()
                .partition::<Vec<_>, _>(|change| change.directory() == name);
            synced.iter().for_each(|change| change.apply(&mut self.synced_names));
            self.pending_names = pending;
            return;
        }
        let content = self.content(name);
        for operation in std::mem::take(&mut content.pending) {
            change(&mut content.synced, &operation);
        }
    }
}

impl Content {
    fn after(&self, survival: Survival, draws: &mut Draws) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        for operation in &self.pending {
            match (survival, operation) {
                (Survival::Nothing, _) => {}
                (Survival::Torn, Operation::Write { at, data }) => {
                    tear(&mut bytes, *at, data, draws);
                }
                (Survival::Everything, _) => change(&mut bytes, operation),
                (Survival::Reordered | Survival::Torn, _) if draws.coin() => {
                    change(&mut bytes, operation);
                }
                (Survival::Reordered | Survival::Torn, _) => {}
            }
        }
        bytes
    }
}

fn change(bytes: &mut Vec<u8>, operation: &Operation) {
    match operation {
        Operation::Truncate(length) => bytes.resize(*length, 0),
        Operation::Write { at, data } => {
            let end = at + data.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[*at..end].copy_from_slice(data);
        }
        other => unreachable!("{other:?} does not change a content"),
    }
}

/// Each sector arrives or not; the new length may arrive without the data.
fn tear(bytes: &mut Vec<u8>, at: usize, data: &[u8], draws: &mut Draws) {
    if draws.coin() {
        bytes.resize(bytes.len().max(at + data.len()), 0);
    }
    let mut from = 0;
    while from < data.len() {
        let to = (SECTOR_BYTES - (at + from) % SECTOR_BYTES + from).min(data.len());
        if draws.coin() {
            let piece = data[from..to].to_vec();
            change(bytes, &Operation::Write { at: at + from, data: piece });
        }
        from = to;
    }
}
