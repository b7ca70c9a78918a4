//! Clients and tasks that interleave on one memory, step by step, as a seed draws it.

use guild_core::id::{FencingToken, TaskId};
use guild_core::limits::Limits;
use guild_core::time::Timestamp;
use guild_memory::store::RamDisk;
use guild_memory::{CommitError, Commits, Durability, GroupNo, Memory, Submitted, Transaction};
use guild_sim::checker::serial::list_append::{self, History, Operation, Outcome};

use super::common::draws::Draws;
use super::common::{bindings, completion, graph, task};
use super::watchers::{Reads, Watchers};
use super::{Checker, Objections};

const STEPS: usize = 700;
const TASKS: u32 = 400;
/// Sessions that are open at once.
const OPEN_MAX: usize = 3;
/// Lists that are in use at once; there is a new one every few transactions.
const LISTS: usize = 4;
const COMMITS_PER_LIST: usize = 6;

/// A transaction under way.
struct Session {
    transaction: Transaction,
    /// Its place in the history of the clients.
    place: u32,
    reads: Reads,
    task: Option<(TaskId, FencingToken)>,
}

pub(crate) struct Play {
    pub(crate) memory: Memory,
    pub(crate) disk: RamDisk,
    pub(crate) history: History,
    pub(crate) draws: Draws,
    now: u64,
    open: Vec<Session>,
    tokens: Vec<FencingToken>,
    token: FencingToken,
    next_task: u32,
    next_element: i64,
    commits: usize,
    /// Commits whose group is not acknowledged.
    waiting: Vec<(GroupNo, u32)>,
    unsealed: Vec<u32>,
}

/// Plays to the end and returns who objects.
pub(crate) fn play(seed: u64) -> Objections {
    let (mut play, mut watchers) = Play::begin(seed);
    for _ in 0..STEPS {
        play.step(&mut watchers);
    }
    play.seal(&mut watchers);
    play.memory.drive();
    play.acknowledge(&mut watchers);
    watchers.power_cut(&mut play);
    watchers.finish(&play);
    let verdict = list_append::check(&play.history);
    for anomaly in verdict.anomalies {
        watchers.object(Checker::ListAppend, format!("{}: {}", anomaly.kind, anomaly.message));
    }
    watchers.objections
}

impl Play {
    fn begin(seed: u64) -> (Self, Watchers) {
        let disk = RamDisk::new();
        let mut limits = Limits::default();
        limits.history_bytes_max = 4_000;
        let store = Box::new(disk.open());
        let (mut memory, recovered) =
            Memory::open(Some(store), Durability::Disk, limits, Commits::Driven).unwrap();
        memory.record_histories(true);
        let tasks = graph("run", TASKS);
        let submitted = memory.submit(Timestamp(1), "run", tasks.clone(), &bindings(), 0).unwrap();
        assert!(matches!(submitted, Submitted::New(_)));
        memory.barrier().unwrap();
        let token = FencingToken::floor(recovered.epoch);
        let watchers = Watchers::new(&mut memory, recovered, tasks);
        let play = Self {
            memory,
            disk,
            history: History::default(),
            draws: Draws(seed),
            now: 1,
            open: Vec::new(),
            tokens: vec![token; TASKS as usize],
            token,
            next_task: 0,
            next_element: 1,
            commits: 0,
            waiting: Vec::new(),
            unsealed: Vec::new(),
        };
        (play, watchers)
    }

    fn now(&mut self) -> Timestamp {
        self.now += 1;
        Timestamp(self.now)
    }

    fn step(&mut self, watchers: &mut Watchers) {
        match self.draws.below(20) {
            0..=3 if self.open.len() < OPEN_MAX => self.begin_session(),
            0..=10 if !self.open.is_empty() => {
                let session = self.draws.below(self.open.len());
                self.perform(session);
            }
            11..=14 if !self.open.is_empty() => {
                let session = self.draws.below(self.open.len());
                let session = self.open.swap_remove(session);
                self.commit(session, watchers);
            }
            15 | 16 => self.seal(watchers),
            17 => {
                self.memory.drive();
                self.acknowledge(watchers);
            }
            18 => watchers.pin(self),
            19 if self.draws.below(3) == 0 => watchers.power_cut(self),
            _ => {}
        }
    }

    fn begin_session(&mut self) {
        let mut transaction = Transaction::begin(self.memory.snapshots().latest());
        let place = u32::try_from(self.history.transactions.len()).unwrap();
        let (index, operations) = (u64::from(place), Vec::new());
        let outcome = Outcome::Unknown;
        self.history.transactions.push(list_append::Transaction { index, operations, outcome });
        self.history.moments.push((place, false));
        let reads = Reads { at: transaction.read_version(), keys: Vec::new(), all: false };
        let task = (self.draws.below(3) == 0).then(|| self.grant());
        self.open.push(Session { transaction, place, reads, task });
    }

    /// Leases a task: mostly a new one, at times one that somebody else has already.
    fn grant(&mut self) -> (TaskId, FencingToken) {
        let again = self.open.iter().find_map(|session| session.task);
        let task = match again {
            Some((task, _)) if self.draws.below(3) == 0 => task,
            Some(_) | None => {
                self.next_task += 1;
                task(0, self.next_task - 1)
            }
        };
        self.token = self.token.next();
        self.memory.grant(task, self.token);
        self.tokens[task.index.at()] = self.token;
        (task, self.token)
    }

    fn perform(&mut self, session: usize) {
        let list = self.draw_list();
        let kind = self.draws.below(6);
        let element = self.next_element;
        self.next_element += 1;
        // Scans see the lists that are not there yet, too.
        let newest = self.newest_list();
        while self.history.keys.len() <= newest {
            self.history.keys.push(name(self.history.keys.len()));
        }
        let session = &mut self.open[session];
        let operations = &mut self.history.transactions[session.place as usize].operations;
        match kind {
            0 => session.read(list, operations),
            1 => {
                session.read(list, operations);
                let mut elements: Vec<i64> =
                    session.transaction.get(name(list)).unwrap().unwrap_or_default();
                elements.push(element);
                session.transaction.put(name(list), &elements).unwrap();
                operations.push(append(list, element));
            }
            2 => {
                session.transaction.append(name(list), &element, usize::MAX).unwrap();
                operations.push(append(list, element));
            }
            3 => session.scan(newest, operations),
            4 => session.transaction.put("other", &element).unwrap(),
            _ => {
                // What is read here steers what follows, though the writes are taken back.
                let savepoint = session.transaction.savepoint();
                session.read(list, operations);
                session.transaction.put("other", &element).unwrap();
                session.transaction.rollback_to(savepoint).unwrap();
            }
        }
    }

    fn commit(&mut self, mut session: Session, watchers: &mut Watchers) {
        session.transaction.add("count", 1).unwrap();
        let now = self.now();
        let result = match session.task {
            None => self.memory.transact(now, session.transaction.into_parts()),
            Some((task, token)) => {
                let done = format!("done/{:04}", task.index.0);
                session.transaction.put(&done, &task.index.0).unwrap();
                let parts = session.transaction.into_parts();
                let mut handed_in = completion(task, token, parts);
                handed_in.output = super::common::output("done");
                let result = self.memory.complete(now, handed_in);
                let is_newest = self.tokens[task.index.at()] == token;
                watchers.completed(task, is_newest, result.is_ok());
                result
            }
        };
        let outcome = &mut self.history.transactions[session.place as usize].outcome;
        match result {
            Ok(_) => {
                *outcome = Outcome::Committed;
                self.commits += 1;
                self.unsealed.push(session.place);
                watchers.committed();
            }
            Err(error) => {
                *outcome = Outcome::Failed;
                if let CommitError::Conflict(conflict) = &error {
                    watchers.refused(&session.reads, &conflict.to_string());
                }
            }
        }
        watchers.take_records(&mut self.memory);
    }

    fn seal(&mut self, watchers: &mut Watchers) {
        let group = self.memory.seal();
        self.waiting.extend(self.unsealed.drain(..).map(|place| (group, place)));
        watchers.sealed(group, &self.memory);
        self.acknowledge(watchers);
    }

    /// A client knows that it has committed when its group is acknowledged.
    fn acknowledge(&mut self, watchers: &mut Watchers) {
        let acknowledged = self.memory.acknowledged();
        let moments = &mut self.history.moments;
        self.waiting.retain(|(group, place)| {
            let is_over = *group <= acknowledged;
            if is_over {
                moments.push((*place, true));
            }
            !is_over
        });
        watchers.acknowledged(acknowledged);
    }

    fn newest_list(&self) -> usize {
        self.commits / COMMITS_PER_LIST + LISTS - 1
    }

    fn draw_list(&mut self) -> usize {
        self.newest_list() - self.draws.below(LISTS)
    }
}

impl Session {
    fn read(&mut self, list: usize, operations: &mut Vec<Operation>) {
        let elements: Option<Vec<i64>> = self.transaction.get(name(list)).unwrap();
        self.reads.keys.push(name(list));
        operations.push(read(list, elements.unwrap_or_default()));
    }

    /// Reads all lists at once, and so the absence of those that are not there.
    fn scan(&mut self, newest: usize, operations: &mut Vec<Operation>) {
        let found: Vec<(String, Vec<i64>)> =
            self.transaction.scan_prefix("list/", usize::MAX).unwrap();
        self.reads.all = true;
        for list in newest.saturating_sub(2 * LISTS)..=newest {
            let elements = found.iter().find(|(key, _)| *key == name(list));
            let elements = elements.map(|(_, elements)| elements.clone());
            operations.push(read(list, elements.unwrap_or_default()));
        }
    }
}

fn name(list: usize) -> String {
    format!("list/{list:03}")
}

fn read(list: usize, elements: Vec<i64>) -> Operation {
    Operation::Read { key: u32::try_from(list).unwrap(), elements: Some(elements) }
}

fn append(list: usize, element: i64) -> Operation {
    Operation::Append { key: u32::try_from(list).unwrap(), element }
}
