//! Bounds everything: each limit has a name, a unit, a default and a behaviour when it is reached.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The bounds of a guild.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Limits {
    /// Tasks of one run, spawned ones included. Beyond: `submit` and `spawn` are refused.
    pub tasks_per_run_max: u32,
    /// Dependencies of one run. Beyond: refused.
    pub edges_per_run_max: u32,
    /// Characters of a task, run, role or quota name. Beyond: refused.
    pub name_chars_max: usize,
    /// Bytes of one task's input or output. Beyond: the attempt fails and is not retried.
    pub payload_bytes_max: usize,
    /// Bytes of a memory key. Beyond: the write is refused.
    pub key_bytes_max: usize,
    /// Bytes of a memory value, and of all large values of one transaction: those of more than
    /// 64 KiB, which are kept as files beside the rows. Beyond: the write is refused.
    pub value_bytes_max: usize,
    /// Write operations of one transaction. Beyond: the commit is refused.
    pub writes_per_transaction_max: usize,
    /// Keys that one transaction removes by range. Beyond: the commit is refused.
    pub range_deletes_per_transaction_max: usize,
    /// Bytes of all writes of one transaction. Beyond: the commit is refused.
    pub transaction_bytes_max: usize,
    /// Bytes of earlier values kept, in RAM and in the store. Beyond: the oldest commits are
    /// forgotten, and versions before them can no longer be read.
    pub history_bytes_max: usize,
    /// Recent events kept in RAM for readers. Beyond: the oldest leave RAM.
    pub events_in_memory_max: usize,
    /// Incidents kept in RAM. Beyond: the oldest that are over leave RAM (their events stay in the
    /// log).
    pub incidents_in_memory_max: usize,
    /// Patterns of incidents that are counted. Beyond: the one that was not seen for longest is
    /// forgotten.
    pub incident_groups_max: usize,
    /// Bytes of one text in an incident (message, cause, note); four times as many for a
    /// backtrace. Beyond: it is cut; a note is refused.
    pub incident_text_bytes_max: usize,
    /// Completions that wait for the memory at once. Beyond: no further task is assigned.
    pub commits_in_flight_max: usize,
    /// Messages that wait for one agent: its assignment, a revocation, orders of its supervisor.
    /// Beyond: an assignment is given back and its task goes elsewhere; orders find room always.
    pub mailbox_messages_max: usize,
    /// Requests from outside (submissions, transactions) that wait for the memory. Beyond: `Busy`.
    pub requests_waiting_max: usize,
    /// Tasks of all runs that have not ended. Beyond: submissions are refused as `Overloaded`.
    pub tasks_open_max: u64,
    /// Agents of one role. Beyond: `start` is refused.
    pub agents_per_role_max: u32,
    /// How often a task may lose its attempt through no fault of its own (its agent died, or its
    /// transaction conflicted) before it is dead-lettered.
    pub interruptions_max: u32,
    /// Agents that a task may take down (by a panic, an exit, a hang), whatever attempts it has left.
    /// One more, and it is poison: it is dead-lettered, and its victims are forgiven.
    pub kills_max: u32,
    /// How long an agent may hold its thread without an await. Beyond: the log tells it.
    pub hold_soft: Duration,
    /// How long at the most, unless it has declared more. Beyond: the agent loses its thread and is
    /// quarantined, and the others on it go on elsewhere. Zero: never.
    pub hold_hard: Duration,
    /// Threads that may be lost to agents at once. One more, and the guild ends: it can be started
    /// again on its store, in another process.
    pub hung_threads_max: u32,
    /// Threads for work that blocks (`TaskContext::blocking`), of all agents together. Beyond: it
    /// waits, in order.
    pub blocking_threads_max: usize,
    /// Dead letters kept in RAM for a person to retry. Beyond: the oldest leave RAM (their events stay
    /// in the log).
    pub dead_letters_max: usize,
    /// How often a store that failed is opened again, with growing pauses (12 take half a minute).
    /// Beyond: the guild fails. 0: it fails at once.
    pub store_reopens_max: u32,
    /// Time between two checkpoints of a store in a directory; zero: none are made.
    pub checkpoint_every: Duration,
    /// Time limit of an attempt whose task names none.
    pub task_timeout: Duration,
    /// Time that an agent may take to end in good order. Beyond: it is dropped.
    pub end_time_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tasks_per_run_max: 2_000_000,
            edges_per_run_max: 20_000_000,
            name_chars_max: 200,
            payload_bytes_max: 64 << 20,
            key_bytes_max: 1 << 10,
            value_bytes_max: 16 << 20,
            writes_per_transaction_max: 4_096,
            range_deletes_per_transaction_max: 65_536,
            transaction_bytes_max: 1 << 20,
            history_bytes_max: 32 << 20,
            events_in_memory_max: 1 << 20,
            incidents_in_memory_max: 10_000,
            incident_groups_max: 1_000,
            incident_text_bytes_max: 8 << 10,
            commits_in_flight_max: 16_384,
            mailbox_messages_max: 8,
            requests_waiting_max: 100_000,
            tasks_open_max: 10_000_000,
            agents_per_role_max: 1_000_000,
            interruptions_max: 1_000,
            kills_max: 16,
            hold_soft: Duration::from_secs(1),
            hold_hard: Duration::from_secs(60),
            hung_threads_max: 8,
            blocking_threads_max: 32,
            dead_letters_max: 1_000,
            store_reopens_max: 12,
            checkpoint_every: Duration::from_secs(600),
            task_timeout: Duration::from_secs(600),
            end_time_max: Duration::from_secs(3),
        }
    }
}
