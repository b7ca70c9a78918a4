//! The commands of `guild`, one function each.

mod follow;
mod run;
mod simulate;
mod store;
mod sweep;

use std::fs::File;
use std::io::Write;
use std::path::Path;

use clap::CommandFactory;
use guild::GraphBuilder;

use crate::args::{Arguments, Command, MemoryCommand};
use crate::exit_code::{CommandError, Exit};
use crate::flow::Flow;
use crate::{chart, graph, reaper};

/// Does what was asked for.
pub(crate) fn execute(command: Command) -> Result<Exit, CommandError> {
    match command {
        Command::Run(arguments) => return run::run(&arguments),
        Command::Simulate(arguments) => return simulate::simulate(&arguments),
        Command::Validate { flow, settings } => validate(&flow, &settings)?,
        Command::Graph { flow, settings, format } => {
            let flow = Flow::load(&flow, &settings, None)?;
            print(&chart::draw(&flow, format))?;
        }
        Command::Status { store, format } => store::status(&store.store, format)?,
        Command::Events { store, since, follow: false } => store::events(&store.store, since)?,
        Command::Events { store, since, follow: true } => store::follow(&store.store, since)?,
        Command::Incidents { store, format } => store::incidents(&store.store, format)?,
        Command::Memory(MemoryCommand::Get { store, key }) => store::get(&store.store, &key)?,
        Command::Memory(MemoryCommand::Scan { store, prefix, format }) => {
            store::scan(&store.store, &prefix, format)?;
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "guild", &mut script);
            std::io::stdout().write_all(&script)?;
        }
        Command::Reaper { mark } => reaper::reap(&mark, std::io::stdin()),
    }
    Ok(Exit::Done)
}

fn validate(file: &Path, settings: &[String]) -> Result<(), CommandError> {
    let flow = Flow::load(file, settings, None)?;
    let graph = graph::build(&flow, GraphBuilder::new(&flow.name))
        .map_err(|error| CommandError::BadInput(format!("{}: {error}", file.display())))?;
    let maps = flow.tasks.iter().filter(|task| task.for_each.is_some()).count();
    let description = flow.description.as_ref().map(|text| format!(" ({})", text.trim()));
    print(&format!(
        "{}: flow `{}`{} is valid: {} tasks ({maps} of them run once for each item of a list), {} \
         dependencies, {} agents\n",
        file.display(),
        flow.name,
        description.unwrap_or_default(),
        flow.tasks.len(),
        graph.edges(),
        flow.agents()
    ))
}

/// Prints to standard output.
pub(crate) fn print(text: &str) -> Result<(), CommandError> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Finds out before anything starts whether the file of an option can be written.
fn check_output(option: &str, path: Option<&Path>) -> Result<(), CommandError> {
    let Some(path) = path else { return Ok(()) };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let wrong = if path.is_dir() {
        Some("it is a directory".to_owned())
    } else if path.is_file() {
        let opened = File::options().append(true).open(path);
        opened.err().map(|error| error.to_string())
    } else {
        let missing = !path.exists() && parent.is_some_and(|parent| !parent.is_dir());
        missing.then(|| "its directory does not exist".to_owned())
    };
    wrong.map_or(Ok(()), |why| {
        let message = format!("{option}: cannot write {}: {why}", path.display());
        Err(CommandError::BadInput(message))
    })
}
