//! A small world for tests of the memory: graphs by hand, completions in one line.

#![expect(dead_code, reason = "every test binary uses its own part of this module")]

pub(crate) mod draws;
pub(crate) mod failing;
pub(crate) mod work;

use std::sync::Arc;
use std::time::Duration;

use guild_core::graph::{Bindings, Expr, Graph, TaskName, TaskOptions, TaskSpec};
use guild_core::id::{
    AgentId, BootEpoch, CommitVersion, FencingToken, Incarnation, RoleId, RunId, TaskId, TaskIndex,
};
use guild_core::limits::Limits;
use guild_core::payload::Payload;
use guild_core::retry::RetryPolicy;
use guild_core::time::Timestamp;
use guild_memory::store::{RamDisk, Store};
use guild_memory::{
    CommitError, Completion, Durability, Memory, OpenError, Recovered, Submitted, Transaction,
    TransactionParts,
};

/// A graph of independent tasks `t0`, `t1`, ... of the role `worker`.
pub(crate) fn graph(name: &str, tasks: u32) -> Arc<Graph> {
    let options = Arc::new(TaskOptions {
        role: 0,
        retry: RetryPolicy::default(),
        timeout: None,
        heartbeat: None,
        priority: 0,
        quotas: Vec::new(),
    });
    let task = |number: u32| TaskSpec {
        name: TaskName::Named(format!("t{number}").into()),
        options: options.clone(),
        after: Box::new([]),
        input: Expr::Value(Payload::NULL),
        expected: Duration::from_secs(1),
    };
    Arc::new(Graph {
        name: name.to_owned(),
        roles: vec!["worker".into()],
        quotas: Vec::new(),
        tasks: (0..tasks).map(task).collect(),
    })
}

pub(crate) fn bindings() -> Bindings {
    Bindings { roles: vec![RoleId(0)], quotas: Vec::new() }
}

pub(crate) fn task(run: u32, index: u32) -> TaskId {
    TaskId { run: RunId(run), index: TaskIndex(index) }
}

pub(crate) fn completion(
    task: TaskId,
    token: FencingToken,
    transaction: TransactionParts,
) -> Completion {
    Completion {
        task,
        attempt: 1,
        agent: AgentId { role: RoleId(0), index: 0 },
        incarnation: Incarnation::first(BootEpoch(1)),
        token,
        output: Payload::NULL,
        transaction: Some(Box::new(transaction)),
        spawned: None,
    }
}

pub(crate) fn output(value: &str) -> Payload {
    Payload::encode(value).unwrap()
}

/// An open memory with a clock and tokens.
pub(crate) struct World {
    pub(crate) memory: Memory,
    pub(crate) recovered: Recovered,
    now: u64,
    token: FencingToken,
}

impl World {
    /// A memory without a store.
    pub(crate) fn volatile() -> Self {
        Self::open(None, Durability::Memory).unwrap()
    }

    /// A memory on this disk, at level `Disk`.
    pub(crate) fn on(disk: &RamDisk) -> Self {
        Self::open(Some(Box::new(disk.open())), Durability::Disk).unwrap()
    }

    /// A memory on this disk that has these limits.
    pub(crate) fn on_with(disk: &RamDisk, limits: Limits) -> Self {
        Self::open_with(Some(Box::new(disk.open())), Durability::Disk, limits).unwrap()
    }

    /// A memory without a store that has these limits.
    pub(crate) fn with_limits(limits: Limits) -> Self {
        Self::open_with(None, Durability::Memory, limits).unwrap()
    }

    pub(crate) fn open(
        store: Option<Box<dyn Store>>,
        level: Durability,
    ) -> Result<Self, OpenError> {
        Self::open_with(store, level, Limits::default())
    }

    fn open_with(
        store: Option<Box<dyn Store>>,
        level: Durability,
        limits: Limits,
    ) -> Result<Self, OpenError> {
        let (memory, recovered) =
            Memory::open(store, level, limits, guild_memory::Commits::OnThread(Box::new(|| {})))?;
        Ok(Self::with(memory, recovered))
    }

    /// The memory of a directory, which is restored from a checkpoint if it has to be.
    pub(crate) fn in_directory(
        path: &std::path::Path,
        level: Durability,
    ) -> Result<Self, OpenError> {
        let mut limits = Limits::default();
        limits.store_reopens_max = 3;
        let commits = guild_memory::Commits::OnThread(Box::new(|| {}));
        let (memory, recovered) = Memory::open_directory(path, level, limits, commits)?;
        Ok(Self::with(memory, recovered))
    }

    fn with(memory: Memory, recovered: Recovered) -> Self {
        let (now, token) = (recovered.last_at.0, FencingToken::floor(recovered.epoch));
        Self { memory, recovered, now, token }
    }

    pub(crate) fn now(&mut self) -> Timestamp {
        self.now += 1;
        Timestamp(self.now)
    }

    pub(crate) fn begin(&self) -> Transaction {
        Transaction::begin(self.memory.snapshots().latest())
    }

    /// Commits a transaction from outside, and makes it visible.
    pub(crate) fn commit(
        &mut self,
        transaction: Transaction,
    ) -> Result<CommitVersion, CommitError> {
        let now = self.now();
        let result = self.memory.transact(now, transaction.into_parts());
        self.memory.seal();
        result
    }

    /// Puts integers, all in one commit.
    pub(crate) fn put_all(&mut self, rows: &[(&str, i64)]) {
        let mut transaction = self.begin();
        for (key, value) in rows {
            transaction.put(key, value).unwrap();
        }
        self.commit(transaction).unwrap();
    }

    pub(crate) fn value(&self, key: &str) -> Option<i64> {
        let snapshot = self.memory.snapshots().latest();
        let entry = snapshot.get(key.as_bytes())?;
        Some(serde_json::from_slice(&entry.value).unwrap())
    }

    pub(crate) fn values(&self) -> Vec<(String, i64)> {
        self.begin().scan_prefix("", usize::MAX).unwrap()
    }

    pub(crate) fn submit(&mut self, name: &str, tasks: u32) -> RunId {
        let now = self.now();
        match self.memory.submit(now, name, graph(name, tasks), &bindings(), 0).unwrap() {
            Submitted::New(run) | Submitted::Existing(run) => run,
        }
    }

    /// Grants the next token of the task.
    pub(crate) fn grant(&mut self, task: TaskId) -> FencingToken {
        self.token = self.token.next();
        self.memory.grant(task, self.token);
        self.token
    }

    /// Grants and completes a task with an output and one written key.
    pub(crate) fn complete(&mut self, task: TaskId, text: &str) -> CommitVersion {
        let token = self.grant(task);
        let mut transaction = self.begin();
        transaction.put(format!("done/{}/{}", task.run.0, task.index.0), text).unwrap();
        let mut completion = completion(task, token, transaction.into_parts());
        completion.output = output(text);
        let now = self.now();
        self.memory.complete(now, completion).unwrap()
    }

    /// Grants and completes a task with this transaction, and makes it visible.
    pub(crate) fn complete_with(
        &mut self,
        task: TaskId,
        transaction: Transaction,
    ) -> Result<CommitVersion, CommitError> {
        let token = self.grant(task);
        let now = self.now();
        let completion = completion(task, token, transaction.into_parts());
        let result = self.memory.complete(now, completion);
        self.memory.seal();
        result
    }
}
