//! What the real process runs: the flow that the plan names, or one made of its workload.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use guild::{QuotaSpec, RestartPolicy};
use guild_sim::plan::{Drawn, Source};
use guild_sim::workload::Workload;

use super::RUN;
use crate::exit_code::CommandError;

/// Key of the shared memory that counts the effects of a made flow.
pub(super) const COUNTER: &str = "effects";

/// What is run.
pub(super) enum Subject {
    /// The flow of a person, as it is: what its tasks do outside is not known.
    Flow(PathBuf),
    /// A flow of processes that sleep, count themselves in the memory and leave their effect in a
    /// file.
    Made { flow: PathBuf, effects: PathBuf },
}

impl Subject {
    /// Writes the flow into the folder, unless the plan names one.
    pub(super) fn new(
        source: &Source,
        workload: &Workload,
        drawn: &Drawn,
        folder: &Path,
    ) -> Result<Self, CommandError> {
        if let Source::Flow(flow) = source {
            return Ok(Self::Flow(flow.clone()));
        }
        let (flow, effects) = (folder.join("flow.toml"), folder.join("effects"));
        fs::write(&flow, text(workload, drawn, &effects))?;
        Ok(Self::Made { flow, effects })
    }

    /// Returns the flow file.
    pub(super) fn file(&self) -> &Path {
        match self {
            Self::Flow(flow) | Self::Made { flow, .. } => flow,
        }
    }

    /// Returns how often each task had its effect, as a service sees it that honours keys.
    pub(super) fn effects(&self) -> Option<BTreeMap<String, u64>> {
        let Self::Made { effects, .. } = self else {
            return None;
        };
        let text = fs::read_to_string(effects).unwrap_or_default();
        let had: BTreeSet<(&str, &str)> =
            text.lines().filter_map(|line| line.split_once(' ')).collect();
        let mut counts = BTreeMap::new();
        for (task, _) in had {
            *counts.entry(format!("{RUN}/{task}")).or_default() += 1;
        }
        Some(counts)
    }
}

/// Writes a workload as a flow.
fn text(workload: &Workload, drawn: &Drawn, effects: &Path) -> String {
    let knobs = &drawn.knobs;
    let mut text = format!("name = \"{RUN}\"\n");
    for role in &workload.roles {
        let agents = role.agents.unwrap_or(1);
        write!(text, "[roles.{}]\nkind = \"exec\"\nagents = {agents}\n", role.name).ok();
        // Without it `guild run --chaos` restarts an agent as often as it takes.
        let restarts = knobs.restarts_max.unwrap_or(RestartPolicy::default().intensity);
        write!(text, "[roles.{}.supervision]\nintensity = {restarts}\n", role.name).ok();
    }
    for (name, spec) in &workload.quotas {
        if let QuotaSpec::Permits(permits) = spec {
            write!(text, "[quotas.{name}]\npermits = {permits}\n").ok();
        }
    }
    let attempts = knobs.attempts_max.unwrap_or(10);
    write!(text, "[defaults]\nretry = {{ attempts = {attempts}, backoff = \"1ms\" }}\n").ok();
    if let Some(timeout) = knobs.timeout {
        writeln!(text, "timeout = \"{}ms\"", timeout.as_millis().max(1)).ok();
    }
    for (entity, task) in (0..).zip(&workload.tasks) {
        let seconds = task.duration.draw(drawn.seed, entity, 0).as_secs_f64();
        let names = task.after.iter().map(|place| format!("{:?}", workload.tasks[*place].name));
        let after: Vec<String> = names.collect();
        let permits = task
            .quotas
            .iter()
            .filter(|(quota, _)| matches!(workload.quotas[*quota].1, QuotaSpec::Permits(_)));
        let quotas: Vec<String> = permits
            .map(|(quota, amount)| format!("{} = {amount}", workload.quotas[*quota].0))
            .collect();
        write!(
            text,
            "[tasks.{:?}]\nrole = \"{}\"\nafter = [{}]\nquota = {{ {} }}\nargs = [{:?}]\n\
             shell = 'sleep {seconds}; echo \"$GUILD_TASK $GUILD_IDEMPOTENCY_KEY\" >> \"$1\"'\n\
             memory.add = {{ {COUNTER} = 1 }}\n",
            task.name,
            workload.roles[task.role].name,
            after.join(", "),
            quotas.join(", "),
            effects.display().to_string(),
        )
        .ok();
    }
    text
}
