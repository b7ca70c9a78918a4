//! Checks what connects the parts of a flow: variables of templates, order, lists, bounds.
//!
//! A template that names `tasks.X` makes its task wait for X; what is not there, or goes in a
//! circle, is found here and not after an hour of running.

use std::collections::BTreeSet;

use minijinja::{Value, context};

use crate::flow::file::Reading;
use crate::flow::problem::suggest;
use crate::flow::template::Template;
use crate::flow::{Flow, FlowTask, Input, RESULT_TASK, Work};

/// Which variables a template may use.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// `env` and `cwd` of a role.
    Role,
    /// The same and the command of a role whose processes outlive a task.
    Process,
    /// `for_each`.
    List,
    /// What an attempt does.
    Work,
    /// Keys and values of memory writes.
    Memory,
    /// The declared result.
    Result,
}

impl Scope {
    fn variables(self, is_mapped: bool) -> Vec<&'static str> {
        let mut known = vec!["vars"];
        if self != Self::Process {
            known.push("run");
        }
        match self {
            Self::Process => {}
            Self::Role => known.extend(["task", "attempt"]),
            Self::List => known.extend(["task", "tasks"]),
            Self::Work => known.extend(["task", "attempt", "tasks"]),
            Self::Memory => known.extend(["task", "attempt", "tasks", "output"]),
            Self::Result => known.extend(["tasks", "memory"]),
        }
        if is_mapped && matches!(self, Self::Work | Self::Memory) {
            known.extend(["item", "index"]);
        }
        known
    }
}

/// Checks a flow whose parts were all read, and fills in what its templates imply.
pub(crate) fn check(reading: &Reading<'_>, flow: &mut Flow) {
    let checker = Checker { reading, flow };
    for role in &flow.roles {
        let templates = role.env.iter().map(|(_, template)| template).chain(&role.cwd);
        let command = role.process.iter().flat_map(|process| &process.command);
        let templates = templates.chain(command.map(|arg| &arg.template));
        let scope = if role.process.is_some() { Scope::Process } else { Scope::Role };
        templates.for_each(|template| drop(checker.inputs(template, scope, false)));
    }
    let inputs: Vec<_> = flow.tasks.iter().map(|task| checker.task_inputs(task)).collect();
    let result = flow.result.iter().map(|(_, value)| checker.inputs(value, Scope::Result, false));
    let result_inputs: BTreeSet<usize> = result.flatten().collect();
    let named_result = flow.task(RESULT_TASK).filter(|_| !flow.result.is_empty());
    for (task, (list_inputs, inputs)) in flow.tasks.iter_mut().zip(inputs) {
        task.after.extend(list_inputs.iter().chain(&inputs));
        task.inputs = inputs;
        task.list_inputs = list_inputs;
        if matches!(task.work, Work::Exec { stdin: None, .. } | Work::Process { input: None })
            && task.for_each.is_none()
        {
            // Without an input of its own the process gets that of the task, all outputs before it.
            task.inputs.clone_from(&task.after);
        }
    }
    flow.result_inputs = result_inputs;
    if let Some(task) = named_result {
        let task = &flow.tasks[task];
        let message = "the name `result` is taken by [result]; give the task another";
        reading.problems.add_at(Some(task.place), &format!("tasks.{}", task.name), message);
    }
    cycle(reading, flow);
    for task in &flow.tasks {
        static_list(reading, flow, task);
    }
    bounds(reading, flow);
}

struct Checker<'a> {
    reading: &'a Reading<'a>,
    flow: &'a Flow,
}

impl Checker<'_> {
    /// Returns the tasks whose outputs the list, and the work with its writes, use.
    fn task_inputs(&self, task: &FlowTask) -> (BTreeSet<usize>, BTreeSet<usize>) {
        let mapped = task.for_each.is_some();
        let list = task.for_each.iter().flat_map(|list| self.inputs(list, Scope::List, mapped));
        let work: Vec<&Template> = match &task.work {
            Work::Exec { command, stdin } => {
                command.iter().map(|arg| &arg.template).chain(stdin).collect()
            }
            Work::Process { input } => input.iter().flat_map(Input::templates).collect(),
            Work::Render(text) => vec![text],
        };
        let surroundings = task.env.iter().map(|(_, value)| value).chain(&task.cwd);
        let work = work
            .into_iter()
            .chain(surroundings)
            .flat_map(|template| self.inputs(template, Scope::Work, mapped));
        let writes = task.put.iter().chain(&task.add).flat_map(|(key, value)| [key, value]);
        let writes = writes.flat_map(|template| self.inputs(template, Scope::Memory, mapped));
        (list.collect(), work.chain(writes).collect())
    }

    /// Checks the variables of one template; returns the tasks that it names.
    fn inputs(&self, template: &Template, scope: Scope, is_mapped: bool) -> BTreeSet<usize> {
        let known = scope.variables(is_mapped);
        let mut inputs = BTreeSet::new();
        for variable in template.variables() {
            let mut parts = variable.split('.');
            let root = parts.next().unwrap_or_default();
            if !known.contains(&root) {
                self.unknown_variable(template, root, scope, &known);
            } else if root == "vars"
                && let Some(name) = parts.next()
                && !self.flow.vars.contains_key(name)
            {
                let hint = suggest(name, self.flow.vars.keys().map(String::as_str));
                self.wrong(template, format!("unknown variable `vars.{name}`{hint}"));
            } else if root == "tasks" {
                inputs.extend(self.task_reference(template, parts.next(), parts.next()));
            }
        }
        inputs
    }

    fn unknown_variable(&self, template: &Template, root: &str, scope: Scope, known: &[&str]) {
        let scan = scope == Scope::Result && root == "scan";
        if scan || self.reading.engine.has_function(root) {
            return;
        }
        let message = match root {
            "item" | "index" => format!("`{root}` exists only in a task with `for_each`"),
            "memory" | "scan" => format!("`{root}` exists only in [result]"),
            "output" => "`output` exists only in the memory writes of a task; another task's is \
                         tasks.NAME.output"
                .to_owned(),
            _ if self.flow.vars.contains_key(root) => {
                format!("unknown variable `{root}`; write vars.{root}")
            }
            _ => format!("unknown variable `{root}`{}", suggest(root, known.iter().copied())),
        };
        self.wrong(template, message);
    }

    fn task_reference(
        &self,
        template: &Template,
        name: Option<&str>,
        field: Option<&str>,
    ) -> Option<usize> {
        let Some(name) = name else {
            self.wrong(template, "`tasks` must be followed by a name: tasks.NAME.output");
            return None;
        };
        let Some(at) = self.flow.task(name) else {
            let names = self.flow.tasks.iter().map(|task| task.name.as_str());
            self.wrong(template, format!("unknown task `{name}`{}", suggest(name, names)));
            return None;
        };
        let right = if self.flow.tasks[at].for_each.is_some() { "outputs" } else { "output" };
        if field != Some(right) {
            let why = match right {
                "outputs" => "runs once for each item and has a list",
                _ => "has one output",
            };
            let written = field.map(|field| format!(".{field}")).unwrap_or_default();
            let message = format!(
                "`tasks.{name}{written}` does not exist: `{name}` {why}, tasks.{name}.{right}"
            );
            self.wrong(template, message);
        }
        Some(at)
    }

    fn wrong(&self, template: &Template, message: impl Into<String>) {
        let origin = template.origin();
        self.reading.problems.add_at(Some(origin.place), &origin.key, message);
    }
}

/// Finds one circle of tasks and names it, by a depth-first search without recursion.
fn cycle(reading: &Reading<'_>, flow: &Flow) {
    let mut done = vec![false; flow.tasks.len()];
    for start in 0..flow.tasks.len() {
        let mut path: Vec<(usize, Vec<usize>)> = Vec::new();
        let mut next = Some(start);
        loop {
            if let Some(at) = next.take() {
                if let Some(from) = path.iter().position(|(on_path, _)| *on_path == at) {
                    // Along the path each task waits for the one after it.
                    let circle = path[from..].iter().map(|(task, _)| *task);
                    return report(reading, flow, circle.rev().collect());
                }
                if !done[at] {
                    path.push((at, flow.tasks[at].after.iter().copied().collect()));
                }
            }
            let Some((at, open)) = path.last_mut() else {
                break;
            };
            next = open.pop();
            if next.is_none() {
                done[*at] = true;
                path.pop();
            }
        }
    }
}

fn report(reading: &Reading<'_>, flow: &Flow, circle: Vec<usize>) {
    let Some(first) = circle.iter().min().and_then(|min| circle.iter().position(|at| at == min))
    else {
        return;
    };
    let turned = circle[first..].iter().chain(&circle[..=first]);
    let names: Vec<&str> = turned.map(|at| flow.tasks[*at].name.as_str()).collect();
    let task = &flow.tasks[circle[first]];
    let message = format!(
        "cycle: {}; each of these tasks would wait for the others for ever, cut one link",
        names.join(" -> ")
    );
    reading.problems.add_at(Some(task.place), &format!("tasks.{}", task.name), message);
}

/// Tells whether a list depends on variables only, which are known before the run.
fn is_known_before_the_run(list: &Template) -> bool {
    let root = |name: &String| name.split('.').next().unwrap_or(name).to_owned();
    !list.variables().iter().any(|name| ["tasks", "run", "task"].contains(&root(name).as_str()))
}

/// Evaluates a list that depends on variables only.
fn static_list(reading: &Reading<'_>, flow: &Flow, task: &FlowTask) {
    let (key, place) = (format!("tasks.{}.items", task.name), Some(task.place));
    let Some(list) = &task.for_each else {
        if task.items.is_some() {
            reading.problems.add_at(place, &key, "belongs to `for_each`, which this task lacks");
        }
        return;
    };
    if !is_known_before_the_run(list) {
        return;
    }
    if task.items.is_some() {
        let message = "says how many items a simulation takes a list of outputs to have; this list \
                       is known without: remove it";
        reading.problems.add_at(place, &key, message);
    }
    let context = context! { vars => Value::from_serialize(&flow.vars) };
    let wrong = |message: String| {
        reading.problems.add_at(Some(list.origin().place), &list.origin().key, message);
    };
    match list.evaluate(&context) {
        Err(error) => wrong(error.message),
        Ok(value) => {
            if let Err(message) = items(&value, reading.limits.tasks_per_run_max) {
                wrong(message);
            }
        }
    }
}

/// Returns the items of a `for_each` list.
pub(crate) fn items(value: &Value, items_max: u32) -> Result<Vec<Value>, String> {
    use minijinja::value::ValueKind;
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        let what = value.kind();
        return Err(format!(
            "for_each needs a list, but this is of kind {what}; parse the output \
             that it comes from as \"lines\", \"json\" or \"paths\""
        ));
    }
    let count = value.len().unwrap_or_default();
    if count > items_max as usize {
        return Err(format!(
            "the list has {count} items, but a run has at most {items_max} tasks; \
             split it over several runs"
        ));
    }
    value.try_iter().map(Iterator::collect).map_err(|error| error.to_string())
}

fn bounds(reading: &Reading<'_>, flow: &Flow) {
    let (tasks_max, edges_max) =
        (reading.limits.tasks_per_run_max, reading.limits.edges_per_run_max);
    let edges: usize = flow.tasks.iter().map(|task| task.after.len()).sum();
    if flow.tasks.len() >= tasks_max as usize || edges > edges_max as usize {
        let message = format!("a run has at most {tasks_max} tasks and {edges_max} dependencies");
        reading.problems.add_at(None, "tasks", message);
    }
}
