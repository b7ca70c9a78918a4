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
    AcknowledgeError, Action, Agent, Cause, Drain, EndState, Guild, GuildBuilder, Incident,
    IncidentKind, IncidentState, Life, RandomFaults, Reason, RetryPolicy, RunReport, Seed, Storage,
    Task, TaskContext, TaskError,
};
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
