//! Makes a workload of a flow, which is what `guild simulate` runs.
//!
//! Nothing a flow would do is done: no process is started, no template of a command rendered, no
//! memory written. What decides is as in the flow: who waits for whom, roles with their agents and
//! supervisors, quotas, priorities, retries, time limits. Lists that depend on outputs are as long as the flow
//! says, because the outputs do not exist.

use std::time::Duration;

use guild::Limits;
use guild_sim::workload::{Durations, Items, Map, Role, WorkTask, Workload};
use minijinja::context;

use crate::flow::problem::{FlowError, Place, Problem};
use crate::flow::template::Template;
use crate::flow::{FLOW_ROLE, Flow, FlowTask, INNER_AGENTS, RESULT_TASK, TaskDuration, items};
use crate::graph::inner_retry;

/// How long a task takes of which neither it nor its role says anything.
pub(crate) const DURATION_DEFAULT: Duration = Duration::from_secs(1);

/// A workload, and what its flow left open.
#[derive(Debug)]
pub(crate) struct FlowWorkload {
    pub(crate) workload: Workload,
    /// Names of the tasks that take [`DURATION_DEFAULT`] because nothing says how long they take.
    pub(crate) without_duration: Vec<String>,
}

/// Makes the workload.
pub(crate) fn workload(flow: &Flow) -> Result<FlowWorkload, FlowError> {
    let mut maker = Maker { flow, problems: Vec::new(), without_duration: Vec::new() };
    let mut workload = Workload { name: flow.name.clone(), ..Workload::default() };
    for role in &flow.roles {
        let (name, agents) = (role.name.clone(), Some(role.agents));
        let supervision = role.supervision.clone();
        workload.roles.push(Role { name, agents, is_inner: false, supervision });
    }
    workload.groups.clone_from(&flow.groups);
    workload.root.clone_from(&flow.supervision);
    workload.quotas =
        flow.quotas.iter().map(|quota| (quota.name.clone(), quota.spec.clone())).collect();
    workload.tasks = flow.tasks.iter().map(|task| maker.task(task)).collect();
    if !flow.result.is_empty() {
        workload.tasks.push(maker.inner(RESULT_TASK, (0..flow.tasks.len()).collect()));
    }
    // Only where it has anything to do, so that the log names no role that does nothing.
    if workload.tasks.iter().any(|task| task.role == flow.roles.len()) {
        let agents = Some(INNER_AGENTS);
        let (name, supervision) = (FLOW_ROLE.to_owned(), None);
        workload.roles.push(Role { name, agents, is_inner: true, supervision });
    }
    let (problems, without_duration) = (maker.problems, maker.without_duration);
    if problems.is_empty() {
        return Ok(FlowWorkload { workload, without_duration });
    }
    Err(FlowError { file: flow.file.to_path_buf(), problems })
}

struct Maker<'a> {
    flow: &'a Flow,
    problems: Vec<Problem>,
    without_duration: Vec<String>,
}

impl Maker<'_> {
    fn task(&mut self, task: &FlowTask) -> WorkTask {
        let after = task.after.iter().copied().collect();
        let duration = self.duration(task);
        // A task without a limit of its own has in a simulation the one that it has in a run.
        let timeout = task.timeout.or(Some(Limits::default().task_timeout));
        if let Some(list) = &task.for_each {
            let map = Map {
                items: self.items(task, list),
                role: task.role,
                duration,
                priority: task.priority,
                quotas: task.quotas.clone(),
                retry: task.retry.clone(),
                timeout,
            };
            let inner = self.inner(&task.name, after);
            return WorkTask { priority: task.priority, map: Some(Box::new(map)), ..inner };
        }
        WorkTask {
            role: task.role,
            after,
            priority: task.priority,
            quotas: task.quotas.clone(),
            retry: task.retry.clone(),
            timeout,
            ..WorkTask::new(&task.name, duration)
        }
    }

    /// Returns a task that the flow's own agents perform: it expands a list or makes the result.
    fn inner(&self, name: &str, after: Vec<usize>) -> WorkTask {
        let (role, retry) = (self.flow.roles.len(), inner_retry(self.flow));
        WorkTask { role, after, retry, ..WorkTask::new(name, Durations::Fixed(Duration::ZERO)) }
    }

    fn duration(&mut self, task: &FlowTask) -> Durations {
        let role = &self.flow.roles[task.role];
        match task.duration.as_ref().or(role.duration.as_ref()) {
            Some(TaskDuration::Drawn(durations)) => durations.clone(),
            Some(TaskDuration::Samples(samples)) => samples.read().unwrap_or_else(|error| {
                self.wrong(samples.place, &samples.key, error.to_string());
                Durations::Fixed(DURATION_DEFAULT)
            }),
            None => {
                self.without_duration.push(task.name.clone());
                Durations::Fixed(DURATION_DEFAULT)
            }
        }
    }

    fn items(&mut self, task: &FlowTask, list: &Template) -> Items {
        if let Some(items) = task.items {
            return items;
        }
        if let Some(map) = self.whole_outputs(list) {
            return Items::As(map);
        }
        let (place, key) = (list.origin().place, list.origin().key.to_string());
        if list.variables().iter().any(|name| name == "tasks" || name.starts_with("tasks.")) {
            let message = "the list comes from outputs, which a simulation does not have; say how \
                           many items it has: items = 100, or items = { min = 10, max = 1000 }";
            self.wrong(place, &key, message.to_owned());
            return Items::Fixed(0);
        }
        let flow = self.flow;
        let known = context! {
            vars => minijinja::Value::from_serialize(&flow.vars),
            run => flow.name,
            task => task.name,
        };
        let list = list.evaluate(&known).map_err(|error| error.message);
        let counted = list.and_then(|list| items(&list, Limits::default().tasks_per_run_max));
        match counted {
            Ok(items) => Items::Fixed(u32::try_from(items.len()).unwrap_or(u32::MAX)),
            Err(message) => {
                self.wrong(place, &key, message);
                Items::Fixed(0)
            }
        }
    }

    /// Returns the map of which the list has all outputs, an item each.
    fn whole_outputs(&self, list: &Template) -> Option<usize> {
        let expression = list.source().trim().strip_prefix("{{")?.strip_suffix("}}")?.trim();
        let name = expression.strip_prefix("tasks.")?.strip_suffix(".outputs")?;
        let place = self.flow.task(name)?;
        self.flow.tasks[place].for_each.is_some().then_some(place)
    }

    fn wrong(&mut self, place: Place, key: &str, message: String) {
        self.problems.push(Problem { place: Some(place), key: key.to_owned(), message });
    }
}
