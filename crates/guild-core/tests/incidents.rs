//! What becomes of incidents: recovery, groups, notes, bounds, and the counts of the summary.

use guild_core::event::{Cause, EndState, Event, EventRecord, Names, Severity};
use guild_core::graph::TaskSpec;
use guild_core::id::{
    AgentId, FencingToken, Incarnation, QuotaId, RoleId, RunId, TaskId, TaskIndex,
};
use guild_core::incident::{
    AcknowledgeError, Action, Attempt, Discarded, Incident, IncidentBook, IncidentKind,
    IncidentState, Reason, Report, Summary, pattern,
};
use guild_core::limits::Limits;
use guild_core::time::Timestamp;

fn agent(index: u32) -> AgentId {
    AgentId { role: RoleId(0), index }
}

fn task(index: u32) -> TaskId {
    TaskId { run: RunId(0), index: TaskIndex(index) }
}

fn at(us: u64) -> Timestamp {
    Timestamp(us)
}

fn crash(of: AgentId, life: u64, attempt: Option<(TaskId, u32)>) -> Report {
    let attempt = attempt.map(|(task, number)| Attempt {
        task,
        number,
        token: Some(FencingToken(1)),
        last_heartbeat: None,
        discarded: Discarded::default(),
    });
    Report {
        kind: IncidentKind::AgentCrashed,
        severity: Severity::Warning,
        cause: Cause::Panic,
        reason: Reason::Panic,
        message: "no answer from host 7".into(),
        causes: Vec::new(),
        location: None,
        backtrace: None,
        agent: Some((of, Incarnation(life))),
        attempt,
        fault: None,
        action: Action::Restart { delay_us: 0 },
    }
}

fn assigned(task: TaskId, attempt: u32, agent: AgentId) -> Event {
    let (incarnation, token) = (Incarnation(9), FencingToken(9));
    Event::TaskAssigned { task, attempt, agent, incarnation, token }
}

fn failed(task: TaskId, attempt: u32, cause: Cause, retry_at: Option<Timestamp>) -> Event {
    let (agent, incarnation, message) = (agent(0), Incarnation(1), "late".into());
    Event::TaskFailed { task, attempt, agent, incarnation, cause, message, retry_at }
}

fn book() -> IncidentBook {
    IncidentBook::new(&Limits::default(), 0)
}

fn states(book: &IncidentBook) -> Vec<IncidentState> {
    book.incidents().map(Incident::state).collect()
}

#[test]
fn an_incident_is_recovered_when_its_agent_lives_and_its_task_runs_again() {
    for agent_first in [true, false] {
        let mut book = book();
        book.open(at(10), crash(agent(0), 1, Some((task(3), 1))));
        assert!(book.is_watching());
        let again = assigned(task(3), 2, agent(5));

        let recovered = if agent_first {
            assert!(book.agent_lives(at(20), agent(0), Incarnation(2)).is_empty());
            book.task_event(at(30), &again)
        } else {
            assert_eq!(book.task_event(at(20), &again), None);
            book.agent_lives(at(30), agent(0), Incarnation(2)).pop()
        };

        let reassigned = Some((agent(5), 2));
        let expected = Event::IncidentRecovered { incident: 1, took_us: 20, reassigned };
        assert_eq!(recovered, Some(expected));
        assert_eq!(states(&book), [IncidentState::Recovered]);
        assert!(!book.is_watching());
    }
}

#[test]
fn a_task_that_was_taken_from_a_silent_agent_is_forgotten_when_the_agent_is_heard_of() {
    let late = |book: &mut IncidentBook| {
        book.task_event(at(5), &failed(task(3), 1, Cause::Heartbeat, Some(at(9))));
        assert!(book.is_watching());
    };
    // Its thread was given up, so nobody told what its life was doing.
    let mut condemned = book();
    late(&mut condemned);
    condemned.open(at(20), crash(agent(0), 1, None));
    assert!(!condemned.is_watching());

    let mut lives_again = book();
    late(&mut lives_again);
    assert_eq!(lives_again.agent_lives(at(20), agent(0), Incarnation(2)), []);
    assert!(!lives_again.is_watching());

    // Another agent has had the task since then, and is silent too.
    let mut both = book();
    late(&mut both);
    let mut again = failed(task(3), 2, Cause::Heartbeat, None);
    if let Event::TaskFailed { agent: of, .. } = &mut again {
        *of = agent(1);
    }
    both.task_event(at(15), &again);
    both.agent_lives(at(20), agent(0), Incarnation(2));
    assert!(both.is_watching());
    both.agent_lives(at(30), agent(1), Incarnation(2));
    assert!(!both.is_watching());
}

#[test]
fn neither_another_agent_nor_the_same_life_nor_another_task_recovers_it() {
    let mut book = book();
    book.open(at(10), crash(agent(0), 7, Some((task(3), 1))));

    assert!(book.agent_lives(at(20), agent(0), Incarnation(7)).is_empty());
    assert!(book.agent_lives(at(20), agent(1), Incarnation(8)).is_empty());
    assert_eq!(book.task_event(at(20), &assigned(task(4), 1, agent(1))), None);

    assert_eq!(states(&book), [IncidentState::Open]);
}

#[test]
fn a_task_that_is_over_needs_nobody_to_go_on() {
    let mut book = book();
    book.open(at(10), crash(agent(0), 1, Some((task(3), 5))));
    let ended = Event::TaskEnded { task: task(3), state: EndState::DeadLettered };

    assert_eq!(book.task_event(at(20), &ended), None);
    let recovered = book.agent_lives(at(30), agent(0), Incarnation(2));

    let expected = Event::IncidentRecovered { incident: 1, took_us: 20, reassigned: None };
    assert_eq!(recovered, [expected]);
}

#[test]
fn a_task_may_run_elsewhere_before_the_incident_of_a_silent_agent_is_opened() {
    for over in [false, true] {
        let mut book = book();
        let retry_at = (!over).then_some(at(5));
        book.task_event(at(5), &failed(task(3), 1, Cause::Timeout, retry_at));
        assert!(book.is_watching());
        if !over {
            book.task_event(at(6), &assigned(task(3), 2, agent(5)));
        }
        book.open(at(10), crash(agent(0), 1, Some((task(3), 1))));
        assert!(!book.is_watching());

        let recovered = book.agent_lives(at(12), agent(0), Incarnation(2));

        let reassigned = (!over).then_some((agent(5), 2));
        assert_eq!(recovered, [Event::IncidentRecovered { incident: 1, took_us: 2, reassigned }]);
    }
}

#[test]
fn an_agent_that_fails_to_come_up_three_times_recovers_all_three() {
    let mut book = book();
    for life in 1..=3 {
        book.open(at(life), crash(agent(0), life, None));
    }

    assert_eq!(book.agent_lives(at(9), agent(0), Incarnation(4)).len(), 3);

    assert_eq!(states(&book), [IncidentState::Recovered; 3]);
}

#[test]
fn what_needs_nothing_is_recovered_at_once_and_a_lost_task_never() {
    let mut book = book();
    let dropped = Report { kind: IncidentKind::DropPanicked, ..crash(agent(0), 1, None) };
    let given_up = Report {
        kind: IncidentKind::TaskFailed,
        action: Action::GiveUp { state: EndState::Failed },
        ..crash(agent(0), 1, Some((task(0), 1)))
    };

    let (_, recovered) = book.open(at(1), dropped);
    assert!(recovered.is_some());
    let (_, recovered) = book.open(at(1), given_up);
    assert_eq!(recovered, None);
    assert!(book.agent_lives(at(2), agent(0), Incarnation(2)).is_empty());

    assert_eq!(states(&book), [IncidentState::Recovered, IncidentState::Open]);
}

#[test]
fn a_new_start_recalls_what_was_open_and_ends_it_as_agents_come_up_and_tasks_go_on() {
    let mut before = book();
    let stopped = Report {
        kind: IncidentKind::ControllerFailed,
        action: Action::StopGuild,
        ..crash(agent(0), 1, None)
    };
    let mut events = vec![
        before.open(at(1), crash(agent(0), 1, Some((task(0), 1)))).0,
        before.open(at(2), crash(agent(1), 1, None)).0,
    ];
    events.extend(before.agent_lives(at(3), agent(1), Incarnation(2)));
    events.push(before.open(at(4), Report { agent: None, ..stopped }).0);
    events.push(before.acknowledge(at(5), 2, "seen").unwrap());
    let mut after = IncidentBook::new(&Limits::default(), 3);
    for (seq, event) in (1..).zip(events) {
        after.recall(&EventRecord { seq, at: at(5), event });
    }
    let incidents: Vec<_> = after.incidents().cloned().collect();
    assert_eq!(incidents, before.incidents().cloned().collect::<Vec<_>>());
    assert_eq!(after.opened(), 3);

    let started = after.guild_started(at(10));
    let lives = after.agent_lives(at(11), agent(0), Incarnation(1 << 32));
    assert_eq!((started.len(), lives.len()), (1, 0));
    assert!(after.is_watching(), "its task waits still");
    let goes_on = after.task_event(at(12), &assigned(task(0), 2, agent(1)));

    let reassigned = Some((agent(1), 2));
    assert_eq!(goes_on, Some(Event::IncidentRecovered { incident: 1, took_us: 11, reassigned }));
    let expected =
        [IncidentState::Recovered, IncidentState::Acknowledged, IncidentState::Recovered];
    assert_eq!(states(&after), expected);
}

#[test]
fn a_task_that_went_on_before_a_new_start_is_not_waited_for() {
    let crashed = || book().open(at(1), crash(agent(0), 1, Some((task(0), 1)))).0;
    let ended = Event::TaskEnded { task: task(0), state: EndState::Cancelled };
    for then in [assigned(task(0), 2, agent(1)), ended] {
        let mut after = IncidentBook::new(&Limits::default(), 0);
        for (seq, event) in (1..).zip([crashed(), then]) {
            after.recall(&EventRecord { seq, at: at(seq), event });
        }
        assert!(!after.is_watching(), "the task went on");
        after.agent_lives(at(11), agent(0), Incarnation(1 << 32));
        assert_eq!(states(&after), [IncidentState::Recovered]);
    }
}

#[test]
fn one_mistake_is_one_group_whatever_its_numbers() {
    let mut book = book();
    let message = |text: &str| Report { message: text.into(), ..crash(agent(0), 1, None) };
    let place = |place: &str| Report { location: Some(place.into()), ..message("same words") };
    let other_reason = Report { reason: Reason::Segfault, ..message("no answer from host 7") };
    let other_role = Report {
        agent: Some((AgentId { role: RoleId(1), index: 0 }, Incarnation(1))),
        ..message("no answer from host 7")
    };
    let reports = [
        message("no answer from host 7"),
        message("no answer from host 1234\nand more"),
        other_reason,
        other_role,
        place("a.rs:1:1"),
        place("a.rs:2:1"),
    ];
    for report in reports {
        book.open(at(1), report);
    }
    book.agent_lives(at(4), agent(0), Incarnation(2));

    let counts: Vec<_> = book.groups().map(|group| (group.first, group.count)).collect();
    let mut sorted = counts.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [(1, 2), (3, 1), (4, 1), (5, 1), (6, 1)]);
    let first = book.groups().find(|group| group.first == 1).unwrap();
    assert_eq!((first.last, first.recovered, first.recovery_us), (2, 2, 6));
    assert_eq!(pattern("count[17] of run-2"), "count[*] of run-*");
}

#[test]
fn the_book_is_bounded_and_keeps_what_is_open() {
    let mut limits = Limits::default();
    limits.incidents_in_memory_max = 3;
    limits.incident_groups_max = 2;
    limits.incident_text_bytes_max = 10;
    let mut book = IncidentBook::new(&limits, 0);
    let report = |n: u32| Report {
        message: format!("{}é and so on for very long", "x".repeat(n as usize)).into(),
        ..crash(agent(n), 1, None)
    };
    for n in 1..=3 {
        book.open(at(1), report(n));
    }
    book.agent_lives(at(2), agent(2), Incarnation(2));

    book.open(at(3), report(4));
    book.open(at(3), report(9));

    let numbers: Vec<_> = book.incidents().map(|incident| incident.number).collect();
    assert_eq!(numbers, [3, 4, 5], "first the one that is over, then the oldest");
    assert_eq!(book.groups().count(), 2);
    assert!(book.incidents().all(|incident| incident.report.message.len() <= 13));
    assert_eq!(&*book.incidents().last().unwrap().report.message, "xxxxxxxxx...");
    assert!(book.agent_lives(at(4), agent(1), Incarnation(2)).is_empty(), "it is forgotten");
}

#[test]
fn notes_are_kept_and_the_newest_counts() {
    let mut book = book();
    book.open(at(1), crash(agent(0), 1, None));

    book.acknowledge(at(2), 1, "looking at it").unwrap();
    book.acknowledge(at(3), 1, "disk was full").unwrap();
    let unknown = book.acknowledge(at(3), 2, "x").unwrap_err();
    let long = book.acknowledge(at(3), 1, &"x".repeat(10_000)).unwrap_err();

    assert_eq!(unknown, AcknowledgeError::Unknown { number: 2, opened: 1 });
    assert!(matches!(long, AcknowledgeError::TooLong { bytes: 10_000, .. }));
    let incident = book.incidents().next().unwrap();
    assert_eq!(&*incident.acknowledgement.as_ref().unwrap().note, "disk was full");
    assert_eq!(incident.state(), IncidentState::Acknowledged);
}

struct Numbered;

impl Names for Numbered {
    fn write_run(&self, _: RunId, text: &mut String) {
        text.push_str("run");
    }
    fn write_task(&self, task: TaskId, text: &mut String) {
        text.push_str(&format!("count[{}]", task.index.0));
    }
    fn role(&self, _: RoleId) -> &str {
        "role"
    }
    fn quota(&self, _: QuotaId) -> &str {
        "quota"
    }
    fn terms(&self, _: TaskId) -> Option<(&TaskSpec, Vec<(&str, u32)>)> {
        None
    }
}

#[test]
fn the_summary_says_what_fails_most_and_how_long_it_takes() {
    let (mut book, mut summary) = (book(), Summary::default());
    for n in 0..3 {
        book.open(at(10), crash(agent(0), n + 1, Some((task(0), 1))));
        book.task_event(at(10), &assigned(task(0), 2, agent(1)));
        book.agent_lives(at(20 + 10 * n), agent(0), Incarnation(n + 2));
    }
    let injected = Report {
        reason: Reason::Segfault,
        fault: Some(1),
        ..crash(agent(1), 1, Some((task(1), 1)))
    };
    book.open(at(50), injected);
    book.acknowledge(at(60), 4, "seen").unwrap();
    book.incidents().for_each(|incident| summary.add(incident, &Numbered));

    let total = summary.total();
    assert_eq!((total.incidents, total.injected), (4, 1));
    assert_eq!((total.recovered, total.acknowledged), (3, 1));
    assert_eq!(total.mean_time_to_recover_us, Some(20));
    let named = |rows: Vec<guild_core::incident::Row>| -> Vec<(String, u64)> {
        rows.into_iter().map(|row| (row.name, row.incidents)).collect()
    };
    assert_eq!(named(summary.agents()), [("role-0".to_owned(), 3), ("role-1".to_owned(), 1)]);
    assert_eq!(named(summary.roles()), [("role".to_owned(), 4)]);
    assert_eq!(named(summary.task_kinds()), [("count[*]".to_owned(), 4)]);
    assert_eq!(named(summary.causes()), [("panic".to_owned(), 3), ("segfault".to_owned(), 1)]);
    assert_eq!(summary.causes()[1].mean_time_to_recover_us, None);
}
