//! The commands of `guild`, one function each.

mod chaos;
mod follow;
mod history;
mod incidents;
mod letters;
mod memory;
mod report;
mod run;
mod simulate;
mod store;
mod sweep;
mod upkeep;
mod verify;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use guild::GraphBuilder;

use crate::args::{Arguments, Command};
use crate::exit_code::{CommandError, Exit};
use crate::flow::Flow;
use crate::{chart, graph, reaper};

/// Does what was asked for.
pub(crate) fn execute(command: Command) -> Result<Exit, CommandError> {
    match command {
        Command::Run(arguments) => return run::run(&arguments),
        Command::Simulate(arguments) => return simulate::simulate(&arguments),
        Command::Report { events, out } => return report::report(&events, &out),
        Command::Chaos(arguments) => return chaos::chaos(&arguments),
        Command::Verify { events, format } => return verify::verify(&events, format),
        Command::Validate { flow, settings } => validate(&flow, &settings)?,
        Command::Graph { flow, settings, format } => {
            let flow = Flow::load(&flow, &settings, None)?;
            print(&chart::draw(&flow, format))?;
        }
        Command::Status { store, format } => store::status(&store.store, format)?,
        Command::Events { store, since, follow: false } => store::events(&store.store, since)?,
        Command::Events { store, since, follow: true } => store::follow(&store.store, since)?,
        Command::Incidents(arguments) => incidents::incidents(&arguments)?,
        Command::Letters(arguments) => letters::letters(&arguments)?,
        Command::Memory(command) => memory::execute(command)?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "guild", &mut script);
            io::stdout().write_all(&script)?;
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

/// Prints to standard output. A reader that has seen enough (`head`) is no error.
pub(crate) fn print(text: &str) -> Result<(), CommandError> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Finds out before anything starts whether the file of an option can be written, and that it is
/// not the file that is read.
fn check_output(option: &str, path: Option<&Path>, input: &Path) -> Result<(), CommandError> {
    let Some(path) = path else { return Ok(()) };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let why = if path.is_dir() {
        "it is a directory; name a file in it".to_owned()
    } else if is_same_file(path, input) {
        "it is the file that is read; name another one".to_owned()
    } else if !path.exists() && parent.is_some_and(|parent| !parent.is_dir()) {
        "its directory does not exist; create it or name another one".to_owned()
    } else {
        match try_to_write(path) {
            Ok(()) => return Ok(()),
            Err(error) => format!("{error}; name another file"),
        }
    };
    Err(CommandError::BadInput(format!("{option}: cannot write {}: {why}", path.display())))
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let paths = one.canonicalize().and_then(|one| Ok((one, other.canonicalize()?)));
    paths.is_ok_and(|(one, other)| one == other)
}

/// Opens a file for writing and leaves everything as it was. Pipes and devices are left alone.
fn try_to_write(path: &Path) -> io::Result<()> {
    if path.is_file() {
        File::options().append(true).open(path).map(drop)
    } else if path.exists() {
        Ok(())
    } else {
        File::create_new(path)?;
        std::fs::remove_file(path)
    }
}
