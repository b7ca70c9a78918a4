//! What a page carries: the chronicle in columns of small numbers, which its script draws.

use serde::Serialize;

use super::chronicle::{Agent, Attempt, AttemptEnd, Chronicle, Incident, Task};
use super::heat::{Heat, sum_up};
use super::kind::{self, Kind};
use super::series::Columns;

/// Attempts that a page shows one by one; of more it shows how busy agents were.
const ATTEMPTS_MAX: usize = 40_000;

/// Marks, incidents and steps of a path that a page carries; it says how many there are in all.
const LISTED_MAX: usize = 5_000;
const INCIDENTS_MAX: usize = 1_000;
const STEPS_MAX: usize = 1_000;

/// All that the script reads.
#[derive(Debug, Serialize)]
pub(super) struct Data<'a> {
    clock: &'a str,
    end: u64,
    figures: Figures,
    kinds: Vec<KindData>,
    /// Roles, each with the numbers of its agents as ranges, in the order of the rows.
    roles: Vec<(&'a str, Vec<(u32, u32)>)>,
    tasks: Tasks<'a>,
    attempts: Attempts,
    failures: Vec<(usize, &'a str, &'a str)>,
    heat: Option<Heat>,
    downs: Vec<(usize, u64, Option<u64>, bool, &'a str)>,
    critical: Vec<Step<'a>>,
    last: Vec<Step<'a>>,
    running: Columns,
    ready: Columns,
    up: Columns,
    quotas: Vec<QuotaData<'a>>,
    incidents: Vec<IncidentData<'a>>,
    phases: &'a [(u64, String)],
}

#[derive(Debug, Serialize)]
struct Figures {
    outcome: Option<String>,
    order: String,
    seed: Option<u64>,
    runs: usize,
    tasks: usize,
    edges: u64,
    completed: usize,
    failed: usize,
    skipped: usize,
    cancelled: usize,
    attempts: usize,
    /// Without those of inner roles.
    agents: usize,
    /// What no schedule can be below: the longest chain, or a role's work shared by its agents.
    bound: u64,
    work: u64,
    lost: u64,
    critical: u64,
    crashes: usize,
    restarts: u64,
    faults: u64,
    incidents: usize,
    running_peak: u64,
    ready_peak: u64,
    events: u64,
}

#[derive(Debug, Serialize)]
struct KindData {
    name: String,
    tasks: u64,
    work: u64,
}

#[derive(Debug, Default, Serialize)]
struct Tasks<'a> {
    name: Vec<&'a str>,
    kind: Vec<usize>,
    /// When it was ready first, -1 for never.
    ready: Vec<i64>,
    /// The task that it waited for last, -1 for none.
    before: Vec<i64>,
}

/// Attempts by the time of their start; starts are differences.
#[derive(Debug, Default, Serialize)]
struct Attempts {
    task: Vec<u32>,
    row: Vec<usize>,
    number: Vec<u32>,
    start: Vec<u64>,
    length: Vec<u64>,
    /// 0 completed, 1 failed, 2 under way when the log ends.
    end: Vec<u8>,
}

/// One task on a path.
#[derive(Debug, Serialize)]
struct Step<'a> {
    task: &'a str,
    kind: usize,
    row: usize,
    ready: u64,
    start: u64,
    end: u64,
    attempts: u32,
}

#[derive(Debug, Serialize)]
struct QuotaData<'a> {
    name: &'a str,
    in_use: Columns,
    limit: Columns,
    peak: u64,
    /// What comes back in a microsecond, where it is a rate.
    refill: f64,
}

#[derive(Debug, Serialize)]
struct IncidentData<'a> {
    number: Option<u64>,
    at: u64,
    severity: &'a Option<String>,
    r#type: &'a Option<String>,
    cause: &'a Option<String>,
    agent: &'a Option<String>,
    task: &'a Option<String>,
    attempt: Option<u32>,
    fault: Option<u64>,
    message: &'a Option<String>,
    location: &'a Option<String>,
    action: &'a Option<String>,
}

/// Prepares a chronicle for a page.
pub(super) fn data<'a>(chronicle: &'a Chronicle, inner_roles: &[String]) -> Data<'a> {
    let spent = spent(chronicle);
    let names: Vec<(&str, u64)> =
        chronicle.tasks.iter().map(|task| task.name.as_str()).zip(spent).collect();
    let (kinds, kind_of) = kind::sort(&names);
    let order = rows(chronicle);
    let mut row_of = vec![0; chronicle.agents.len()];
    order.iter().enumerate().for_each(|(row, agent)| row_of[*agent] = row);
    let is_detailed = chronicle.attempts.len() <= ATTEMPTS_MAX;
    let spans = chronicle.attempts.iter().map(|a| (row_of[a.agent as usize], a.start, a.end));
    let heat = (!is_detailed).then(|| sum_up(spans, order.len(), chronicle.end));
    let steps = |path: Vec<u32>| steps(chronicle, &path, &row_of, &kind_of);
    let (tasks, attempts, failures) = match is_detailed {
        true => details(chronicle, &row_of, &kind_of),
        false => <_>::default(),
    };
    Data {
        clock: &chronicle.clock,
        end: chronicle.end,
        figures: figures(chronicle, inner_roles),
        kinds: kinds.into_iter().map(KindData::from).collect(),
        roles: roles(chronicle, &order),
        tasks,
        attempts,
        failures,
        heat,
        downs: downs(chronicle, &row_of),
        critical: steps(chronicle.critical_path()),
        last: steps(chronicle.last_chain()),
        running: chronicle.running.columns(),
        ready: chronicle.ready.columns(),
        up: chronicle.up.columns(),
        quotas: quotas(chronicle),
        incidents: incidents(chronicle),
        phases: &chronicle.phases,
    }
}

/// Returns the time that was spent on each task.
fn spent(chronicle: &Chronicle) -> Vec<u64> {
    let mut spent = vec![0; chronicle.tasks.len()];
    chronicle.attempts.iter().for_each(|a| spent[a.task as usize] += a.end - a.start);
    spent
}

/// Returns the agents, role by role and by their numbers.
fn rows(chronicle: &Chronicle) -> Vec<usize> {
    let mut order: Vec<usize> = (0..chronicle.agents.len()).collect();
    let key = |agent: &Agent| (agent.role, agent.index);
    order.sort_by_key(|agent| key(&chronicle.agents[*agent]));
    order
}

fn roles<'a>(chronicle: &'a Chronicle, order: &[usize]) -> Vec<(&'a str, Vec<(u32, u32)>)> {
    let mut roles: Vec<(&str, Vec<(u32, u32)>)> = Vec::new();
    let mut last = None;
    for agent in order.iter().map(|agent| &chronicle.agents[*agent]) {
        if last != Some(agent.role) {
            roles.push((&chronicle.roles[agent.role as usize], Vec::new()));
            last = Some(agent.role);
        }
        let Some((_, ranges)) = roles.last_mut() else { continue };
        match ranges.last_mut() {
            Some((_, to)) if *to + 1 == agent.index => *to = agent.index,
            _ => ranges.push((agent.index, agent.index)),
        }
    }
    roles
}

type Details<'a> = (Tasks<'a>, Attempts, Vec<(usize, &'a str, &'a str)>);

fn details<'a>(chronicle: &'a Chronicle, row_of: &[usize], kind_of: &[usize]) -> Details<'a> {
    let mut tasks = Tasks { kind: kind_of.to_vec(), ..Tasks::default() };
    for task in &chronicle.tasks {
        tasks.name.push(&task.name);
        tasks.ready.push(task.ready_at.map_or(-1, |at| at as i64));
        tasks.before.push(task.last_before.map_or(-1, i64::from));
    }
    // The log is in the order of time, so attempts are in the order of their starts.
    let (mut attempts, mut failures, mut last) = (Attempts::default(), Vec::new(), 0);
    for (place, attempt) in chronicle.attempts.iter().enumerate() {
        attempts.task.push(attempt.task);
        attempts.row.push(row_of[attempt.agent as usize]);
        attempts.number.push(attempt.number);
        attempts.start.push(attempt.start - std::mem::replace(&mut last, attempt.start));
        attempts.length.push(end_of(chronicle, attempt) - attempt.start);
        attempts.end.push(match &attempt.ended {
            AttemptEnd::Completed => 0,
            AttemptEnd::Failed(cause, message) => {
                failures.push((place, cause.as_str(), message.as_str()));
                1
            }
            AttemptEnd::Open => 2,
        });
    }
    (tasks, attempts, failures)
}

fn end_of(chronicle: &Chronicle, attempt: &Attempt) -> u64 {
    if attempt.ended == AttemptEnd::Open { chronicle.end } else { attempt.end }
}

/// Returns, for each role that counts, its agents and the time that completed attempts took.
fn shares(chronicle: &Chronicle, inner_roles: &[String]) -> Vec<(usize, u64)> {
    let mut shares = vec![(0, 0); chronicle.roles.len()];
    chronicle.agents.iter().for_each(|agent| shares[agent.role as usize].0 += 1);
    for attempt in chronicle.attempts.iter().filter(|a| a.ended == AttemptEnd::Completed) {
        let role = chronicle.agents[attempt.agent as usize].role;
        shares[role as usize].1 += attempt.end - attempt.start;
    }
    let counted = chronicle.roles.iter().map(|role| !inner_roles.contains(role));
    shares
        .into_iter()
        .zip(counted)
        .filter(|(_, counted)| *counted)
        .map(|(share, _)| share)
        .collect()
}

fn figures(chronicle: &Chronicle, inner_roles: &[String]) -> Figures {
    let shares = shares(chronicle, inner_roles);
    let critical = chronicle.tasks.iter().map(|task| task.chain_us).max().unwrap_or(0);
    let each = shares.iter().map(|(agents, work)| work / (*agents as u64).max(1)).max();
    let in_state = |state: &[&str]| {
        let is = |task: &&Task| task.state.as_deref().is_some_and(|known| state.contains(&known));
        chronicle.tasks.iter().filter(is).count()
    };
    let time = |completed: bool| {
        let is = |a: &&Attempt| (a.ended == AttemptEnd::Completed) == completed;
        chronicle.attempts.iter().filter(is).map(|a| a.end - a.start).sum()
    };
    let completed = chronicle.tasks.iter().filter(|task| task.completed.is_some()).count();
    Figures {
        outcome: chronicle.outcome.clone(),
        order: chronicle.order.clone(),
        seed: chronicle.seed,
        runs: chronicle.runs.len(),
        tasks: chronicle.tasks.len(),
        edges: chronicle.edges,
        completed,
        failed: in_state(&["failed", "dead_lettered"]),
        skipped: in_state(&["skipped"]),
        cancelled: in_state(&["cancelled"]),
        attempts: chronicle.attempts.len(),
        agents: shares.iter().map(|(agents, _)| agents).sum(),
        bound: each.unwrap_or(0).max(critical),
        work: time(true),
        lost: time(false),
        critical,
        crashes: chronicle.agents.iter().map(|agent| agent.downs.len()).sum(),
        restarts: chronicle.restarts,
        faults: chronicle.faults,
        incidents: chronicle.incidents.len(),
        running_peak: chronicle.running.peak(),
        ready_peak: chronicle.ready.peak(),
        events: chronicle.events,
    }
}

fn steps<'a>(
    chronicle: &'a Chronicle,
    path: &[u32],
    row_of: &[usize],
    kind_of: &[usize],
) -> Vec<Step<'a>> {
    let step = |place: &u32| {
        let task = &chronicle.tasks[*place as usize];
        let attempt = &chronicle.attempts[task.completed?];
        Some(Step {
            task: &task.name,
            kind: kind_of[*place as usize],
            row: row_of[attempt.agent as usize],
            ready: task.ready_at.unwrap_or(attempt.start),
            start: attempt.start,
            end: attempt.end,
            attempts: task.attempts,
        })
    };
    path.iter().filter_map(step).take(STEPS_MAX).collect()
}

fn downs<'a>(
    chronicle: &'a Chronicle,
    row_of: &[usize],
) -> Vec<(usize, u64, Option<u64>, bool, &'a str)> {
    let of_agent = |(place, agent): (usize, &'a Agent)| {
        let row = row_of[place];
        agent
            .downs
            .iter()
            .map(move |down| (row, down.from, down.to, down.quarantined, down.message.as_str()))
    };
    chronicle.agents.iter().enumerate().flat_map(of_agent).take(LISTED_MAX).collect()
}

fn quotas(chronicle: &Chronicle) -> Vec<QuotaData<'_>> {
    chronicle
        .quotas
        .iter()
        .map(|(name, (in_use, limit))| QuotaData {
            name,
            in_use: in_use.columns(),
            limit: limit.columns(),
            peak: in_use.peak(),
            refill: chronicle.refills.get(name).copied().unwrap_or(0.0),
        })
        .collect()
}

fn incidents(chronicle: &Chronicle) -> Vec<IncidentData<'_>> {
    chronicle.incidents.iter().take(INCIDENTS_MAX).map(IncidentData::from).collect()
}

impl<'a> From<&'a Incident> for IncidentData<'a> {
    fn from(incident: &'a Incident) -> Self {
        let line = &incident.line;
        Self {
            number: line.incident,
            at: incident.at,
            severity: &line.severity,
            r#type: &line.r#type,
            cause: &line.cause,
            agent: &line.agent,
            task: &line.task,
            attempt: line.attempt,
            fault: line.fault,
            message: &line.message,
            location: &line.location,
            action: &line.action,
        }
    }
}

impl From<Kind> for KindData {
    fn from(kind: Kind) -> Self {
        Self { name: kind.name, tasks: kind.tasks, work: kind.work_us }
    }
}
