//! Reads workflows in WfFormat, the JSON of WfCommons (schema versions 1.4 to 1.6), also gzipped.
//!
//! <https://wfcommons.org/format>: 1.4 keeps the tasks in `workflow.tasks`; from 1.5 on what is to be
//! done is in `workflow.specification.tasks` and how long it took in `workflow.execution.tasks`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use serde::Deserialize;

use super::duration::from_seconds;
use super::{DURATION_MAX, Durations, WorkTask, Workload};

/// Bytes of a workflow after it was unpacked. Beyond: refused.
pub const WORKFLOW_BYTES_MAX: u64 = 1 << 30;

const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Why a workflow cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkflowError {
    /// The gzip stream is cut or damaged.
    #[error("the gzip stream is cut or damaged ({0}): fetch the file again")]
    Gzip(String),
    /// It is too large.
    #[error("the workflow has more than {WORKFLOW_BYTES_MAX} bytes: split it")]
    TooLarge,
    /// It is no JSON of this form.
    #[error("no WfFormat: {0}")]
    Json(String),
    /// It says of what version it is, and that is not supported, or it does not say.
    #[error("WfFormat {0} is not supported: this program reads schemaVersion 1.4, 1.5 and 1.6")]
    Version(String),
    /// A part that its version must have is missing.
    #[error("the workflow has no `{0}`")]
    Missing(&'static str),
    /// There is no task.
    #[error("the workflow has no task: there is nothing to simulate")]
    Empty,
    /// A task has no id.
    #[error("task {0} of the workflow has neither `id` nor `name`")]
    NoId(usize),
    /// Two tasks have one id.
    #[error("two tasks have the id `{0}`: ids are unique")]
    Duplicate(String),
    /// A task refers to one that does not exist.
    #[error("task `{task}`: `{unknown}` in its `{list}` is no task of the workflow")]
    Unknown {
        /// The task.
        task: String,
        /// `parents` or `children`, or `execution.tasks` for a runtime without a task.
        list: &'static str,
        /// What is not there.
        unknown: String,
    },
    /// A task waits for itself in the end.
    #[error("tasks wait for each other in a circle: {}", .0.join(" -> "))]
    Cycle(Vec<String>),
    /// A runtime makes no sense.
    #[error("task `{task}`: a runtime of {seconds} s makes no sense; write seconds from 0 to {}", DURATION_MAX.as_secs())]
    Runtime {
        /// The task.
        task: String,
        /// What was given.
        seconds: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    schema_version: Option<serde_json::Value>,
    #[serde(default)]
    workflow: Option<Body>,
}

#[derive(Deserialize)]
struct Body {
    /// Up to 1.4.
    #[serde(default)]
    tasks: Option<Vec<FileTask>>,
    #[serde(default)]
    specification: Option<Tasks<FileTask>>,
    #[serde(default)]
    execution: Option<Tasks<Execution>>,
}

#[derive(Deserialize)]
struct Tasks<T> {
    #[serde(default = "Vec::new")]
    tasks: Vec<T>,
}

#[derive(Deserialize)]
struct FileTask {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    parents: Vec<String>,
    #[serde(default)]
    children: Vec<String>,
    /// Up to 1.4; earlier drafts said `runtime`.
    #[serde(default, rename = "runtimeInSeconds", alias = "runtime")]
    runtime: Option<f64>,
}

#[derive(Deserialize)]
struct Execution {
    #[serde(default)]
    id: Option<String>,
    #[serde(default, rename = "runtimeInSeconds")]
    runtime: Option<f64>,
}

/// Returns whether this looks like a workflow, not like a flow file: JSON, or a gzip stream.
pub fn is_workflow(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    bytes.starts_with(&GZIP) || first == Some(&b'{')
}

/// Reads a workflow: one role `worker`, one task for each of its tasks, which waits for the union
/// of its `parents` and of the tasks that have it among their `children`.
///
/// # Errors
/// It is no workflow, or one that makes no sense.
pub fn read_workflow(bytes: &[u8]) -> Result<Workload, WorkflowError> {
    let text;
    let bytes = if bytes.starts_with(&GZIP) {
        text = unpack(bytes)?;
        &text
    } else {
        bytes
    };
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let document: Document =
        serde_json::from_slice(bytes).map_err(|error| WorkflowError::Json(error.to_string()))?;
    let name = document.name.clone().unwrap_or_else(|| "workflow".to_owned());
    let (tasks, runtimes) = tasks(document)?;
    workload(name, &tasks, &runtimes)
}

fn unpack(bytes: &[u8]) -> Result<Vec<u8>, WorkflowError> {
    let mut text = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes)
        .take(WORKFLOW_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .map_err(|error| WorkflowError::Gzip(error.to_string()))?;
    if text.len() as u64 > WORKFLOW_BYTES_MAX {
        return Err(WorkflowError::TooLarge);
    }
    Ok(text)
}

type Runtimes = BTreeMap<String, f64>;

fn tasks(document: Document) -> Result<(Vec<FileTask>, Runtimes), WorkflowError> {
    let version = match document.schema_version {
        Some(serde_json::Value::String(version)) => version,
        Some(other) => other.to_string(),
        None => return Err(WorkflowError::Version("without `schemaVersion`".to_owned())),
    };
    let body = document.workflow.ok_or(WorkflowError::Missing("workflow"))?;
    match version.as_str() {
        "1.4" => {
            let tasks = body.tasks.ok_or(WorkflowError::Missing("workflow.tasks"))?;
            let runtime = |task: &FileTask| Some((key(task)?.to_owned(), task.runtime?));
            let runtimes = tasks.iter().filter_map(runtime).collect();
            Ok((tasks, runtimes))
        }
        "1.5" | "1.6" => {
            let specification =
                body.specification.ok_or(WorkflowError::Missing("workflow.specification"))?;
            let mut runtimes = Runtimes::new();
            for execution in body.execution.map(|execution| execution.tasks).unwrap_or_default() {
                if let (Some(id), Some(seconds)) = (execution.id, execution.runtime)
                    && runtimes.insert(id.clone(), seconds).is_some()
                {
                    return Err(WorkflowError::Duplicate(id));
                }
            }
            Ok((specification.tasks, runtimes))
        }
        _ => Err(WorkflowError::Version(version)),
    }
}

/// In 1.4 tasks of some generators refer to each other by name.
fn key(task: &FileTask) -> Option<&str> {
    task.id.as_deref().or(task.name.as_deref())
}

fn workload(
    name: String,
    tasks: &[FileTask],
    runtimes: &Runtimes,
) -> Result<Workload, WorkflowError> {
    if tasks.is_empty() {
        return Err(WorkflowError::Empty);
    }
    let mut places = BTreeMap::new();
    let mut ids = Vec::new();
    for (place, task) in tasks.iter().enumerate() {
        let id = key(task).ok_or(WorkflowError::NoId(place))?;
        if places.insert(id, place).is_some() {
            return Err(WorkflowError::Duplicate(id.to_owned()));
        }
        ids.push(id);
    }
    let by_name = names(tasks);
    let find = |task: usize, list, other: &String| {
        let place = places.get(other.as_str()).or_else(|| by_name.get(other.as_str())).copied();
        place.ok_or_else(|| WorkflowError::Unknown {
            task: ids[task].to_owned(),
            list,
            unknown: other.clone(),
        })
    };
    let mut before = vec![BTreeSet::new(); tasks.len()];
    for (place, task) in tasks.iter().enumerate() {
        for parent in &task.parents {
            before[place].insert(find(place, "parents", parent)?);
        }
        for child in &task.children {
            before[find(place, "children", child)?].insert(place);
        }
    }
    for id in runtimes.keys() {
        if !places.contains_key(id.as_str()) {
            let (task, unknown) = (id.clone(), id.clone());
            return Err(WorkflowError::Unknown { task, list: "execution.tasks", unknown });
        }
    }
    let order = sorted(&before)
        .map_err(|cycle| WorkflowError::Cycle(cycle.iter().map(|at| ids[*at].into()).collect()))?;
    let mut workload = Workload::new(name, "worker");
    let mut placed = vec![0; tasks.len()];
    for place in order {
        let id = ids[place];
        let seconds = runtimes.get(id).copied().unwrap_or(0.0);
        if !(0.0..=DURATION_MAX.as_secs_f64()).contains(&seconds) {
            let (task, seconds) = (id.to_owned(), seconds.to_string());
            return Err(WorkflowError::Runtime { task, seconds });
        }
        let task = WorkTask::new(id, Durations::Fixed(from_seconds(seconds)))
            .after(before[place].iter().map(|other| placed[*other]));
        placed[place] = workload.add(task);
    }
    Ok(workload)
}

/// Returns the tasks whose name is theirs alone, by it.
fn names(tasks: &[FileTask]) -> BTreeMap<&str, usize> {
    let mut names = BTreeMap::new();
    let mut twice = BTreeSet::new();
    for (place, task) in tasks.iter().enumerate() {
        if let Some(name) = task.name.as_deref()
            && names.insert(name, place).is_some()
        {
            twice.insert(name);
        }
    }
    names.retain(|name, _| !twice.contains(name));
    names
}

/// Returns the tasks so that each comes after those before it, the first of the file first, or a
/// circle.
fn sorted(before: &[BTreeSet<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut followers = vec![Vec::new(); before.len()];
    let mut open: Vec<usize> = before.iter().map(BTreeSet::len).collect();
    for (place, others) in before.iter().enumerate() {
        others.iter().for_each(|other| followers[*other].push(place));
    }
    let mut ready: BTreeSet<usize> = (0..before.len()).filter(|place| open[*place] == 0).collect();
    let mut order = Vec::with_capacity(before.len());
    while let Some(place) = ready.pop_first() {
        order.push(place);
        for follower in &followers[place] {
            open[*follower] -= 1;
            if open[*follower] == 0 {
                ready.insert(*follower);
            }
        }
    }
    if order.len() == before.len() {
        return Ok(order);
    }
    Err(circle(before, &open))
}

/// Every task that is still open waits for another such: walking back finds a circle.
fn circle(before: &[BTreeSet<usize>], open: &[usize]) -> Vec<usize> {
    let mut seen = vec![false; before.len()];
    let mut path = Vec::new();
    let mut at = open.iter().position(|open| *open > 0).unwrap_or(0);
    while !std::mem::replace(&mut seen[at], true) {
        path.push(at);
        at = before[at].iter().copied().find(|other| open[*other] > 0).unwrap_or(at);
    }
    let from = path.iter().position(|place| *place == at).unwrap_or(0);
    let mut circle = path.split_off(from);
    circle.push(at);
    circle.reverse();
    circle
}

#[cfg(test)]
mod tests;
