//! Reads `--chaos`: the short form, or a fault plan; and tells whether the plan's faults struck.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use guild::{Event, EventRecord, FaultPoint, RandomFaults, Seed};
use guild_sim::chaos::PlanFaults;
use guild_sim::plan::{Case, Method, Plan, PlanError, Scene, Site};
use guild_sim::world::LogReader;

use crate::exit_code::{CommandError, Exit};

/// Reads a fault plan.
pub(crate) fn read_plan(path: &Path) -> Result<(Plan, String), CommandError> {
    let bad = |why: String| CommandError::BadInput(format!("{}: {why}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| bad(format!("cannot read it: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| bad("it is not UTF-8".to_owned()))?;
    let plan = Plan::parse(&text, path).map_err(|error| bad_plan(&error))?;
    Ok((plan, text))
}

/// What a `--chaos` option asks for.
#[derive(Debug)]
pub(crate) enum Chaos {
    /// The probability of each fault: `crash=0.05,hang=0.01`.
    Short(String),
    /// The faults of a plan on whoever is there; its workload and knobs are not used.
    Plan {
        /// The plan.
        plan: Box<Plan>,
        /// The part of it that strikes, unless all.
        only: Option<Case>,
    },
}

impl Chaos {
    /// Reads the option; of a plan, `only` is a part.
    pub(crate) fn read(option: &str, only: Option<&str>) -> Result<Self, CommandError> {
        let path = Path::new(option);
        let is_plan =
            path.is_file() || path.extension().is_some_and(|extension| extension == "toml");
        if !is_plan {
            return Ok(Self::Short(option.to_owned()));
        }
        let (plan, _) = read_plan(path)?;
        let only = only.map(parse_case).transpose()?;
        for (n, method) in plan.methods.iter().enumerate() {
            let is_kept = only.as_ref().is_none_or(|case| case.methods.contains(&n));
            if is_kept && !strikes_inside(method) {
                let message = format!(
                    "`{}` strikes the process or its store: only `guild chaos` can do that",
                    method.kind.name()
                );
                return Err(bad_plan(&plan.error(&format!("method[{n}].fault"), message)));
            }
        }
        Ok(Self::Plan { plan: Box::new(plan), only })
    }

    /// Returns the faults for a seed and a scene.
    pub(crate) fn point(
        &self,
        seed: u64,
        scene: &Scene,
        is_virtual: bool,
    ) -> Result<Arc<dyn FaultPoint>, CommandError> {
        match self {
            Self::Short(text) => {
                let faults = RandomFaults::parse(text, Seed(seed))
                    .map_err(|error| CommandError::BadInput(format!("--chaos: {error}")))?;
                Ok(Arc::new(faults))
            }
            Self::Plan { plan, only } => {
                if only.is_none() {
                    plan.check(scene).map_err(|error| bad_plan(&error))?;
                }
                let whole = plan.draw(Seed(seed));
                let drawn = only.as_ref().map_or_else(|| whole.clone(), |case| whole.reduce(case));
                Ok(Arc::new(PlanFaults::new(&drawn, scene, is_virtual)))
            }
        }
    }

    /// Returns the faults of the plan that should have struck and have not. The short form and a
    /// part of a plan promise nothing.
    pub(crate) fn unseen(&self, struck: &Struck) -> Vec<String> {
        match self {
            Self::Short(_) | Self::Plan { only: Some(_), .. } => Vec::new(),
            Self::Plan { plan, only: None } => {
                let unseen = |n: &usize| struck.times(&plan.methods[*n]) == 0;
                (0..plan.methods.len()).filter(unseen).map(|n| fault(plan, n)).collect()
            }
        }
    }
}

/// Counts in a log which faults struck; every clone is the same count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Struck(Arc<Mutex<Counts>>);

/// Strikes of each kind at each site.
type Counts = BTreeMap<(Box<str>, Box<str>), u64>;

impl Struck {
    /// Takes an event.
    pub(crate) fn take(&self, event: &Event) {
        if let Event::FaultInjected { r#type, site, .. } = event {
            self.note(r#type, site);
        }
    }

    /// Takes note of a strike.
    pub(crate) fn note(&self, kind: &str, site: &str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((kind.into(), site.into())).or_default() += 1;
    }

    /// Returns how often faults of the kind of this one struck at its site.
    pub(crate) fn times(&self, method: &Method) -> u64 {
        let key = (method.kind.name().into(), method.site.name().into());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied().unwrap_or(0)
    }
}

impl LogReader for Struck {
    fn record(&mut self, record: &EventRecord, _: &str) {
        self.take(&record.event);
    }
}

/// Tells whether a fault strikes agents, tasks or messages in the process, where any clock and any
/// store will do.
pub(crate) fn strikes_inside(method: &Method) -> bool {
    !matches!(method.site, Site::Process | Site::Sync | Site::Commit)
}

/// Names a fault of a plan.
pub(crate) fn fault(plan: &Plan, n: usize) -> String {
    let method = &plan.methods[n];
    format!("fault {n} (`{}` at {})", method.kind.name(), method.site.name())
}

/// Says what was never seen; a plan that does not do what it says has shown nothing.
pub(crate) fn never(unseen: &[String]) -> String {
    unseen.iter().fold(String::new(), |mut text, what| {
        let why = if what.contains("never seen") { "" } else { " never struck" };
        writeln!(text, "guild: {what}{why}: the plan has not shown what it says").ok();
        text
    })
}

/// Returns how a command ends whose log is over: a plan of which a fault never struck has shown
/// nothing, and that is said.
pub(crate) fn judge(chaos: Option<&Chaos>, struck: &Struck, exit: Exit) -> Exit {
    let unseen = chaos.map(|chaos| chaos.unseen(struck)).unwrap_or_default();
    eprint!("{}", never(&unseen));
    if unseen.is_empty() { exit } else { Exit::Violated }
}

/// Returns the error about a plan.
pub(crate) fn bad_plan(error: &PlanError) -> CommandError {
    CommandError::BadInput(error.to_string())
}

/// Reads what `--only` names.
pub(crate) fn parse_case(text: &str) -> Result<Case, CommandError> {
    text.parse().map_err(|error| CommandError::BadInput(format!("--only: {error}")))
}
