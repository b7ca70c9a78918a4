//! `guild report`: makes a page of an event log; `guild simulate --report` makes it of its run.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use guild_sim::Simulated;
use guild_sim::report::{Chronicle, Page, SweepPoint};

use crate::args::{Policy, SimulateArguments};
use crate::command::check_output;
use crate::command::store::outcome_name;
use crate::exit_code::{CommandError, Exit};
use crate::flow::FLOW_ROLE;

/// Runs the command.
pub(crate) fn report(events: &Path, out: &Path) -> Result<Exit, CommandError> {
    let chronicle = read(events)?;
    check_output("--out", Some(out), events)?;
    let name = events.file_name().map(|name| name.to_string_lossy().into_owned());
    let page = Page::new(name.unwrap_or_else(|| "run".to_owned()), chronicle)
        .inner_role(FLOW_ROLE)
        .fact("File", events.display().to_string());
    write(out, &page)?;
    Ok(Exit::Done)
}

fn read(events: &Path) -> Result<Chronicle, CommandError> {
    let bad = |message: String| CommandError::BadInput(format!("{}: {message}", events.display()));
    let file = File::open(events).map_err(|error| bad(format!("cannot read it: {error}")))?;
    let mut chronicle = Chronicle::default();
    for line in BufReader::with_capacity(1 << 16, file).lines() {
        let line = line.map_err(|error| bad(format!("cannot read it: {error}")))?;
        chronicle.line(&line).map_err(|error| bad(error.to_string()))?;
    }
    if chronicle.is_empty() {
        return Err(bad("the log has no task: there is nothing to show".to_owned()));
    }
    Ok(chronicle)
}

/// Writes a page.
pub(crate) fn write(path: &Path, page: &Page) -> Result<(), CommandError> {
    Ok(std::fs::write(path, page.to_html())?)
}

/// What a page tells of one simulation.
pub(crate) struct Shown<'a> {
    pub(crate) workload: &'a str,
    pub(crate) simulated: &'a Simulated,
    /// Agents of each role, where the command line says so.
    pub(crate) agents: Option<u32>,
    pub(crate) policy: Policy,
    pub(crate) seed: u64,
}

/// Returns the page of a simulation; with a sweep it is one of many.
pub(crate) fn page(
    arguments: &SimulateArguments,
    shown: &Shown<'_>,
    chronicle: Chronicle,
    sweep: Vec<SweepPoint>,
) -> Page {
    let Shown { workload, simulated, policy, seed, .. } = shown;
    let agents = simulated.agents;
    let tasks = simulated.tasks;
    let (outcome, s) = (outcome_name(simulated.outcome), if agents == 1 { "" } else { "s" });
    let best = if sweep.is_empty() { "" } else { "the fastest of the sweep: " };
    let chaos = arguments.chaos.as_deref();
    let under = chaos.map(|spec| format!(", under {spec}")).unwrap_or_default();
    let subtitle = format!(
        "Simulation, {best}{tasks} tasks on {agents} agent{s}, policy {policy}, seed {seed}{under}: {outcome}"
    );
    let file = arguments.workflow.display();
    let mut again = format!("guild simulate {file} --policy {policy} --seed {seed}");
    arguments.settings.iter().for_each(|setting| again.push_str(&format!(" --set '{setting}'")));
    shown.agents.iter().for_each(|agents| again.push_str(&format!(" --agents {agents}")));
    chaos.iter().for_each(|spec| again.push_str(&format!(" --chaos '{spec}'")));
    Page::new(*workload, chronicle)
        .subtitle(subtitle)
        .inner_role(FLOW_ROLE)
        .sweep(sweep)
        .fact("Repeat it", again)
        .fact("Hash of the event log", format!("{:016x}", simulated.log_hash))
}
