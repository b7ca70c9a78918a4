//! Who is restarted with whom, what happens when restarts are used up, and how it all ends: whole
//! guilds in virtual time, judged by the checker too.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use guild_core::event::Outcome;
use guild_core::graph::{Graph, Task};
use guild_core::letter::LetterState;
use guild_core::limits::Limits;
use guild_core::restart::RestartPolicy;
use guild_core::retry::RetryPolicy;
use guild_core::supervision::{Ceiling, Exhausted, RestartType, Strategy, SupervisorSpec};
use guild_runtime::{Agent, RunError, TaskContext, TaskError};
use guild_sim::checker::{Knowledge, Watch};
use guild_sim::{World, WorldBuilder, WorldError};
use serde_json::Value;

/// Works for a second, and panics, retires or answers as its input says.
struct Worker;

impl Agent for Worker {
    type Input = String;
    type Output = u32;

    async fn perform(&mut self, input: String, task: &mut TaskContext) -> Result<u32, TaskError> {
        let attempt = task.attempt();
        match &*input {
            "panic" => panic!("always"),
            "panic once" if attempt == 1 => panic!("once"),
            "panic twice" if attempt <= 2 => panic!("twice"),
            "retire" => task.retire(),
            _ => task.sleep(Duration::from_secs(1)).await,
        }
        Ok(attempt)
    }
}

/// A world whose log a checker reads.
struct Watched {
    world: World,
    watch: Watch,
}

impl Watched {
    fn new(build: impl FnOnce(WorldBuilder) -> WorldBuilder) -> Self {
        let watch = Watch::default();
        let world = World::with_seed(3).keep_log().validate(true).reader(watch.clone());
        Self { world: build(world).start().unwrap(), watch }
    }

    fn graph(&self, tasks: &[(&str, &str)]) -> Graph {
        let mut graph = self.world.graph("work");
        for (number, (role, input)) in tasks.iter().enumerate() {
            let task = Task::new(format!("{role}-{number}"), *role).input(input);
            graph.add(task.retry(RetryPolicy::immediately(100)));
        }
        graph.build().unwrap()
    }

    fn run(&mut self, tasks: &[(&str, &str)]) -> Outcome {
        let graph = self.graph(tasks);
        self.world.run(graph).unwrap().outcome()
    }

    fn lines(&self, kind: &str) -> Vec<Value> {
        let lines = self.world.log().into_iter();
        let events = lines.map(|line| serde_json::from_str::<Value>(&line).unwrap());
        events.filter(|event| event["kind"] == kind).collect()
    }

    /// The agents that a kind of event names, in order.
    fn agents(&self, kind: &str) -> Vec<String> {
        let events = self.lines(kind);
        events.iter().map(|event| event["agent"].as_str().unwrap().to_owned()).collect()
    }

    fn incidents(&self, kind: &str) -> Vec<Value> {
        self.lines("incident_opened").into_iter().filter(|event| event["type"] == kind).collect()
    }

    fn end(mut self) {
        self.world.end();
        let knowledge = Knowledge { is_complete: true, ..Knowledge::default() };
        let verdict = self.watch.finish_with(&knowledge);
        assert!(verdict.is_clean(), "{:?}", verdict.first_violation());
    }
}

fn spec(strategy: Strategy, intensity: u32) -> SupervisorSpec {
    let restart = RestartPolicy { intensity, ..RestartPolicy::default() };
    SupervisorSpec { strategy, restart, ..SupervisorSpec::default() }
}

fn escalating(intensity: u32) -> SupervisorSpec {
    SupervisorSpec { exhausted: Exhausted::Escalate, ..spec(Strategy::OneForOne, intensity) }
}

#[test]
fn one_for_all_restarts_the_others_whose_tasks_go_on_without_losing_an_attempt() {
    let mut watched = Watched::new(|world| {
        world.role("worker", 3, || Worker).supervise("worker", spec(Strategy::OneForAll, 5))
    });
    let tasks = [("worker", "work"), ("worker", "panic once"), ("worker", "work")];
    assert_eq!(watched.run(&tasks), Outcome::Completed);

    assert_eq!(watched.agents("agent_started"), ["worker-0", "worker-1", "worker-2"]);
    assert_eq!(watched.agents("agent_crashed"), ["worker-1"]);
    assert_eq!(watched.agents("agent_stopped"), ["worker-2", "worker-0"], "in reverse order");
    assert_eq!(watched.agents("agent_restarted"), ["worker-0", "worker-1", "worker-2"]);
    assert_eq!(watched.incidents("agent_crashed").len(), 1, "one failure is one incident");
    let lost = watched.lines("task_failed");
    let causes: Vec<_> = lost.iter().map(|event| event["cause"].as_str().unwrap()).collect();
    assert_eq!(causes.iter().filter(|cause| **cause == "agent_lost").count(), 2);
    watched.end();
}

#[test]
fn rest_for_one_restarts_who_was_started_after_and_nobody_before() {
    let mut watched = Watched::new(|world| {
        world.role("worker", 4, || Worker).supervise("worker", spec(Strategy::RestForOne, 5))
    });
    let work = ("worker", "work");
    assert_eq!(watched.run(&[work, ("worker", "panic once"), work, work]), Outcome::Completed);

    assert_eq!(watched.agents("agent_stopped"), ["worker-3", "worker-2"]);
    assert_eq!(watched.agents("agent_restarted"), ["worker-1", "worker-2", "worker-3"]);
    watched.end();
}

#[test]
fn roles_of_a_group_are_restarted_together_when_one_of_them_gives_up() {
    let mut watched = Watched::new(|world| {
        world
            .role("reader", 2, || Worker)
            .role("writer", 1, || Worker)
            .role("other", 1, || Worker)
            .supervise("reader", escalating(0))
            .group("pipeline", &["reader", "writer"], spec(Strategy::OneForAll, 3))
    });
    let tasks = [("reader", "panic once"), ("writer", "work"), ("other", "work")];
    assert_eq!(watched.run(&tasks), Outcome::Completed);

    assert_eq!(watched.agents("agent_stopped"), ["reader-1", "writer-0"]);
    assert_eq!(watched.agents("agent_restarted"), ["reader-0", "reader-1", "writer-0"]);
    let [incident] = &watched.incidents("supervisor_gave_up")[..] else { panic!("one incident") };
    let message = incident["message"].as_str().unwrap();
    assert_eq!(message, "the supervisor of `reader` gave up: `reader-0` died once too often: once");
    assert_eq!(incident["action"], "`reader` is started again after 0 us");
    watched.end();
}

#[test]
fn the_root_quarantines_a_group_that_gives_up_too_often_and_the_others_serve_on() {
    let mut watched = Watched::new(|world| {
        world
            .role("reader", 1, || Worker)
            .role("writer", 1, || Worker)
            .role("other", 1, || Worker)
            .supervise("reader", escalating(0))
            .group("pipeline", &["reader", "writer"], escalating(0))
            .root(spec(Strategy::OneForOne, 0))
    });
    let graph = watched.graph(&[("reader", "panic once"), ("writer", "work"), ("other", "work")]);
    let run = watched.world.submit(graph).unwrap();
    watched.world.run_for(Duration::from_secs(20));

    let done = watched.lines("task_completed");
    let done: Vec<_> = done.iter().map(|event| event["task"].as_str().unwrap()).collect();
    assert_eq!(done, ["other-2"], "the guild serves on without the group");
    let [incident] = &watched.incidents("supervisor_gave_up")[..] else { panic!("one incident") };
    let message = incident["message"].as_str().unwrap();
    assert_eq!(
        message,
        "the supervisor of `reader` gave up, and so did that of `pipeline`: `reader-0` died once \
         too often: once"
    );
    let action = incident["action"].as_str().unwrap();
    assert!(action.starts_with("`pipeline` is quarantined until 30"), "{action}");

    let report = watched.world.run_until_ended(&run).unwrap();
    assert_eq!(report.outcome(), Outcome::Completed, "after its quarantine it works again");
    watched.end();
}

#[test]
fn the_root_ends_the_guild_where_it_is_told_to_and_whoever_waits_learns_why() {
    let mut watched = Watched::new(|world| {
        world
            .role("reader", 1, || Worker)
            .supervise("reader", escalating(0))
            .root(SupervisorSpec { exhausted: Exhausted::Escalate, ..spec(Strategy::OneForOne, 0) })
    });
    let graph = watched.graph(&[("reader", "panic")]);
    let run = watched.world.submit(graph).unwrap();

    let ended = watched.world.run_until_ended(&run);

    assert!(
        matches!(&ended, Err(WorldError::Run(RunError::Failed(why))) if why.contains("gave up"))
    );
    let [incident] = &watched.incidents("supervisor_gave_up")[..] else { panic!("one incident") };
    assert!(
        incident["message"].as_str().unwrap().contains("`reader` gave up, and so did the root")
    );
    assert!(incident["action"].as_str().unwrap().starts_with("the guild takes no more work"));
    watched.world.end();
}

#[test]
fn an_agent_out_of_quarantine_is_on_probation_until_it_has_done_its_first_piece_of_work() {
    let mut watched = Watched::new(|world| {
        world.role("worker", 1, || Worker).supervise("worker", spec(Strategy::OneForOne, 0))
    });
    let quarantines = |watched: &Watched| -> Vec<u64> {
        let events = watched.lines("agent_quarantined");
        let lasts =
            |event: &Value| event["until_us"].as_u64().unwrap() - event["at_us"].as_u64().unwrap();
        events.iter().map(|event| lasts(event) / 1_000_000).collect()
    };
    assert_eq!(watched.run(&[("worker", "panic twice")]), Outcome::Completed);
    assert_eq!(quarantines(&watched), [30, 60], "the first probe failed, the second passed");

    let mut graph = watched.world.graph("later");
    graph.add(Task::new("later", "worker").input(&"panic once"));
    let graph = graph.build().unwrap();
    watched.world.run(graph).unwrap();
    assert_eq!(quarantines(&watched), [30, 60, 30], "a probe that passed clears the record");
    watched.end();
}

#[test]
fn tasks_of_a_role_whose_temporary_agents_have_ended_fail_instead_of_waiting_for_ever() {
    let mut watched = Watched::new(|world| {
        let restart_type = RestartType::Temporary;
        world
            .role("mayfly", 2, || Worker)
            .role("other", 1, || Worker)
            .supervise("mayfly", SupervisorSpec { restart_type, ..SupervisorSpec::default() })
    });
    let tasks = [("mayfly", "panic"), ("mayfly", "work"), ("mayfly", "work"), ("other", "work")];
    assert_eq!(watched.run(&tasks), Outcome::Failed);

    assert_eq!(watched.agents("agent_crashed").len(), 2);
    assert!(watched.agents("agent_restarted").is_empty());
    assert_eq!(watched.lines("role_lost").len(), 1);
    assert_eq!(watched.incidents("role_lost").len(), 1);
    let done = watched.lines("task_completed");
    assert!(done.iter().any(|event| event["task"] == "other-3"), "the other role does its work");
    watched.end();
}

#[test]
fn an_agent_that_retires_gets_another_life_only_where_its_role_is_permanent() {
    for (restart_type, lives) in [(RestartType::Permanent, 3), (RestartType::Transient, 1)] {
        let mut watched = Watched::new(|world| {
            world
                .role("worker", 1, || Worker)
                .supervise("worker", SupervisorSpec { restart_type, ..SupervisorSpec::default() })
        });
        let outcome = watched.run(&[("worker", "retire"), ("worker", "retire")]);
        watched.world.run_for(Duration::from_secs(1));

        let lived = 1 + watched.agents("agent_restarted").len();
        assert_eq!(lived, lives, "{restart_type:?}");
        assert!(watched.agents("agent_crashed").is_empty(), "to retire is no failure");
        let expected = if lives == 1 { Outcome::Failed } else { Outcome::Completed };
        assert_eq!(outcome, expected, "a transient role has no agent left for the second task");
        watched.end();
    }
}

#[test]
fn one_broken_dependency_that_kills_all_agents_at_once_does_not_melt_the_tree_down() {
    let ceiling = Ceiling { deaths_max: 3, ..Ceiling::default() };
    let mut watched = Watched::new(|world| {
        world
            .role("worker", 100, || Worker)
            .supervise("worker", SupervisorSpec { ceiling, ..SupervisorSpec::default() })
    });
    let tasks = vec![("worker", "panic once"); 100];
    assert_eq!(watched.run(&tasks), Outcome::Completed);

    assert_eq!(watched.agents("agent_crashed").len(), 100);
    assert!(watched.incidents("supervisor_gave_up").is_empty());
    watched.end();
}

/// Is silent for five seconds, and says so before or does not.
struct Silent;

impl Agent for Silent {
    type Input = bool;
    type Output = u32;

    async fn perform(&mut self, declares: bool, task: &mut TaskContext) -> Result<u32, TaskError> {
        if declares {
            task.declare_wait(Duration::from_secs(6));
        }
        if declares || task.attempt() == 1 {
            task.sleep(Duration::from_secs(5)).await;
        }
        Ok(task.attempt())
    }
}

#[test]
fn a_declared_long_wait_keeps_the_lease_and_an_undeclared_one_loses_it() {
    let mut watched = Watched::new(|world| world.role("silent", 2, || Silent));
    let mut graph = watched.world.graph("waits");
    for (name, declares) in [("declared", true), ("undeclared", false)] {
        let task = Task::new(name, "silent").input(&declares);
        graph.add(task.heartbeat(Duration::from_secs(1)));
    }
    let graph = graph.build().unwrap();
    let report = watched.world.run(graph).unwrap();

    assert_eq!(report.output::<u32>("declared").unwrap(), 1);
    assert_eq!(report.output::<u32>("undeclared").unwrap(), 2);
    let [failed] = &watched.lines("task_failed")[..] else { panic!("one attempt failed") };
    assert_eq!((&failed["task"], &failed["cause"]), (&"undeclared".into(), &"heartbeat".into()));
    watched.end();
}

/// Panics over the input "poison" until somebody has mended it.
struct Mendable(Arc<AtomicBool>);

impl Agent for Mendable {
    type Input = String;
    type Output = String;

    async fn perform(
        &mut self,
        input: String,
        task: &mut TaskContext,
    ) -> Result<String, TaskError> {
        assert!(input != "poison" || self.0.load(Ordering::Relaxed), "it is poisonous");
        task.sleep(Duration::from_secs(1)).await;
        Ok(input)
    }
}

fn poisoned(mended: &Arc<AtomicBool>) -> Watched {
    let mended = Arc::clone(mended);
    Watched::new(move |world| {
        let mut limits = Limits::default();
        limits.kills_max = 3;
        world
            .role("worker", 6, move || Mendable(Arc::clone(&mended)))
            .supervise("worker", spec(Strategy::OneForOne, 0))
            .limits(limits)
    })
}

#[test]
fn a_task_that_kills_several_agents_is_dead_lettered_and_its_victims_are_forgiven() {
    let mut watched = poisoned(&Arc::default());
    let mut tasks = vec![("worker", "work"); 20];
    tasks.push(("worker", "poison"));

    assert_eq!(watched.run(&tasks), Outcome::Failed);

    let crashed: std::collections::BTreeSet<_> =
        watched.agents("agent_crashed").into_iter().collect();
    assert_eq!(watched.agents("agent_crashed").len(), 4, "though it has a hundred attempts");
    assert!(crashed.len() >= 3, "it killed several agents: {crashed:?}");
    assert_eq!(watched.lines("task_poisoned").len(), 1);
    let ended = watched.lines("task_ended");
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0]["state"], "dead_lettered");
    assert_eq!(watched.lines("task_completed").len(), 20);
    let quarantined = watched.agents("agent_quarantined").len();
    assert!(quarantined > 0, "with no crash borne the victims were quarantined");
    assert_eq!(watched.agents("agent_released").len(), quarantined);
    assert!(watched.world.now().0 < 20_000_000, "their quarantine ended with their innocence");
    watched.end();
}

#[test]
fn a_dead_letter_has_its_crash_reports_and_a_person_retries_or_discards_it() {
    let mended = Arc::new(AtomicBool::new(false));
    let mut watched = poisoned(&mended);
    assert_eq!(watched.run(&[("worker", "poison"), ("worker", "work")]), Outcome::Failed);

    let guild = watched.world.guild().clone();
    let [letter] = &guild.dead_letters()[..] else { panic!("one letter") };
    assert!(letter.is_poison && letter.state == LetterState::Waiting);
    assert_eq!(letter.crashes.len(), 4);
    assert!(letter.crashes.iter().all(|crash| &*crash.message == "it is poisonous"));

    mended.store(true, Ordering::Relaxed);
    let (task, again) = (letter.task, guild.clone());
    let run = watched.world.block_on(async move { again.retry_letter(task).await }).unwrap();
    assert_eq!(run.name(), "work/worker-0/retry-1");
    let report = watched.world.block_on(async move { run.wait().await }).unwrap();
    assert_eq!(
        report.output::<String>("worker-0").unwrap(),
        "poison",
        "with the input that it had"
    );
    assert!(matches!(guild.dead_letters()[0].state, LetterState::Retried(_)));

    guild.discard_letter(task, "mended").unwrap();
    watched.world.run_for(Duration::from_secs(1));
    assert_eq!(guild.dead_letters()[0].state, LetterState::Discarded("mended".into()));
    let nobody = guild_core::id::TaskId { index: guild_core::id::TaskIndex(1), ..task };
    let refused = guild.discard_letter(nobody, "").unwrap_err().to_string();
    assert!(refused.contains("`worker-1` has no dead letter"), "{refused}");
    watched.end();
}
