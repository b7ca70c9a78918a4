//! Checks that the faults of a plan have something to strike, and says how long its run may take.

use std::time::Duration;

use guild_core::draw::Seed;
use guild_core::quota::QuotaSpec;
use guild_core::restart::RestartPolicy;
use guild_memory::Durability;

use crate::plan::{Drawn, Kind, Parameter, Plan, PlanError, Site, matches};
use crate::workload::Workload;

/// Checks what can only be known with the workload: which tasks err, quotas, and a disk where one is
/// struck.
pub(super) fn check(plan: &Plan, workload: &Workload) -> Result<(), PlanError> {
    let durability = durability(plan);
    if let Some(pattern) = &plan.workload.errors.tasks
        && !workload.tasks.iter().any(|task| matches(pattern, &task.name))
    {
        let message = format!("selects nobody: no task matches `{pattern}`");
        return Err(plan.error("workload.errors.tasks", message));
    }
    for (n, method) in plan.methods.iter().enumerate() {
        let needs = needs(method.kind, method.site);
        let fits = needs.is_none_or(|least| durability.is_some_and(|has| has >= least));
        if let (false, Some(least)) = (fits, needs) {
            let kind = method.kind.name();
            let or_disk = if least == Durability::Disk { "" } else { " or \"disk\"" };
            let message = format!(
                "`{kind}` needs a store that outlives it: write durability = \"{}\"{or_disk} in \
                 [workload]",
                least.name()
            );
            return Err(plan.error(&format!("method[{n}].fault"), message));
        }
        if method.kind != Kind::QuotaCut {
            continue;
        }
        let permits: Vec<&str> = (workload.quotas.iter())
            .filter(|(_, spec)| matches!(spec, QuotaSpec::Permits(_)))
            .map(|(name, _)| name.as_str())
            .collect();
        let found = match &method.how.quota {
            None => !permits.is_empty(),
            Some(quota) => permits.contains(&quota.as_str()),
        };
        if !found {
            let known = if permits.is_empty() { "none".to_owned() } else { permits.join(", ") };
            let message = format!("selects no quota of permits; there is: {known}");
            return Err(plan.error(&format!("method[{n}].quota"), message));
        }
    }
    Ok(())
}

/// Returns the level of durability that a plan asks for; none for a memory in RAM.
pub(super) fn durability(plan: &Plan) -> Option<Durability> {
    match plan.workload.durability {
        Some("process") => Some(Durability::Process),
        Some("disk") => Some(Durability::Disk),
        Some(_) | None => None,
    }
}

/// Returns the least durability with which a guild gets over a fault of this kind.
fn needs(kind: Kind, site: Site) -> Option<Durability> {
    match kind {
        Kind::LostWrites | Kind::TornWrite => Some(Durability::Disk),
        Kind::CommitBefore
        | Kind::CommitAfter
        | Kind::CommitUnknown
        | Kind::DiskFull
        | Kind::SlowSync
        | Kind::ControllerCrash
        | Kind::Kill => Some(Durability::Process),
        _ if site == Site::Sync => Some(Durability::Process),
        _ => None,
    }
}

/// Returns the time within which everything must have ended once the quiet phase has begun:
/// `W/m + (1 - 1/m) CP`, stretched by what permanent faults still do, and what it takes to find out
/// and to try again.
pub(super) fn bound(
    plan: &Plan,
    drawn: &Drawn,
    workload: &Workload,
    critical_path: Duration,
) -> Duration {
    if let Some(within) = drawn.quiet.within {
        return within;
    }
    let agents = workload.roles.iter().filter_map(|role| role.agents).min().unwrap_or(1);
    let healthy = u64::from(agents) - drawn.limits.agents_max(u64::from(agents));
    let permanent = plan.methods.iter().any(|method| method.permanent > 0.0);
    let left = if permanent { healthy.max(1) } else { u64::from(agents) };
    let work = workload.work(drawn.seed);
    let narrowest = workload.quotas.iter().map(|(_, spec)| u64::from(spec.capacity())).min();
    let at_once = narrowest.map_or(left, |permits| permits.min(left)).max(1);
    let list_schedule = work / u32::try_from(at_once).unwrap_or(u32::MAX) + critical_path;

    let restart = RestartPolicy::default();
    let timeout = drawn.knobs.timeout.unwrap_or_else(|| longest_limit(workload, drawn.seed));
    let retry = workload.tasks.first().map(|task| task.retry.clone()).unwrap_or_default();
    let attempt = timeout + retry.backoff_max;
    // One attempt may be lost to what struck before; a poisoned task loses all of its own.
    let lost = if permanent { attempt * retry.attempts_max } else { attempt };
    let stalls = drawn.methods.iter().map(|method| match &method.parameter {
        Parameter::Delay(late) | Parameter::For(late) => *late,
        Parameter::Cut { lasts, .. } => *lasts,
        Parameter::Swizzle { stalled, delay, lasts, .. } => {
            *lasts + *delay * 2 * u32::try_from(stalled.len()).unwrap_or(u32::MAX)
        }
        Parameter::None | Parameter::Behind(_) => Duration::ZERO,
    });
    let stalls: Duration = stalls.sum();
    let latency = drawn.knobs.jitter.unwrap_or_default() + drawn.knobs.sync.unwrap_or_default();
    let steps = u32::try_from(workload.tasks.len()).unwrap_or(u32::MAX);
    let detection = restart.quarantine + restart.backoff_max + stalls;
    list_schedule * 2 + lost + detection + latency.saturating_mul(4 * steps)
}

/// Returns by how much a fault makes a sync longer at most.
pub(super) fn slowest_sync(drawn: &Drawn) -> Duration {
    let kept = drawn.case.methods.iter().filter_map(|n| drawn.methods.get(*n));
    let delays = kept.filter_map(|method| match (method.kind, &method.parameter) {
        (Kind::SlowSync, Parameter::Delay(delay)) => Some(*delay),
        _ => None,
    });
    delays.max().unwrap_or_default()
}

/// Returns the longest time limit of an attempt: that of the tasks, or what those without one get.
fn longest_limit(workload: &Workload, seed: Seed) -> Duration {
    let maps = workload.tasks.iter().filter_map(|task| task.map.as_ref()?.timeout);
    let own = workload.tasks.iter().filter_map(|task| task.timeout);
    own.chain(maps).fold(workload.time_limit(seed), Duration::max)
}
