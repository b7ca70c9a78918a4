//! Shows what came of a fault plan.

use std::fmt::Write;

use guild_sim::chaos::{Batch, BatchEnd, ChaosRun, Violated};
use guild_sim::plan::{Branch, Coverage, Plan};

use crate::faults::fault;
use crate::render::{numbers_right, table};

/// Returns what one run shows to people.
pub(super) fn run(plan: &Plan, run: &ChaosRun) -> String {
    let mut text = String::new();
    let result = &run.result;
    writeln!(text, "{}, seed {}", plan.title, result.seed).ok();
    writeln!(text, "{}", faults(plan, &run.coverage.methods)).ok();
    let mut verdicts = table(&["invariant", "verdict"]);
    for (id, verdict) in &result.verdicts {
        verdicts.add_row([id, verdict]);
    }
    writeln!(text, "{verdicts}").ok();
    let counts = run.counts;
    writeln!(
        text,
        "{} faults, {} crashes, {} incidents, {} recoveries; {} events (hash {}), {:.3} s of virtual \
         time in {:.3} s",
        counts.faults,
        counts.crashes,
        counts.incidents,
        counts.recoveries,
        counts.events,
        result.events_hash,
        result.virtual_s,
        result.real_s
    )
    .ok();
    writeln!(text, "repeat: {}", result.repeat).ok();
    text
}

/// Returns what a batch shows to people.
pub(super) fn batch(plan: &Plan, batch: &Batch, end: &BatchEnd) -> String {
    let mut text = String::new();
    let verdict = match &end.violated {
        None => "nothing was violated".to_owned(),
        Some(Violated { run, .. }) => format!("seed {} violates a promise", run.result.seed),
    };
    let last = batch.first + end.runs.saturating_sub(1);
    writeln!(text, "{}, seeds {} to {last}: {verdict}", plan.title, batch.first).ok();
    writeln!(text, "{}", faults(plan, &end.coverage.methods)).ok();
    let mut branches = table(&["branch of recovery", "times"]);
    for (branch, count) in &end.coverage.branches {
        branches.add_row([branch.name(), count.to_string()]);
    }
    numbers_right(&mut branches, 1);
    writeln!(text, "{branches}").ok();
    let unseen: Vec<String> = Branch::ALL
        .into_iter()
        .map(|(branch, _)| branch)
        .filter(|branch| !end.coverage.branches.contains_key(branch))
        .map(Branch::name)
        .collect();
    if !unseen.is_empty() {
        writeln!(text, "not taken by this plan: {}", unseen.join(", ")).ok();
    }
    writeln!(text, "{} runs, {} events", end.runs, end.events).ok();
    text
}

/// Returns the same as one JSON object.
pub(super) fn batch_json(plan: &Plan, batch: &Batch, end: &BatchEnd) -> serde_json::Value {
    let unseen = unseen_of(plan, &end.coverage);
    let small = |violated: &Violated| violated.small.as_ref().map(|(_, run)| run.result.clone());
    serde_json::json!({
        "plan": plan.title,
        "first_seed": batch.first,
        "seeds": batch.seeds,
        "runs": end.runs,
        "events": end.events,
        "coverage": end.coverage,
        "never_seen": unseen,
        "violated": end.violated.as_ref().map(|violated| &violated.run.result),
        "shrunk": end.violated.as_ref().and_then(small),
    })
}

/// Returns a table of the faults of a plan and how often each struck.
pub(super) fn faults(plan: &Plan, fired: &[u64]) -> comfy_table::Table {
    let mut faults = table(&["", "fault", "site", "struck"]);
    for (n, (method, count)) in plan.methods.iter().zip(fired).enumerate() {
        let (kind, site) = (method.kind.name(), method.site.name());
        faults.add_row([n.to_string(), kind.to_owned(), site.to_owned(), count.to_string()]);
    }
    numbers_right(&mut faults, 3);
    faults
}

/// Says what a violating run comes down to, and how to repeat it.
pub(super) fn small(violated: &Violated) -> String {
    let mut text = String::new();
    let line = |text: &mut String, what: &str, run: &ChaosRun| {
        for (id, verdict) in run.result.violated() {
            writeln!(text, "guild: {what}: {id} is {verdict}").ok();
        }
    };
    line(&mut text, &format!("seed {}", violated.run.result.seed), &violated.run);
    let repeat = match &violated.small {
        Some((shrunk, run)) => {
            let how = if shrunk.complete { "" } else { ", not to the end" };
            writeln!(
                text,
                "guild: shrunk in {} runs{how} to {} strikes: {}",
                shrunk.trials,
                shrunk.faults.len(),
                shrunk.case
            )
            .ok();
            line(&mut text, "shrunk", run);
            &run.result.repeat
        }
        None => {
            writeln!(text, "guild: the violation did not come again when it was repeated").ok();
            &violated.run.result.repeat
        }
    };
    writeln!(text, "repeat: {repeat}").ok();
    text
}

/// Returns what a whole run of a plan should have shown and has not: its faults.
pub(super) fn unseen(plan: &Plan, run: &ChaosRun) -> Vec<String> {
    let faults = run.coverage.missing().methods;
    faults.into_iter().map(|n| fault(plan, n)).collect()
}

/// Returns what a batch of a plan should have shown and has not: its faults, and what follows them.
pub(super) fn unseen_of(plan: &Plan, coverage: &Coverage) -> Vec<String> {
    let faults = coverage.missing().methods.into_iter().map(|n| fault(plan, n));
    let branches = coverage.unseen_branches(plan).into_iter().map(|(n, branches)| {
        let names: Vec<String> = branches.iter().map(|branch| branch.name()).collect();
        format!(
            "{} struck, and what follows was never seen: {}",
            fault(plan, n),
            names.join(" or ")
        )
    });
    faults.chain(branches).collect()
}
