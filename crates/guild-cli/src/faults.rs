//! Reads `--chaos`: the short form, or a fault plan.

use std::path::Path;
use std::sync::Arc;

use guild::{FaultPoint, RandomFaults, Seed};
use guild_sim::chaos::PlanFaults;
use guild_sim::plan::{Case, Plan, Scene, Site};

use crate::exit_code::CommandError;

/// Reads a fault plan.
pub(crate) fn read_plan(path: &Path) -> Result<(Plan, String), CommandError> {
    let bad = |why: String| CommandError::BadInput(format!("{}: {why}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| bad(format!("cannot read it: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| bad("it is not UTF-8".to_owned()))?;
    let plan =
        Plan::parse(&text, path).map_err(|error| CommandError::BadInput(error.to_string()))?;
    Ok((plan, text))
}

/// Returns what a `--chaos` option asks for: `crash=0.05,hang=0.01`, or the faults of a plan on
/// whoever is there. Of a plan, `only` is a part; its workload and knobs are not used.
pub(crate) fn faults(
    option: &str,
    only: Option<&str>,
    seed: u64,
    scene: &Scene,
    is_virtual: bool,
) -> Result<Arc<dyn FaultPoint>, CommandError> {
    let path = Path::new(option);
    let is_plan = path.is_file() || path.extension().is_some_and(|extension| extension == "toml");
    if !is_plan {
        let faults = RandomFaults::parse(option, Seed(seed))
            .map_err(|error| CommandError::BadInput(format!("--chaos: {error}")))?;
        return Ok(Arc::new(faults));
    }
    let (plan, _) = read_plan(path)?;
    let whole = plan.draw(Seed(seed));
    let case = match only {
        Some(only) => parse_case(only)?,
        None => whole.whole(),
    };
    let bad = |error: guild_sim::plan::PlanError| CommandError::BadInput(error.to_string());
    for (n, method) in plan.methods.iter().enumerate() {
        let is_world = matches!(method.site, Site::Process | Site::Sync | Site::Commit);
        if is_world && case.methods.contains(&n) {
            let kind = method.kind.name();
            let message = format!(
                "`{kind}` strikes the process or its store: only `guild chaos` can do that"
            );
            return Err(bad(plan.error(&format!("method[{n}].fault"), message)));
        }
    }
    if only.is_none() {
        plan.check(scene).map_err(bad)?;
    }
    Ok(Arc::new(PlanFaults::new(&whole.reduce(&case), scene, is_virtual)))
}

/// Reads what `--only` names.
pub(crate) fn parse_case(text: &str) -> Result<Case, CommandError> {
    text.parse().map_err(|error| CommandError::BadInput(format!("--only: {error}")))
}
