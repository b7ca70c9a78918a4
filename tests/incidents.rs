//! What an incident tells: what went wrong, what was lost, what was done, and when it was over.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/faulty.rs"]
mod faulty;
#[path = "common/until.rs"]
mod until;

use std::sync::Arc;
use std::time::Duration;

use common::{Acts, Echo, count, events};
use faulty::{Bomb, HangsOnce, patient};
use guild::{
    AcknowledgeError, Action, Agent, Cause, Drain, Durability, EndState, Guild, GuildBuilder,
    Incident, IncidentKind, IncidentState, LetterState, Life, Limits, RandomFaults, Reason,
    RestartPolicy, RetryPolicy, RunReport, Seed, Storage, SupervisorSpec, Task, TaskContext,
    TaskError,
};
use guild_sim::World;
use guild_sim::world::Medium;
use serde_json::{Value, json};
use until::until;

/// Runs tasks, and waits for them outside of any runtime.
fn run(guild: &Guild, tasks: impl IntoIterator<Item = Task>) -> Arc<RunReport> {
    guild::block_on(faulty::run(guild, tasks))
}

/// Runs one task and returns the only incident, once it is over.
fn incident_of(builder: GuildBuilder, task: Task) -> Incident {
    let guild = builder.restart(patient()).validate(true).start().unwrap();
    run(&guild, [task]);
    until("it has recovered", || {
        guild.incidents().iter().all(|incident| incident.state() == IncidentState::Recovered)
    });
    guild::block_on(guild.shutdown(Drain::Now)).unwrap();
    let [incident] = <[Incident; 1]>::try_from(guild.incidents()).unwrap();
    let log = events(&guild);
    assert_eq!(count(&log, "incident_opened"), 1);
    let recovered = log.iter().find(|event| event["kind"] == "incident_recovered").unwrap();
    let took_us = incident.time_to_recover().unwrap().as_micros();
    assert_eq!(u128::from(recovered["took_us"].as_u64().unwrap()), took_us);
    incident
}

fn fails_once() -> impl Agent<Input = Value, Output = Value> {
    Acts(async |input, task: &mut TaskContext| {
        if task.attempt() == 1 {
            task.heartbeat();
            task.memory().put("a", &1)?;
            task.memory().add("b", 1)?;
            task.spawn(Task::new("child", "worker"));
            panic!("attempt {} goes wrong", task.attempt());
        }
        Ok(input)
    })
}

#[test]
fn a_panic_tells_what_was_lost_and_who_took_over() {
    let builder = Guild::builder().role("worker", 2, fails_once);

    let incident = incident_of(builder, Task::new("only", "worker"));

    let report = &incident.report;
    assert_eq!((report.kind, report.cause), (IncidentKind::AgentCrashed, Cause::Panic));
    assert_eq!((report.reason, &*report.message), (Reason::Panic, "attempt 1 goes wrong"));
    assert!(report.location.as_deref().unwrap().contains("incidents.rs"));
    assert_eq!(report.backtrace, None, "nobody asked for it");
    let attempt = report.attempt.unwrap();
    assert_eq!((attempt.number, attempt.discarded.writes, attempt.discarded.spawned), (1, 2, 1));
    assert!(attempt.token.is_some() && attempt.last_heartbeat.is_some());
    assert!(matches!(report.action, Action::Restart { .. }));
    let (agent, number) = incident.recovery.unwrap().reassigned.unwrap();
    assert_eq!(number, 2);
    assert_ne!(agent, report.agent.unwrap().0, "the task goes to another agent");
}

#[test]
fn a_timeout_tells_who_took_over_although_that_was_known_before() {
    let builder = Guild::builder().role("worker", 2, HangsOnce::factory());

    let task = Task::new("only", "worker").timeout(Duration::from_millis(30));
    let incident = incident_of(builder, task.retry(RetryPolicy::immediately(2)));

    assert_eq!(incident.report.reason, Reason::Timeout);
    assert_eq!(incident.report.attempt.unwrap().last_heartbeat, None);
    assert_eq!(incident.recovery.unwrap().reassigned.unwrap().1, 2);
}

#[test]
fn backtraces_are_there_for_those_who_want_them() {
    let builder = Guild::builder().role("worker", 2, fails_once).backtraces(true);

    let incident = incident_of(builder, Task::new("only", "worker"));

    let backtrace = incident.report.backtrace.unwrap();
    assert!(backtrace.contains("fails_once"), "{backtrace}");
}

#[derive(Debug)]
struct Outer(std::io::Error);

impl std::fmt::Display for Outer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the order cannot be placed")
    }
}

impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn an_error_that_is_given_up_tells_its_sources_and_stays_open() {
    let guild = Guild::builder()
        .role("worker", 1, || {
            Acts(async |_: Value, _: &mut TaskContext| -> Result<Value, TaskError> {
                let error = Outer(std::io::Error::other("no route to host"));
                Err(TaskError::retryable("attempt failed").with_source(&error))
            })
        })
        .start()
        .unwrap();
    run(&guild, [Task::new("only", "worker").retry(RetryPolicy::immediately(3))]);
    guild::block_on(guild.shutdown(Drain::Now)).unwrap();

    let [incident] = <[Incident; 1]>::try_from(guild.incidents()).unwrap();
    let report = &incident.report;
    assert_eq!(report.kind, IncidentKind::TaskFailed);
    assert_eq!(report.action, Action::GiveUp { state: EndState::Failed });
    assert_eq!(report.attempt.unwrap().number, 3);
    let causes: Vec<&str> = report.causes.iter().map(|cause| &**cause).collect();
    assert_eq!(causes, ["the order cannot be placed", "no route to host"]);
    assert_eq!(incident.state(), IncidentState::Open);
}

#[test]
fn every_incident_of_a_storm_recovers_and_one_mistake_is_one_group() {
    let faults = RandomFaults::parse("crash=0.3", Seed(5)).unwrap();
    let guild = Guild::builder()
        .role("worker", 20, || Echo)
        .restart(patient())
        .faults(Arc::new(faults))
        .start()
        .unwrap();
    let retry = RetryPolicy::immediately(1_000);
    run(&guild, (0..300).map(|n| Task::new(format!("t{n}"), "worker").retry(retry.clone())));
    until("all have recovered", || {
        guild.incidents().iter().all(|incident| incident.state() == IncidentState::Recovered)
    });
    guild::block_on(guild.shutdown(Drain::Now)).unwrap();

    let log = events(&guild);
    let opened = count(&log, "incident_opened");
    assert!(opened > 50, "{opened}");
    assert_eq!(count(&log, "incident_recovered"), opened);
    let groups = guild.incident_groups();
    assert_eq!(groups.len(), 1, "{groups:?}");
    assert_eq!((groups[0].count, groups[0].recovered), (opened as u64, opened as u64));
}

#[test]
fn a_panic_in_drop_is_an_incident_of_its_own() {
    let guild = Guild::builder().role("bomb", 2, Bomb::default).restart(patient()).start().unwrap();
    run(&guild, [Task::new("only", "bomb")]);
    until("both are over", || {
        let incidents = guild.incidents();
        incidents.len() == 2 && incidents.iter().all(|i| i.state() == IncidentState::Recovered)
    });
    let incidents = guild.incidents();
    guild::block_on(guild.shutdown(Drain::Now)).unwrap();

    let mut messages: Vec<_> =
        incidents.iter().map(|i| (i.report.kind, &*i.report.message)).collect();
    messages.sort_unstable();
    let expected = [
        (IncidentKind::AgentCrashed, "panic in perform"),
        (IncidentKind::DropPanicked, "panic in drop"),
    ];
    assert_eq!(messages, expected);
}

/// Ends its own life with its second task, and answers all the same.
struct Leaver {
    life: Life,
    tasks: u32,
}

impl Agent for Leaver {
    type Input = Value;
    type Output = String;

    async fn perform(&mut self, _: Value, task: &mut TaskContext) -> Result<String, TaskError> {
        self.tasks += 1;
        if self.tasks == 2 {
            self.life.end(TaskError::crashed("the connection is lost"));
            if task.task() == "b" {
                std::future::pending::<()>().await;
            }
        }
        Ok(format!("{} {}", self.life.agent(), self.life.incarnation().0 & 0xff))
    }
}

#[test]
fn an_agent_ends_its_own_life_with_its_task_or_after_it() {
    let guild = Guild::builder()
        .role_with("leaver", 1, |life| Leaver { life, tasks: 0 })
        .restart(patient())
        .validate(true)
        .start()
        .unwrap();
    let retry = RetryPolicy::immediately(3);
    let task = |name| Task::new(name, "leaver").retry(retry.clone());
    let report = run(&guild, [task("a"), task("b").after("a"), task("c").after("b")]);
    until("each life has its incident", || guild.incidents().len() == 2);
    guild::block_on(guild.shutdown(Drain::Now)).unwrap();

    assert_eq!(report.tally().completed, 3);
    assert_eq!(report.output::<String>("a").unwrap(), "leaver-0 1");
    let incidents = guild.incidents();
    assert!(incidents.iter().all(|i| &*i.report.message == "the connection is lost"));
    assert!(incidents[0].report.attempt.is_some(), "the task under way fails with the life");
    assert_eq!(count(&events(&guild), "task_failed"), 1, "a result that was handed in counts");
}

#[test]
fn what_a_person_says_is_recorded_and_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        Guild::builder()
            .role("worker", 2, fails_once)
            .store(Storage::Directory(directory.path().into()))
            .start()
            .unwrap()
    };
    let guild = start();
    run(&guild, [Task::new("only", "worker")]);
    until("it has recovered", || guild.incidents()[0].state() == IncidentState::Recovered);

    let unknown = guild::block_on(guild.acknowledge(7, "what?")).unwrap_err();
    guild::block_on(guild.acknowledge(1, "disk was full")).unwrap();
    let before = guild.incidents();
    guild::block_on(guild.shutdown(Drain::Now)).unwrap();
    let ended = guild::block_on(guild.acknowledge(1, "too late")).unwrap_err();
    let again = start();
    let after = again.incidents();
    guild::block_on(again.shutdown(Drain::Now)).unwrap();

    assert!(matches!(unknown, AcknowledgeError::Unknown { number: 7, .. }));
    assert_eq!(ended, AcknowledgeError::Ended);
    let note = &*after[0].acknowledgement.as_ref().unwrap().note;
    assert_eq!((after[0].state(), note), (IncidentState::Acknowledged, "disk was full"));
    assert_eq!(after[0].report, before[0].report);
    let log = events(&guild);
    let said = log.iter().find(|event| event["kind"] == "incident_acknowledged").unwrap();
    assert_eq!((&said["incident"], &said["note"]), (&json!(1), &json!("disk was full")));
}

/// A guild on a store whose events leave RAM at once, with agents that poison kills. The only one of the
/// role `fragile` is not restarted for as long as a test runs.
fn forgetful(store: &std::path::Path, dead_letters_max: usize) -> Guild {
    let mut limits = Limits::default();
    limits.events_in_memory_max = 4;
    limits.dead_letters_max = dead_letters_max;
    let mortal = || {
        Acts(async |input: Value, _: &mut TaskContext| {
            assert_ne!(input, "poison", "it is poisonous");
            Ok(input)
        })
    };
    let restart = RestartPolicy { intensity: 0, ..RestartPolicy::default() };
    Guild::builder()
        .role("worker", 2, mortal)
        .role("fragile", 1, mortal)
        .restart(patient())
        .supervise("fragile", SupervisorSpec { restart, ..SupervisorSpec::default() })
        .limits(limits)
        .store(Storage::Directory(store.into()))
        .start()
        .unwrap()
}

fn run_as(guild: &Guild, name: &str, tasks: impl IntoIterator<Item = Task>) {
    let mut graph = guild.graph(name);
    for task in tasks {
        graph.add(task);
    }
    let graph = graph.build().unwrap();
    guild::block_on(async { guild.submit(graph).await.unwrap().wait().await.unwrap() });
}

fn poison(name: &str, role: &str) -> Task {
    Task::new(name, role).input("poison").retry(RetryPolicy::immediately(2))
}

#[test]
fn letters_and_incidents_are_there_after_a_restart_when_their_events_have_long_left_ram() {
    let directory = tempfile::tempdir().unwrap();
    let open = |guild: &Guild| {
        let of_agents = |found: &&Incident| found.report.kind == IncidentKind::AgentCrashed;
        let (incidents, open) = (guild.incidents(), IncidentState::Open);
        incidents.iter().filter(of_agents).filter(|found| found.state() == open).count()
    };
    let guild = forgetful(directory.path(), 1_000);
    let fragile = poison("fragile", "fragile").retry(RetryPolicy::once());
    run_as(&guild, "deadly", [poison("one", "worker"), poison("two", "worker"), fragile]);
    until("all others live again", || open(&guild) == 1);
    run_as(&guild, "later", (0..2_000).map(|n| Task::numbered(n, "worker")));
    let (letters, groups) = (guild.dead_letters(), guild.incident_groups());
    let told = |guild: &Guild| -> Vec<_> {
        guild.incidents().into_iter().map(|incident| (incident.number, incident.report)).collect()
    };
    let incidents = told(&guild);
    guild::block_on(guild.shutdown(Drain::Now)).unwrap();
    assert!(guild.events(1).available().is_err(), "the log begins long after the crashes");
    assert_eq!(letters.iter().map(|letter| letter.crashes.len()).sum::<usize>(), 5);

    let again = forgetful(directory.path(), 1_000);
    assert_eq!(again.dead_letters(), letters);
    assert_eq!(told(&again), incidents);
    let counts = |groups: &[guild::IncidentGroup]| -> Vec<_> {
        groups.iter().map(|group| (group.fingerprint, group.count)).collect()
    };
    assert_eq!(counts(&again.incident_groups()), counts(&groups));
    until("the agent that stayed down lives again", || open(&again) == 0);
    let retried = guild::block_on(again.retry_letter(letters[0].task)).unwrap();
    guild::block_on(retried.wait()).unwrap();
    again.discard_letter(letters[1].task, "known").unwrap();
    guild::block_on(again.shutdown(Drain::Now)).unwrap();

    let last = forgetful(directory.path(), 1_000);
    let states: Vec<_> = last.dead_letters().into_iter().map(|letter| letter.state).collect();
    guild::block_on(last.shutdown(Drain::Now)).unwrap();
    let waiting = LetterState::Waiting;
    let discarded = LetterState::Discarded("known".into());
    assert_eq!(states, [LetterState::Retried(retried.id()), discarded, waiting.clone(), waiting]);
}

#[test]
fn an_incident_waits_for_its_task_over_a_restart_too() {
    let medium = Medium::Disk { durability: Durability::Process, sync: Default::default() };
    let world = World::with_seed(1).role("worker", 2, fails_once).restart(patient());
    let mut world = world.medium(medium).start().unwrap();
    let mut graph = world.graph("late");
    let minute = Duration::from_secs(60);
    let late = RetryPolicy { backoff_first: minute, backoff_max: minute, ..RetryPolicy::default() };
    graph.add(Task::new("only", "worker").retry(RetryPolicy { jitter: 0.0, ..late }));
    let graph = graph.build().unwrap();
    let run = world.submit(graph).unwrap();
    world.run_for(Duration::from_secs(5));
    world.restart().unwrap();
    world.run_for(Duration::from_secs(5));

    let [incident] = &world.incidents()[..] else { panic!("one incident") };
    assert_eq!(incident.state(), IncidentState::Open, "both agents live, its task does not go on");
    world.run_until_ended(&run).unwrap();
    let [incident] = &world.incidents()[..] else { panic!("one incident") };
    assert_eq!(incident.recovery.unwrap().reassigned.unwrap().1, 2);
    assert!(incident.time_to_recover().unwrap() >= minute);
    world.shut_down();
}

#[test]
fn every_letter_that_is_kept_over_a_restart_can_be_tried_again() {
    let mut limits = Limits::default();
    limits.dead_letters_max = 2;
    let dies = || {
        Acts(async |input: Value, _: &mut TaskContext| {
            assert_ne!(input, "poison", "it is poisonous");
            Ok(input)
        })
    };
    let medium = Medium::Disk { durability: Durability::Process, sync: Default::default() };
    let world = World::with_seed(1).role("worker", 2, dies).restart(patient());
    let mut world = world.limits(limits).medium(medium).start().unwrap();
    let mut graph = world.graph("deadly");
    // The first task is the last to die: the letters that are kept are not those of the last tasks.
    let minute = Duration::from_secs(60);
    let late = RetryPolicy { backoff_first: minute, backoff_max: minute, ..RetryPolicy::once() };
    graph.add(poison("late", "worker").retry(RetryPolicy { attempts_max: 2, ..late }));
    for number in 0..3 {
        graph.add(poison(&format!("early-{number}"), "worker"));
    }
    let graph = graph.build().unwrap();
    world.run(graph).unwrap();
    world.restart().unwrap();

    let guild = world.guild().clone();
    let letters = guild.dead_letters();
    assert_eq!((letters.len(), letters[1].task.index.0), (2, 0));
    for letter in letters {
        let guild = guild.clone();
        world.block_on(async move { guild.retry_letter(letter.task).await }).unwrap();
    }
    world.shut_down();
}
