//! Says which faults strike where and when: a fault plan is a TOML file of pure data.
//!
//! A plan goes through three states. [`Plan`] is what the file says; [`Plan::draw`] fixes what it
//! leaves to the seed and gives a [`Drawn`], which a shrinker can [reduce](Drawn::reduce); a
//! [`Striker`] asks it at every place where a fault could strike. All of it is pure: time, hits
//! and the crew are arguments, so a seed gives the same faults for ever.
//! The format is described in `docs/chaos.md`.

use std::path::{Path, PathBuf};

use guild_core::draw::Seed;
use toml::de::DeTable;

mod case;
mod coverage;
mod draw;
mod kind;
mod knob;
mod method;
pub(crate) mod problem;
pub(crate) mod quantity;
mod reader;
mod result;
mod scene;
mod select;
mod setting;
mod shrink;
mod strike;

pub use case::{Case, CaseError, FaultId};
pub use coverage::{Branch, Coverage, LogError, Missing};
pub use draw::{Drawn, DrawnErrors, DrawnKnobs, DrawnMethod, DrawnWhen, Parameter};
pub use kind::{Key, Kind, Need, RULES, Rule, Site, Target};
pub use knob::{Knob, Range};
pub use method::{How, Method, When};
pub use problem::{Place, PlanError, Problem};
pub use result::{FiredFault, IncidentNote, MethodNote, PlanResult};
pub use scene::{AgentName, AgentNameError, Scene, matches};
pub use select::{Mode, Select};
pub use setting::{
    Errors, Knobs, Limits, Policy, Quiet, Setting, Source, SteadyState, TaskEffects, WORKER,
    Workload,
};
pub use shrink::{Shrunk, Trial, shrink};
pub use strike::{Hit, Strike, Striker};

use problem::{Places, Problems};
use reader::{Located, Section};

/// Most faults that one plan may name.
const METHODS_MAX: usize = 100;

/// A fault plan: what runs, which faults strike it, and what must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The file it was read from.
    pub file: PathBuf,
    /// What it shows.
    pub title: String,
    /// The first seed, unless another is asked for.
    pub seed: Seed,
    /// What runs.
    pub workload: Workload,
    /// The settings under which it runs.
    pub knobs: Knobs,
    /// How far faults may go.
    pub limits: Limits,
    /// What holds before and after.
    pub steady_state: SteadyState,
    /// The faults.
    pub methods: Vec<Method>,
    /// When no new faults come.
    pub quiet: Quiet,
    places: Places,
}

impl Plan {
    /// Reads a plan from the text of its file.
    ///
    /// # Errors
    /// The text is no TOML, or a key or value is wrong: unknown kinds, sites, policies and keys,
    /// probabilities outside 0 to 1, a combination that its kind does not allow, a selector that
    /// selects nobody among generated agents. All problems are reported, each with its place.
    pub fn parse(text: &str, file: &Path) -> Result<Self, PlanError> {
        let problems = Problems::new(file, text);
        let table = match DeTable::parse(text) {
            Ok(table) => table,
            Err(error) => {
                problems.add(&error.span().unwrap_or(0..0), "", error.message());
                return problems.finish(None);
            }
        };
        let root = Section::root(&table, &problems);
        let plan = read(&root, file);
        root.finish();
        let plan = plan.map(|mut plan| {
            plan.places = problems.places();
            if problems.is_empty() {
                plan.check_own_crew(&problems);
            }
            plan
        });
        problems.finish(plan)
    }

    /// Checks that every fault selects somebody of this scene, which need not be that of the plan's
    /// own workload.
    ///
    /// # Errors
    /// A role, agent or task that is selected does not exist, more are asked for than there are,
    /// or the limits leave no agent to strike. Each with its place in the plan.
    pub fn check(&self, scene: &Scene) -> Result<(), PlanError> {
        let problems = Problems::new(&self.file, "");
        self.check_agents(&scene.roles, &problems);
        for (n, method) in self.methods.iter().enumerate() {
            if method.kind.rule().target != Target::Whole {
                let checked = method.select.check_tasks(&scene.tasks, method.kind.rule());
                self.note(checked, n, &problems);
            }
        }
        problems.finish(Some(()))
    }

    /// Returns an error about a key of the plan, for what can only be found out later.
    pub fn error(&self, key: &str, message: impl Into<String>) -> PlanError {
        let problem =
            Problem { place: self.places.of(key), key: key.to_owned(), message: message.into() };
        PlanError { file: self.file.clone(), problems: vec![problem] }
    }

    /// Checks the selectors against the agents of a generated workload.
    fn check_own_crew(&self, problems: &Problems) {
        if let (Source::Shape { .. }, Some(agents)) = (&self.workload.source, self.workload.agents)
        {
            self.check_agents(&[(WORKER.to_owned(), agents.min())], problems);
        }
    }

    fn check_agents(&self, roles: &[(String, u32)], problems: &Problems) {
        let agents = roles.iter().map(|(_, agents)| u64::from(*agents)).sum();
        let disturbs = |method: &Method| method.kind.disturbs_agents();
        if self.limits.agents_max(agents) == 0 && self.methods.iter().any(disturbs) {
            let key = "limits.agents_max_percent";
            let message =
                format!("selects nobody: {} % of {agents} agents", self.limits.agents_max_percent);
            problems.add_at(self.places.of(key), key, message);
        }
        for (n, method) in self.methods.iter().enumerate() {
            if method.kind.rule().target == Target::Agents {
                self.note(method.select.check_agents(roles), n, problems);
            }
        }
    }

    fn note(&self, checked: Result<(), (String, String)>, method: usize, problems: &Problems) {
        if let Err((key, message)) = checked {
            let key = match key.as_str() {
                "" => format!("method[{method}].select"),
                key => format!("method[{method}].select.{key}"),
            };
            problems.add_at(self.places.of(&key), &key, message);
        }
    }
}

fn read(root: &Section<'_, '_>, file: &Path) -> Option<Plan> {
    let title = root.text("title").map(|title| title.value);
    let seed = root.integer("seed", 0..=i64::MAX as u64).map_or(1, |seed| seed.value);
    let workload = root.section("workload").map(|table| Workload::read(&table, file));
    let knobs = root.section("knobs").map(|table| Knobs::read(&table));
    let limits = root.section("limits").map(|table| Limits::read(&table));
    let steady_state = root.section("steady_state").map(|table| SteadyState::read(&table));
    let quiet = root.section("quiet").map(|table| Quiet::read(&table));
    let methods = root.list("method").unwrap_or_default();
    for (key, remedy) in [
        ("title", "what the plan shows"),
        ("workload", "what runs"),
        ("method", "a list of faults"),
    ] {
        if !root.has(key) {
            root.wrong_here(format!("needs `{key}`: {remedy}"));
        }
    }
    if methods.is_empty() && root.has("method") {
        root.wrong_here("has no fault: add a table [[method]]");
    }
    if let Some(beyond) = methods.get(METHODS_MAX) {
        root.wrong(beyond, format!("is beyond the {METHODS_MAX} faults that a plan may have"));
    }
    let count = methods.len();
    let read = |raw: Located<_>| Method::read(&root.as_section(&raw)?);
    let methods: Vec<Method> = methods.into_iter().filter_map(read).collect();
    (methods.len() == count).then_some(())?;
    Some(Plan {
        file: file.to_owned(),
        title: title?,
        seed: Seed(seed),
        workload: workload??,
        knobs: knobs.unwrap_or_default(),
        limits: limits.unwrap_or_default(),
        steady_state: steady_state.unwrap_or_default(),
        methods,
        quiet: quiet.unwrap_or_default(),
        places: Places::default(),
    })
}
