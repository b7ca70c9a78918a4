//! A run as the log tells of it, with its graph.

use std::collections::BTreeMap;
use std::sync::Arc;

use guild_core::event::{Tally, TaskText, Terms, Text};

use super::RunNo;
use super::task::{Lease, Status, Task};

/// A run that has not ended.
#[derive(Debug)]
pub(in crate::checker) struct Run {
    pub(super) no: RunNo,
    pub(in crate::checker) name: Arc<str>,
    /// Tasks that were submitted, as the log announces them.
    pub(in crate::checker) announced: u32,
    /// Submitted tasks that were added.
    pub(in crate::checker) added: u32,
    pub(in crate::checker) is_cancelled: bool,
    /// How its tasks ended so far.
    pub(in crate::checker) tally: Tally,
    tasks: Vec<Task>,
    names: BTreeMap<Arc<str>, u32>,
    /// The role of the task that was added last; most tasks share it.
    role: Option<Arc<str>>,
}

impl Run {
    pub(super) fn new(no: RunNo, name: Arc<str>, announced: u32) -> Self {
        Self {
            no,
            name,
            announced,
            added: 0,
            is_cancelled: false,
            tally: Tally::default(),
            tasks: Vec::new(),
            names: BTreeMap::new(),
            role: None,
        }
    }

    /// Returns the number of a task that was added.
    pub(in crate::checker) fn find(&self, name: &str) -> Option<u32> {
        self.names.get(name).copied().filter(|no| self.task(*no).is_added)
    }

    pub(in crate::checker) fn task(&self, no: u32) -> &Task {
        &self.tasks[no as usize]
    }

    pub(super) fn task_mut(&mut self, no: u32) -> &mut Task {
        &mut self.tasks[no as usize]
    }

    /// Returns its tasks, by number.
    pub(in crate::checker) fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// Returns the tasks that have not ended.
    pub(in crate::checker) fn open_tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter().filter(|task| !task.is_over())
    }

    /// Returns the live leases of its tasks.
    pub(super) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.tasks.iter().filter_map(|task| task.lease.as_ref())
    }

    /// Adds a task; dependencies that are not there yet are bound when they come.
    pub(super) fn add(
        &mut self,
        task: &TaskText<'_>,
        role: &str,
        after: &[Text<'_>],
        spawned_by: Option<&str>,
        terms: Arc<Terms>,
    ) {
        let parent = spawned_by.and_then(|parent| self.find(parent));
        let no = self.place(&task.task);
        let mut pending = 0;
        let mut is_tainted = false;
        let mut needs_version = 0;
        for before in after {
            let before = self.place(before);
            let before = &mut self.tasks[before as usize];
            if before.is_closed {
                is_tainted |= before.is_tainted;
                needs_version = needs_version.max(before.version);
            } else {
                before.followers.push(no);
                pending += 1;
            }
        }
        if let Some(parent) = parent {
            self.tasks[parent as usize].children_open += 1;
        } else {
            self.added += 1;
        }
        let task = &mut self.tasks[no as usize];
        task.is_added = true;
        let known = self.role.as_ref().filter(|known| ***known == *role);
        let role = known.map_or_else(|| role.into(), Arc::clone);
        task.role = Arc::clone(&role);
        self.role = Some(role);
        task.terms = terms;
        task.pending = pending;
        task.is_doomed = is_tainted;
        task.needs_version = needs_version;
        task.parent = parent;
    }

    /// Returns the number of a task; one that is only named so far gets a place.
    fn place(&mut self, name: &str) -> u32 {
        if let Some(no) = self.names.get(name) {
            return *no;
        }
        let no = u32::try_from(self.tasks.len()).unwrap_or(u32::MAX);
        let name: Arc<str> = name.into();
        self.tasks.push(Task::named(Arc::clone(&name)));
        self.names.insert(name, no);
        no
    }

    /// Counts the end of a task.
    pub(super) fn end(&mut self, no: u32) {
        use guild_core::event::EndState;
        let task = &mut self.tasks[no as usize];
        task.is_tainted |= task.status != Status::Completed;
        match task.status {
            Status::Completed => self.tally.completed += 1,
            Status::Ended(EndState::Failed | EndState::DeadLettered) => self.tally.failed += 1,
            Status::Ended(EndState::Skipped) => self.tally.skipped += 1,
            Status::Ended(EndState::Cancelled) => self.tally.cancelled += 1,
            Status::Waiting | Status::Ready | Status::Leased | Status::Backoff(_) => {}
        }
    }

    /// Closes the scope of a task that has ended, and the scopes that close with it.
    pub(super) fn close(&mut self, no: u32) {
        let mut over = vec![no];
        while let Some(no) = over.pop() {
            let task = &mut self.tasks[no as usize];
            if task.is_closed || !task.is_over() || task.children_open > 0 {
                continue;
            }
            task.is_closed = true;
            let (is_tainted, version, parent) = (task.is_tainted, task.version, task.parent);
            for follower in std::mem::take(&mut task.followers) {
                let follower = &mut self.tasks[follower as usize];
                follower.pending = follower.pending.saturating_sub(1);
                follower.is_doomed |= is_tainted;
                follower.needs_version = follower.needs_version.max(version);
            }
            if let Some(parent) = parent {
                let task = &mut self.tasks[parent as usize];
                task.children_open = task.children_open.saturating_sub(1);
                task.is_tainted |= is_tainted;
                task.version = task.version.max(version);
                over.push(parent);
            }
        }
    }

    /// Forgets who worked: the process ended.
    pub(super) fn lose_leases(&mut self) {
        for task in &mut self.tasks {
            if let Some(lease) = &mut task.lease {
                lease.is_orphaned = true;
            }
            task.is_recovered = true;
        }
    }
}
