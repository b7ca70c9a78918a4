//! A flow: what `guild run` reads from a TOML file, checked and compiled.
//!
//! [`load`] finds every problem that can be found without running anything. What it returns
//! cannot fail but by what tasks do.

mod check;
pub(crate) use check::items;
mod duration;
mod file;
mod filters;
mod namespace;
pub(crate) mod output;
pub(crate) mod problem;
pub(crate) mod quantity;
mod reader;
mod role;
mod supervision;
mod task;
pub(crate) mod template;
mod work;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use guild::process::Resources;
use guild::{QuotaSpec, RetryPolicy};
use guild_sim::workload::Items;

pub(crate) use crate::flow::duration::TaskDuration;
use crate::flow::output::Parse;
use crate::flow::problem::{FlowError, Place, Problem};
use crate::flow::template::Template;

/// Role of the agents that work for the flow itself: they expand `for_each` and make the result.
pub(crate) const FLOW_ROLE: &str = "flow";

/// How many there are: another one takes over when chaos strikes the first.
pub(crate) const INNER_AGENTS: u32 = 4;

/// Name of the task that makes the declared result.
pub(crate) const RESULT_TASK: &str = "result";

/// A checked flow.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) file: Arc<Path>,
    /// Name of the run unless `--run` gives another.
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    /// The variables, with what `--set` changed.
    pub(crate) vars: serde_json::Map<String, serde_json::Value>,
    pub(crate) roles: Vec<Role>,
    pub(crate) quotas: Vec<Quota>,
    pub(crate) namespaces: Vec<guild::Namespace>,
    /// Roles that belong together.
    pub(crate) groups: Vec<guild::GroupSpec>,
    /// How roles and groups that give up are treated; none: as by default.
    pub(crate) supervision: Option<guild::SupervisorSpec>,
    pub(crate) tasks: Vec<FlowTask>,
    /// The declared result: names and values.
    pub(crate) result: Vec<(String, Template)>,
    /// The tasks whose outputs the result uses.
    pub(crate) result_inputs: BTreeSet<usize>,
    /// Fingerprint of the file and the variables: a run is resumed only with the flow it began with.
    pub(crate) digest: u64,
}

/// What the agents of a role do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RoleKind {
    /// Run a process per attempt.
    Exec,
    /// Keep a process per agent, and give it one task after the other.
    Process,
    /// Render a template in this process.
    Render,
}

/// A role of a flow.
#[derive(Debug)]
pub(crate) struct Role {
    pub(crate) name: String,
    pub(crate) kind: RoleKind,
    pub(crate) agents: u32,
    pub(crate) env: Vec<(String, Template)>,
    pub(crate) cwd: Option<Template>,
    /// How long its tasks take in a simulation that say nothing themselves.
    pub(crate) duration: Option<TaskDuration>,
    /// How its agents are restarted; none: as by default.
    pub(crate) supervision: Option<guild::SupervisorSpec>,
    pub(crate) stdout_max: usize,
    pub(crate) stderr_max: usize,
    /// What each of its processes may use.
    pub(crate) resources: Resources,
    /// Only of kind `process`.
    pub(crate) process: Option<ProcessRole>,
}

/// The process that each agent of a role keeps.
#[derive(Debug)]
pub(crate) struct ProcessRole {
    pub(crate) command: Vec<Arg>,
    pub(crate) line_max: usize,
    pub(crate) handshake: Duration,
    pub(crate) grace: Duration,
}

/// A quota of a flow.
#[derive(Debug)]
pub(crate) struct Quota {
    pub(crate) name: String,
    pub(crate) spec: QuotaSpec,
}

/// One argument of a command.
#[derive(Debug)]
pub(crate) struct Arg {
    pub(crate) template: Template,
    /// Whether the text is percent-decoded to a file name.
    pub(crate) is_path: bool,
}

/// What a task does.
#[derive(Debug)]
pub(crate) enum Work {
    /// Runs a process: the program and its arguments.
    Exec { command: Vec<Arg>, stdin: Option<Template> },
    /// Gives the process of the agent its input; none: that of the task.
    Process { input: Option<Input> },
    /// Renders a text.
    Render(Template),
}

/// What a process agent gets for a task.
#[derive(Debug)]
pub(crate) enum Input {
    /// One value.
    Value(Template),
    /// An object, each field with its value.
    Object(Vec<(String, Template)>),
}

impl Input {
    /// Returns all templates.
    pub(crate) fn templates(&self) -> Vec<&Template> {
        match self {
            Self::Value(template) => vec![template],
            Self::Object(fields) => fields.iter().map(|(_, template)| template).collect(),
        }
    }
}

/// A task of a flow; with `for_each` it stands for as many tasks as its list has items.
#[derive(Debug)]
pub(crate) struct FlowTask {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) role: usize,
    pub(crate) work: Work,
    pub(crate) env: Vec<(String, Template)>,
    pub(crate) cwd: Option<Template>,
    pub(crate) for_each: Option<Template>,
    /// The tasks it waits for, those that its templates name included.
    pub(crate) after: BTreeSet<usize>,
    /// The tasks whose outputs its work and its memory writes use.
    pub(crate) inputs: BTreeSet<usize>,
    /// The tasks whose outputs its `for_each` uses.
    pub(crate) list_inputs: BTreeSet<usize>,
    pub(crate) retry: RetryPolicy,
    pub(crate) timeout: Option<Duration>,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) priority: i32,
    pub(crate) quotas: Vec<(usize, u32)>,
    pub(crate) parse: Parse,
    /// How long it takes in a simulation.
    pub(crate) duration: Option<TaskDuration>,
    /// How many items its list has in a simulation.
    pub(crate) items: Option<Items>,
    pub(crate) put: Vec<(Template, Template)>,
    pub(crate) add: Vec<(Template, Template)>,
}

impl Flow {
    /// Reads and checks a flow file; `settings` are the `KEY=VALUE` of `--set`.
    pub(crate) fn load(
        file: &Path,
        settings: &[String],
        agents: Option<u32>,
    ) -> Result<Self, FlowError> {
        let bytes = std::fs::read(file).map_err(|error| {
            let remedy = match error.kind() {
                ErrorKind::NotFound => "; check the path",
                ErrorKind::IsADirectory => "; name the file in it",
                ErrorKind::PermissionDenied => "; change its owner or mode",
                _ => "",
            };
            unreadable(file, &format!("{error}{remedy}"))
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            unreadable(file, &format!("it is not UTF-8 (byte {}); save it as UTF-8", at + 1))
        })?;
        file::parse(file, &text, settings, agents)
    }

    /// Returns the agents of all roles, without those that work for the flow itself.
    pub(crate) fn agents(&self) -> u64 {
        self.roles.iter().map(|role| u64::from(role.agents)).sum()
    }

    /// Returns the place of a task by its name.
    pub(crate) fn task(&self, name: &str) -> Option<usize> {
        self.tasks.iter().position(|task| task.name == name)
    }
}

fn unreadable(file: &Path, why: &str) -> FlowError {
    let message = format!("cannot read the flow file: {why}");
    let problem = Problem { place: None, key: String::new(), message };
    FlowError { file: file.to_owned(), problems: vec![problem] }
}
