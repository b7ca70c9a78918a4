//! A workload whose results can be judged: after any crash of any kind the store must hold a prefix
//! of it, whole, and everything that was acknowledged.

use std::path::Path;

use guild_memory::{Durability, OpenError};

use super::{World, completion, output, task};

/// Bytes of a value that is a file.
const LARGE_BYTES: usize = 70_000;

/// What is done, over and over.
#[derive(Clone, Copy)]
pub(crate) struct Work {
    pub(crate) name: &'static str,
    /// Completions in all.
    pub(crate) tasks: u32,
    /// Completions in one group.
    pub(crate) group: u32,
    pub(crate) value_bytes: usize,
    /// Values are written to as many keys in turn.
    pub(crate) keys: u32,
    /// Each so many tasks a value is too large for a row; 0: none is.
    pub(crate) large_every: u32,
}

pub(crate) fn open(path: &Path) -> Result<World, OpenError> {
    World::in_directory(path, Durability::Disk)
}

impl Work {
    fn text(self, number: u32) -> String {
        let is_large = number.checked_rem(self.large_every) == Some(0);
        let bytes = if is_large { LARGE_BYTES } else { self.value_bytes };
        format!("{number:08}/{}", "x".repeat(bytes))
    }

    /// Completes a task with a value and two more keys, all of which say which task it was.
    pub(crate) fn complete(self, world: &mut World, number: u32) {
        let token = world.grant(task(0, number));
        let mut transaction = world.begin();
        let value = self.text(number);
        transaction.put(format!("value/{:04}", number % self.keys), &value).unwrap();
        transaction.put(format!("done/{number:06}"), &number).unwrap();
        transaction.add("count", 1).unwrap();
        let mut handed_in = completion(task(0, number), token, transaction.into_parts());
        handed_in.output = output(&number.to_string());
        let now = world.now();
        world.memory.complete(now, handed_in).unwrap();
    }

    /// Completes one group from `first` on and returns its last task once it is acknowledged.
    ///
    /// # Errors
    /// The store failed; nothing of the group was acknowledged.
    pub(crate) fn complete_group(self, world: &mut World, first: u32) -> Result<u32, String> {
        let last = first + self.group - 1;
        (first..=last).for_each(|number| self.complete(world, number));
        let group = world.memory.seal();
        loop {
            if world.memory.acknowledged() >= group {
                return Ok(last);
            }
            if let Some(error) = world.memory.failure() {
                return Err(error.to_string());
            }
            std::thread::yield_now();
        }
    }

    /// Opens a store that must hold everything up to the last acknowledged task; returns how many
    /// completions it holds, or says what is wrong.
    pub(crate) fn judge(self, path: &Path, acknowledged: Option<u32>) -> Result<u32, String> {
        let world = open(path).map_err(|error| format!("it does not open: {error}"))?;
        if let Some(restored) = &world.recovered.restored {
            return Err(format!("it had to be restored: {restored:?}"));
        }
        self.judge_open(&world, acknowledged)
    }

    /// Judges what an open memory holds.
    pub(crate) fn judge_open(
        self,
        world: &World,
        acknowledged: Option<u32>,
    ) -> Result<u32, String> {
        let outputs = world.recovered.runs.first().map_or(&[][..], |run| &run.outputs);
        let completed = outputs.iter().take_while(|output| output.is_some()).count();
        if outputs[completed..].iter().any(Option::is_some) {
            return Err(format!("completion {completed} is missing and a later one is there"));
        }
        if acknowledged.is_some_and(|last| completed <= last as usize) {
            return Err(format!("{acknowledged:?} was acknowledged, and {completed} are there"));
        }
        if completed % self.group as usize != 0 {
            return Err(format!("half a group is there: {completed} completions"));
        }
        let completed = u32::try_from(completed).unwrap();
        if world.value("count").unwrap_or(0) != i64::from(completed) {
            return Err(format!("{completed} completions, {:?} effects", world.value("count")));
        }
        let done: Vec<(String, u32)> = world.begin().scan_prefix("done/", usize::MAX).unwrap();
        if !done.iter().map(|(_, number)| *number).eq(0..completed) {
            return Err(format!("of {completed} completions {} rows are there", done.len()));
        }
        let values: Vec<(String, String)> =
            world.begin().scan_prefix("value/", usize::MAX).unwrap();
        let newest = |key: u32| {
            let number = completed.checked_sub(key + 1)? / self.keys * self.keys + key;
            Some((format!("value/{key:04}"), self.text(number)))
        };
        if !values.into_iter().eq((0..self.keys).filter_map(newest)) {
            return Err(format!("values are not those of the first {completed} completions"));
        }
        let version = world.memory.snapshots().latest().version();
        if version.0 != u64::from(completed) {
            return Err(format!("version {version} after {completed} commits"));
        }
        Ok(completed)
    }
}
