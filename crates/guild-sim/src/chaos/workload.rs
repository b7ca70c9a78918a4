//! Makes the workload of a plan: its generated graph, or a loaded one, under the plan's knobs.

use std::time::Duration;

use guild_core::quota::QuotaSpec;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::plan::quantity;
use crate::plan::{Drawn, DrawnKnobs, Plan, PlanError, Setting, Source};
use crate::workload::{Durations, Workload};

/// How long a generated task takes when the plan does not say it.
const DURATION: Duration = Duration::from_millis(100);

/// Returns the workload of a drawn plan; `loaded` is what its file holds, where it names one.
pub(super) fn workload(
    plan: &Plan,
    drawn: &Drawn,
    loaded: Option<&Workload>,
) -> Result<Workload, PlanError> {
    let mut workload = match (&plan.workload.source, loaded) {
        (Source::Shape { shape, duration, quotas, .. }, _) => {
            generate(plan, drawn, shape, duration.as_ref(), quotas.as_ref())?
        }
        (Source::Flow(_) | Source::Workflow(_), Some(loaded)) => loaded.clone(),
        (Source::Flow(file) | Source::Workflow(file), None) => {
            let message = format!("{} was not read", file.display());
            return Err(plan.error("workload", message));
        }
    };
    if let Some(agents) = drawn.agents {
        let roles = workload.roles.iter_mut().filter(|role| !role.is_inner);
        roles.for_each(|role| role.agents = Some(agents));
    }
    for role in &mut workload.roles {
        role.agents.get_or_insert(AGENTS);
    }
    under(&mut workload, &drawn.knobs);
    workload.check().map_err(|error| plan.error("workload", error.to_string()))?;
    Ok(workload)
}

/// Agents of a role of which nobody says anything.
const AGENTS: u32 = 16;

/// Puts the knobs that concern tasks in force.
fn under(workload: &mut Workload, knobs: &DrawnKnobs) {
    for task in &mut workload.tasks {
        if let Some(attempts_max) = knobs.attempts_max {
            task.retry.attempts_max = attempts_max;
        }
        task.timeout = knobs.timeout.or(task.timeout);
        task.heartbeat = knobs.heartbeat.or(task.heartbeat);
        if let Some(map) = &mut task.map {
            if let Some(attempts_max) = knobs.attempts_max {
                map.retry.attempts_max = attempts_max;
            }
            map.timeout = knobs.timeout.or(map.timeout);
        }
    }
}

fn generate(
    plan: &Plan,
    drawn: &Drawn,
    shape: &Setting,
    duration: Option<&Setting>,
    quotas: Option<&Setting>,
) -> Result<Workload, PlanError> {
    let wrong = |key: &str, message: String| plan.error(&format!("workload.{key}"), message);
    let tasks = drawn.tasks.unwrap_or(1) as usize;
    let agents = drawn.agents.unwrap_or(1) as usize;
    let duration = match duration {
        None => Durations::Fixed(DURATION),
        Some(setting) => durations(plan, setting).map_err(|error| wrong("duration", error))?,
    };
    duration.check().map_err(|error| wrong("duration", error.to_string()))?;
    let shape: Shape = match shape {
        Setting::Text(name) => from_json(serde_json::json!({ "name": name })),
        Setting::Table(table) => from_json(Value::Object(table.clone())),
    }
    .map_err(|error| wrong("shape", error))?;
    let mut workload = match shape {
        Shape::Layers { width } => {
            let width = width.map_or(agents, |width| width as usize);
            Workload::layers(NAME, tasks, width, &duration)
        }
        Shape::Chain {} => Workload::layers(NAME, tasks, 1, &duration),
        Shape::ChainAndFan {} => Workload::chain_and_fan(NAME, tasks, &duration),
        Shape::Independent {} => Workload::layers(NAME, tasks, tasks, &duration),
    };
    if let Some(Setting::Table(table)) = quotas {
        for (name, terms) in table {
            let quota = from_json::<Terms>(terms.clone()).and_then(Terms::spec);
            let quota = quota.map_err(|error| wrong(&format!("quotas.{name}"), error))?;
            workload.quotas.push((name.clone(), quota));
        }
    }
    let all: Vec<(usize, u32)> = (0..workload.quotas.len()).map(|quota| (quota, 1)).collect();
    workload.tasks.iter_mut().for_each(|task| task.quotas = all.clone());
    Ok(workload)
}

/// Name of a generated workload and its run.
const NAME: &str = "chaos";

/// The shapes that can be generated.
#[derive(Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
enum Shape {
    /// Layers of so many tasks, as many as there are agents by default; each waits for up to three
    /// of the layer before.
    Layers {
        #[serde(default)]
        width: Option<u32>,
    },
    /// One after the other.
    Chain {},
    /// Chains of ten side by side, between one first and one last task.
    ChainAndFan {},
    /// Nobody waits for anybody.
    Independent {},
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Terms {
    #[serde(default)]
    permits: Option<u32>,
    #[serde(default)]
    rate: Option<Rate>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rate {
    amount: u32,
    per: Time,
    #[serde(default)]
    burst: Option<u32>,
}

impl Terms {
    fn spec(self) -> Result<QuotaSpec, String> {
        let spec = match (self.permits, self.rate) {
            (Some(permits), None) => QuotaSpec::Permits(permits),
            (None, Some(Rate { amount, per, burst })) => {
                QuotaSpec::Rate { amount, per: per.0, burst: burst.unwrap_or(amount) }
            }
            _ => return Err("needs either permits or rate".to_owned()),
        };
        match spec.is_usable() {
            true => Ok(spec),
            false => Err("allows nothing: all numbers must be above zero".to_owned()),
        }
    }
}

/// A duration as people write it.
struct Time(Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        quantity::duration(&text).map(Self).map_err(D::Error::custom)
    }
}

/// A distribution of durations.
#[derive(Deserialize)]
#[serde(tag = "distribution", rename_all = "kebab-case", deny_unknown_fields)]
enum Spread {
    Uniform { min: Time, max: Time },
    Normal { mean: Time, sd: Time },
    LogNormal { median: Time, sigma: f64 },
    Exponential { mean: Time },
    Pareto { min: Time, shape: f64 },
    Empirical { csv: String, column: String, unit: Time },
}

fn durations(plan: &Plan, setting: &Setting) -> Result<Durations, String> {
    let table = match setting {
        Setting::Text(text) => return quantity::duration(text).map(Durations::Fixed),
        Setting::Table(table) => table,
    };
    Ok(match from_json::<Spread>(Value::Object(table.clone()))? {
        Spread::Uniform { min, max } => Durations::Uniform { min: min.0, max: max.0 },
        Spread::Normal { mean, sd } => Durations::Normal { mean: mean.0, sd: sd.0 },
        Spread::LogNormal { median, sigma } => Durations::LogNormal { median: median.0, sigma },
        Spread::Exponential { mean } => Durations::Exponential { mean: mean.0 },
        Spread::Pareto { min, shape } => Durations::Pareto { min: min.0, shape },
        Spread::Empirical { csv, column, unit } => {
            let here = plan.file.parent().unwrap_or(std::path::Path::new(""));
            Durations::from_csv(&here.join(csv), &column, unit.0)
                .map_err(|error| error.to_string())?
        }
    })
}

fn from_json<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}
