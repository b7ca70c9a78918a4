//! The planner against a world that does everything wrong: random graphs, agents that err, panic,
//! hang, answer late, and a process that is restarted in the middle. Every step is validated.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use guild_core::draw::{Seed, Stream};
use guild_core::event::{Cause, EndState, Event, EventRecord, Outcome, Tally};
use guild_core::graph::{Catalog, Graph, GraphBuilder, Task};
use guild_core::history::RunHistory;
use guild_core::id::{
    AgentId, BootEpoch, CommitVersion, FencingToken, Incarnation, QuotaId, RoleId, RunId, TaskId,
    TaskIndex,
};
use guild_core::limits::Limits;
use guild_core::planner::{
    AttemptResult, Command, Decisions, Input, Planner, PlannerConfig, ReadyOrder, Refusal,
    RestoredRun,
};
use guild_core::quota::QuotaSpec;
use guild_core::retry::RetryPolicy;
use guild_core::time::Timestamp;
use proptest::prelude::*;

const RUN: RunId = RunId(0);
const PERMITS: u32 = 3;

fn catalog() -> Catalog {
    Catalog {
        roles: vec![("a".into(), RoleId(0)), ("b".into(), RoleId(1))],
        quotas: vec![("permits".into(), QuotaId(0), PERMITS), ("rate".into(), QuotaId(1), 2)],
        limits: Limits::default(),
    }
}

fn config(agents: u32, epoch: u32, validate: bool) -> PlannerConfig {
    let per = Duration::from_millis(10);
    PlannerConfig {
        order: ReadyOrder::default(),
        commits_at_once: agents.is_multiple_of(2),
        agents: vec![agents, agents],
        quotas: vec![QuotaSpec::Permits(PERMITS), QuotaSpec::Rate { amount: 1, per, burst: 2 }],
        limits: Limits::default(),
        seed: Seed(1),
        epoch: BootEpoch(epoch),
        validate,
    }
}

fn task_id(index: u32) -> TaskId {
    TaskId { run: RUN, index: TaskIndex(index) }
}

/// What the world holds: the planner, the agents' lives, and everything that was recorded.
struct World {
    planner: Planner,
    now: Timestamp,
    out: Decisions,
    log: Vec<EventRecord>,
    seed: Seed,
    draws: u64,
    agents: u32,
    epoch: u32,
    lives: BTreeMap<AgentId, Incarnation>,
    down: BTreeSet<AgentId>,
    graph: Arc<Graph>,
    spawned: Vec<(TaskIndex, Arc<Graph>)>,
    /// Assignments that were not answered yet.
    open: Vec<(TaskId, AgentId, Incarnation, FencingToken)>,
    /// Answers that come too late.
    late: Vec<(TaskId, AgentId, Incarnation, FencingToken)>,
    commits: Vec<(TaskId, u32, AgentId, Incarnation, FencingToken)>,
    version: u64,
    trouble: bool,
}

impl World {
    fn new(seed: u64, agents: u32, graph: Graph) -> Self {
        let mut world = Self {
            planner: Planner::new(config(agents, 1, true)),
            now: Timestamp(0),
            out: Decisions::default(),
            log: Vec::new(),
            seed: Seed(seed),
            draws: 0,
            agents,
            epoch: 1,
            lives: BTreeMap::new(),
            down: BTreeSet::new(),
            graph: Arc::new(graph),
            spawned: Vec::new(),
            open: Vec::new(),
            late: Vec::new(),
            commits: Vec::new(),
            version: 0,
            trouble: true,
        };
        let count = u32::try_from(world.graph.tasks.len()).unwrap();
        world.record(Event::RunSubmitted { run: RUN, tasks: count, edges: 0, seed });
        for index in 0..count {
            world.added(index, None);
        }
        let bindings = world.graph.bind(&catalog()).unwrap();
        let graph = Arc::clone(&world.graph);
        world.tell(Input::Submit { run: RUN, graph, bindings });
        world.wake_agents();
        world
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.draws += 1;
        self.seed.bits(Stream::Fault, 0, self.draws) % below
    }

    fn record(&mut self, event: Event) {
        let seq = self.log.len() as u64 + 1;
        self.log.push(EventRecord { seq, at: self.now, event });
    }

    fn added(&mut self, index: u32, spawned_by: Option<TaskId>) {
        let (task, role, after) = (task_id(index), RoleId(0), Box::default());
        self.record(Event::TaskAdded { task, role, after, spawned_by });
    }

    fn wake_agents(&mut self) {
        for role in [RoleId(0), RoleId(1)] {
            for index in 0..self.agents {
                let agent = AgentId { role, index };
                let incarnation = Incarnation::first(BootEpoch(self.epoch));
                self.lives.insert(agent, incarnation);
                self.tell(Input::AgentReady { agent, incarnation });
            }
        }
    }

    fn tell(&mut self, input: Input) {
        self.planner.step(self.now, input, &mut self.out);
        self.collect();
    }

    fn collect(&mut self) {
        for event in std::mem::take(&mut self.out.events) {
            self.record(event);
        }
        for command in std::mem::take(&mut self.out.commands) {
            match command {
                Command::Assign { task, agent, incarnation, token, .. } => {
                    assert!(!self.down.contains(&agent), "an agent that is down gets no task");
                    self.open.push((task, agent, incarnation, token));
                }
                Command::Revoke { agent, token, .. } => {
                    let place = self.open.iter().position(|open| open.3 == token).unwrap();
                    let revoked = self.open.swap_remove(place);
                    self.late.push(revoked);
                    self.down.insert(agent);
                }
                Command::Commit { task, attempt, agent, incarnation, token } => {
                    self.commits.push((task, attempt, agent, incarnation, token));
                }
                Command::Discard { .. } | Command::Forgive { .. } | Command::EndRun { .. } => {}
            }
        }
    }

    /// One thing happens. Returns whether anything was left to happen.
    fn turn(&mut self) -> bool {
        let revives = !self.down.is_empty() && self.draw(2) == 0;
        if revives {
            self.revive();
        } else if !self.commits.is_empty() && self.draw(2) == 0 {
            self.answer_commit();
        } else if !self.late.is_empty() && self.draw(3) == 0 {
            let (task, agent, incarnation, token) = self.late.pop().unwrap();
            let result = AttemptResult::Done;
            self.tell(Input::Finished { agent, incarnation, task, token, result });
        } else if !self.open.is_empty() && (!self.trouble || self.draw(10) > 0) {
            self.answer_attempt();
        } else if let Some(at) = self.planner.next_wakeup() {
            self.now = self.now.max(at);
            self.tell(Input::Tick);
        } else {
            return !(self.down.is_empty() && self.commits.is_empty() && self.open.is_empty());
        }
        true
    }

    fn revive(&mut self) {
        let agent = *self.down.iter().next().unwrap();
        self.down.remove(&agent);
        let incarnation = self.lives[&agent].next();
        self.lives.insert(agent, incarnation);
        self.tell(Input::AgentReady { agent, incarnation });
    }

    fn answer_attempt(&mut self) {
        let place = usize::try_from(self.draw(self.open.len() as u64)).unwrap();
        let (task, agent, incarnation, token) = self.open.swap_remove(place);
        let failed = |cause, retryable| AttemptResult::Failed {
            cause,
            message: "trouble".into(),
            retryable,
            retry_after: None,
        };
        let fate = if self.trouble { self.draw(20) } else { 19 };
        let result = match fate {
            0 | 1 => failed(Cause::Error, true),
            2 => failed(Cause::Error, false),
            3 | 4 => {
                self.down.insert(agent);
                let (cause, message) = (Cause::Panic, "panic".into());
                let stopped = false;
                return self.tell(Input::AgentDown { agent, incarnation, cause, message, stopped });
            }
            5 => {
                self.down.insert(agent);
                AttemptResult::NotStarted
            }
            _ => AttemptResult::Done,
        };
        self.tell(Input::Finished { agent, incarnation, task, token, result });
    }

    fn answer_commit(&mut self) {
        let (task, attempt, agent, incarnation, token) = self.commits.remove(0);
        let fate = if self.trouble { self.draw(10) } else { 9 };
        let message = "refused".into();
        match fate {
            0 => {
                let refusal = Refusal::Conflict { message, reserved: self.draw(2) == 0 };
                return self.tell(Input::CommitRefused { task, token, refusal });
            }
            1 => {
                let refusal = Refusal::Invalid { message };
                return self.tell(Input::CommitRefused { task, token, refusal });
            }
            _ => {}
        }
        self.version += 1;
        let version = CommitVersion(self.version);
        self.record(Event::TaskCompleted { task, attempt, agent, incarnation, token, version });
        let spawned = (self.spawned.len() < 5 && self.draw(8) == 0).then(|| {
            let graph = Arc::new(random_graph(self.draw(u64::MAX), 4, true));
            let first = u32::try_from(self.tasks()).unwrap();
            self.spawned.push((task.index, Arc::clone(&graph)));
            for index in 0..u32::try_from(graph.tasks.len()).unwrap() {
                self.added(first + index, Some(task));
            }
            let bindings = graph.bind(&catalog()).unwrap();
            (graph, bindings)
        });
        self.tell(Input::Committed { task, token, version, spawned: spawned.map(Box::new) });
    }

    fn tasks(&self) -> usize {
        self.graph.tasks.len()
            + self.spawned.iter().map(|(_, graph)| graph.tasks.len()).sum::<usize>()
    }

    /// The process is killed and started again on what was recorded.
    fn restart(&mut self) {
        self.epoch += 1;
        (self.open, self.late, self.commits) = Default::default();
        (self.down, self.out) = Default::default();
        let mut history = RunHistory::new(RUN);
        self.log.iter().for_each(|record| history.apply(record));
        if history.ended.is_some() {
            return;
        }
        self.planner = Planner::new(config(self.agents, self.epoch, true));
        let bound = |graph: &Arc<Graph>| graph.bind(&catalog()).unwrap();
        let restored = RestoredRun {
            run: RUN,
            graph: Arc::clone(&self.graph),
            bindings: bound(&self.graph),
            spawned: self.spawned.iter().map(|(p, g)| (*p, Arc::clone(g), bound(g))).collect(),
            history,
        };
        self.planner.restore(self.now, restored, &mut self.out);
        self.collect();
        self.wake_agents();
    }

    /// Lets things happen until nothing is left, at first with trouble, then without.
    fn run_to_the_end(&mut self, restart_at: u64, cancel_at: u64) {
        for step in 0..20_000_u64 {
            self.trouble = step < 400;
            if step == restart_at {
                self.restart();
            }
            if step == cancel_at {
                self.tell(Input::Cancel { run: RUN });
            }
            if !self.turn() {
                return;
            }
        }
        panic!("the run does not come to an end: {:?}", self.planner.progress(RUN));
    }

    fn check_log(&self) {
        let mut ends: BTreeMap<TaskId, usize> = BTreeMap::new();
        let mut completed = BTreeSet::new();
        let mut token = FencingToken(0);
        let (mut run_ended, mut tally) = (0, Tally::default());
        for record in &self.log {
            match &record.event {
                Event::TaskAssigned { task, token: granted, .. } => {
                    assert!(*granted > token, "tokens grow");
                    token = *granted;
                    assert!(!ends.contains_key(task), "what has ended is not assigned");
                    for before in self.before(*task) {
                        assert!(completed.contains(&before), "{task:?} starts after {before:?}");
                    }
                }
                Event::TaskCompleted { task, .. } => {
                    *ends.entry(*task).or_default() += 1;
                    completed.insert(*task);
                    tally.completed += 1;
                }
                Event::TaskEnded { task, state } => {
                    *ends.entry(*task).or_default() += 1;
                    match state {
                        EndState::Failed | EndState::DeadLettered => tally.failed += 1,
                        EndState::Skipped => tally.skipped += 1,
                        EndState::Cancelled => tally.cancelled += 1,
                    }
                }
                Event::QuotaChanged { in_use, limit, .. } => assert!(in_use <= limit),
                Event::RunEnded { tally: told, .. } => {
                    run_ended += 1;
                    assert_eq!(*told, tally, "the tally is what happened");
                }
                _ => {}
            }
        }
        assert_eq!(run_ended, 1, "the end of the run is told once");
        assert_eq!(ends.len(), self.tasks(), "every task ends");
        assert!(ends.values().all(|count| *count == 1), "no task ends twice");
    }

    /// The tasks that must have completed before a task: those it depends on and all they spawned.
    fn before(&self, task: TaskId) -> Vec<TaskId> {
        let mut parts = vec![(0, None, &self.graph)];
        let mut first = self.graph.tasks.len();
        for (parent, graph) in &self.spawned {
            parts.push((first, Some(*parent), graph));
            first += graph.tasks.len();
        }
        let (start, _, graph) = parts.iter().rev().find(|part| part.0 <= task.index.at()).unwrap();
        let own = &graph.tasks[task.index.at() - start].after;
        let mut before: Vec<usize> = own.iter().map(|before| before.at() + start).collect();
        let mut looked_at = 0;
        while let Some(index) = before.get(looked_at).copied() {
            looked_at += 1;
            for (first, parent, graph) in &parts {
                if parent.is_some_and(|parent| parent.at() == index) {
                    before.extend(*first..first + graph.tasks.len());
                }
            }
        }
        before.into_iter().map(|index| task_id(u32::try_from(index).unwrap())).collect()
    }
}

fn random_graph(seed: u64, tasks_max: u64, spawned: bool) -> Graph {
    let seed = Seed(seed);
    let draw = |n: u64, what: u64, below: u64| seed.bits(Stream::Retry, n, what) % below;
    let mut graph = match spawned {
        true => GraphBuilder::spawned(catalog()),
        false => GraphBuilder::for_catalog("run", catalog()),
    };
    for n in 0..1 + draw(0, 0, tasks_max) {
        let role = if draw(n, 1, 2) == 0 { "a" } else { "b" };
        let mut task = Task::new(format!("t{n}"), role)
            .priority(i32::try_from(draw(n, 2, 3)).unwrap())
            .timeout(Duration::from_millis(5 + draw(n, 3, 20)))
            .retry(RetryPolicy { attempts_max: 4, ..RetryPolicy::default() });
        for before in 0..n {
            if draw(n, 10 + before, 4) == 0 {
                task = task.after(TaskIndex(u32::try_from(before).unwrap()));
            }
        }
        if draw(n, 4, 3) == 0 {
            task = task.quota("permits", 1 + u32::try_from(draw(n, 5, 3)).unwrap());
        }
        if draw(n, 6, 4) == 0 {
            task = task.quota("rate", 1);
        }
        graph.add(task);
    }
    graph.build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_task_ends_exactly_once_whatever_goes_wrong(
        seed in any::<u64>(),
        agents in 1_u32..5,
        restart_at in 0_u64..600,
        cancel_at in 0_u64..2_000,
    ) {
        let mut world = World::new(seed, agents, random_graph(seed, 14, false));
        world.run_to_the_end(restart_at, cancel_at);
        world.check_log();
    }
}

/// Performs everything at once and well; returns how many tasks completed and in which order.
fn perform(graph: Graph, agents: u32, spawned: Option<Graph>) -> (Vec<TaskId>, Decisions) {
    let mut planner = Planner::new(config(agents, 1, false));
    let mut out = Decisions::default();
    let bindings = graph.bind(&catalog()).unwrap();
    let graph = Arc::new(graph);
    planner.step(Timestamp(0), Input::Submit { run: RUN, graph, bindings }, &mut out);
    for index in 0..agents {
        let agent = AgentId { role: RoleId(0), index };
        let incarnation = Incarnation::first(BootEpoch(1));
        planner.step(Timestamp(0), Input::AgentReady { agent, incarnation }, &mut out);
    }
    let mut spawned = spawned.map(|graph| {
        let bindings = graph.bind(&catalog()).unwrap();
        (Arc::new(graph), bindings)
    });
    let mut assigned = Vec::new();
    while !out.commands.is_empty() {
        out.events.clear();
        for command in std::mem::take(&mut out.commands) {
            let input = match command {
                Command::Assign { task, agent, incarnation, token, .. } => {
                    assigned.push(task);
                    let result = AttemptResult::Done;
                    Input::Finished { agent, incarnation, task, token, result }
                }
                Command::Commit { task, token, .. } => {
                    let (version, spawned) = (CommitVersion(1), spawned.take());
                    Input::Committed { task, token, version, spawned: spawned.map(Box::new) }
                }
                Command::EndRun { outcome, .. } => {
                    assert_eq!(outcome, Outcome::Completed);
                    continue;
                }
                Command::Revoke { .. } | Command::Discard { .. } | Command::Forgive { .. } => {
                    unreachable!("all goes well")
                }
            };
            planner.step(Timestamp(0), input, &mut out);
        }
    }
    assert!(planner.is_ended(RUN));
    (assigned, out)
}

#[test]
fn priority_goes_before_critical_path_and_critical_path_before_age() {
    let mut graph = GraphBuilder::for_catalog("order", catalog());
    graph.add(Task::new("old", "a"));
    let long = graph.add(Task::new("long", "a"));
    graph.add(Task::new("urgent", "a").priority(1));
    graph.add(Task::new("behind", "a").after(long));

    let (assigned, _) = perform(graph.build().unwrap(), 1, None);

    let order: Vec<u32> = assigned.iter().map(|task| task.index.0).collect();
    assert_eq!(order, [2, 1, 0, 3]);
}

#[test]
fn agent_that_answers_for_a_task_it_was_not_given_is_refused() {
    let mut graph = GraphBuilder::for_catalog("lie", catalog());
    for number in 0..2 {
        graph.add(Task::numbered(number, "a"));
    }
    let mut world = World::new(1, 1, graph.build().unwrap());
    let (task, agent, incarnation, token) = world.open[0];
    let other = task_id(1 - task.index.0);

    let result = AttemptResult::Done;
    let lie = Input::Finished { agent, incarnation, task: other, token, result };
    world.planner.step(world.now, lie, &mut world.out);

    let stale = Event::StaleResult { task: other, token, agent, incarnation };
    assert_eq!(world.out.events, [stale]);
    assert_eq!(world.out.commands, [Command::Discard { task: other, token }]);
}

#[test]
fn a_million_tasks_are_planned_without_quadratic_cost() {
    // A quadratic step would take hours here: the test's time is its assertion.
    const TASKS: u32 = 1_000_000;
    let mut fan = GraphBuilder::for_catalog("fan", catalog());
    let root = fan.add(Task::new("root", "a"));
    let mut last = Task::new("last", "a");
    for number in 0..TASKS {
        last = last.after(fan.add(Task::numbered(number, "a").after(root)));
    }
    fan.add(last);
    let (assigned, _) = perform(fan.build().unwrap(), 100, None);
    assert_eq!(assigned.len(), TASKS as usize + 2);

    let mut parent = GraphBuilder::for_catalog("map", catalog());
    let map = parent.add(Task::new("map", "a"));
    parent.add(Task::new("reduce", "a").after(map));
    let mut children = GraphBuilder::spawned(catalog());
    for number in 0..TASKS {
        children.add(Task::numbered(number, "a"));
    }
    let (assigned, _) = perform(parent.build().unwrap(), 100, Some(children.build().unwrap()));
    assert_eq!(assigned.len(), TASKS as usize + 2);
    assert_eq!(assigned.last(), Some(&task_id(1)), "the reduce step waits for the whole map");
}
